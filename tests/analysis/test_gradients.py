"""The study as a whole: its choices, its comparisons on the tasks two names share, and its figures."""

from pathlib import Path

import pytest

from instructedit.analysis.collect import ALL_SITES
from instructedit.analysis.gradient_files import write
from instructedit.analysis.gradients import Findings, GradientMeasurement, Options
from instructedit.base import load_base
from instructedit.checkpoints import EditorCard, save_editor
from instructedit.instructions.pools import load_pools
from instructedit.tasks.prepared import write_prepared
from tests.conftest import tiny_gpt2
from tests.core import editor_on
from tests.lightning_modules.conftest import example, saved

pytest.importorskip("sklearn")

TASKS = ("recent", "convsent", "zsre")
QUICK = Options(neighbours=3, draws=100)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    for task in TASKS:
        write_prepared(folder / "data", task, {"test": [example(task, "test", n) for n in range(7)]}, {})
    base = load_base(str(saved(tiny_gpt2(), folder / "base")))
    editor, _ = editor_on(base, alpha=0.1)
    for kind, pools in (("instructedit", load_pools()), ("mend", None)):
        save_editor(folder / kind, editor, EditorCard.of(editor, base, tasks=TASKS[:2], pools=pools))
    return folder


def study(place: Path, **changes: object) -> Findings:
    editors = {name: dict.fromkeys(TASKS, str(place / name)) for name in ("instructedit", "mend")}
    settings: dict[str, object] = {"records": 5, "options": QUICK} | changes
    made = GradientMeasurement.of(settings.pop("editors", editors), str(place / "data"), TASKS, **settings)  # type: ignore[arg-type]
    done: list[int] = []
    found = made.measure(lambda name, what, steps: done.append(steps))
    assert sum(done) == made.steps
    return found


def values(found: Findings) -> list[float]:
    return [row.found.value for row in found.rows]


@pytest.mark.slow
def test_instructions_seeds_and_batches(place: Path) -> None:
    plain = study(place)
    assert values(plain) == values(study(place))
    assert values(plain) == pytest.approx(values(study(place, batch=2)), abs=1e-3)
    unseen = study(place, which="unseen")
    assert plain.pictures[0].ids == unseen.pictures[0].ids
    kept = [one.row("mend", "raw", "silhouette").found.value for one in (plain, unseen)]
    changed = [one.row("instructedit", "raw", "silhouette").found.value for one in (plain, unseen)]
    assert kept[0] == kept[1] and changed[0] != pytest.approx(changed[1], rel=1e-3)
    other = study(place, options=Options(neighbours=3, draws=100, seed=1))
    assert other.pictures[0].ids != plain.pictures[0].ids
    assert plain.pictures[0].held_out == {"zsre"} and plain.zeros["mend", "raw"] == []


@pytest.mark.slow
def test_differences_are_over_the_tasks_that_both_have(place: Path) -> None:
    mend = str(place / "mend")
    editors = {
        "some": {"recent": mend, "zsre": mend},
        "all": dict.fromkeys(TASKS, mend),
        "c": {"convsent": mend, "recent": mend},
    }
    found = study(place, editors=editors)
    between = {(row.name, row.kind): row for row in found.differences if row.site == ALL_SITES}
    # The same editor on the same records: nothing differs, down to every draw.
    same = between["some - all", "transformed"]
    assert same.records == 10 and same.found.value == pytest.approx(0, abs=1e-6) == same.found.high
    assert not any("some - c" in row.name for row in found.differences)  # one task in common
    assert found.row("all", "raw", "purity").chance == pytest.approx(4 / 14)
    with pytest.raises(KeyError):
        found.row("some", "raw", "purity", site="nowhere")


@pytest.mark.slow
def test_figures_of_unusual_names(place: Path, tmp_path: Path) -> None:
    """A name with two of the three tasks is drawn, and one that matplotlib or SVG would read otherwise."""
    pytest.importorskip("matplotlib")
    mend = str(place / "mend")
    found = study(place, editors={"a $x_$ & <b>": dict.fromkeys(TASKS, mend), "two": {"recent": mend, "zsre": mend}})
    paths = write(found, tmp_path, "tiny")
    assert len(paths) == 4 + 8 and all(path.stat().st_size > 100 for path in paths)
    text = (tmp_path / "tsne.svg").read_text()
    assert "<b>" not in text and "<dc:date>" not in text
