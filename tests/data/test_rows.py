import torch

from instructedit.data.rows import Rows, mean_by, mean_of_means, pad_states
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


UNEVEN = Rows(((1, 2, 3, 4, 5, 6), (1, 2), (1, 2, 3, 4)), (1, 1, 3), (0, 0, 2))


def test_windows_hold_what_predicts_the_targets_at_different_positions() -> None:
    windows, targets = UNEVEN.windows(), UNEVEN.targets()
    assert windows.shape == (3, 3) and UNEVEN.most_targets == 3
    for row, position in zip(targets.row.tolist(), targets.position.tolist(), strict=True):
        assert position in windows[row].tolist()
    assert all(len(set(row)) == 3 and max(row) < 5 for row in windows.tolist())


def test_tokens_with_a_gradient_are_told_from_lengths() -> None:
    mixed = UNEVEN.gradient_tokens(3, mixed=True)
    assert mixed.row.tolist() == [0] * 5 + [1] + [2] * 3
    assert mixed.position.tolist() == [0, 1, 2, 3, 4, 0, 0, 1, 2]
    assert mixed.request.tolist() == [0] * 6 + [2] * 3
    assert mixed.slot.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2] and (mixed.most, len(mixed)) == (6, 9)
    last, windows, targets = UNEVEN.gradient_tokens(3, mixed=False), UNEVEN.windows(), UNEVEN.targets()
    assert torch.equal(windows[last.row, last.position], targets.position) and torch.equal(last.row, targets.row)
    laid = last.by_request(torch.arange(1.0, 6).unsqueeze(1)).squeeze(-1)
    assert laid.tolist() == [[1, 2, 0], [0, 0, 0], [3, 4, 5]]


def test_a_mean_of_means_counts_rows_that_have_values_alone() -> None:
    values, row = torch.tensor([1.0, 3.0, 8.0]), torch.tensor([0, 0, 3])
    found = mean_of_means(values, row, torch.tensor([0, 0, 1, 0]), 3)
    assert found.tolist() == [5.0, 0.0, 0.0]
