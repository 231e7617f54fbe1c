"""The budget of the paper's experiments; that the headers have its numbers, tests/configs holds."""

from typing import Any

import pytest

from tests.benchmarks.scripts import load

budget, model = load("budget"), load("budget_model")


@pytest.fixture(scope="module", params=model.BASES)
def setting(request: pytest.FixtureRequest) -> Any:
    return model.Setting(request.param)


def test_a_time_is_each_part_by_its_own_peak() -> None:
    assert model.Time(base=312e12).seconds == pytest.approx(1 / 0.4)
    assert model.Time(editor=19.5e12).seconds == pytest.approx(1 / 0.4)
    assert model.Time(bytes=2.039e12).seconds == pytest.approx(1 / 0.4)
    assert model.Time(launches=1e5).seconds == pytest.approx(1)
    together = (model.Time(1, 2, 3, 4) + model.Time(10, 20, 30, 40)) * 2
    assert together == model.Time(22, 44, 66, 88)


def test_the_sizes_are_the_published_ones(setting: Any) -> None:
    billions, millions = {"gpt2-xl": (1.56, 123), "llama-2-7b": (6.74, 232)}[setting.name]
    assert setting.size.whole / 1e9 == pytest.approx(billions, rel=0.01)
    for method in ("mend", "instructedit"):
        assert setting.editor_size(method).parameters / 1e6 == pytest.approx(millions, abs=1)
        memory = setting.memory(method)
        assert memory.base == 2 * setting.size.whole
        assert memory.editor == 16 * setting.editor_size(method).parameters


def test_a_record_that_is_only_asked_costs_a_pass_of_the_base(setting: Any) -> None:
    """Two operations a number and token, but for the last MLP and the head, which see target tokens alone."""
    found = setting.asked("none", "zsre", instructed=True, trained=False)
    tokens = 39 + 2 * 43 + 18
    assert found.editor == 0
    assert found.base == pytest.approx(2 * (setting.size.trunk + setting.size.tail) * tokens, rel=0.06)
    bare = setting.asked("none", "zsre", instructed=False, trained=False)
    assert (found.base - bare.base) / found.base == pytest.approx(3 * model.INSTRUCTION / tokens, rel=0.06)
    assert setting.asked("mend", "zsre", instructed=True).base > found.base


def test_a_steps_products_grow_with_its_texts_and_the_trunk_is_most_of_them(setting: Any) -> None:
    bare, instructed, ke = (setting.step(method) for method in ("mend", "instructedit", "ke"))
    assert bare.base < instructed.base < 2 * bare.base and bare.editor < instructed.editor
    assert ke.base == bare.base and ke.editor < bare.editor and ke.bytes < bare.bytes == instructed.bytes
    # At least one pass of the trunk for all texts of two requests, without an instruction and without padding.
    tasks = setting.experiments["mend"]["data"]["tasks"]
    tokens = 0.0
    for task in tasks:
        texts = model.TRAINING[task]
        for n, t, _ in (texts.inner, texts.others, texts.avoid):
            tokens += n * (t - model.INSTRUCTION) * 2 / len(tasks)
        tokens += texts.locality[0] * texts.locality[1] * 2 / len(tasks)
    least = 2 * setting.size.trunk * tokens
    assert least < bare.base < 2.5 * least


def test_all_steps_validations_and_tests_are_in_it(setting: Any) -> None:
    config = setting.experiments["mend"]
    parts = setting.training("mend")
    assert parts["steps"] == setting.step("mend") * config["trainer"]["max_steps"]
    once = sum(
        (setting.asked("mend", task, instructed=False) * model.VALIDATION[task] for task in config["data"]["tasks"]),
        model.Time(),
    )
    assert parts["validations"].base == pytest.approx(once.base * config["trainer"]["max_steps"] / 1000)
    more = setting.training("instructedit")["test"].base / parts["test"].base
    assert more > 1.5, "seen and unseen"


def test_a_longer_training_is_seen_in_the_header(setting: Any) -> None:
    before = budget.training_header(setting, "mend")
    setting.experiments["mend"]["trainer"]["max_steps"] *= 2
    try:
        after = budget.training_header(setting, "mend")
    finally:
        setting.experiments["mend"]["trainer"]["max_steps"] //= 2
    assert before != after and budget.training_header(setting, "mend") == before
    assert all(len(line) < 120 for line in before + after + budget.table_header(setting))


@pytest.mark.slow
def test_the_launches_are_those_that_are_counted(setting: Any) -> None:
    """Other versions of torch and transformers may have a few more or less."""
    narrow = load("launches").Narrow(budget.CONFIGS[model.BASES[setting.name]])
    steps = [narrow.step(setting.batch_of(method)) for method in ("mend", "instructedit")]
    assert model.LAUNCHES[setting.name] == pytest.approx((narrow.block, *steps), rel=0.1)
