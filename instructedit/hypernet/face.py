"""What every meta-trained editor is: sites, a configuration, and gradients in, low-rank updates out.

The training step, the checkpoints and the method know editors by this face alone. It knows nothing
about tokens, tasks or the base.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from instructedit.base.sites import Site
from instructedit.conditions import Conditions
from instructedit.gradients import EditGradients
from instructedit.hypernet.moments import TokenSums
from instructedit.lowrank import LowRankUpdate


class MetaEditor(nn.Module, ABC):
    """A hypernetwork that edits; its parameters and buffers are fp32.

    Attributes:
        conditioned: whether ``forward`` needs the requests' texts beside their gradients.
        sites: the edited matrices, in forward order.
        config: a frozen dataclass with a ``direction``: ``"site"`` divides each request's gradient at
            a site by its Frobenius norm before anything else, ``"none"`` leaves it as it is.
    """

    conditioned: ClassVar[bool] = False
    sites: tuple[Site, ...]
    config: Any

    @property
    @abstractmethod
    def started(self) -> bool:
        """Whether the editor may edit; a new one may need ``metatrain.warm_up`` first."""

    @abstractmethod
    def sums(self, gradients: Mapping[str, EditGradients]) -> list[TokenSums]:
        """Sum up what is to be merged after the optimiser step; empty where there is nothing."""

    @abstractmethod
    def merge(self, sums: Sequence[TokenSums]) -> None:
        """Merge one optimiser step's sums, of all micro-batches and ranks."""

    @abstractmethod
    def forward(
        self, gradients: Mapping[str, EditGradients], conditions: Conditions | None = None
    ) -> dict[str, LowRankUpdate]:
        """Turn the gradients of b requests, and what they say where it is needed, into each site's updates."""

    def directed(self, gradients: Mapping[str, EditGradients]) -> dict[str, EditGradients]:
        """Apply the ``direction`` choice to every site's gradients."""
        if self.config.direction == "none":
            return dict(gradients)
        return {name: g.scaled(1 / g.norms().clamp_min(1e-30)) for name, g in gradients.items()}
