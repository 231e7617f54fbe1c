"""The frozen base of a run: loaded, placed, split before its first edited block, and given its trunk stores.

Knows where a base can lie and what that asks of the processes; nothing about editors or losses.
"""

from pathlib import Path
from typing import Literal

import torch
import torch.distributed
from lightning.pytorch.strategies import Strategy
from torch import nn

from instructedit.base import Base, Site, SiteSpec, TrunkStore, find_sites, load_base
from instructedit.errors import InputError
from instructedit.metatrain import Stage
from lightning_modules.store_config import StoreConfig
from lightning_modules.strategies.zero import Zero

Placement = Literal["replicated", "sharded", "tail_only"]
"""``replicated``: whole on every device. ``sharded``: cut over the ranks. ``tail_only``: a device holds the blocks from
the first edited one on and the head; those below are read from the checkpoint, one at a time, when they run."""


class PlacedBase:
    """A base and its two stages, for training and for evaluation.

    Args:
        name: a Hub id, a folder, or an alias.
        dtype: of its weights.
        site_spec: the edited matrices.
        placement: where it lies.
        trunk_device: where the blocks below compute under ``tail_only``.
        store: how states below the first edited block are kept.

    Attributes:
        sites: the edited matrices, once loaded.
        stage: for training.
        evaluation_stage: with a store of its own: training would push the states of validation out.

    Raises:
        InputError: the choices do not go together.
    """

    def __init__(
        self,
        name: str,
        dtype: torch.dtype,
        site_spec: SiteSpec,
        placement: Placement,
        trunk_device: Literal["accelerator", "cpu"],
        store: StoreConfig,
    ) -> None:
        if trunk_device == "cpu" and placement != "tail_only":
            raise InputError(f"model.trunk_device is cpu, but model.placement is {placement}. It goes with tail_only.")
        self.name, self.dtype, self.site_spec = name, dtype, site_spec
        self.placement, self.trunk_device, self.store = placement, trunk_device, store
        self.sites: tuple[Site, ...] = ()
        self.stage: Stage
        self.evaluation_stage: Stage
        self._cut: Base | None = None
        self._zero: Zero | None = None

    def in_one_process(self) -> None:
        """Let a process that has nobody to share the base with hold its tail in place of its part; before ``load``."""
        if self.placement == "sharded":
            self.placement = "tail_only"

    def load(self, device: torch.device | str) -> None:
        """Load it; one that is to be cut over the ranks only so far that it can be looked at.

        Raises:
            InputError: unknown base or site, or a store folder that cannot be written.
        """
        if self.placement == "replicated":
            base = load_base(self.name, self.dtype, device)
        else:
            trunk_device = "cpu" if self.trunk_device == "cpu" else device
            base = load_base(self.name, self.dtype, device, placement="tail_only", trunk_device=trunk_device)
        self.sites = find_sites(base, self.site_spec)
        if self.placement == "tail_only":
            base.keep_tail(self._first_block)
        self._make_stages(base)

    @property
    def _first_block(self) -> int:
        return min(site.block for site in self.sites)

    def _make_stages(self, base: Base) -> None:
        split = base.split(self._first_block)
        split.whole_head = self.in_step
        if self._zero:
            zero, blocks = self._zero, base.adaptor.blocks_of(base.model)
            split.hold = lambda block: zero.whole(blocks[block])
        self.stage, self.evaluation_stage = (
            Stage(base, base.split(self._first_block), self._store(base)) for _ in range(2)
        )

    def _store(self, base: Base) -> TrunkStore:
        config = self.store
        folder = Path(config.folder) if config.folder else None
        if folder:
            try:
                # One that is there need not be writable: somebody else may have filled it, and packs say so then.
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"Cannot make model.store.folder {folder}: {error.strerror}.") from error
        limits = (config.rows_per_pass, config.pad_to_tokens, config.memory_mib)
        dtype = getattr(torch, config.dtype) if config.dtype else None
        agree = self.most if self.in_step else None
        split = base.split(self._first_block)
        return TrunkStore(
            split, base.fingerprint, *limits, folder, config.disk_gib, dtype, agree, config.share_prefixes
        )

    def flush(self) -> None:
        """Write what the stores hold back."""
        for stage in (self.stage, self.evaluation_stage):
            stage.store.flush()

    # --- cut over the ranks ------------------------------------------------------------------------------------------
    def check_strategy(self, strategy: Strategy, method: str) -> None:
        """Check that the base can be placed as it is to be.

        Raises:
            InputError: it cannot.
        """
        if self.placement != "sharded":
            return
        if not isinstance(strategy, Zero) or strategy.stage != 3:
            raise InputError(
                "model.placement is sharded, which the strategies zero_3 and zero_3_offload do. Set trainer.strategy "
                "to one of them, or model.placement to replicated or tail_only."
            )
        if method == "KE":
            raise InputError(
                "KE asks the base for answers of any length, which ranks that share a base cannot do side by side. "
                "Set model.placement to replicated or tail_only."
            )

    def cut(self, strategy: Strategy) -> nn.Module | None:
        """Load it cut over the ranks, where it is to be; the engine then has to be given the model returned."""
        if self.placement != "sharded" or self._cut or not isinstance(strategy, Zero):
            return None
        # On its device, although nothing of it stays whole there: where a weight lies tells inputs where to go.
        device = strategy.root_device
        self._cut = strategy.partitioned(lambda: load_base(self.name, self.dtype, device), self.dtype)
        self._zero = strategy
        return self._cut.model

    def split_again(self) -> None:
        """Split a base that was cut: the halves must carry the marks that the engine has made by now."""
        if self._cut:
            self._make_stages(self._cut)

    @property
    def in_step(self) -> bool:
        """Whether all ranks must ask the base the same number of times: each holds a part of it."""
        return self._cut is not None

    def most(self, passes: int) -> int:
        """Return the largest of the ranks' numbers. All ranks call it together."""
        count = torch.tensor([passes], device=self.stage.base.device)
        torch.distributed.all_reduce(count, torch.distributed.ReduceOp.MAX)
        return int(count)
