"""Files and flags merged without the parser, against the parser itself."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser

from instructedit.cli import COMMANDS, underscored
from instructedit.errors import InputError
from instructedit.scheduling.schema import Schema, read_schema
from instructedit.scheduling.settings import get, merge
from instructedit.scheduling.yaml_text import as_yaml, inline_or_file, parsed
from tests.scheduling.make_schema import parser_of

CONFIGS = Path(__file__).parents[2] / "configs"


def schema(command: str = "fit") -> Schema:
    found = read_schema(command)
    assert found is not None
    return found


def merged(*argv: str, command: str = "fit") -> dict[str, Any]:
    return merge(schema(command), argv).config


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(
        "run: {name: a}\nmodel: {base: x, ke: {hidden: 7}, sites: {last_blocks: 2}}\n"
        "data: {tasks: [recent, zsre], balance: {recent: 1, zsre: 2}, caps: {zsre: 3}}\n"
        "trainer: {accelerator: cpu, devices: 2, deterministic: warn}\nckpt_path: last\n"
    )
    (tmp_path / "b.yaml").write_text(
        "model: {lr: 1e-3, ke: {head: 9}, sites: {matrices: [mlp.up_proj]}}\n"
        "data: {balance: {recent: 5}, 'tasks+': [convsent]}\nckpt_path: null\nrun.folder: '1e-3'\n"
        "validation: {patience: '3'}\nseed_everything: 4\n"
    )
    (tmp_path / "part.yaml").write_text("{batch: 6, held_out: [zsre]}")
    (tmp_path / "profiler.yaml").write_text(
        "trainer: {profiler: {class_path: SimpleProfiler, init_args: {dirpath: p}}}\n"
    )
    return tmp_path


A, B = ("--config", "a.yaml"), ("--config", "b.yaml")
CASES: list[tuple[str, ...]] = [
    (*A, *B),
    (*B, *A),
    (*A, "--model.lr", "2e-4", *B),
    (*A, *B, "--model.lr=.5", "--data.batch", "12", "--run.wandb_results", "yes"),
    (*A, "--data.balance", "equal"),
    (*A, "--data.balance", "{zsre: 1.5}", "--data.balance.demo-recent", "3"),
    (*A, "--data.balance.demo-recent=3", "--data.caps.a-b", "4"),
    (*A, "--data.tasks+", "b", "--data.tasks+=[c, d]", "--data.held-out+", "e"),
    (*A, "--run.wandb_tags+", "x", "--config", "{run: {wandb_tags+: [y]}}", "--run.wandb_tags+", "z"),
    (*A, "--run.wandb_tags+", "x", "--config", "{run: {wandb_tags: [y]}}"),
    (*A, "--data.tasks", "[x]", "--model.sites.matrices", "[a, b]"),
    (*A, "--data", "part.yaml", "--data", "{batch: 9}"),
    (*A, "-c", "{data: {batch: 3}}"),
    (*A, "--run.name", "012", "--run.folder=-x", "--model.base", "1e3"),
    (*A, "--run.name", "-x y; rm $(id) 'q' \"r\"", "--run.wandb-entity", "12"),
    (*A, "--run.name", "true", "--run.wandb_group", "null", "--run.wandb_tags", "['1', '1e-3', 'null']"),
    (*A, "--run.name", "naïve 日本", "--run.folder", "a: b"),
    (*A, "--ckpt_path", "null", "--validation.patience", "null", "--seed_everything", "7"),
    (*A, "--trainer.devices", "[0, 1]", "--trainer.max_steps", "-1"),
    (*A, "--trainer.devices", "0,1", "--trainer.strategy", "zero_2", "--trainer.accelerator", "gpu"),
    (*A, "--model.ke", "null"),
    (*A, "--model.ke.head", "3", "--model.ke.max_scale", "2"),
    (*A, "--config", "profiler.yaml", "--trainer.profiler.init_args.filename", "f"),
    (*A, "--trainer.callbacks+", "lightning.pytorch.callbacks.ModelSummary", "--trainer.callbacks.max_depth", "3"),
    ("--from_run", "old", "--model.lr", "0.25"),
    (*B, "--from-run=old"),
]


@cache
def parser(command: str) -> ArgumentParser:
    return parser_of(command, COMMANDS[command])


def read(argv: Sequence[str], command: str = "fit") -> dict[str, Any]:
    """What the real parser makes of arguments."""
    if command == "fit":
        from lightning_modules.parser import named_run, spelled

        argv = named_run(spelled(argv))
    else:
        argv = underscored(argv)
    found = parser(command).parse_args(list(argv))
    content: dict[str, Any] = yaml.safe_load(
        parser(command).dump(found, skip_unset=False, skip_link_targets=False)
        if command == "fit"
        else parser(command).dump(found, skip_unset=False)
    )
    content.pop("config", None)
    return content


@pytest.mark.slow
@pytest.mark.parametrize("argv", CASES, ids=range(len(CASES)))
def test_the_parser_reads_the_merged_settings_as_it_reads_the_arguments(argv: tuple[str, ...], files: Path) -> None:
    old = files / "old"
    old.mkdir()
    before = read([*A, "--run.folder", str(files), "--run.name", "old"])
    (old / "config.yaml").write_text(yaml.safe_dump(before, sort_keys=False))
    settings = merge(schema(), argv)
    (files / "merged.yaml").write_text(as_yaml(settings.config))
    assert read(["--config", "merged.yaml", *settings.flags]) == read(argv)


ROWS = ("--config", "{base: x, methods: [{method: none, batch: 3}, {method: mend, editor: z}]}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "argv",
    [
        (*ROWS, "--config", "{methods: [{method: ft-l}]}"),
        (*ROWS, "--methods", "[{method: ft-l}, {method: none}]"),
        (*ROWS, "--methods+", "{method: ft-l}"),
        ("--methods", "[{method: ft-l}]", "--tasks", "a,b", "--fluency.others", "2", "--sizes+", "5"),
        (*ROWS, "--only-table", "--allow-dirty", "false", "--tasks", "[a, b]", "--paper", "gpt2-xl", "--out", "null"),
    ],
)
def test_the_same_of_an_evaluation(argv: tuple[str, ...], files: Path) -> None:
    settings = merge(schema("evaluate"), argv)
    (files / "merged.yaml").write_text(as_yaml(settings.config))
    alone = [f"{flag}=true" if flag == "--only-table" else flag for flag in argv]
    assert read(["--config", "merged.yaml", *settings.flags], "evaluate") == read(alone, "evaluate")


def test_what_only_the_parser_can_put_together_counts_as_unknown() -> None:
    settings = merge(schema("evaluate"), [*ROWS, "--methods", "[{method: ft-l}]"])
    assert settings.known == {"base": "x"} and "methods" in settings.config
    assert settings.flags == ("--methods=[{method: ft-l}]",)


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(CONFIGS.glob("e*/*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_configurations(path: Path, tmp_path: Path) -> None:
    command = "fit" if path.parent.name == "experiment" else "evaluate"
    trainer = ["--config", str(CONFIGS / "trainer" / "zero-2.yaml")] if command == "fit" else ["--records", "3"]
    argv = ["--config", str(path), *trainer]
    settings = merge(schema(command), argv)
    (tmp_path / "merged.yaml").write_text(as_yaml(settings.config))
    assert not settings.flags
    assert read(["--config", str(tmp_path / "merged.yaml")], command) == read(argv, command)


def test_later_ones_win_and_mappings_are_replaced(files: Path) -> None:
    found = merged(*A, *B, "--data.batch", "3")
    assert found["data"] == {
        "tasks": ["recent", "zsre", "convsent"],
        "balance": {"recent": 5},
        "caps": {"zsre": 3},
        "batch": 3,
    }
    assert found["model"]["sites"] == {"last_blocks": 2, "matrices": ["mlp.up_proj"]}
    assert found["model"]["lr"] == 1e-3 and found["run"]["folder"] == "1e-3" and found["ckpt_path"] is None


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("--modle.lr", "1"), "Unknown setting 'modle.lr' in the flags. Did you mean 'model.lr'?"),
        (("--config", "no.yaml"), "No configuration at 'no.yaml'"),
        (("--config", "{model: {lrr: 1}}"), "Unknown setting 'model.lrr'"),
        (("--config", "{model: null}"), "model is None"),
        (("--config", "{config: a.yaml}"), "Unknown setting 'config'"),
        (("--data.batch", "many"), "data.batch is 'many' in the flags. Give a whole number"),
        (("--run.wandb", "on"), "one of disabled, offline, online"),
        (("--data.batch",), "--data.batch needs a value"),
        (("--data.batch", "--run.name"), "--data.batch needs a value"),
        (("data.batch", "3"), "'data.batch' stands alone"),
        (("--data.batch+", "3"), "Unknown setting"),
        (("--model.lr.x", "3"), "Unknown setting 'model.lr.x'"),
        (("--from_run", "nowhere"), "No run at 'nowhere'"),
        (("--config", "broken.yaml"), "cannot be read"),
        (("--config", "empty.yaml"), "holds no settings"),
        (("--trainer.callbacks+", "A", "--config", "{trainer: {callbacks: null}}"), "Put flags behind the files"),
        (("--config", "profiler.yaml", "--config", "profiler.yaml"), "trainer.profiler is set twice"),
        (("--help",), "is of `instructedit fit` itself"),
    ],
)
def test_refusals(files: Path, argv: tuple[str, ...], told: str) -> None:
    (files / "broken.yaml").write_text("a: [")
    (files / "empty.yaml").write_text("")
    with pytest.raises(InputError) as error:
        merged(*argv)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_a_switch_may_stand_alone_where_the_program_takes_it_so() -> None:
    assert merged("--only-table", "--records", "3", command="evaluate") == {"only_table": True, "records": 3}
    assert merged("--only-table", "false", command="evaluate") == {"only_table": False}


def test_texts_stay_texts() -> None:
    texts = [
        "1e-3",
        "1e3",
        "012",
        "null",
        "true",
        "1:30",
        "a: b",
        "- x",
        "",
        " a ",
        "#x",
        "é\u2028",
        "a\nb",
        "2020-01-01",
        "0x1f",
        "=",
        "1_000",
        ".5",
    ]
    assert parsed(as_yaml({"run": {"wandb_tags": texts}})) == {"run": {"wandb_tags": texts}}
    assert get({"a": {"b": None}}, "a.b", 3) is None and get({"a": 1}, "a.b", 3) == 3


@example("?")  # the parser's loader raises a TypeError for a key that is no text
@example("1:")
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_any_text_comes_back_from_yaml(text: str) -> None:
    assert parsed(as_yaml({"run": {"name": text, "tags": [text]}})) == {"run": {"name": text, "tags": [text]}}


def test_a_file_of_a_key_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("1:")
    with pytest.raises(InputError, match="cannot be read"):
        inline_or_file(str(path))
