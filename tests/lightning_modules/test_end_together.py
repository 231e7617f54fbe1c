"""Ranks take their collectives down themselves; tests/processes looks at those that fail."""

import socket
from collections.abc import Callable

import pytest
import torch.distributed as dist

from instructedit.errors import InputError
from lightning_modules import processes


@pytest.mark.parametrize("end", [lambda: None, lambda: exec("raise SystemExit(3)")])
def test_a_rank_whose_work_is_done_leaves_no_collectives_behind(
    end: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    dist.new_group()  # as DeepSpeed's own
    monkeypatch.setattr(processes, "_several", lambda: True)
    try:
        with processes.end_together():
            end()
    except SystemExit as status:
        assert status.code == 3
    left = dist.is_initialized()
    if left:
        dist.destroy_process_group()
    assert not left


def test_a_process_alone_keeps_what_it_has() -> None:
    with pytest.raises(InputError), processes.end_together():
        raise InputError("wrong")
    assert not dist.is_initialized()
