"""FSDP2: the editor's parameters and Adam's moments are cut over the ranks as DTensors.

Knows how a DTensor is made whole and cut again; what a checkpoint holds is ``sharded``'s business.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.utils._pytree as pytree
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn import Parameter

from instructedit.hypernet.face import MetaEditor
from instructedit.lowrank import LowRankUpdate
from lightning_modules.strategies.sharded import MOMENTS, Sharded


def _make_update(parts: Any, _context: Any) -> LowRankUpdate:
    return LowRankUpdate(*parts)


class FSDP2(Sharded, ModelParallelStrategy):
    """Every rank keeps its slice; the whole weights exist between an editor's forward and its backward.

    Args:
        timeout: how long a rank waits for the others in a collective.
    """

    def __init__(self, timeout: timedelta) -> None:
        super().__init__(save_distributed_checkpoint=False, timeout=timeout)
        # FSDP2 looks for the tensors of an output to know when backward begins; it cannot look into our class.
        if LowRankUpdate not in pytree.SUPPORTED_NODES:
            pytree.register_pytree_node(LowRankUpdate, lambda update: ([update.u, update.v], None), _make_update)

    def setup_environment(self) -> None:
        """Use all ranks for data parallelism: Lightning's default is tensor parallelism within a node."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def shard(self, editor: MetaEditor) -> None:
        """Cut the editor's parameters, as one group: its forward visits every block several times."""
        fully_shard(editor, mesh=self.device_mesh["data_parallel"])

    def whole_state(self, editor: MetaEditor) -> dict[str, Tensor]:
        """Gather the parameters; buffers are whole everywhere."""
        return {name: whole(value.detach()).cpu() for name, value in editor.state_dict().items()}

    @torch.no_grad()
    def load_whole(self, editor: MetaEditor, state: Mapping[str, Tensor]) -> None:
        """Cut the parameters."""
        for name, value in editor.state_dict().items():
            value.copy_(cut(state[name], value))

    def whole_parameter(self, parameter: Parameter) -> Tensor:
        """Gather it."""
        return whole(parameter.detach())

    def moment(self, parameter: Parameter, key: str) -> Tensor:
        """Gather it."""
        return whole(self.optimizers[0].state[parameter][key])

    def adam_step(self) -> Tensor | None:
        """The same for all parameters."""
        state = self.optimizers[0].state.get(self.groups()[0][0], {})
        return state.get("step")

    def load_adam(self, step: Tensor | None, moments: Mapping[Parameter, Mapping[str, Tensor]]) -> None:
        """Cut the moments."""
        self.optimizers[0].state.clear()
        for parameter, values in moments.items():
            assert step is not None
            cuts = {key: cut(values[key], parameter.detach()).clone() for key in MOMENTS}
            self.optimizers[0].state[parameter] = {"step": step.clone(), **cuts}


def whole(value: Tensor) -> Tensor:
    """Return a tensor whole; all ranks call it together."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def cut(value: Tensor, like: Tensor) -> Tensor:
    """Cut a whole tensor, which every rank has, as another one is cut."""
    if not isinstance(like, DTensor):
        return value
    placed = value.to(like.device, like.dtype)
    return distribute_tensor(placed, like.device_mesh, like.placements, src_data_rank=None)
