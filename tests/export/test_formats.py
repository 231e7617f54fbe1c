"""What the files hold: ranks, errors, orientation, dtypes; and what is refused before anything is written."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from instructedit.base import Base
from instructedit.errors import InputError
from instructedit.export.card import EditFacts
from instructedit.export.changes import Factors, SiteChange, SiteReport, changes_of, total_error
from instructedit.export.origin import origin_of
from instructedit.export.write import Settings, export_edit
from instructedit.lowrank import LowRankUpdate, weight_change
from instructedit.methods.base import Edit
from instructedit.methods.hyper import HyperEdit
from tests.export.made import ABOUT, dense_edit, in_folder, random_edit
from tests.methods.every import EVERY
from tests.methods.test_contract import REQUESTS

PREFIX = "base_model.model."


def exported(edit: Any, out: Path, form: str, **settings: Any) -> list[SiteReport]:
    base = edit.base
    facts = EditFacts.of(type(edit).__name__, base.fingerprint, str(base.dtype), ABOUT)
    return export_edit(edit, base, out, Settings(form, **settings), origin_of("some/model", licence="mit"), facts)[0]  # type: ignore[arg-type]


def dense_of(edit: HyperEdit, site: str) -> Tensor:
    """The textbook's change of one weight, in the orientation it is stored in."""
    return weight_change(edit.updates[site], edit.base.model.get_submodule(site))


def product(tensors: dict[str, Tensor], site: str) -> Tensor:
    """B A of an adapter: (d_out, d_in)."""
    return tensors[f"{PREFIX}{site}.lora_B.weight"] @ tensors[f"{PREFIX}{site}.lora_A.weight"]


def uneven(base: Base) -> HyperEdit:
    """An edit whose sites have different ranks."""
    edit = random_edit(base, requests=3, ranks=2)
    name = next(iter(edit.updates))
    update = edit.updates[name]
    return HyperEdit(base, {**edit.updates, name: LowRankUpdate(update.u[:2], update.v[:2])})


def test_an_adapter_has_the_edits_own_terms_and_scale_one(tiny_base: Base, tmp_path: Path) -> None:
    edit = uneven(tiny_base)
    reports = exported(edit, tmp_path / "out", "lora")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    ranks = {site: 3 if site == next(iter(edit.updates)) else 5 for site in edit.updates}  # zero terms are left out
    assert {report.site: report.rank for report in reports} == ranks
    assert [report.error for report in reports] == [0.0] * len(ranks)
    assert config["target_modules"] == sorted(ranks) and (config["r"], config["lora_alpha"]) == (5, 5)
    assert config["rank_pattern"] == config["alpha_pattern"] == {site: r for site, r in ranks.items() if r != 5}
    assert config["fan_in_fan_out"] == (tiny_base.adaptor.family == "gpt2")
    assert config["base_model_name_or_path"] == "some/model" and config["task_type"] == "CAUSAL_LM"
    assert len(tensors) == 2 * len(ranks)
    for site in ranks:
        module = tiny_base.model.get_submodule(site)
        found = product(tensors, site)
        torch.testing.assert_close(found if isinstance(module, nn.Linear) else found.T, dense_of(edit, site))


@pytest.mark.parametrize("form", ["lora", "delta"])
def test_a_smaller_rank_is_the_nearest_and_its_error_is_told(tiny_base: Base, tmp_path: Path, form: str) -> None:
    edit = random_edit(tiny_base, requests=4)
    reports = exported(edit, tmp_path / "out", form, rank=3)
    file = {"lora": "adapter_model.safetensors", "delta": "delta.safetensors"}[form]
    tensors = load_file(tmp_path / "out" / file)
    for report in reports:
        wanted = dense_of(edit, report.site).double()
        if form == "lora":
            found = product(tensors, report.site)
            found = found if isinstance(tiny_base.model.get_submodule(report.site), nn.Linear) else found.T
        else:
            found = tensors[f"{report.site}.weight.left"] @ tensors[f"{report.site}.weight.right"]
        assert report.rank == 3
        best = torch.linalg.svdvals(wanted)[3:].square().sum().sqrt() / wanted.norm()
        error = (found.double() - wanted).norm() / wanted.norm()
        assert float(error) == pytest.approx(float(best), rel=1e-4) == pytest.approx(report.relative, rel=1e-4)
        assert report.norm == pytest.approx(float(wanted.norm()), rel=1e-5)
    squares = sum(report.error**2 for report in reports) / sum(report.norm**2 for report in reports)
    assert total_error(reports) == pytest.approx(squares**0.5) and total_error(reports) > 0.1


