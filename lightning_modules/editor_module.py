"""EditorModule: the hypernetwork as Lightning trains it.

Holds the editor and nothing else as parameters: the frozen base stays outside of what is moved, saved
or put into train mode. The step itself is the library's ``meta_loss``; here are the optimiser, the
cross-rank sums, the refusal of non-finite steps and what is logged.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.distributed
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from instructedit.base import Base, SiteSpec
from instructedit.data.collate import Batch
from instructedit.errors import InputError, NonFiniteError
from instructedit.hypernet.editor import EditorConfig, HyperEditor
from instructedit.hypernet.face import MetaEditor
from instructedit.hypernet.ke import KEConfig
from instructedit.hypernet.kinds import EditorMethod, make_editor
from instructedit.metatrain import LossWeights, Stage, meta_loss, warm_up
from instructedit.optimisers import make_adam
from instructedit.portioned import meta_loss_within
from lightning_modules.callbacks import at_step_end
from lightning_modules.placed_base import PlacedBase, Placement
from lightning_modules.saved_state import OURS, check_belongs, count_in_steps
from lightning_modules.step_tally import StepTally
from lightning_modules.store_config import StoreConfig
from lightning_modules.strategies.fsdp2 import FSDP2, whole
from lightning_modules.strategies.sharded import PREFIX, Sharded
from lightning_modules.strategies.zero import Zero

WARM_UP_STEPS = 4
"""The moments start from the batches of this many first steps, the same on every rank."""


class EditorModule(LightningModule):
    """Meta-trains one hypernetwork on a frozen base.

    Args:
        base: a Hub id, a folder, or an alias such as ``smollm2-135m``.
        dtype: dtype of the base; the hypernetwork is always fp32.
        sites: the edited matrices.
        editor: size and choices of the hypernetwork, for InstructEdit and MEND.
        weights: the weights of the loss.
        method: ``InstructEdit`` puts an instruction in front of edit inputs, ``MEND`` and ``KE`` do not.
        ke: size and choices of KE's hypernetwork; null for another method, or for the defaults.
        lr: Adam's learning rate for the networks.
        alpha_lr: Adam's learning rate for the learned step sizes, which KE does not have.
        warmup_steps: both rates rise linearly over this many steps.
        schedule: what both rates do after that, until ``trainer.max_steps``.
        max_bad_steps: steps with non-finite losses or gradients are skipped; so many in a row end the run.
        store: how states below the first edited block are kept.
        placement: where the base lies. ``replicated``: whole on every device. ``sharded``: cut over the ranks, with
            the strategy ``zero_3``. ``tail_only``: a device holds the blocks from the first edited one on and the
            head; the blocks below are read from the checkpoint, one at a time, when the trunk store misses a state.
        trunk_device: where those blocks compute under ``tail_only``: on the accelerator, or on the cpu.
    """

    def __init__(
        self,
        base: str,
        dtype: Literal["float32", "bfloat16"] = "float32",
        sites: SiteSpec = SiteSpec(),  # noqa: B008 - frozen
        editor: EditorConfig = EditorConfig(),  # noqa: B008
        weights: LossWeights = LossWeights(),  # noqa: B008
        method: EditorMethod = "InstructEdit",
        ke: KEConfig | None = None,
        lr: float = 1e-6,
        alpha_lr: float = 1e-4,
        warmup_steps: int = 0,
        schedule: Literal["constant", "linear", "cosine"] = "constant",
        max_bad_steps: int = 10,
        store: StoreConfig = StoreConfig(),  # noqa: B008
        placement: Placement = "replicated",
        trunk_device: Literal["accelerator", "cpu"] = "accelerator",
    ) -> None:
        super().__init__()
        for name, rate in {"lr": lr, "alpha_lr": alpha_lr}.items():
            if not 0 < rate < math.inf:
                raise InputError(f"model.{name} is {rate}. Set it to a number above 0.")
        if max_bad_steps < 1 or warmup_steps < 0:
            raise InputError(
                f"model.max_bad_steps is 1 or more and model.warmup_steps 0 or more; found {max_bad_steps} and "
                f"{warmup_steps}."
            )
        self.placed = PlacedBase(base, getattr(torch, dtype), sites, placement, trunk_device, store)
        if ke is not None and method != "KE":
            raise InputError(f"model.ke is set, but model.method is {method}. Leave it out, or set model.method to KE.")
        self.editor_config = (ke or KEConfig()) if method == "KE" else editor
        self.weights = weights
        self.method: EditorMethod = method
        self.lr, self.alpha_lr, self.warmup_steps, self.schedule = lr, alpha_lr, warmup_steps, schedule
        self.max_bad_steps = max_bad_steps
        self.editor: MetaEditor
        self.science: dict[str, str] = {}
        """The settings a checkpoint of this training stands on; kept in it."""
        self.skipped_steps = 0
        self.bad_in_a_row = 0
        self.step_tokens = 0
        """Tokens of all rows of the latest step, over micro-batches and ranks."""
        self.last_values: dict[str, float] = {}
        self._built = False
        self._plain = False
        self._bad = False
        self._grad_norm = 0.0

    # --- building ----------------------------------------------------------------------------------------------------
    def build(self, device: torch.device | str = "cpu") -> Base:
        """Load the base and make the editor, once; the second call does nothing.

        Raises:
            InputError: unknown base or site, or a store folder that cannot be written.
        """
        if not self._built:
            self.placed.load(device)
            self.editor = self._new_editor()
            # Taken now: an engine may leave nothing of a parameter's shape.
            self._shapes = {key: tuple(value.shape) for key, value in self.state_dict().items()}
            self._built = True
        return self.stage.base

    @property
    def stage(self) -> Stage:
        """The split base that training asks."""
        return self.placed.stage

    @property
    def evaluation_stage(self) -> Stage:
        """The split base that validation and test ask."""
        return self.placed.evaluation_stage

    def _new_editor(self) -> MetaEditor:
        """Make an editor; the seed alone decides its first weights, not what loading the base has drawn."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch.initial_seed())
            return make_editor(self.stage.base, self.placed.sites, self.editor_config)

    def start_over(self) -> None:
        """Put a new editor, whole on this rank, in the place of the trained one; weights can then be loaded into it."""
        self.editor, self._plain = self._new_editor(), True
        self.editor.to(self.device)

    def setup(self, stage: str) -> None:
        """Build; the data module has usually asked for it before."""
        self.build(self.trainer.strategy.root_device)

    def configure_model(self) -> None:
        """Cut the editor, and the base where it is to be, over the ranks; the processes know each other by now."""
        strategy = self.trainer.strategy
        if isinstance(strategy, FSDP2):
            strategy.shard(self.editor)
        model = self.placed.cut(strategy)
        if model is not None:
            # The engine fetches the parameters of the modules it knows, so the base is one of this module's here.
            self.base_model = model
            # It leaves a module alone that has such a base, the editor in it too.
            self.to(strategy.root_device)

    def on_fit_start(self) -> None:
        """The engine is there."""
        self.placed.split_again()

    def on_train_start(self) -> None:
        """Start the moments of a new editor; a resumed one has them."""
        data = self.trainer.datamodule
        self._tally = StepTally(data.tasks)
        if not self.editor.started:
            with self.whole_editor() as editor:
                warm_up(editor, self.stage, data.first_batches(WARM_UP_STEPS))
                if self.sharded:
                    self.sharded.load_whole(self.editor, editor.state_dict())

    @property
    def sharded(self) -> Sharded | None:
        """The strategy, where it cuts the editor's weights or Adam's state over the ranks."""
        strategy = self.trainer.strategy if self._trainer else None
        return strategy if isinstance(strategy, Sharded) and not self._plain else None

    @contextmanager
    def whole_editor(self) -> Iterator[MetaEditor]:
        """Give the editor with all its weights on this rank, to be asked any number of times by each rank."""
        if self.sharded is None:
            yield self.editor
            return
        editor = self._new_editor()
        editor.load_state_dict(self.sharded.whole_state(self.editor))
        yield editor.to(self.device)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The optimiser's groups: one of its own for the alphas."""
        groups = [{"params": [v for name, v in self.editor.named_parameters() if name != "alpha"], "lr": self.lr}]
        if isinstance(self.editor, HyperEditor):
            groups.append({"params": [self.editor.alpha], "lr": self.alpha_lr})
        return groups

    def configure_optimizers(self) -> dict[str, Any]:
        """One Adam; a second optimiser would step the alphas twice."""
        # An engine that cuts Adam's state makes and moves that state itself, as the plain loop has it.
        optimizer = make_adam(self.parameter_groups(), fused=self.sharded is None)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate(self.trainer.max_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def check_portions(self, strategy: Strategy, micro_tokens: int | None) -> None:
        """Check that the editor is whole on each rank where a micro-batch's gradients are added up by us.

        Raises:
            InputError: it is cut.
        """
        if micro_tokens is not None and (
            isinstance(strategy, FSDP2) or isinstance(strategy, Zero) and strategy.stage > 2
        ):
            raise InputError(
                f"data.micro_tokens is {micro_tokens}, which needs the whole editor on every rank; fsdp2 and zero_3 "
                "cut it. Set data.micro_batch instead, or trainer.strategy to ddp, zero_1 or zero_2."
            )

    def check_steps(self, max_steps: int) -> None:
        """Check that the learning rates have risen before a run of so many steps ends.

        Raises:
            InputError: they have not.
        """
        if max_steps < self.warmup_steps:
            raise InputError(
                f"model.warmup_steps is {self.warmup_steps}, but the run ends at step {max_steps}. Set it lower."
            )

    def _rate(self, max_steps: int) -> Callable[[int], float]:
        def rate(step: int) -> float:
            if step < self.warmup_steps:
                return (step + 1) / self.warmup_steps
            left = max(0, max_steps - step) / max(1, max_steps - self.warmup_steps)
            shapes = {"constant": 1.0, "linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}
            return shapes[self.schedule]

        return rate

    # --- the step ----------------------------------------------------------------------------------------------------
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One micro-batch; its loss is divided by the requests of the whole global batch."""
        tokens = self.trainer.datamodule.micro_tokens
        result = (
            meta_loss(self.editor, self.stage, batch, self.weights)
            if tokens is None
            else meta_loss_within(self.editor, self.stage, batch, self.weights, tokens)
        )
        self._tally.add(batch.tasks, result)
        # Lightning divides by the micro-batches and averages over the ranks: undo both.
        parts = self.trainer.accumulate_grad_batches * self.trainer.world_size
        loss = result.loss * (parts / self.trainer.datamodule.batch)
        # An engine that looks at gradients alone must see it too.
        if not (self.sharded and self.sharded.skips_steps):
            return loss
        # Times NaN, not NaN in its place: the gradients must be NaN too.
        return loss * torch.where(self._tally.not_finite(loss.device) > 0, math.nan, 1.0)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the gradients of a non-finite step away: Adam then leaves weights and state as they are."""
        if self.sharded and self.sharded.skips_steps:
            return
        gradients = [value.grad for value in self.editor.parameters() if value.grad is not None]
        norm = whole(torch.nn.utils.get_total_norm(gradients)).double() if gradients else self._number(0.0)
        bad = torch.maximum(self._tally.not_finite(self.device), (~norm.isfinite()).double())
        told = torch.stack([bad, self._number(self._tally.tokens)])
        # The one time in a step that the host waits for the device: it must know whether to step.
        self._grad_norm, ranks_bad, tokens = torch.cat([norm.reshape(1), self._over_ranks(told)]).tolist()
        self._bad, self.step_tokens = ranks_bad > 0, int(tokens)
        if self._bad:
            optimizer.zero_grad(set_to_none=True)

    def optimizer_step(self, epoch: int, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        """Step, then let the moments learn what the step saw, then log."""
        super().optimizer_step(epoch, batch_idx, *args, **kwargs)
        if isinstance(self.sharded, Zero):
            if not at_step_end(self.trainer, batch_idx):
                return  # the engine is asked at every micro-batch, and counts them itself
            self._grad_norm, self._bad = self.sharded.last_step()
            self.step_tokens = int(self._over_ranks(self._number(self._tally.tokens)))
        step = self.trainer.global_step + 1
        sums, means = self._tally.take(self._over_ranks, self.device)
        if not self._bad:
            self.editor.merge(sums)
        self.bad_in_a_row = self.bad_in_a_row + 1 if self._bad else 0
        self.skipped_steps += self._bad
        self._bad = False
        self._log(step, means)
        if self.bad_in_a_row >= self.max_bad_steps:
            raise NonFiniteError(
                f"Losses or gradients were not finite in {self.bad_in_a_row} steps in a row, up to step {step}; those "
                f"steps changed nothing. Lower model.lr, model.alpha_lr or trainer.gradient_clip_val, "
                f"under a new --run.name. The last checkpoint is in {self.trainer.default_root_dir}/checkpoints."
            )

    def _number(self, value: float) -> Tensor:
        return torch.tensor(value, dtype=torch.float64, device=self.device)

    def _over_ranks(self, value: Tensor) -> Tensor:
        if self.trainer.world_size > 1:
            value = value.to(self.device)
            torch.distributed.all_reduce(value)
        return value

    def _log(self, step: int, means: Tensor) -> None:
        if step % self.trainer.log_every_n_steps:
            return
        alphas = self._alphas()
        rates = [group["lr"] for group in self.optimizers().param_groups]
        self.last_values = self._tally.values(means) | {
            "train/grad_norm": self._grad_norm,
            "train/lr": rates[0],
        }
        if alphas is not None:
            self.last_values |= {"train/alpha_lr": rates[1]}
            self.last_values |= {"train/alpha_min": float(alphas.min()), "train/alpha_max": float(alphas.max())}
        self.last_values["train/skipped_steps"] = float(self.skipped_steps)
        # To the loggers directly, here: the row of a step is written before any checkpoint of that step.
        for logger in self.trainer.loggers:
            logger.log_metrics(self.last_values, step)

    def _alphas(self) -> Tensor | None:
        """The step sizes (n_sites,), gathered where they are cut; KE has none."""
        editor = self.editor
        if not isinstance(editor, HyperEditor):
            return None
        if self.sharded is None:
            return editor.alphas().detach()
        return editor.step_sizes(self.sharded.whole_parameter(editor.alpha))

    # --- checkpoints -------------------------------------------------------------------------------------------------
    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The editor's alone: the base, where the module holds it, is in no checkpoint."""
        return {f"{PREFIX}{name}": value for name, value in self.editor.state_dict().items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Take up the editor."""
        return self.editor.load_state_dict({name.removeprefix(PREFIX): value for name, value in state_dict.items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is neither a weight nor Lightning's."""
        checkpoint[OURS] = {
            "fingerprint": self.stage.base.fingerprint,
            "skipped_steps": self.skipped_steps,
            "bad_in_a_row": self.bad_in_a_row,
            "micro_batches": self.trainer.accumulate_grad_batches,
            "science": self.science,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what was added."""
        self.check_checkpoint(checkpoint)
        ours = checkpoint[OURS]
        self.skipped_steps, self.bad_in_a_row = ours["skipped_steps"], ours["bad_in_a_row"]
        count_in_steps(checkpoint, ours["micro_batches"], self.trainer.accumulate_grad_batches)

    def check_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a checkpoint belongs to this base and these sites.

        Raises:
            MismatchError: it does not.
        """
        check_belongs(checkpoint, self.placed.name, self.stage.base.fingerprint, self._shapes)
