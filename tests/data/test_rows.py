import torch

from instructedit.data.rows import Rows, mean_by, pad_states
from instructedit.data.tokenise import TokenisedText


def test_targets_point_at_the_positions_that_predict_them() -> None:
    rows = Rows.of([(1, TokenisedText((5, 6, 7), 1)), (0, TokenisedText((1, 2, 3, 4), 2))])
    assert rows.request == (0, 1)
    targets = rows.targets()
    assert targets.row.tolist() == [0, 0, 1]
    assert targets.position.tolist() == [1, 2, 1]
    assert targets.label.tolist() == [3, 4, 7]
    states = torch.arange(8.0).reshape(2, 4, 1)
    assert targets.select(states).flatten().tolist() == [1, 2, 5]


def test_padding_never_reaches_a_metric() -> None:
    short, long = Rows(((1, 2),), (1,), (0,)), Rows(((1, 2), (3, 4, 5, 6)), (1, 1), (0, 1))
    assert short.targets().position.tolist() == long.targets().position.tolist()[:1]
    assert long.n_tokens == 6


def test_rows_add_up_in_order() -> None:
    both = Rows(((1, 2),), (1,), (0,)) + Rows(((3, 4),), (1,), (5,))
    assert both.ids == ((1, 2), (3, 4)) and both.request_index().tolist() == [0, 5] and len(both) == 2


def test_means_count_members_and_leave_empty_groups_at_zero() -> None:
    found = mean_by(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 2]), 4)
    assert found.tolist() == [2.0, 0.0, 5.0, 0.0]


def test_states_are_padded_on_the_right() -> None:
    padded = pad_states([torch.ones(2, 3), torch.ones(4, 3)], "cpu", torch.bfloat16)
    assert padded.shape == (2, 4, 3) and padded.dtype == torch.bfloat16
    assert padded[0, 2:].abs().sum() == 0
