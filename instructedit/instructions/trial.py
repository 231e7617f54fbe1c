"""The Trial Editor: a short meta-training on a set of descriptions, then a score of each on the same records.

One editor is trained on all descriptions of a round, drawing among them; each is then put in front of the same
validation records. Results are kept by the content of all that decides them. Knows nothing of servers or rounds.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from instructedit.base.cache import cache_folder
from instructedit.base.loading import base_fingerprint, load_base
from instructedit.base.model import Base
from instructedit.base.sites import SiteSpec, find_sites
from instructedit.data.collate import Collator, TrainingMix
from instructedit.data.paraphrase import with_rewordings
from instructedit.data.samplers import MultiTaskSampler
from instructedit.errors import InputError, NonFiniteError
from instructedit.evaluation.runner import evaluate
from instructedit.hypernet.editor import EditorConfig, HyperEditor
from instructedit.instructions.pools import InstructionPool, pool_for
from instructedit.instructions.rendering import render
from instructedit.instructions.scores import Scores
from instructedit.instructions.trial_settings import TrialSettings
from instructedit.json_lines import replace as write_bytes
from instructedit.metatrain import LossWeights, Stage, meta_loss, warm_up
from instructedit.methods.hyper import HyperMethod
from instructedit.optimisers import make_adam
from instructedit.records import EditExample
from instructedit.tasks.card import content_hash
from instructedit.tasks.choice import stable_sample
from instructedit.tasks.prepared import read_prepared
from instructedit.tasks.separation import limit_probes

SCORED = ("reliability", "generalization", "locality", "portability", "success")
"""What a record's score is the mean of, as far as it has probes for it; the same ones for every description."""

WARM_UP_STEPS = 4
MAX_BAD_STEPS = 10

_FORMAT = 1
"""Part of a kept result's key: raised when the same settings give other numbers."""


@dataclass(frozen=True)
class TrialPool(InstructionPool):
    """Any number of descriptions that are all trained on: nothing is held back to be unseen."""

    def __post_init__(self) -> None:
        where = f"Trial pool {self.task!r}"
        if not self.descriptions:
            raise InputError(f"{where} has no description. Give at least one.")
        self._check_texts(where)

    @property
    def seen(self) -> tuple[str, ...]:
        """All of them."""
        return self.descriptions


@dataclass(frozen=True)
class Work:
    """What a trial's progress is counted in.

    Args:
        phase: ``training`` or ``scoring``.
        done: optimiser steps, or edits, of this one trial.
        total: of the same.
    """

    phase: str
    done: int
    total: int