def test_a_whole_change_becomes_an_adapter_of_a_rank_that_must_be_told(tiny_base: Base, tmp_path: Path) -> None:
    edit = dense_edit(tiny_base)
    with pytest.raises(InputError, match="as a whole matrix.*Give --rank, from 1 to 32"):
        exported(edit, tmp_path / "out", "lora")
    (name, change), *_ = edit.changes.items()
    (report,) = exported(edit, tmp_path / "out", "lora", rank=4)
    values = torch.linalg.svdvals(change.sum(0).double())
    assert (
        report.relative == pytest.approx(float(values[4:].norm() / values.norm()), rel=1e-4) and report.relative > 0.5
    )
    (whole,) = exported(edit, tmp_path / "all", "lora", rank=32)
    assert whole.relative < 1e-6
    found = product(load_file(tmp_path / "all" / "adapter_model.safetensors"), name)
    torch.testing.assert_close(found.T, change.sum(0))


@pytest.mark.parametrize("form", ["lora", "delta"])
@pytest.mark.parametrize(("rank", "told"), [(0, "--rank is 0"), (-3, "--rank is -3"), (9, "ranks of up to 6")])
def test_a_rank_that_makes_no_sense_is_refused(
    tiny_base: Base, tmp_path: Path, form: str, rank: int, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        exported(random_edit(tiny_base, requests=4), tmp_path / "out", form, rank=rank)
    assert list(tmp_path.iterdir()) == []


def test_deltas_are_in_the_weights_own_orientation(tiny_base: Base, tmp_path: Path) -> None:
    edit = random_edit(tiny_base)
    factors, whole = exported(edit, tmp_path / "a", "delta"), exported(edit, tmp_path / "b", "delta", dense=True)
    left, right = load_file(tmp_path / "a" / "delta.safetensors"), load_file(tmp_path / "b" / "delta.safetensors")
    assert set(right) == {f"{site}.weight" for site in edit.updates} and len(left) == 2 * len(right)
    for site in edit.updates:
        torch.testing.assert_close(left[f"{site}.weight.left"] @ left[f"{site}.weight.right"], dense_of(edit, site))
        torch.testing.assert_close(right[f"{site}.weight"], dense_of(edit, site))
        assert right[f"{site}.weight"].shape == tiny_base.model.get_submodule(site).weight.shape
    assert [report.rank for report in whole] == [None] * len(whole)
    assert max(report.relative for report in (*factors, *whole)) < 1e-6
    with safe_open(tmp_path / "a" / "delta.safetensors", "pt") as file:
        told = file.metadata()
    assert told["format"] == "instructedit-delta-1" and told["fingerprint"] == tiny_base.fingerprint
    assert json.loads(told["about"])["requests"][3]["target"] == "Town 3"


@pytest.mark.parametrize(("dtype", "least", "most"), [("bfloat16", 1e-4, 1e-2), ("float16", 1e-5, 1e-3)])
@pytest.mark.parametrize("form", ["lora", "delta"])
def test_a_narrow_dtype_is_written_and_its_rounding_told(
    tiny_llama_base: Base, tmp_path: Path, form: str, dtype: str, least: float, most: float
) -> None:
    reports = exported(random_edit(tiny_llama_base), tmp_path / "out", form, dtype=dtype)
    (file,) = (tmp_path / "out").glob("*.safetensors")
    assert {str(tensor.dtype) for tensor in load_file(file).values()} == {f"torch.{dtype}"}
    assert least < total_error(reports) < most


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_is_whole_and_its_base_is_not_written(
    make_tiny_base: Callable[..., Base], tmp_path: Path, tied: bool
) -> None:
    base = in_folder(make_tiny_base("llama", tie_word_embeddings=tied), tmp_path / "base")
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    config = base.model.config.to_dict()
    reports = exported(random_edit(base), tmp_path / "out", "model")
    assert all(torch.equal(before[name], tensor) for name, tensor in base.model.state_dict().items())
    assert base.model.config.to_dict() == config
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert ("lm_head.weight" in file.keys()) == (not tied)  # noqa: SIM118
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert (again.lm_head.weight is again.model.embed_tokens.weight) == tied
    changed = {name for name, tensor in again.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"{report.site}.weight" for report in reports}
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("abc") == base.tokenizer("abc")
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "out").glob("*.json"))


def test_what_rounding_a_bfloat16_model_loses_is_told(make_tiny_base: Callable[..., Base], tmp_path: Path) -> None:
    base = in_folder(make_tiny_base("llama"), tmp_path / "base", torch.bfloat16)
    edit = random_edit(base, size=1e-3)
    reports = exported(edit, tmp_path / "out", "model", dtype="bfloat16")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert again.dtype == torch.bfloat16
    for report in reports:
        name = f"{report.site}.weight"
        kept = again.state_dict()[name].double() - base.model.state_dict()[name].double()
        error = float((kept - dense_of(edit, report.site).double()).norm())
        assert report.error == pytest.approx(error, rel=1e-4) and report.relative > 0.05


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"form": "zip"}, "Unknown form 'zip'.*delta, lora, model"),
        ({"form": "lora", "dtype": "int8"}, "Unknown dtype 'int8'"),
        ({"form": "model", "rank": 3}, "--rank is for --as lora"),
        ({"form": "lora", "dense": True}, "--dense is for --as delta"),
        ({"form": "delta", "dense": True, "rank": 2}, "without --rank"),
        ({"form": "model", "max_shard_size": "huge"}, "cannot be saved"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    tiny_llama_base: Base, tmp_path: Path, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        exported(random_edit(tiny_llama_base), tmp_path / "out", **settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "told"), [("grace", "GRACE's codebook"), ("calinet", "CaliNet's slots")])
