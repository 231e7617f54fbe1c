"""The analysis of editing gradients as a whole: what is collected, the numbers made of it, and what is compared.

Knows the parts and puts them together, with plain arguments; nothing of flags, files or figures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from instructedit.analysis.collect import (
    ALL_SITES,
    KINDS,
    Collected,
    Group,
    Kind,
    Steps,
    Which,
    check_choice,
    choose_records,
    collect,
    groups_of,
    steps_of,
)
from instructedit.analysis.editors import Named, load_editors, read_editors
from instructedit.analysis.embed import Components, Numbers, components, tsne, usable_perplexity
from instructedit.analysis.gram import directions, distances
from instructedit.analysis.separation import Interval, Resamples, differences, interval, separation
from instructedit.editing.editor import Editor
from instructedit.errors import InputError, unknown

Scale = Literal["direction", "plain"]
SCALES: tuple[Scale, ...] = get_args(Scale)
"""``direction``: every gradient, of one site or of all together, is brought to norm 1 first, as the paper looks at
directions. ``plain``: as it is."""

EXPLAINED = 10
"""Components whose share of the variance is told."""


@dataclass(frozen=True)
class Options:
    """How the numbers and pictures are made; see the flags of the same names."""

    neighbours: int = 10
    perplexity: float = 30.0
    draws: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("neighbours", self.neighbours, 1),
            ("perplexity", self.perplexity, 1),
            ("draws", self.draws, 100),
            ("seed", self.seed, 0),
        ):
            if not value >= least:
                raise InputError(f"--{name} is {value}. Set it to {least} or more.")


@dataclass(frozen=True)
class Row:
    """One line of the table of separations.

    Args:
        name: of the editor; of two, with a minus, in the table of differences.
        kind: raw or transformed; of two kinds, with a minus.
        scale: see ``Scale``.
        site: its name, or all of them together.
        measure: see ``separation.MEASURES``.
        found: the number and its interval.
        records: over how many.
        chance: the purity that groups give which are no groups; NaN for the other measures and for differences.
    """

    name: str
    kind: str
    scale: Scale
    site: str
    measure: str
    found: Interval
    records: int
    chance: float = float("nan")


@dataclass(frozen=True)
class Picture:
    """The points of one name and kind, all sites together, in few dimensions.

    Args:
        name: of the editor.
        kind: raw or transformed.
        scale: see ``Scale``.
        ids: (n,) the records.
        tasks: (n,) their tasks.
        placed: (n, 2) by t-SNE.
        components: by principal components.
        perplexity: the one that was used.
        held_out: the tasks that the editor was not trained on.
    """

    name: str
    kind: Kind
    scale: Scale
    ids: Sequence[str]
    tasks: Sequence[str]
    placed: Numbers
    components: Components
    perplexity: float
    held_out: frozenset[str]


@dataclass(frozen=True)
class Findings:
    """What the analysis found.

    Args:
        rows: the separations.
        differences: transformed minus raw of each name, and each two names, on the tasks they share.
        pictures: for each name, kind and scale.
        explained: by (name, kind, scale, site) the shares of the variance (m,) of the first components.
        zeros: by (name, kind) the ids of records whose gradient is zero at every site: they have no direction.
    """

    rows: Sequence[Row]
    differences: Sequence[Row]
    pictures: Sequence[Picture]
    explained: Mapping[tuple[str, Kind, Scale, str], Numbers]
    zeros: Mapping[tuple[str, Kind], Sequence[str]]

    def row(self, name: str, kind: str, measure: str, scale: Scale = "direction", site: str = ALL_SITES) -> Row:
        """Return one line of the separations.

        Raises:
            KeyError: there is no such line.
        """
        for row in self.rows:
            if (row.name, row.kind, row.measure, row.scale, row.site) == (name, kind, measure, scale, site):
                return row
        raise KeyError((name, kind, measure, scale, site))


@dataclass(frozen=True)
class GradientMeasurement:
    """Editors and records that are ready to be measured; ``GradientMeasurement.of`` makes one."""

    named: Sequence[Named]
    loaded: Mapping[Path, Editor]
    groups: Sequence[Group]
    options: Options
    batch: int = 8

    @classmethod
    def of(
        cls,
        editors: Mapping[str, Mapping[str, str]],
        data: str,
        tasks: Sequence[str],
        records: int = 100,
        which: Which = "seen",
        options: Options = Options(),  # noqa: B008 - frozen
        base: str = "",
        dtype: str = "auto",
        device: str = "auto",
        batch: int = 8,
    ) -> "GradientMeasurement":
        """Read cards and records, then load the base and the editors.

        Args:
            editors: per name the folder of each task's editor; one folder for all tasks of a multi-task editor.
            data: a folder of prepared tasks, whose test records are used.
            tasks: those that are told apart, two or more.
            records: of a task, chosen by hash.
            which: the instruction of editors that take one.
            options: how the numbers are made.
            base: the base, where it is not found under the name that the cards have.
            dtype: of the base; auto takes the one the first editor was trained on.
            device: of the base; auto takes a GPU where there is one.
            batch: records in one pass.

        Raises:
            InputError: something is missing, or does not belong together.
        """
        if which not in get_args(Which):
            raise unknown("kind of instructions", which, get_args(Which))
        if batch < 1:
            raise InputError(f"--batch is {batch}. Set it to 1 or more.")
        check_choice(tasks, records)
        named = read_editors(editors)
        examples = choose_records(data, tasks, records, options.seed)
        for one in named:
            for task in one.tasks:
                if task not in examples:
                    raise unknown(f"task of {one.name}", task, examples, "Add it to --tasks.")
        loaded = load_editors(named, base, dtype, device)
        return cls(named, loaded, groups_of(named, loaded, examples, which), options, batch)

    @property
    def steps(self) -> int:
        """How many steps ``measure`` tells of: see ``collect.steps_of``, and one a record and kind for the numbers."""
        return steps_of(self.groups) + sum(2 * len(group.places(one)) for group in self.groups for one in group.members)

    def measure(self, on_steps: Steps = lambda name, what, steps: None) -> Findings:
        """Collect, measure and compare.

        Raises:
            InputError: a text is longer than the base's context, or an update is not finite.
        """
        found = {}
        numbers = _Numbers(self.options)
        pictures, explained = [], {}
        held_out = {one.name: frozenset(one.tasks) - one.trained_on for one in self.named}
        for one in collect(self.groups, self.loaded, self.batch, on_steps):
            if not torch.isfinite(one.tables[ALL_SITES]).all():
                raise InputError(
                    f"{one.name}: a {one.kind} gradient is not finite. The editor is broken: leave it out."
                )
            found[one.name, one.kind] = one
            for scale in SCALES:
                for site, table in one.tables.items():
                    numbers.of(one, scale, site)
                    whole = components((directions(table) if scale == "direction" else table).numpy())
                    explained[one.name, one.kind, scale, site] = whole.explained[:EXPLAINED]
                    if site == ALL_SITES:
                        pictures.append(self._picture(one, scale, whole, held_out[one.name]))
            on_steps(one.name, "numbers", len(one.ids))
        order = [one.name for one in self.named]
        pictures.sort(key=lambda picture: (order.index(picture.name), KINDS.index(picture.kind)))
        rows = [row for name in order for kind in KINDS for row in numbers.rows(found[name, kind])]
        compared = [row for name in order for row in numbers.against(found[name, "transformed"], found[name, "raw"])]
        for first, second in combinations(order, 2):
            for kind in KINDS:
                compared += numbers.against(found[first, kind], found[second, kind])
        return Findings(rows, compared, pictures, explained, {key: _zeros(one) for key, one in found.items()})

    def _picture(self, one: Collected, scale: Scale, whole: Components, held_out: frozenset[str]) -> Picture:
        placed = tsne(whole, self.options.perplexity, self.options.seed)
        used = usable_perplexity(self.options.perplexity, len(one.ids))
        return Picture(one.name, one.kind, scale, one.ids, one.tasks, placed, whole, used, held_out)


def _zeros(one: Collected) -> list[str]:
    norms = one.tables[ALL_SITES].diagonal().tolist()
    return [record for record, norm in zip(one.ids, norms, strict=True) if not norm > 0]


class _Numbers:
    """Separations by name, kind, scale, site and tasks, each computed once."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._known: dict[tuple[str, ...], dict[str, Numbers]] = {}
        self._resamples: dict[tuple[str, ...], Resamples] = {}

    def of(self, one: Collected, scale: Scale, site: str, tasks: Sequence[str] | None = None) -> dict[str, Numbers]:
        """Return every measure at every draw, on all tasks or some."""
        wanted = tuple(dict.fromkeys(one.tasks)) if tasks is None else tuple(tasks)
        key = (one.name, one.kind, scale, site, *wanted)
        if key not in self._known:
            places = [index for index, task in enumerate(one.tasks) if task in wanted]
            table = one.tables[site][places][:, places]
            alike = directions(table)
            apart = distances(alike if scale == "direction" else table)
            resamples = self.resamples([one.tasks[place] for place in places])
            self._known[key] = separation(apart.numpy(), alike.numpy(), resamples, self.options.neighbours)
        return self._known[key]

    def resamples(self, tasks: Sequence[str]) -> Resamples:
        return self._resamples.setdefault(tuple(tasks), Resamples(tasks, self.options.draws, self.options.seed))

    def rows(self, one: Collected) -> list[Row]:
        chance = self.resamples(one.tasks).chance
        return [
            Row(
                one.name,
                one.kind,
                scale,
                site,
                name,
                interval(draws),
                len(one.ids),
                chance if name == "purity" else np.nan,
            )
            for scale in SCALES
            for site in one.tables
            for name, draws in self.of(one, scale, site).items()
        ]

    def against(self, a: Collected, b: Collected) -> list[Row]:
        """Return a minus b, draw by draw, on the tasks that both have; nothing where these are fewer than two."""
        tasks = [task for task in dict.fromkeys(a.tasks) if task in b.tasks]
        if len(tasks) < 2:
            return []
        name = a.name if a.name == b.name else f"{a.name} - {b.name}"
        kind = a.kind if a.kind == b.kind else f"{a.kind} - {b.kind}"
        records = sum(task in tasks for task in a.tasks)
        return [
            Row(name, kind, scale, site, measure, found, records)
            for scale in SCALES
            for site in a.tables
            for measure, found in differences(self.of(a, scale, site, tasks), self.of(b, scale, site, tasks)).items()
        ]
