"""The command ``export`` as a person types it: files, printed lines that run, and single lines of error."""

import json
import re
import textwrap
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from instructedit.base import Base, load_base
from instructedit.export.card import MOST_REQUESTS
from instructedit.methods.saved import save_edit
from tests.export.made import REQUESTS, all_logits, dense_edit, in_folder, random_edit, saved, status
from tests.methods.every import EVERY


def front_matter(readme: Path) -> dict[str, Any]:
    told: dict[str, Any] = yaml.safe_load(readme.read_text().split("---")[1])
    return told


@pytest.mark.slow
@pytest.mark.parametrize("form", ["lora", "model", "delta"])
def test_what_is_printed_at_the_end_loads_what_was_written(
    made: tuple[Base, Path], form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base, edit = made
    assert status("export", "--edit", edit, "--as", form, "--out", "out") == 0
    printed = capsys.readouterr().out
    assert "instructedit push out --repo OWNER/NAME --dry-run" in printed
    code = textwrap.dedent(printed.split("Load it:")[1].split("Share it")[0])
    names: dict[str, Any] = {}
    exec(compile(code, "printed", "exec"), names)
    assert capsys.readouterr().out.startswith(REQUESTS[0].prompt)
    with random_edit(base, size=20.0).applied():
        wanted = all_logits(base.model, base.tokenizer, REQUESTS[:3])
    torch.testing.assert_close(all_logits(names["model"], names["tokenizer"], REQUESTS[:3]), wanted, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "flags", "least", "most"),
    [("lora", (), 0, 1e-4), ("model", (), 0, 1e-4), ("delta", (), 0, 1e-4), ("delta", ("--dense",), 0, 1e-4)]
    + [("lora", ("--rank", "2"), 0.5, 100), ("delta", ("--rank", "2"), 0.5, 100)],
)
def test_what_was_written_is_checked_where_that_is_asked_for(
    made: tuple[Base, Path],
    form: str,
    flags: tuple[str, ...],
    least: float,
    most: float,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base, edit = made
    assert status("export", "--edit", edit, "--as", form, "--out", "out", "--check", *flags) == 0
    said = re.findall(
        r"on 20 of .* further than (\S+) from .* (\d+)% before, (\d+)% under .*, (\d+)% as written",
        (capsys.readouterr().out),
    )
    assert len(said) == 1 and said[0][0] in Path("out/README.md").read_text()
    assert least <= float(said[0][0]) <= most
    likely = []
    for context in (nullcontext(), random_edit(base, size=20.0).applied()):
        with context:
            likely.append(likeliest(base))
    assert [int(share) for share in said[0][1:3]] == [round(100 * share) for share in likely]
    assert least or said[0][2] == said[0][3]


def likeliest(base: Base) -> float:
    """The share of the requests' target tokens that the base says by itself."""
    hits, tokens = 0, 0
    for request in REQUESTS:
        ids = base.tokenizer(f"{request.prompt} {request.target}")["input_ids"]
        n = len(request.target)
        with torch.no_grad():
            said = base.model(torch.tensor([ids])).logits[0, -n - 1 : -1].argmax(-1)
        hits, tokens = hits + int((said == torch.tensor(ids[-n:])).sum()), tokens + n
    return hits / tokens


def test_an_edit_without_a_word_of_its_requests_is_not_checked(
    tiny_llama_base: Base, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = in_folder(tiny_llama_base, tmp_path / "base")
    save_edit(tmp_path / "edit", random_edit(base), base)
    flags = ("--as", "delta", "--out", tmp_path / "out", "--check")
    assert status("export", "--edit", tmp_path / "edit", *flags) == 0
    assert "Not checked: the edit's file does not say" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["lora", "model", "delta"])
def test_the_cards_own_lines_load_it(
    made: tuple[Base, Path], form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base, edit = made
    assert status("export", "--edit", edit, "--as", form, "--out", "out", "--hub-base", "some/base") == 0
    (code,) = re.findall(r"```python\n(.*?)```", Path("out/README.md").read_text(), re.S)
    names: dict[str, Any] = {}
    monkeypatch.chdir("out")
    exec(compile(code.replace("some/base", "../base"), "card", "exec"), names)
    with random_edit(base, size=20.0).applied():
        wanted = all_logits(base.model, base.tokenizer, REQUESTS[:3])
    torch.testing.assert_close(all_logits(names["model"], names["tokenizer"], REQUESTS[:3]), wanted, rtol=0, atol=1e-4)


def test_the_pages_own_lines_add_a_delta(made: tuple[Base, Path]) -> None:
    base, edit = made
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import torch\n.*?)```", page, re.S)
    for flags in ((), ("--dense",)):
        out = "out" + "".join(flags)
        assert status("export", "--edit", edit, "--as", "delta", "--out", out, *flags) == 0
        names: dict[str, Any] = {}
        exec(compile(code.replace('"BASE"', '"base"').replace('"out/', f'"{out}/'), "page", "exec"), names)
        with random_edit(base, size=20.0).applied():
            wanted = all_logits(base.model, base.tokenizer, REQUESTS[:3])
        torch.testing.assert_close(all_logits(names["model"], base.tokenizer, REQUESTS[:3]), wanted, rtol=0, atol=1e-4)


def test_the_card_says_what_it_is(made: tuple[Base, Path], capsys: pytest.CaptureFixture[str]) -> None:
    base, edit = made
    Path("base/README.md").write_text("---\nlicense: mit\n---\nA base.\n")
    assert status("export", "--edit", edit, "--as", "lora", "--out", "out", "--rank", "3") == 0
    told, text = front_matter(Path("out/README.md")), Path("out/README.md").read_text()
    assert (told["library_name"], told["license"], told["pipeline_tag"]) == ("peft", "mit", "text-generation")
    assert "base_model" not in told  # a folder is no base on the Hub, which would refuse the card
    assert {"instructedit", "lora", "knowledge-editing"} <= set(told["tags"])
    assert str(Path.cwd()) not in text
    for wanted in (REQUESTS[0].prompt, REQUESTS[19].target, "MEND", "0f0f0f", base.fingerprint[:16]):
        assert wanted in text
    measured = text.split("## Measured")[1]
    shares = [float(share) for share in re.findall(r"\| 3 \| [\d.e+-]+ \| ([\d.e-]+) \|", measured)]
    assert len(shares) == len(random_edit(base).updates) and all(0.1 < share < 1 for share in shares)
    printed = capsys.readouterr().out
    assert "note: a smaller rank leaves an error of" in printed and f"{shares[0]:.2g}" in printed


def test_flags_about_the_base_go_into_the_card(made: tuple[Base, Path]) -> None:
    _, edit = made
    flags = ("--hub-base", "some/base", "--license", "openrail", "--dtype", "bfloat16")
    assert status("export", "--edit", edit, "--as", "model", "--out", "out", *flags) == 0
    told = front_matter(Path("out/README.md"))
    assert (told["base_model"], told["base_model_relation"], told["license"]) == ("some/base", "finetune", "openrail")
    assert {str(tensor.dtype) for tensor in load_file("out/model.safetensors").values()} == {"torch.bfloat16"}


def test_a_card_cannot_be_written_into_by_a_request(tiny_llama_base: Base, tmp_path: Path) -> None:
    base = in_folder(tiny_llama_base, tmp_path / "base")
    evil = "a | b\n---\n```\n<script>alert(1)</script> [x](http://x) \ud800 \x1b[31m"
    requests = [{"prompt": evil, "target": "t", "task": None, "instruction": 3}, {"prompt": 5}, "no"]
    save_edit(tmp_path / "edit", random_edit(base), base)
    with safe_open(tmp_path / "edit", "pt") as file:
        told = file.metadata() | {"about": json.dumps({"requests": requests, "editor": ["no"]})}
    save_file(load_file(tmp_path / "edit"), tmp_path / "edit", metadata=told)
    assert status("export", "--edit", tmp_path / "edit", "--as", "delta", "--out", tmp_path / "out") == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert text.count("\n---\n") == 1 and "\x1b" not in text and "1 request" in text
    before, code, after = re.split(r"^```.*$", text, flags=re.MULTILINE)
    assert "<" not in before + after
    compile(code, "card", "exec")


def test_many_requests_are_counted_and_an_edit_without_a_word_of_them_is_exported(
    tiny_llama_base: Base, tmp_path: Path
) -> None:
    base = in_folder(tiny_llama_base, tmp_path / "base")
    for name, about, wanted in (
        ("many", {"requests": [{"prompt": f"p{n}", "target": "t"} for n in range(MOST_REQUESTS + 7)]}, "And 7 more."),
        ("none", None, "does not say what was asked"),
    ):
        save_edit(tmp_path / name, random_edit(base), base, about)
        assert status("export", "--edit", tmp_path / name, "--as", "lora", "--out", tmp_path / f"{name} out") == 0
        assert wanted in (tmp_path / f"{name} out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--edit", "none.safetensors"), "Cannot read the edit none.safetensors"),
        (("--edit", "base/config.json"), "is not a safetensors file"),
        (("--edit", "base/model.safetensors"), "a safetensors file but no edit"),
        (("--edit", "base"), "Cannot read the edit base"),
        (("--as", "zip"), "Unknown form 'zip'"),
        (("--as", "lorra"), "Did you mean 'lora'"),
        (("--rank", "0"), "--rank is 0"),
        (("--rank", "99"), "ranks of up to 30"),
        (("--rank", "two"), "two"),
        (("--dtype", "int8"), "Unknown dtype 'int8'"),
        (("--base", "other"), "made for base"),
        (("--base", "./nowhere"), "does not exist"),
        (("--base", "no such/base"), "Unknown base"),
        (("--out", "base"), "is not empty"),
        (("--out", "edit.safetensors"), "is no folder"),
        (("--out", "edit.safetensors/x"), "Cannot"),
        (("--hub-base", "a/b/c"), "--hub-base 'a/b/c' is no name of a Hub repository"),
        (("--max-shard-size", "big", "--as", "model"), "cannot be saved"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    made: tuple[Base, Path],
    make_tiny_base: Callable[..., Base],
    flags: tuple[str, ...],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base, edit = made
    in_folder(make_tiny_base(base.adaptor.family.partition("-")[0], seed=1), Path("other"))
    before = sorted(Path().rglob("*"))
    given = {"--edit": str(edit), "--as": "lora", "--out": "out"} | dict(zip(flags[::2], flags[1::2], strict=True))
    assert status("export", *[part for pair in given.items() for part in pair]) == 2
    err = capsys.readouterr().err
    line = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(line) == 1 and err.splitlines()[-1] == line[0] and told in line[0]
    assert sorted(Path().rglob("*")) == before


def test_a_base_that_has_moved_is_asked_for(made: tuple[Base, Path], capsys: pytest.CaptureFixture[str]) -> None:
    _, edit = made
    Path("base").rename("elsewhere")
    assert status("export", "--edit", edit, "--as", "lora", "--out", "out") == 2
    assert "say where it is with --base" in capsys.readouterr().err
    assert status("export", "--edit", edit, "--as", "lora", "--out", "out", "--base", "elsewhere") == 0


def test_edits_that_are_no_change_of_weights_or_a_whole_one(
    tiny_gpt2_base: Base, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = in_folder(tiny_gpt2_base, tmp_path / "base")
    save_edit(tmp_path / "grace", EVERY["grace"](base).edit(base, REQUESTS[:1]), base)
    saved(tmp_path, dense_edit(base))
    assert status("export", "--edit", tmp_path / "grace", "--as", "model", "--out", tmp_path / "out") == 2
    assert "GRACE's codebook" in capsys.readouterr().err
    flags = ("--edit", tmp_path / "edit.safetensors", "--out", tmp_path / "out", "--as")
    assert status("export", *flags, "lora") == 2
    assert "Give --rank, from 1 to 32" in capsys.readouterr().err
    assert status("export", *flags, "lora", "--rank", "5") == 0
    assert "note: a smaller rank leaves an error" in capsys.readouterr().out


def test_help_names_the_flag_as_it_is_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("export", "--help") == 0
    told = capsys.readouterr().out
    assert "--as AS" in told and "--as_" not in told and "--max-shard" not in told.replace("max_shard", "")


def test_a_merged_model_is_a_base_again(made: tuple[Base, Path]) -> None:
    assert status("export", "--edit", made[1], "--as", "model", "--out", "out") == 0
    assert load_base("out").fingerprint != made[0].fingerprint
