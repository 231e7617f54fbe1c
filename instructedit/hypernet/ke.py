"""The KE editor: from what a request says, a rank-one rescaling of its gradient and a rank-one change.

De Cao et al. 2021, "Editing Factual Knowledge in Language Models", section 3.2. Everything in here is
fp32. Knows sites, gradients and embedded texts; knows nothing about tokens, tasks or the base.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from instructedit.base.sites import Site
from instructedit.conditions import Conditions
from instructedit.errors import InputError
from instructedit.gradients import EditGradients
from instructedit.hypernet.face import MetaEditor
from instructedit.hypernet.moments import TokenSums
from instructedit.lowrank import LowRankUpdate


@dataclass(frozen=True)
class KEConfig:
    """What defines a KE editor, its weights apart.

    Args:
        hidden: width of the LSTM, in each direction.
        condition: width of the vector that describes a request.
        head: inner width of each site's head.
        max_scale: the largest factor on a site's change; what is learned is the share of it.
        direction: ``"site"`` divides each request's gradient at a site by its Frobenius norm before
            anything else; ``"none"`` leaves the gradient as it is, as De Cao et al. do.
        step_init: the first updates are about so many times minus the gradient.
    """

    hidden: int = 128
    condition: int = 1024
    head: int = 128
    max_scale: float = 1.0
    direction: Literal["none", "site"] = "none"
    step_init: float = 1e-2

    def __post_init__(self) -> None:
        if min(self.hidden, self.condition, self.head) < 1:
            raise InputError(
                f"KE needs hidden, condition and head of at least 1; found {self.hidden}, {self.condition} and "
                f"{self.head}."
            )
        if not (self.max_scale > 0 and self.step_init > 0):
            raise InputError(f"KE's max_scale and step_init are above 0; found {self.max_scale}, {self.step_init}.")


class KEEditor(MetaEditor):
    """One bidirectional LSTM over what a request says, and a head per site.

    For W (d_in, d_out) of y = x W the head gives a scale eta (1,) and, for each of A and B, a row
    (d_out,) and a column (d_in,):

        dW = max_scale * sigmoid(eta) * (A * gradient + B),  A = col softmax(row)^T, B likewise

    (De Cao et al. 2021, section 3.2). The softmax is over d_out, in both families: the side their
    code takes in a ``Linear``. The columns are the head's outputs times a constant, so that A's entries and
    B's norm are of those outputs' size, whatever the site's; what can be expressed stays the same.

    Their training holds the divergence below a margin by Lagrange multipliers; here KE is trained by the
    weighted loss every editor is.

    Args:
        sites: the edited matrices, in forward order.
        config: sizes and choices.
        width: d, the width of the base's input embeddings.
    """

    conditioned: ClassVar[bool] = True

    def __init__(self, sites: Sequence[Site], config: KEConfig, width: int) -> None:
        super().__init__()
        self.sites = tuple(sites)
        self.config: KEConfig = config
        self.lstm = nn.LSTM(width, config.hidden, batch_first=True, bidirectional=True)
        self.condition = nn.Linear(2 * config.hidden, config.condition)
        self.heads = nn.ModuleList(_head(site, config) for site in self.sites)
        self.float()

    @property
    def started(self) -> bool:
        """Always: nothing is standardised by moments."""
        return True

    def sums(self, gradients: Mapping[str, EditGradients]) -> list[TokenSums]:
        """Nothing is to be merged."""
        return []

    def merge(self, sums: Sequence[TokenSums]) -> None:
        """Nothing is to be merged."""

    def forward(
        self, gradients: Mapping[str, EditGradients], conditions: Conditions | None = None
    ) -> dict[str, LowRankUpdate]:
        """Turn gradient factors and embedded texts into updates.

        A * gradient is low-rank too: sum_t (x_t * col)^T (delta_t * softmax(row)); B adds one more rank.

        Args:
            gradients: per site name the packed factors of b requests, x (k, d_in), delta (k, d_out).
            conditions: what the b requests say.

        Returns:
            Per site name the update with u (b, r + 1, d_in), v (b, r + 1, d_out), r the most tokens any
            request has there.

        Raises:
            ValueError: no conditions, or not one for each request.
        """
        if conditions is None or any(g.n_requests != len(conditions.lengths) for g in gradients.values()):
            raise ValueError("KE needs the condition of every request whose gradients it is given.")
        told = self._condition(conditions)
        directed = self.directed(gradients)
        return {
            site.name: self._update(head(told), directed[site.name])
            for site, head in zip(self.sites, self.heads, strict=True)
        }

    def _condition(self, conditions: Conditions) -> Tensor:
        """Describe each request by one vector: (b, condition)."""
        packed = nn.utils.rnn.pack_padded_sequence(
            conditions.embedded, conditions.lengths, batch_first=True, enforce_sorted=False
        )
        _, (last, _) = self.lstm(packed)  # (2, b, hidden): each direction where it ends
        return torch.tanh(self.condition(torch.cat([last[0], last[1]], 1)))

    def _update(self, out: Tensor, g: EditGradients) -> LowRankUpdate:
        d_in, d_out = g.x.shape[1], g.delta.shape[1]
        col_a, row_a, col_b, row_b, eta = out.split([d_in, d_out, d_in, d_out, 1], 1)
        scale = self.config.max_scale * eta.sigmoid()
        col_a = scale * d_out * col_a
        col_b = scale * (d_out / d_in) ** 0.5 * col_b
        u = g.by_request(g.x * col_a[g.request])
        v = g.by_request(g.delta * row_a.softmax(-1)[g.request])
        return LowRankUpdate(torch.cat([u, col_b.unsqueeze(1)], 1), torch.cat([v, row_b.softmax(-1).unsqueeze(1)], 1))


def _head(site: Site, config: KEConfig) -> nn.Sequential:
    """Make a site's head: its first update is about a small step down the gradient, and B is smaller still."""
    last = nn.Linear(config.head, 2 * (site.d_in + site.d_out) + 1)
    step = 2 * config.step_init / config.max_scale  # sigmoid(eta) starts at one half
    with torch.no_grad():
        # Not zero: zero weights would keep the gradient from everything below for a step.
        last.weight.normal_(0, 0.1 * step / config.head**0.5)
        last.bias.zero_()
        last.bias[: site.d_in] = -step
    return nn.Sequential(nn.Linear(config.condition, config.head), nn.Tanh(), last)
