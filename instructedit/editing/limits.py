"""What an editor's validation saw, and which edits are far outside of it.

Knows numbers alone; where they come from, `instructedit.evaluation.sizes` knows.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from instructedit.evaluation.sizes import VALIDATION_EDITS

FAR = 2.0
"""An edit is far outside where it exceeds what 95 of 100 validation edits stay within by this factor.

Not the largest of them: it may be an outlier itself."""

LEAST_KL = 0.05
"""In nats: a drift below it is never called far, however little validation saw."""


@dataclass(frozen=True)
class Limits:
    """What 95 of 100 edits of single requests stayed within in validation.

    Args:
        records: how many there were.
        update_norm: that share's bound of the norm of a request's whole update.
        locality_kl: that of the mean KL(base || edited) of a request's locality probes, in nats; NaN without any.
    """

    records: int
    update_norm: float
    locality_kl: float = math.nan

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self | None:
        """Read them from an editor card's results, or from what a saved edit says of its editor; None without them."""
        try:
            usual = told[VALIDATION_EDITS]
            kl = usual.get("locality_kl", {}).get("q95", math.nan)
            return cls(int(usual["records"]), float(usual["update_norm"]["q95"]), float(kl))
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def warnings(self, norms: Sequence[float], whole: float, drift: float) -> Iterator[str]:
        """Say in sentences what of an edit is far outside.

        Args:
            norms: of each request's own update.
            whole: of all of them added up.
            drift: mean KL(base || edited) over the answers that must stay, in nats; NaN where none was asked.
        """
        seen = f"what 95 % of {self.records} validation edits stay within"
        most = FAR * self.update_norm
        large = [norm for norm in norms if not norm <= most]
        if large:
            which = "The update" if len(norms) == 1 else f"{len(large)} of {len(norms)} updates"
            yield (
                f"{which}: norm {max(large):.3g}, {self._times(max(large))} {seen} ({self.update_norm:.3g}). This "
                "editor has not been seen to work at that size."
            )
        elif not whole <= most:
            yield (
                f"The {len(norms)} updates together have norm {whole:.3g}, {self._times(whole)} {seen} "
                f"({self.update_norm:.3g}): so many edits at once may drown each other."
            )
        if not math.isnan(self.locality_kl) and drift > max(FAR * self.locality_kl, LEAST_KL):
            yield (f"Answers that should stay have moved by KL {drift:.3g}, far from {seen} ({self.locality_kl:.3g}).")

    def _times(self, norm: float) -> str:
        return f"{norm / self.update_norm:.3g} times" if self.update_norm > 0 else "beside"


UNKNOWN = (
    "This editor's card does not say how large its validation edits were, so an unusual edit cannot be told. "
    "`instructedit test --from_run RUN` writes that into the card."
)
"""Told once where an editor has no limits."""
