"""What the sharding strategies share: one checkpoint file of the whole editor, the same for every strategy.

Gathered from the ranks when it is saved and cut again when it is loaded, Adam's moments included. So a run
goes on under another strategy or on another number of ranks. A hypernetwork is small enough to lie whole in
one process's memory (0.9 GB at the paper's size for LLaMA-2-7B, three times that with the moments).
"""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from instructedit.hypernet.face import MetaEditor
from lightning_modules.callbacks.checkpoints import read_checkpoint

PREFIX = "editor."
"""Where the editor is in the module's state dict."""

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Adam's state of a parameter, beside its count of steps."""


class Sharded(ParallelStrategy):
    """Goes before one of Lightning's strategies among the bases of a class.

    Attributes:
        skips_steps: whether an engine of its own looks at the gradients and leaves out a step they are not
            finite in; it then holds them itself, and no ``.grad`` is set.
    """

    skips_steps = False

    @abstractmethod
    def whole_state(self, editor: MetaEditor) -> dict[str, Tensor]:
        """Gather the editor's state dict, whole, on every rank. All ranks call it together."""

    @abstractmethod
    def load_whole(self, editor: MetaEditor, state: Mapping[str, Tensor]) -> None:
        """Take up a whole state dict, which every rank has. All ranks call it together."""

    @abstractmethod
    def whole_parameter(self, parameter: Parameter) -> Tensor:
        """Gather one parameter, whole, on every rank. All ranks call it together."""

    @abstractmethod
    def moment(self, parameter: Parameter, key: str) -> Tensor:
        """Gather one of Adam's moments of a parameter, whole, on every rank."""

    @abstractmethod
    def adam_step(self) -> Tensor | None:
        """Return Adam's count of steps, None where it has made none."""

    @abstractmethod
    def load_adam(self, step: Tensor | None, moments: Mapping[Parameter, Mapping[str, Tensor]]) -> None:
        """Take up Adam's count and its whole moments of every parameter; empty where it has made no step."""

    def groups(self) -> list[list[Parameter]]:
        """The editor's parameters as the optimiser groups them."""
        module: Any = self.lightning_module
        return [group["params"] for group in module.parameter_groups()]

    # --- Lightning's hooks -------------------------------------------------------------------------------------------
    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Only when the engine is there can a state be cut for it."""
        return True

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Let the Trainer hand over the optimiser's state too."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The editor's whole state, on rank zero; the others help and get nothing."""
        module: Any = self.lightning_module
        state = self.whole_state(module.editor)
        return {PREFIX + name: value for name, value in state.items()} if self.is_global_zero else {}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take up the editor's whole state."""
        module: Any = self.lightning_module
        state = {name.removeprefix(PREFIX): value for name, value in checkpoint["state_dict"].items()}
        self.load_whole(module.editor, state)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return what ``torch.optim.Adam.state_dict`` has without sharding; empty but on rank zero."""
        step, state, numbers, n = self.adam_step(), {}, [], 0
        for group in self.groups():
            numbers.append(list(range(n, n + len(group))))
            for parameter in group if step is not None else ():
                # One at a time: only rank zero ever holds all of them.
                whole = {key: self.moment(parameter, key).cpu() for key in MOMENTS}
                if self.is_global_zero and step is not None:
                    # Each its own count: what is shared in a file is shared after loading, and counted many times.
                    state[n] = {"step": step.clone(), **whole}
                n += 1
        if not self.is_global_zero:
            return {}
        settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        groups = [{**own, "params": places} for own, places in zip(settings, numbers, strict=True)]
        return {"state": state, "param_groups": groups}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take up such a state, whichever strategy it comes from."""
        (saved,) = checkpoint["optimizer_states"]
        state = saved["state"]
        parameters = [parameter for group in self.groups() for parameter in group]
        moments = {parameter: state[n] for n, parameter in enumerate(parameters) if n in state}
        self.load_adam(state[0]["step"].clone() if state else None, moments)
        (optimizer,) = self.optimizers
        for group, told in zip(optimizer.param_groups, saved["param_groups"], strict=True):
            group.update({key: value for key, value in told.items() if key != "params"})

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Let rank zero write the file."""
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Map the file, on every rank: each copies its part of it."""
        return read_checkpoint(Path(checkpoint_path))
