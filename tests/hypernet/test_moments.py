import torch
from hypothesis import given
from hypothesis import strategies as st

from instructedit.hypernet.moments import RunningMoments


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.floats(0, 1000))
def test_merging_parts_equals_the_whole(sizes: list[int], centre: float) -> None:
    data = torch.randn(sum(sizes), 3, generator=torch.Generator().manual_seed(sum(sizes))) + centre
    moments = RunningMoments(3)
    for part in data.split(sizes):
        moments.merge(moments.sums(part))
    assert int(moments.count) == len(data)
    torch.testing.assert_close(moments.mean, data.mean(0), rtol=1e-5, atol=1e-5)
    if len(data) > 1:
        torch.testing.assert_close(moments.m2 / (len(data) - 1), data.var(0), rtol=2e-3, atol=2e-4)


def test_sums_of_micro_batches_and_ranks_merge_as_one() -> None:
    one, parts = RunningMoments(4), RunningMoments(4)
    for moments in (one, parts):
        moments.merge(moments.sums(torch.randn(10, 4, generator=torch.Generator().manual_seed(0))))
    data = torch.randn(9, 4) * 3 + 1
    one.merge(one.sums(data))
    parts.merge(parts.sums(data[:2]) + parts.sums(data[2:]))
    torch.testing.assert_close(one.mean, parts.mean)
    torch.testing.assert_close(one.m2, parts.m2)


def test_save_load_and_one_step_equal_the_run_without_the_stop() -> None:
    through, stopped = RunningMoments(3), RunningMoments(3)
    first, second = torch.randn(50, 3) + 7, torch.randn(3, 3)
    for moments in (through, stopped):
        moments.merge(moments.sums(first))
    resumed = RunningMoments(3)
    resumed.load_state_dict(stopped.state_dict())
    for moments in (through, resumed):
        moments.merge(moments.sums(second))
    assert resumed.started
    assert int(resumed.count) == 53
    for name, value in through.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_an_element_that_never_varied_is_floored() -> None:
    moments = RunningMoments(2)
    moments.merge(moments.sums(torch.tensor([[1.0, 5.0], [3.0, 5.0], [2.0, 5.0]])))
    assert torch.isfinite(moments.standardise(torch.tensor([[1.0, 6.0]]))).all()


def test_no_tokens_change_nothing() -> None:
    moments = RunningMoments(2)
    moments.merge(moments.sums(torch.zeros(0, 2)))
    assert not moments.started and int(moments.count) == 0
