"""The commit and the versions that results are marked with."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from instructedit.provenance import Revision, revision, versions


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A committed file of a small repository."""
    file = tmp_path / "package" / "module.py"
    file.parent.mkdir()
    file.write_text("one = 1\n")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    return file


def test_commit_and_dirty_mark(module: Path) -> None:
    head = git(module.parent, "rev-parse", "HEAD")
    assert revision(module) == Revision(head, False)
    (module.parent / "untracked.txt").write_text("a note")
    assert revision(module) == Revision(head, False)
    module.write_text("one = 2\n")
    assert revision(module) == Revision(head, True)


def test_a_change_elsewhere_in_the_repository_counts(module: Path) -> None:
    other = module.parents[1] / "config.yaml"
    other.write_text("lr: 1\n")
    git(module.parent, "add", str(other))
    assert revision(module).dirty


def test_a_report_that_a_study_writes_again_is_no_change_of_the_code(module: Path) -> None:
    report = module.parents[1] / "results" / "study" / "s" / "REPORT.md"
    report.parent.mkdir(parents=True)
    report.write_text("partial\n")
    git(module.parents[1], "add", ".")
    git(module.parents[1], "commit", "-m", "second")
    report.write_text("whole\n")
    assert not revision(module).dirty
    module.write_text("one = 2\n")
    assert revision(module).dirty


def test_a_package_installed_inside_another_repository_is_not_part_of_it(module: Path) -> None:
    installed = module.parents[1] / "venv" / "provenance.py"
    installed.parent.mkdir()
    installed.write_text("")
    assert revision(installed) == Revision()


def test_without_a_repository_without_a_commit_without_git(
    tmp_path: Path, module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lonely = tmp_path / "fresh" / "file.py"
    lonely.parent.mkdir()
    lonely.write_text("")
    git(lonely.parent, "init")
    git(lonely.parent, "add", ".")
    assert revision(lonely) == Revision()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert revision(module) == Revision()


def test_versions() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["torch"] == version("torch")