def test_what_is_no_change_of_a_weight_is_refused(tiny_base: Base, tmp_path: Path, name: str, told: str) -> None:
    edit = EVERY[name](tiny_base).edit(tiny_base, REQUESTS[:1])
    with pytest.raises(InputError, match=f"{told}.*not a change of a weight") as caught:
        changes_of(edit, tiny_base)
    assert "\n" not in str(caught.value)


def test_an_edit_of_no_known_kind_is_refused(tiny_base: Base) -> None:
    class Own:
        def applied(self, rows: Any = None) -> Any: ...

    own: Edit = Own()
    with pytest.raises(InputError, match="'Own' cannot be exported"):
        changes_of(own, tiny_base)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda update: replace(update, u=update.u[..., :-1]), "is for a matrix"),
        (lambda update: replace(update, v=update.v * torch.nan), "not finite"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused(
    tiny_base: Base, damage: Callable[[LowRankUpdate], LowRankUpdate], told: str
) -> None:
    edit = random_edit(tiny_base)
    name, update = next(iter(edit.updates.items()))
    with pytest.raises(InputError, match=told):
        changes_of(HyperEdit(tiny_base, {name: damage(update)}), tiny_base)
    with pytest.raises(InputError, match="'nowhere', which is no matrix"):
        changes_of(HyperEdit(tiny_base, {"nowhere": update}), tiny_base)
    with pytest.raises(InputError, match="nothing to export"):
        changes_of(HyperEdit(tiny_base, {}), tiny_base)


def test_an_edit_of_nothing_but_zeros_is_exported(tiny_base: Base, tmp_path: Path) -> None:
    edit = random_edit(tiny_base, size=0.0)
    reports = exported(edit, tmp_path / "out", "lora")
    assert {report.rank for report in reports} == {1} and total_error(reports) == 0
    assert {report.rank for report in exported(edit, tmp_path / "one", "delta", rank=1)} == {1}


def test_norms_and_distances_are_those_of_the_products() -> None:
    generator = torch.Generator().manual_seed(0)
    u, v, w, z = (torch.randn(k, d, generator=generator) for k, d in ((4, 9), (4, 5), (3, 9), (3, 5)))
    one, two = Factors(u, v), Factors(w, z)
    assert one.norm() == pytest.approx(float((u.T @ v).norm()), rel=1e-5)
    change = SiteChange("a", True, one)
    assert change.distance(two) == pytest.approx(float((u.T @ v - w.T @ z).norm()), rel=1e-5)
    # A difference far below the terms themselves is not lost: their squares' difference would be.
    near = Factors(u * (1 + 1e-7), v)
    assert change.distance(near) == pytest.approx(float(((near.u - u).double().T @ v.double()).norm()), rel=1e-3)


@pytest.mark.parametrize("taken", ["file", "folder", "link"])
def test_a_place_that_is_taken_is_refused_and_left(tiny_llama_base: Base, tmp_path: Path, taken: str) -> None:
    out = tmp_path / "out"
    if taken == "file":
        out.write_text("mine")
    elif taken == "folder":
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    else:
        out.symlink_to("nowhere")
    with pytest.raises(InputError, match="Give another --out"):
        exported(random_edit(tiny_llama_base), out, "lora")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert taken != "folder" or (out / "notes.txt").read_text() == "mine"


def test_an_empty_folder_is_taken(tiny_llama_base: Base, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    exported(random_edit(tiny_llama_base), tmp_path / "out", "lora")
    assert (tmp_path / "out" / "README.md").is_file()
    assert oct((tmp_path / "out").stat().st_mode)[-3:] == "755"
    assert {oct(path.stat().st_mode)[-3:] for path in (tmp_path / "out").iterdir()} == {"644"}


def test_a_place_that_cannot_be_written_is_one_line(tiny_llama_base: Base, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"Cannot (look at|write to)"):
        exported(random_edit(tiny_llama_base), tmp_path / "file" / "out", "lora")
    if os.geteuid() != 0:  # root writes everywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(InputError, match="Cannot write to"):
            exported(random_edit(tiny_llama_base), tmp_path / "closed" / "out", "lora")


def test_a_write_that_fails_half_way_leaves_nothing(
    tiny_llama_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("instructedit.export.lora.save_file", full)
    with pytest.raises(InputError, match="Cannot write to .*No space left"):
        exported(random_edit(tiny_llama_base), tmp_path / "out", "lora")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_peft_is_named_with_what_installs_it(
    tiny_llama_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(InputError, match=r"instructedit\[lora\]"):
        exported(random_edit(tiny_llama_base), tmp_path / "out", "lora")
