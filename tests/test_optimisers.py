"""The fused Adam against torch's plain loop."""

import torch

from instructedit.optimisers import make_adam


def trained(fused: bool) -> tuple[torch.Tensor, dict[str, object]]:
    torch.manual_seed(0)
    first, second = (torch.nn.Parameter(torch.randn(17, 5)) for _ in range(2))
    optimizer = make_adam([{"params": [first], "lr": 1e-2}, {"params": [second], "lr": 1e-3}], fused=fused)
    for step in range(20):
        optimizer.zero_grad()
        ((first * step).sin() * second).sum().backward()
        if step == 3:
            first.grad = None  # a step that skips a parameter
        optimizer.step()
    return torch.cat([first, second]).detach(), optimizer.state_dict()


def test_fused_equals_the_plain_loop_but_for_rounding() -> None:
    (fast, fast_state), (slow, slow_state) = trained(True), trained(False)
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-6)
    # A checkpoint of either goes on under the other.
    for number, values in slow_state["state"].items():  # type: ignore[attr-defined]
        found = fast_state["state"][number]  # type: ignore[index]
        assert found.keys() == values.keys()
        assert all(found[key].dtype == values[key].dtype and found[key].shape == values[key].shape for key in values)


def test_the_rate_of_each_group_is_kept() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": rate} for rate in (1e-2, 1e-3)]
    assert [group["lr"] for group in make_adam(groups, 5.0).param_groups] == [1e-2, 1e-3]
