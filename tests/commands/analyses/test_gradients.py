"""The analysis gradients on tiny bases on disk: tables, figures, what is told, and what it refuses."""

import csv
import json
from pathlib import Path

import pytest

from instructedit.base import load_base
from instructedit.checkpoints import EditorCard, save_editor
from instructedit.instructions.pools import load_pools
from instructedit.tasks.prepared import write_prepared
from tests.conftest import tiny_llama
from tests.core import editor_on
from tests.lightning_modules.conftest import example, run, saved

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

TASKS = ("recent", "convsent", "zsre")
FIGURES = {f"{name}.{suffix}" for name in ("tsne", "components", "separation", "sites") for suffix in ("png", "svg")}
TABLES = {"separation.csv", "differences.csv", "coordinates.csv", "explained.csv"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, an InstructEdit editor, a MEND editor, two of one task, one of another base, and prepared tasks."""
    folder = tmp_path_factory.mktemp("gradients")
    for task in TASKS:
        write_prepared(folder / "data", task, {"test": [example(task, "test", n) for n in range(7)]}, {})
    for number, name in enumerate(("base", "other")):
        base = load_base(str(saved(tiny_llama(number), folder / name)))
        editor, _ = editor_on(base, alpha=0.1)
        for kind, tasks in (("instructedit", TASKS[:2]), ("mend", TASKS[:2]), ("recent", TASKS[:1])):
            pools = load_pools() if kind == "instructedit" else None
            card = EditorCard.of(editor, base, tasks=tasks, pools=pools, steps=3)
            save_editor(folder / f"{kind}-{name}", editor, card)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSTRUCTEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("INSTRUCTEDIT_DEBUG", raising=False)
    monkeypatch.chdir(made)
    return tmp_path


ALL = ("InstructEdit=instructedit-base", "MEND=mend-base", "single=recent:recent-base,convsent:mend-base")
FEW = ("--data", "data", "--tasks", "recent,convsent,zsre", "--records", "5", "--draws", "100", "--neighbours", "3")


def gradients(*flags: object) -> int:
    return run("analyse", "gradients", *flags)


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.slow
def test_tables_and_figures(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = place / "out"
    assert gradients("--editors", *ALL, *FEW, "--out", out) == 0
    told = capsys.readouterr()
    for words in ("silhouette", "transformed - raw", "InstructEdit - MEND", "purity by chance: 0.286", "tsne.png"):
        assert words in told.out
    assert "steps/s" in told.err and "0 s left" in told.err
    assert {path.name for path in out.iterdir()} == FIGURES | TABLES | {"run.json"}
    rows = read(out / "separation.csv")
    sites = {row["site"] for row in rows}
    assert len(sites) == 10 and "all" in sites
    assert len(rows) == 3 * 2 * 2 * 10 * 5  # editors, raw and transformed, scales, sites, measures
    assert all(float(row["low"]) <= float(row["high"]) for row in rows)
    assert {row["records"] for row in rows if row["editor"] == "single"} == {"10"}
    # MEND and the editors of one task are given the same texts; InstructEdit is not.
    raw = {
        (row["editor"], row["measure"]): row["value"]
        for row in read(out / "differences.csv")
        if row["gradients"] == "raw" and row["site"] == "all" and row["scale"] == "direction"
    }
    assert raw["MEND - single", "silhouette"] == "0" != raw["InstructEdit - MEND", "silhouette"]
    points = read(out / "coordinates.csv")
    assert len(points) == 2 * 2 * (15 + 15 + 10) and {row["id"][:5] for row in points} == {"recen", "convs", "zsre-"}
    assert len(read(out / "explained.csv")) == 3 * 2 * 2 * 10
    known = json.loads((out / "run.json").read_text())
    assert known["perplexity_used"] == {"InstructEdit": 14 / 3, "MEND": 14 / 3, "single": 3}
    assert (
        all(len(one["weights_sha256"]) == 64 for one in known["weights"].values())
        and "scikit-learn" in known["versions"]
    )
    # Ids and numbers only.
    assert all("capital" not in path.read_bytes().decode("latin-1") for path in out.iterdir())
    svg = (out / "tsne.svg").read_text()
    assert "<dc:date>" not in svg
    # The same command again replaces its files with the same ones.
    before = {name: (out / name).read_bytes() for name in FIGURES | TABLES}
    assert gradients("--editors", *ALL[:2], "--editors", ALL[2], *FEW, "--out", out) == 0
    assert [name for name in before if before[name] != (out / name).read_bytes()] == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--editors"], "--editors"),
        (["--editors", "mend-base"], "is not NAME=FOLDER"),
        (["--editors", "A=nowhere/at-all/x"], "No editor at"),
        (["--editors", "A=mend-base", "B=mend-other"], "on one base alone"),
        (["--editors", "A=recent:mend-base"], "A has 1 task"),
        (["--editors", "A=recent:mend-base,wiki:mend-base"], "wiki is not among --tasks"),
        (["--tasks", "recent"], "2 or more different tasks"),
        (["--tasks", "recent,wiki"], "wiki/test"),
        (["--data", "nowhere"], "No folder of prepared tasks"),
        (["--records", "1"], "--records is 1"),
        (["--batch", "0"], "--batch is 0"),
        (["--draws", "3"], "--draws is 3"),
        (["--perplexity", "0"], "--perplexity is 0"),
        (["--instructions", "both"], "instructions"),
        (["--out", ""], "--out is missing"),
        (["--out", "data/recent/test/state.json"], "is a file"),
        (["--device", "cuda"], "no GPU here"),
    ],
)
def test_what_is_refused(place: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str) -> None:
    import torch

    if "cuda" in flags and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    given = [] if flags[0].startswith("--editors") else ["--editors", "A=mend-base"]
    assert gradients(*given, *FEW, "--out", place / "out", *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and words in line
    assert not (place / "out").exists()


@pytest.mark.parametrize("package", ["matplotlib", "sklearn"])
def test_without_a_package_it_says_what_to_install(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    from importlib.util import find_spec

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else find_spec(name))
    assert gradients("--editors", ALL[0], *FEW, "--out", place / "out") == 2
    told = capsys.readouterr().err
    assert repr(package) in told and "instructedit[analysis]" in told


def test_without_editors(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gradients(*FEW, "--out", place / "out") == 2
    assert "--editors is missing. Name trained editors, as in: " in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert gradients("--help") == 0
    told = capsys.readouterr().out
    assert "--perplexity" in told and "NAME=TASK:FOLDER,TASK:FOLDER" in told and "docs/analyse.md" in told
