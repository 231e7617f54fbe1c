"""Steps whose losses or gradients are not finite: skipped, counted, and the end of a run in the long run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules import editor_module
from lightning_modules.callbacks.checkpoints import read_checkpoint
from tests.lightning_modules.conftest import Write, rows, run


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Spoil the losses of some micro-batches, counted from 1: NaN, or a finite loss with endless gradients."""
    real = editor_module.meta_loss

    def by(calls: set[int], how: str) -> None:
        count = [0]

        def spoiled(editor: Any, *args: Any) -> Any:
            count[0] += 1
            result = real(editor, *args)
            if count[0] not in calls:
                return result
            weight = next(editor.parameters())
            # sqrt at 0 has a finite value and no finite derivative.
            extra = weight.sum() * float("nan") if how == "loss" else (weight * 0).abs().sum().sqrt()
            return replace(result, loss=result.loss + extra)

        monkeypatch.setattr(editor_module, "meta_loss", spoiled)

    return by


@pytest.mark.parametrize("how", ["loss", "gradient"])
@pytest.mark.slow
def test_a_bad_step_changes_nothing_but_the_counts(how: str, spoil: Any, write_config: Write, tmp_path: Path) -> None:
    settings = {"data__micro_batch": 2, "model__schedule": "constant", "validation__every_n_steps": 9}
    kept = {}
    for name, steps in (("good", 2), ("bad", 3)):
        spoil({5}, how)  # the first micro-batch of step 3
        assert run("fit", "--config", write_config(name, trainer__max_steps=steps, **settings)) == 0
        kept[name] = read_checkpoint(tmp_path / "runs" / name / "checkpoints" / "last.ckpt")
    good, bad = kept["good"], kept["bad"]
    for key, value in good["state_dict"].items():  # weights and moments
        assert torch.equal(value, bad["state_dict"][key]), key
    for index, state in good["optimizer_states"][0]["state"].items():
        for key, value in state.items():
            assert torch.equal(value, bad["optimizer_states"][0]["state"][index][key]), (index, key)
    assert bad["global_step"] == 3 and bad["EditDataModule"]["consumed_steps"] == 3
    assert bad["lr_schedulers"][0]["last_epoch"] == 3
    assert bad["instructedit"]["skipped_steps"] == 1
    table = rows(tmp_path / "runs" / "bad" / "metrics.csv")
    assert [row["train/skipped_steps"] for row in table] == ["0.0", "0.0", "1.0"]


@pytest.mark.slow
def test_too_many_in_a_row_end_the_run_with_advice(
    spoil: Any, write_config: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil({2, 4, 5, 6}, "loss")  # one, then three in a row
    assert run("fit", "--config", write_config(model__max_bad_steps=3, trainer__max_steps=9)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: Losses or gradients were not finite in 3 steps in a row, up to step 6")
    assert "model.lr" in error and "under a new --run.name" in error and "checkpoints" in error
    folder = tmp_path / "runs" / "run" / "checkpoints"
    assert all(torch.isfinite(value).all() for value in read_checkpoint(folder / "last.ckpt")["state_dict"].values())
