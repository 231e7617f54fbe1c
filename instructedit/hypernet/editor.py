"""The MEND editor: from a request's gradient factors to its low-rank update at every site.

Everything in here is fp32, whatever the base's dtype is; it is the only place that says so. The
editor knows sites and gradients; it knows nothing about tokens, tasks or the base itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from instructedit.base.sites import Site
from instructedit.conditions import Conditions
from instructedit.errors import InputError
from instructedit.gradients import EditGradients
from instructedit.hypernet.blocks import MendNetwork
from instructedit.hypernet.face import MetaEditor
from instructedit.hypernet.moments import RunningMoments, TokenSums
from instructedit.lowrank import LowRankUpdate


@dataclass(frozen=True)
class EditorConfig:
    """What defines a hypernetwork, its weights apart.

    Args:
        rank: inner width of the residual blocks (the paper: 1920).
        n_blocks: residual blocks per network (MEND: 2).
        direction: ``"site"`` divides each request's gradient at a site by its Frobenius norm before
            anything else, InstructEdit's L2 scaling as far as it keeps the direction; ``"none"``
            leaves the gradient as it is.
        alpha_init: every site's step size at the start.
        alpha_scale: ``"log"`` learns the logarithm of the step size, which can then neither reach
            zero nor change its sign; ``"linear"`` learns the step size itself, as MEND does.
    """

    rank: int = 1920
    n_blocks: int = 2
    direction: Literal["none", "site"] = "none"
    alpha_init: float = 1e-4
    alpha_scale: Literal["linear", "log"] = "linear"

    def __post_init__(self) -> None:
        if self.rank < 1 or self.n_blocks < 1:
            raise InputError(f"An editor needs rank and n_blocks of at least 1; found {self.rank} and {self.n_blocks}.")
        if not self.alpha_init > 0:
            raise InputError(f"alpha_init must be positive; found {self.alpha_init}. The usual value is 1e-4.")


class HyperEditor(MetaEditor):
    """One hypernetwork per distinct (d_in, d_out), and per site moments, scale, offset and alpha.

    Args:
        sites: the edited matrices, in forward order.
        config: sizes and choices.
    """

    def __init__(self, sites: Sequence[Site], config: EditorConfig) -> None:
        super().__init__()
        self.sites = tuple(sites)
        self.config: EditorConfig = config
        shapes: dict[str, list[Site]] = {}
        for site in self.sites:
            shapes.setdefault(f"{site.d_in}x{site.d_out}", []).append(site)
        self._shapes = {shape: tuple(group) for shape, group in shapes.items()}
        self._index = {site.name: index for index, site in enumerate(self.sites)}
        self.networks = nn.ModuleDict(
            {
                shape: MendNetwork(group[0].d_in, group[0].d_out, config.rank, config.n_blocks, len(group))
                for shape, group in shapes.items()
            }
        )
        self.moments = nn.ModuleList(RunningMoments(site.d_in + site.d_out) for site in self.sites)
        # (n_sites,), never 0-dimensional: a sharding engine may refuse such a parameter.
        start = torch.full((len(self.sites),), config.alpha_init)
        self.alpha = nn.Parameter(start.log() if config.alpha_scale == "log" else start)
        self.float()

    def alphas(self) -> Tensor:
        """Return the step sizes (n_sites,), whichever way they are learned."""
        return self.step_sizes(self.alpha)

    def step_sizes(self, alpha: Tensor) -> Tensor:
        """Turn the learned parameter (n_sites,) into step sizes."""
        return alpha.exp() if self.config.alpha_scale == "log" else alpha

    @torch.no_grad()
    def rescale_alphas(self, factor: Tensor) -> None:
        """Multiply the step sizes by positive factors (n_sites,)."""
        if self.config.alpha_scale == "log":
            self.alpha.add_(factor.log())
        else:
            self.alpha.mul_(factor)

    def place_of(self, site: str) -> tuple[str, int]:
        """Return which network a site's gradients go through, and the site's number in it."""
        for shape, group in self._shapes.items():
            for number, other in enumerate(group):
                if other.name == site:
                    return shape, number
        raise KeyError(site)

    @property
    def started(self) -> bool:
        """Whether the moments have seen enough to standardise with."""
        return all(moment.started for moment in self._moments())

    def _moments(self) -> list[RunningMoments]:
        return [moment for moment in self.moments if isinstance(moment, RunningMoments)]

    def sums(self, gradients: Mapping[str, EditGradients]) -> list[TokenSums]:
        """Sum up what the moments are to learn from these gradients, site by site; see ``merge``."""
        directed = self.directed(gradients)
        return [
            moment.sums(torch.cat([directed[site.name].x, directed[site.name].delta], 1), directed[site.name].live)
            for site, moment in zip(self.sites, self._moments(), strict=True)
        ]

    def merge(self, sums: Sequence[TokenSums]) -> None:
        """Merge one optimiser step's sums, of all micro-batches and ranks, into the moments."""
        for moment, part in zip(self._moments(), sums, strict=True):
            moment.merge(part)

    def forward(
        self, gradients: Mapping[str, EditGradients], conditions: Conditions | None = None
    ) -> dict[str, LowRankUpdate]:
        """Turn gradient factors into updates: u = x~, v = -alpha * delta~ (Mitchell et al. 2022, eq. 3).

        Args:
            gradients: per site name the packed factors of b requests, x (k, d_in), delta (k, d_out).
            conditions: not used: MEND reads gradients alone.

        Returns:
            Per site name the update with u (b, r, d_in), v (b, r, d_out), r the most tokens any
            request has there.

        Raises:
            RuntimeError: the moments have seen nothing yet; run ``metatrain.warm_up`` first.
        """
        if not self.started:
            raise RuntimeError("The editor's moments are empty: run metatrain.warm_up once before the first step.")
        directed = self.directed(gradients)
        alphas = self.alphas()
        moments = self._moments()
        updates = {}
        for shape, group in self._shapes.items():
            found = [directed[site.name] for site in group]
            # All sites of a shape in one pass: the network's matrices are read, and their gradients made, once.
            z = [
                moments[self._index[site.name]].standardise(torch.cat([g.x, g.delta], 1))
                for site, g in zip(group, found, strict=True)
            ]
            counts = [len(g.x) for g in found]
            pseudo = self.networks[shape](z[0] if len(z) == 1 else torch.cat(z), counts)
            parts = zip(group, found, *(part.split(counts) for part in pseudo), strict=True)
            for site, g, pseudo_x, pseudo_delta in parts:
                step = -alphas[self._index[site.name]] * g.live
                updates[site.name] = LowRankUpdate(g.by_request(pseudo_x), g.by_request(step * pseudo_delta))
        return {site.name: updates[site.name] for site in self.sites}
