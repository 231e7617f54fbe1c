"""DeepSpeed's ZeRO, stages 1 to 3, with or without offload, on GPUs and, for tests, on CPUs.

Knows DeepSpeed's engine; what a checkpoint holds is ``sharded``'s business. DeepSpeed's own checkpoints are
not used: they are a folder a rank, tied to the number of ranks, and unpickled by DeepSpeed.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from typing import Any, Literal

import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.plugins.precision import DeepSpeedPrecision
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor
from torch.nn import Parameter

from instructedit.base import Base
from instructedit.errors import InputError
from instructedit.hypernet.face import MetaEditor
from lightning_modules.strategies.sharded import MOMENTS, Sharded

BUCKET = 50_000_000
"""Numbers in one message between ranks, more than the hypernetwork's largest matrix has: 0.2 GB, where DeepSpeed's
defaults set 2 GB of an accelerator aside."""

LIVE = 250_000_000
"""Numbers of a cut base that may be gathered at once under stage 3: a block of LLaMA-2-7B has 202 million."""

HELD = "held"
"""Among the modules that use a parameter: the engine lets go of none that has a user."""


class AsTheyAre(DeepSpeedPrecision):
    """Leaves dtypes alone: the hypernetwork is fp32 by itself, the base keeps its own, a batch holds integers."""

    def __init__(self) -> None:
        super().__init__("32-true")

    def convert_module(self, module: torch.nn.Module) -> torch.nn.Module:
        """Do nothing."""
        return module

    def convert_input(self, data: Any) -> Any:
        """Do nothing."""
        return data


class Zero(Sharded, DeepSpeedStrategy):
    """ZeRO as DeepSpeed does it, everything in fp32: the base is not its business, the hypernetwork is fp32.

    Args:
        stage: 1 cuts Adam's moments, 2 gradients too, 3 parameters too.
        offload: Adam's moments (and with stage 3 the parameters) lie in the CPU's memory.
        timeout: how long a rank waits for the others in a collective.
        persist: parameters smaller than this stay whole under stage 3, in elements.
        cpu: train on CPUs.
    """

    skips_steps = True

    def __init__(
        self, stage: Literal[1, 2, 3], offload: bool, timeout: timedelta, persist: int = 10_000, cpu: bool = False
    ) -> None:
        if cpu:
            # DeepSpeed looks for its accelerator once, when it is imported.
            os.environ["DS_ACCELERATOR"] = "cpu"
        try:
            # By its name: in the package's namespace ``torch`` is torch itself.
            collectives: Any = import_module("deepspeed.comm.torch")
        except ModuleNotFoundError as error:
            raise InputError(
                "This strategy needs the package deepspeed. Run `pip install 'instructedit[deepspeed]'`."
            ) from error
        if cpu:
            # Its own collectives for processes of one node are compiled for a minute on first use; gloo serves.
            collectives.build_shm_op = lambda: None
        config: dict[str, Any] = {
            "zero_allow_untested_optimizer": True,
            # DeepSpeed's own CPU Adam is another implementation, compiled on first use.
            "zero_force_ds_cpu_optimizer": False,
            "train_micro_batch_size_per_gpu": 1,  # for DeepSpeed's own reports of throughput alone
            "zero_optimization": {
                "stage": stage,
                "reduce_bucket_size": BUCKET,
                "allgather_bucket_size": BUCKET,
                "stage3_prefetch_bucket_size": BUCKET,
                # DeepSpeed's default, 1e9, would keep a whole base of that size gathered once it has run.
                "stage3_max_live_parameters": LIVE,
                "stage3_max_reuse_distance": LIVE,
                "stage3_param_persistence_threshold": persist,
            },
        }
        if offload:
            config["zero_optimization"]["offload_optimizer"] = {"device": "cpu"}
            if stage == 3:
                config["zero_optimization"]["offload_param"] = {"device": "cpu"}
        super().__init__(config=config, timeout=timeout)
        self.stage = stage

    def setup_distributed(self) -> None:
        """Let DeepSpeed's own group of all ranks, which it would make later, wait as long as the others do."""
        super().setup_distributed()
        import deepspeed

        deepspeed.utils.groups._WORLD_GROUP = torch.distributed.new_group(timeout=self._timeout)

    # --- DeepSpeed off CUDA ------------------------------------------------------------------------------------------
    def setup_environment(self) -> None:
        """Let CPUs pass too, with the indexed devices DeepSpeed wants."""
        if isinstance(self.accelerator, CPUAccelerator):
            self.parallel_devices = [torch.device("cpu", index) for index in range(self.num_processes)]
            super(DeepSpeedStrategy, self).setup_environment()
        else:
            super().setup_environment()

    def setup(self, trainer: Any) -> None:
        """Start the engine, and Adam's state at step 0.

        DeepSpeed would let Adam make its state in the first step, and looks for the parameters' parts of it when only
        the first of two parameter groups has any.
        """
        super().setup(trainer)
        self._start_adam(torch.tensor(0.0))

    @contextmanager
    def model_sharded_context(self) -> Iterator[None]:
        """Do nothing: ``partitioned`` cuts the base, in the base's dtype, and the engine cuts the editor."""
        yield

    def partitioned(self, load: Callable[[], Base], dtype: torch.dtype) -> Base:
        """Load a base whose every parameter is cut over the ranks as soon as it is made; rank zero reads the files.

        Args:
            load: loads it, in the dtype.
            dtype: the base's; the engine itself stays fp32.
        """
        import deepspeed
        from transformers.integrations import HfDeepSpeedConfig
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        self._init_config_if_needed()
        # transformers looks at it while it loads, and holds it weakly.
        told = HfDeepSpeedConfig({**self.config, "bf16": {"enabled": dtype == torch.bfloat16}})
        try:
            base = load()
        finally:
            unset_hf_deepspeed_config()
            del told
        # A block is gathered in one message, not one for each of its matrices.
        deepspeed.utils.set_z3_leaf_modules(base.model, [type(block) for block in base.adaptor.blocks_of(base.model)])
        return base

    @contextmanager
    def whole(self, module: torch.nn.Module) -> Iterator[None]:
        """Inside the block the parameters of a module of a base that was cut are whole, gathered once for all its runs.

        All ranks enter it together. Without it the engine cuts them again after each run.
        """
        import deepspeed

        parameters: list[Any] = list(module.parameters())
        with deepspeed.zero.GatheredParameters(parameters):
            for parameter in parameters:
                parameter.ds_active_sub_modules.add(HELD)
            try:
                yield
            finally:
                for parameter in parameters:
                    parameter.ds_active_sub_modules.discard(HELD)

    # --- the step ----------------------------------------------------------------------------------------------------
    def last_step(self) -> tuple[float, bool]:
        """Return the gradient's norm in the last step and whether the step was left out."""
        norm = self.deepspeed_engine.get_global_grad_norm()
        return float(norm if norm is not None else 0.0), bool(self._zero.overflow)

    @property
    def _zero(self) -> Any:
        return self.optimizers[0]

    # --- whole and cut -----------------------------------------------------------------------------------------------
    def whole_state(self, editor: MetaEditor) -> dict[str, Tensor]:
        """Gather the parameters under stage 3, one at a time and onto the CPU; else they are whole."""
        if self.stage < 3:
            return editor.state_dict()
        whole = {name: self.whole_parameter(value).cpu() for name, value in editor.named_parameters()}
        # The state dict's own order, buffers included: a checkpoint's content does not depend on who wrote it.
        return {name: whole.get(name, value) for name, value in editor.state_dict().items()}

    def load_whole(self, editor: MetaEditor, state: Mapping[str, Tensor]) -> None:
        """Write the parameters, and the fp32 copies that DeepSpeed steps."""
        import deepspeed

        parameters = dict(editor.named_parameters())
        # modifier_rank: what rank zero writes reaches all; the others have the same values anyway.
        with deepspeed.zero.GatheredParameters(list(parameters.values()), modifier_rank=0, enabled=self.stage == 3):
            editor.load_state_dict(state)
        for name, parameter in parameters.items():
            if self.stage == 3:
                deepspeed.utils.safe_set_local_fp32_param(parameter, self._mine(parameter, state[name]))
            else:
                deepspeed.utils.safe_set_full_fp32_param(parameter, state[name].to(parameter.device))

    def whole_parameter(self, parameter: Parameter) -> Tensor:
        """Gather it under stage 3."""
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter], enabled=self.stage == 3):
            return parameter.detach().clone()

    def moment(self, parameter: Any, key: str) -> Tensor:
        """Gather it."""
        import deepspeed

        found: Tensor | None = deepspeed.utils.safe_get_full_optimizer_state(parameter, key)
        assert found is not None
        return found.reshape(parameter.ds_shape if self.stage == 3 else parameter.shape)

    def adam_step(self) -> Tensor | None:
        """The same in all flat partitions."""
        step: Tensor = self._zero.optimizer.state[self._flat()[0]]["step"]
        return step if step > 0 else None

    def _start_adam(self, step: Tensor) -> None:
        for flat in self._flat():
            empty = {key: torch.zeros_like(flat) for key in MOMENTS}
            self._zero.optimizer.state[flat] = {"step": step.clone(), **empty}
        if self.stage < 3:
            # The parameters' views of the state: DeepSpeed makes them once.
            self._zero._hp_optimizer_states_linked = False
            self._zero._lazy_init_hp_params_optimizer_state()

    def load_adam(self, step: Tensor | None, moments: Mapping[Parameter, Mapping[str, Tensor]]) -> None:
        """Make Adam's state of the flat partitions and write this rank's part of the moments into it."""
        import deepspeed

        self._start_adam(torch.tensor(0.0) if step is None else step)
        for parameter, values in moments.items():
            for key in MOMENTS:
                if self.stage == 3:
                    mine = self._mine(parameter, values[key])
                    deepspeed.utils.safe_set_local_optimizer_state(parameter, mine, key)
                else:
                    deepspeed.utils.safe_set_full_optimizer_state(parameter, values[key].to(parameter.device), key)

    def _flat(self) -> list[Tensor]:
        """The flat fp32 partitions that Adam steps."""
        zero = self._zero
        return list(zero.fp32_partitioned_groups_flat if self.stage == 3 else zero.single_partition_of_fp32_groups)

    def _mine(self, parameter: Any, value: Tensor) -> Tensor:
        """This rank's part of a parameter's whole value; the last one is padded."""
        size = parameter.ds_tensor.numel()
        flat = value.flatten()
        padded = torch.nn.functional.pad(flat, (0, size * self.world_size - flat.numel()))
        return padded[self.global_rank * size : (self.global_rank + 1) * size].to(parameter.ds_tensor.device)
