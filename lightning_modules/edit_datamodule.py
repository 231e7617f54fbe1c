"""EditDataModule: prepared tasks as micro-batches of a pure function of the step.

Supplies ranks and the consumed step to the library's sampler, and the records that validation and
test are made on. Holds no position of its own: the position is the Trainer's step.
"""

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from instructedit.base import Base
from instructedit.data.collate import Batch, Collator, TrainingMix
from instructedit.data.paraphrase import with_rewordings
from instructedit.data.portions import by_length
from instructedit.data.samplers import MultiTaskSampler
from instructedit.errors import InputError, MismatchError
from instructedit.instructions.pools import DEFAULT_POOLS, InstructionPool, load_pools, pool_for
from instructedit.records import EditExample
from instructedit.tasks.card import content_hash
from instructedit.tasks.choice import stable_sample
from instructedit.tasks.prepared import SPLITS, PreparedSplit, read_prepared
from lightning_modules.record_check import check_records

Examples = dict[str, list[EditExample]]


class EditDataModule(LightningDataModule):
    """Training, validation and test records of several tasks.

    Args:
        folder: the folder of prepared tasks, made by ``instructedit prepare``.
        tasks: the tasks trained and validated on.
        held_out: tasks that are only tested.
        instructions: the instruction pools, a YAML file or a folder; MEND and KE do not use them.
        balance: the tasks' shares: equal, proportional, temperature, or a weight per task.
        temperature: for ``balance: temperature``.
        caps: at most so many records of a task are edited in; the others may still serve as locality inputs.
        batch: requests in one optimiser step, over all ranks and micro-batches.
        micro_batch: requests computed at once on one rank, those with texts of like length together; null for all of
            the rank's share.
        micro_tokens: at most so many tokens of a micro-batch are computed at once, padding included; null for all.
            Costs a second copy of the gradients.
        mix: how many rephrases, locality inputs and unwanted texts each request brings.
        seed: decides the order of the records and every choice among texts.
        validation_records: records a task is validated on, chosen by hash; null for all.
        test_records: records a task is tested on, chosen by hash; null for all.
        eval_batch: requests edited at once in validation and test.
        num_workers: processes that collate; 0 collates in the training process.
    """

    def __init__(
        self,
        tasks: list[str],
        folder: str = "data/prepared",
        held_out: list[str] | None = None,
        instructions: str = DEFAULT_POOLS,
        balance: Literal["equal", "proportional", "temperature"] | dict[str, float] = "equal",
        temperature: float = 2.0,
        caps: dict[str, int] | None = None,
        batch: int = 8,
        micro_batch: int | None = None,
        micro_tokens: int | None = None,
        mix: TrainingMix = TrainingMix(),  # noqa: B008 - frozen
        seed: int = 0,
        validation_records: int | None = 100,
        test_records: int | None = None,
        eval_batch: int = 8,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if not tasks or len(set(tasks)) != len(tasks):
            raise InputError(f"data.tasks is {tasks}: name at least one prepared task, each once.")
        counts = {"batch": batch, "micro_batch": micro_batch, "micro_tokens": micro_tokens, "eval_batch": eval_batch}
        counts |= {"validation_records": validation_records, "test_records": test_records}
        for name, value in counts.items():
            if value is not None and value < 1:
                raise InputError(f"data.{name} is {value}. Set it to 1 or more.")
        if num_workers < 0:
            raise InputError(f"data.num_workers is {num_workers}. Set it to 0 or more.")
        self.folder, self.tasks, self.held_out, self.instructions = (
            folder,
            list(tasks),
            list(held_out or ()),
            instructions,
        )
        self.balance, self.temperature, self.caps = balance, temperature, caps
        self.batch, self.micro_batch, self.mix, self.seed = batch, micro_batch, mix, seed
        self.micro_tokens = micro_tokens
        self.validation_records, self.test_records = validation_records, test_records
        self.eval_batch, self.num_workers = eval_batch, num_workers
        self.pools: dict[str, InstructionPool] | None = None
        self.train: Examples = {}
        self._read: dict[tuple[str, PreparedSplit], list[EditExample]] = {}
        self.collator: Collator
        self.sampler: MultiTaskSampler
        self.start = 0
        self.world_size, self.rank = 1, 0
        self._latest: tuple[int, list[Batch]] | None = None

    # --- building ----------------------------------------------------------------------------------------------------
    def load_pools(self, method: str) -> dict[str, InstructionPool] | None:
        """Read the pools of all tasks; None for a method that takes no instructions.

        Raises:
            InputError: there are none, or a task has none.
        """
        if method == "InstructEdit":
            found = load_pools(self.instructions)
            self.pools = {task: pool_for(found, task) for task in (*self.tasks, *self.held_out)}
        return self.pools

    def build(self, base: Base, method: str) -> None:
        """Read the training records and make sampler and collator; validation and test need ``load_pools`` alone.

        Raises:
            InputError: something is missing or out of range.
        """
        self.load_pools(method)
        self.train = {task: self.records(task, "train") for task in self.tasks}
        sizes = {task: len(examples) for task, examples in self.train.items()}
        self.sampler = MultiTaskSampler(sizes, self.batch, self.seed, self.balance, self.temperature, self.caps)
        self.collator = Collator(base.tokenizer, base.max_tokens, self.train, self.pools, self.mix)

    def setup(self, stage: str) -> None:
        """Build on the module's base, and tell the Trainer how many micro-batches make a step."""
        module = self.trainer.lightning_module
        self.build(module.build(self.trainer.strategy.root_device), module.method)
        self.world_size, self.rank = self.trainer.world_size, self.trainer.global_rank
        self.trainer.accumulate_grad_batches = self.micro_batches

    @property
    def micro_batches(self) -> int:
        """Micro-batches in one optimiser step of one rank."""
        share = len(self.sampler.local_batch(0, self.rank, self.world_size))
        return -(-share // (self.micro_batch or share))

    # --- training ----------------------------------------------------------------------------------------------------
    def train_dataloader(self) -> DataLoader[Batch]:
        """Micro-batches without end, from the first step that was not consumed yet."""
        first = self.start * self.micro_batches
        return DataLoader(_MicroBatches(self), batch_size=None, sampler=_From(first), num_workers=self.num_workers)

    def micro(self, index: int) -> Batch:
        """Return one rank's micro-batch, counted from the start of training."""
        step, part = divmod(index, self.micro_batches)
        return self._portions(step)[part]

    def _portions(self, step: int) -> list[Batch]:
        """One rank's share of a step in micro-batches; the latest one's is kept, its parts are asked for in turn."""
        if self._latest is None or self._latest[0] != step:
            draws = self.sampler.local_batch(step, self.rank, self.world_size)
            batch = self.collator(draws)
            size = self.micro_batch or len(draws)
            self._latest = step, [batch] if size >= len(draws) else by_length(batch, size)
        return self._latest[1]

    def first_batches(self, steps: int) -> list[Batch]:
        """Return the global batches of the first steps in micro-batches, the same ones on every rank."""
        size = self.micro_batch or self.batch
        batches = [self.sampler.global_batch(step) for step in range(steps)]
        return [self.collator(draws[i : i + size]) for draws in batches for i in range(0, len(draws), size)]

    def transfer_batch_to_device(self, batch: Batch, device: object, dataloader_idx: int) -> Batch:
        """Leave a batch alone: it holds integers, its tensors are made where the base is."""
        return batch

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: batches consumed, not drawn, and what they were drawn from."""
        return {"consumed_steps": self.trainer.global_step, "fingerprint": self.sampler.fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the consumed steps.

        Raises:
            MismatchError: the records, their order or the batch are others than before.
        """
        self.check_state(state)
        self.start = int(state["consumed_steps"])

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Check that a checkpoint's batches were drawn as these are.

        Raises:
            MismatchError: they were not.
        """
        if state["fingerprint"] != self.sampler.fingerprint:
            raise MismatchError(
                f"The checkpoint's batches came from other data: sampler fingerprint {state['fingerprint'][:12]}, not "
                f"{self.sampler.fingerprint[:12]} (task sizes, caps, balance, batch, seed). Give the run a new name."
            )

    # --- validation and test -----------------------------------------------------------------------------------------
    def validation(self) -> Examples:
        """The validation records of every training task, with rewordings where they have no rephrase."""
        chosen = {task: self.records(task, "validation", self.validation_records) for task in self.tasks}
        return {task: [with_rewordings(example) for example in examples] for task, examples in chosen.items()}

    def test(self) -> Examples:
        """The test records of the training tasks, then of the held-out ones."""
        return {task: self.records(task, "test", self.test_records) for task in (*self.tasks, *self.held_out)}

    def records(self, task: str, split: PreparedSplit, limit: int | None = None) -> list[EditExample]:
        """Read one split, or ``limit`` records of it chosen by a hash of their ids.

        Raises:
            InputError: it does not exist or is empty.
        """
        if (task, split) not in self._read:
            self._read[task, split] = read_prepared(self.folder, task, split)
        examples = self._read[task, split]
        if not examples:
            raise InputError(
                f"The {split} split of task {task!r} in {self.folder} is empty. Prepare the task with records for it "
                f"(instructedit prepare --validation 0.1), or leave it out of data.{_LISTED[split]}."
            )
        if limit is None or limit >= len(examples):
            return examples
        kept = set(stable_sample([example.request.id for example in examples], limit, "limit"))
        return [example for example in examples if example.request.id in kept]

    def check(self, base: Base) -> None:
        """Look at every record the run will use.

        Raises:
            InputError: a split is empty, a record has no target or is too long for the base.
        """
        for task in self.tasks:
            check_records(self.records(task, "train"), base, self.pools, reworded=True)
        for found in (self.validation(), self.test()):
            for examples in found.values():
                check_records(examples, base, self.pools)

    def hashes(self, splits: Iterable[PreparedSplit] = SPLITS) -> dict[str, str]:
        """SHA-256 of the content of each split in use, as in the tasks' cards; held-out tasks have test only."""
        return {
            f"{task}/{split}": content_hash(self.records(task, split))
            for split in splits
            for task in (*self.tasks, *(self.held_out if split == "test" else ()))
        }


_LISTED = {"train": "tasks", "validation": "tasks", "test": "tasks and data.held_out"}


class _From:
    """Indices from a number on, without end."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __iter__(self) -> Any:
        return count(self.first)


class _MicroBatches(Dataset[Batch]):
    """Micro-batches by their index; their number has no end."""

    def __init__(self, data: EditDataModule) -> None:
        self.data = data

    def __getitem__(self, index: int) -> Batch:
        return self.data.micro(index)
