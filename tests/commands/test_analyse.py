"""The table of analyses: its help, and what is refused before anything is loaded."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from instructedit.commands.analyse import ANALYSES
from tests.lightning_modules.conftest import run

ROOT = Path(__file__).parents[2]


def test_help_has_one_line_per_analysis(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("analyse", "--help") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [words[0] for words in lines] == list(ANALYSES) and all(len(words) > 3 for words in lines)


@pytest.mark.parametrize(
    ("argv", "named"),
    [((), "Which analysis?"), (("gradient",), "Did you mean 'gradients'?"), (("--out", "x"), "'--out'")],
)
def test_another_name_is_refused(capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], named: str) -> None:
    assert run("analyse", *argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and named in line


@pytest.mark.parametrize("name", ANALYSES)
def test_every_listed_analysis_exists(name: str) -> None:
    module, _, function = ANALYSES[name].target.partition(":")
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    assert any(isinstance(node, ast.FunctionDef) and node.name == function for node in ast.parse(path.read_text()).body)


def test_the_table_loads_nothing_heavy() -> None:
    code = "import sys, instructedit.commands.analyse; assert not {'torch', 'numpy', 'jsonargparse'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
