"""Pools are complete, ours ship with the repository, and a broken one is refused in one line."""

from pathlib import Path

import pytest

from instructedit.errors import InputError
from instructedit.instructions.pools import InstructionPool, load_pools, pool_for

TEN = tuple(f"Description number {i}." for i in range(10))


def yaml_pool(task: str = "mine", count: int = 10) -> str:
    lines = "".join(f"  - Description number {i}.\n" for i in range(count))
    return f"task: {task}\nlabel: My task\ndescriptions:\n{lines}"


def test_shipped_pools_cover_the_four_families_from_any_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pools = load_pools()
    assert set(pools) == {"recent", "counterfact", "convsent", "zsre"}
    texts = [text for pool in pools.values() for text in pool.descriptions]
    assert len(set(texts)) == 40
    assert all(len(text.split()) <= 22 for text in texts)


def test_shipped_placeholders_are_convsents_alone() -> None:
    for task, pool in load_pools().items():
        for text in pool.descriptions:
            assert ("[LABEL]" in text and "[TOPIC]" in text) == (task == "convsent")
            assert ("[" in text) == (task == "convsent")


def test_last_description_is_unseen() -> None:
    pool = InstructionPool("mine", "Mine", TEN)
    assert pool.unseen == TEN[9]
    assert pool.seen == TEN[:9]


def test_a_file_of_several_documents_and_a_folder_of_files_read_alike(tmp_path: Path) -> None:
    folder = tmp_path / "pools"
    folder.mkdir()
    (folder / "one.yaml").write_text(yaml_pool("one"))
    (folder / "two.yaml").write_text(yaml_pool("two"))
    single = tmp_path / "both.yaml"
    single.write_text(yaml_pool("one") + "---\n" + yaml_pool("two"))
    assert load_pools(folder) == load_pools(str(single))
    assert set(load_pools(single)) == {"one", "two"}


def test_pool_for_falls_back_to_the_family_of_a_demo_task() -> None:
    pools = {"recent": InstructionPool("recent", "Recent", TEN)}
    assert pool_for(pools, "recent") is pool_for(pools, "demo-recent") is pools["recent"]
    own = InstructionPool("demo-recent", "Demo", TEN)
    assert pool_for({**pools, "demo-recent": own}, "demo-recent") is own
    with pytest.raises(InputError, match=r"Unknown instruction pool 'recnt'. Did you mean 'recent'\? Known: recent"):
        pool_for(pools, "recnt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (yaml_pool(count=9), "has 9 descriptions. Write 10"),
        (yaml_pool().replace("number 3.", "number 4."), "repeats a description"),
        (yaml_pool().replace("Description number 3.", "''"), "holds ''"),
        (yaml_pool() + "colour: red\n", "colour, descriptions, label, task"),
        ("- a\n- b\n", "a document with list"),
        (yaml_pool().replace("Description number 3.", "7"), "a list of texts"),
        ("task: [", "cannot be read as YAML"),
        ("# nothing but a comment\n", "holds no instruction pool"),
        (yaml_pool() + "---\n" + yaml_pool(), "a second time"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        load_pools(file)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No instruction pools at"):
        load_pools(tmp_path / "absent")
