"""A whole study of the demo tasks on a tiny base, in one process: every run, every analysis, the report."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from instructedit import cli, signals
from tests.conftest import byte_tokenizer, tiny_llama

ROOT = Path(__file__).resolve().parents[2]
DEMO = "demo-recent,demo-counterfact,demo-convsent,demo-zsre"


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    signals.clear()
    return int(ended.value.code or 0)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Give back the signal handlers that a training in this process takes."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped study of the demo tasks, with a tiny base in the place of the real one and few steps."""
    monkeypatch.setenv("INSTRUCTEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(ROOT / "configs")
    base = tmp_path / "tiny-llama"
    tiny_llama(max_position_embeddings=1024).save_pretrained(base)
    byte_tokenizer().save_pretrained(base)
    content: dict[str, Any] = yaml.safe_load((ROOT / "configs/study/demo.yaml").read_text())
    content["set"] |= {
        "model.base": str(base),
        "model.editor.rank": 8,
        "model.warmup_steps": 1,
        "trainer.max_steps": 4,
        "validation.every_n_steps": 4,
        "data.validation_records": 2,
    }
    content["evaluate"] |= {"base": str(base), "records": 12}
    content["gradients"] |= {"records": 12}
    Path("study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert run("prepare", "--source", "demo", "--out", "data/demo", "--tasks", DEMO) == 0
    return Path("study.yaml")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_run_and_analysis_in_one_process(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("reproduce", "--study", str(plan), "--one_process", "--allow_dirty")
    assert run(*words, "--only", "mend-recent,base") == 0
    told = capsys.readouterr().out
    assert "missing instructedit-0" in told and "instructedit reproduce --study study.yaml" in told
    assert run(*words) == 0
    results = Path("results/study/demo")
    report = (results / "REPORT.md").read_text()
    assert "PARTIAL" not in report
    verdicts = [line for line in report.splitlines() if line.endswith("** |")]
    untested = [line for line in verdicts if "not tested yet" in line]
    # Only what needs methods that this plan leaves out.
    assert len(verdicts) > 10 and all(re.search("GRACE|of the methods|pays for", line) for line in untested)
    drawn = {path.relative_to(results / "figures").as_posix() for path in (results / "figures").rglob("*.png")}
    assert {"gradients/tsne.png", "transfer.png", "tasks.png", "balance.png", "instructions.png"} <= drawn
    assert {"sensitivity.png", "gradients/components.png", "transfer-own.png"} <= drawn
    # A second time nothing is made, and the report is the same to the byte.
    assert run(*words, "--only_report") == 0
    assert (results / "REPORT.md").read_text() == report