class TrialRecords:
    """The records of a trial: those trained on and those scored, read once.

    Args:
        task: whose descriptions are tried.
        settings: which records.
        pools: the pools of the tasks beside it.

    Raises:
        InputError: a task is not prepared, has no training or validation records, or has no pool.
    """

    def __init__(self, task: str, settings: TrialSettings, pools: Mapping[str, InstructionPool]) -> None:
        self.train = {name: read_prepared(settings.data, name, "train") for name in (task, *settings.beside)}
        validation = read_prepared(settings.data, task, "validation")
        for split, found in {"training": self.train[task], "validation": validation}.items():
            if not found:
                raise InputError(
                    f"Task {task!r} in {settings.data} has no {split} records, so no description can be tried without "
                    "its test records. Prepare it with some, or choose another task."
                )
        for name, examples in self.train.items():
            if not examples:
                raise InputError(f"Task {name!r} in {settings.data} has no training records. Leave it out of beside.")
        self.beside = {name: pool_for(pools, name) for name in settings.beside}
        kept = set(stable_sample([one.request.id for one in validation], settings.records, "trial"))
        if len(kept) < 2:
            raise InputError(f"Task {task!r} has {len(kept)} validation records; descriptions need 2 or more.")
        self._all_validation = validation
        self.validation = [
            limit_probes(with_rewordings(one), settings.max_probes) for one in validation if one.request.id in kept
        ]
        self.test = read_prepared(settings.data, task, "test")

    def all_of(self, task: str) -> Iterator[EditExample]:
        """Yield every record of the task, of all splits, scored or not: none of them is to be named."""
        yield from (*self.train[task], *self._all_validation, *self.test)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the content trained on, by task, and of what is scored."""
        return {name: content_hash(examples) for name, examples in self.train.items()} | {
            "scored": content_hash(self.validation)
        }


class TrialEditor:
    """Trains and scores; a result that was there before is read.

    Args:
        task: whose descriptions are tried.
        label: shown after ``Task:``.
        settings: of the training and the scoring.
        records: what is trained on and scored.
        device: where the base is.
    """

    def __init__(
        self, task: str, label: str, settings: TrialSettings, records: TrialRecords, device: str = "cpu"
    ) -> None:
        self.task, self.label, self.settings, self.records, self.device = task, label, settings, records, device
        self.hashes = records.hashes()
        self.fingerprint = base_fingerprint(settings.base)
        self._base: Base | None = None

    def key(self, descriptions: Sequence[str], seed: int) -> str:
        """Return the hash of all that decides a trial's numbers; the order of the descriptions is no part of it."""
        # Not the folder, nor how many edits share a pass or how many other seeds there are.
        settings = {
            name: value
            for name, value in asdict(self.settings).items()
            if name not in ("base", "data", "edits_at_once", "seeds")
        }
        beside = {name: [pool.label, *pool.seen] for name, pool in self.records.beside.items()}
        facts = [_FORMAT, self.fingerprint, self.hashes, settings, beside, self.task, self.label, sorted(descriptions)]
        return hashlib.sha256(json.dumps([*facts, seed], sort_keys=True).encode()).hexdigest()

    def run(
        self, descriptions: Sequence[str], seed: int, on_work: Callable[[Work], None] = lambda work: None
    ) -> tuple[Scores, float]:
        """Train one editor and score every description with it; with ``each``, one editor for every description.

        Args:
            descriptions: different ones.
            seed: of the first weights and of every draw.
            on_work: is told of every step and every batch of edits.

        Returns:
            The scores, and the seconds it took when it was computed.

        Raises:
            InputError: a text is too long for the base, or a placeholder has no value.
            NonFiniteError: the training met no finite step for long.
        """
        file = cache_folder() / "trials" / f"{self.key(descriptions, seed)}.json"
        kept = _kept(file)
        if kept:
            return kept
        start = time.monotonic()
        groups = [[one] for one in descriptions] if self.settings.each else [sorted(descriptions)]
        edits = len(descriptions) * len(self.records.validation)
        steps = self.settings.steps * len(groups)
        trained = asked = 0

        def stepped() -> None:
            nonlocal trained
            trained += 1
            on_work(Work("training", trained, steps))

        def scored(n: int) -> None:
            nonlocal asked
            asked += n
            on_work(Work("scoring", asked, edits))

        found: Scores = {}
        for group in groups:
            editor, stage = self._train(group, seed, stepped)
            for text in group:
                found[text] = self._score(editor, stage, text, scored)
        seconds = round(time.monotonic() - start, 3)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, json.dumps({"seconds": seconds, "scores": found}).encode())
        return found, seconds

    @property
    def base(self) -> Base:
        """The base, loaded when it is needed first."""
        if self._base is None:
            dtype: torch.dtype = getattr(torch, self.settings.dtype)
            self._base = load_base(self.settings.base, dtype, self.device)
        return self._base

    def _train(self, descriptions: Sequence[str], seed: int, on_step: Callable[[], None]) -> tuple[HyperEditor, Stage]:
        """Meta-train a new editor in a bare loop; the same seed gives the same first weights and draws."""
        own, train = self.settings, self.records.train
        sites = find_sites(self.base, SiteSpec(last_blocks=own.last_blocks))
        stage = Stage.for_evaluation(self.base, min(site.block for site in sites))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            editor = HyperEditor(
                sites, EditorConfig(rank=own.rank, alpha_init=own.alpha_init, alpha_scale=own.alpha_scale)
            )
        editor.to(self.base.device)
        pools = {**self.records.beside, self.task: TrialPool(self.task, self.label, tuple(descriptions))}
        mix = TrainingMix(own.rephrases, own.locality, own.avoid, own.reworded)
        collate = Collator(self.base.tokenizer, self.base.max_tokens, train, pools, mix)
        sampler = MultiTaskSampler({name: len(examples) for name, examples in train.items()}, own.batch, seed)
        warm_up(editor, stage, [collate(sampler.global_batch(step)) for step in range(min(WARM_UP_STEPS, own.steps))])
        networks = [value for name, value in editor.named_parameters() if name != "alpha"]
        optimizer = make_adam(
            [{"params": networks, "lr": own.lr}, {"params": [editor.alpha], "lr": own.alpha_lr}], fused=True
        )
        rates = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        weights, bad = LossWeights(own.edit_weight, own.locality_weight), 0
        for step in range(own.steps):
            result = meta_loss(editor, stage, collate(sampler.global_batch(step)), weights)
            optimizer.zero_grad(set_to_none=True)
            (result.loss / own.batch).backward()
            norm = float(torch.nn.utils.clip_grad_norm_(editor.parameters(), own.clip))
            finite = math.isfinite(norm) and math.isfinite(float(result.loss.detach()))
            if not finite:
                optimizer.zero_grad(set_to_none=True)
            optimizer.step()
            rates.step()
            if finite:
                editor.merge(result.sums)
            bad = 0 if finite else bad + 1
            if bad >= MAX_BAD_STEPS:
                raise NonFiniteError(
                    f"The trial's losses were not finite in {bad} steps in a row, up to {step + 1}. Lower trial.lr."
                )
            on_step()
        return editor, stage

    def _rate(self, step: int) -> float:
        warm, steps = self.settings.warmup_steps, self.settings.steps
        return (step + 1) / warm if step < warm else max(0, steps - step) / max(1, steps - warm)

    def _score(
        self, editor: HyperEditor, stage: Stage, text: str, on_edits: Callable[[int], None]
    ) -> dict[str, dict[str, float]]:
        """Return per metric, per record id a value; ``score`` is the mean of a record's others."""
        pool = TrialPool(self.task, self.label, (text,))
        dressed = [one.instructed(render(pool, text, one.request.slots)) for one in self.records.validation]
        outcomes = evaluate(
            HyperMethod(editor, stage, "trial"),
            stage,
            dressed,
            batch=self.settings.edits_at_once,
            metrics=SCORED,
            on_progress=on_edits,
        )
        found: dict[str, dict[str, float]] = {"score": {}}
        for outcome in outcomes:
            if outcome.metric in SCORED:
                found.setdefault(outcome.metric, {})[outcome.id] = round(outcome.value, 6)
        for one in self.records.validation:
            own = [values[one.request.id] for metric, values in found.items() if one.request.id in values]
            found["score"][one.request.id] = round(sum(own) / len(own), 6)
        return found


def _kept(file: Path) -> tuple[Scores, float] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return content["scores"], float(content["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def renamed(pool: InstructionPool, task: str) -> InstructionPool:
    """Return a pool under another task's name: the demo tasks begin with those of their families."""
    return replace(pool, task=task)
