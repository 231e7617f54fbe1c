"""Packs on disk: what breaks is told, removed and made again; nothing wrong is ever given out."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from instructedit.base import packs as packs_module
from instructedit.base.packs import Packs
from tests.base.pack_writer import ADDRESS, N_KEYS, key_of, state_of

GIB = 2**30


def packs_in(root: Path, limit: int = GIB, **changes: str | int) -> Packs:
    return Packs(root, ADDRESS | changes, "base", torch.float32, limit)


def written(root: Path, numbers: range = range(4)) -> Path:
    """Write one pack and return its file."""
    packs = packs_in(root)
    before = set(root.rglob("*.safetensors"))
    packs.put({key_of(n): state_of(n) for n in numbers})
    (file,) = set(root.rglob("*.safetensors")) - before
    return file


def read(packs: Packs, n: int) -> Tensor | None:
    return packs.get(key_of(n), len(state_of(n)))


def opened(root: Path) -> Packs:
    packs = packs_in(root)
    packs.refresh()
    return packs


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_what_is_put_is_given_back(tmp_path: Path) -> None:
    written(tmp_path)
    packs = opened(tmp_path)
    for n in range(4):
        state = read(packs, n)
        assert state is not None and torch.equal(state, state_of(n))
        assert state.untyped_storage().nbytes() == state.nbytes  # its own memory, not the file's
    assert key_of(4) not in packs and packs.get(key_of(4), 1) is None


def test_the_same_states_make_one_file(tmp_path: Path) -> None:
    first, second = packs_in(tmp_path), packs_in(tmp_path)
    first.refresh(), second.refresh()
    for packs in (first, second):
        packs._where.clear()  # as if both had looked at the same moment
        packs._write(*packs_module.laid_out({key_of(n): state_of(n) for n in range(4)}, packs._address))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_what_another_process_wrote_is_not_written_again(tmp_path: Path) -> None:
    first, second = packs_in(tmp_path), packs_in(tmp_path)
    first.refresh(), second.refresh()
    first.put({key_of(0): state_of(0)})
    second.put({key_of(0): state_of(0), key_of(1): state_of(1)})
    assert sorted(len(packs_module.Pack(path).checksums) - 1 for path in tmp_path.rglob("*.safetensors")) == [1, 1]


def test_every_bit_of_a_pack_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = written(tmp_path)
    whole = file.read_bytes()
    header = int.from_bytes(whole[:8], "little") + 8
    places = [*range(0, header, 23), *range(header, len(whole), 7), len(whole) - 1]
    for place in places:
        file.write_bytes(whole)
        flip(file, place)
        packs = opened(tmp_path)
        for n in range(4):
            state = read(packs, n)
            assert state is None or torch.equal(state, state_of(n)), place
        for path in tmp_path.rglob("*.safetensors"):
            path.unlink()


def test_a_flipped_bit_is_told_with_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = written(tmp_path)
    flip(file, file.stat().st_size - 3)
    packs = opened(tmp_path)
    given = [read(packs, n) for n in range(4)]
    assert any(state is None for state in given) and not file.exists()
    assert str(file) in caplog.text and "a checksum is wrong" in caplog.text and "computed again" in caplog.text
    packs.put({key_of(n): state_of(n) for n in range(4)})
    assert file.exists() and all(torch.equal(read(opened(tmp_path), n), state_of(n)) for n in range(4))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 4, b"garbage" * 100, None], ids=["empty", "short", "garbage", "cut"]
)
def test_a_file_that_is_no_pack_is_removed(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    file = written(tmp_path)
    file.write_bytes(file.read_bytes()[:-1] if content is None else content)
    other = written(tmp_path, range(4, 8))
    packs = opened(tmp_path)
    assert not file.exists() and str(file) in caplog.text
    assert read(packs, 0) is None and torch.equal(read(packs, 4), state_of(4))  # type: ignore[arg-type]
    assert other.exists()


def test_a_pack_cut_off_while_it_is_mapped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = written(tmp_path)
    packs = opened(tmp_path)
    assert read(packs, 0) is not None
    os.truncate(file, 100)
    assert all(read(packs, n) is None for n in range(4))
    assert not file.exists() and "cut off while in use" in caplog.text


def test_a_pack_deleted_while_it_is_in_use(tmp_path: Path) -> None:
    file = written(tmp_path)
    packs, later = opened(tmp_path), packs_in(tmp_path)
    later.refresh()
    later._open.popitem()[1].close()
    file.unlink()
    assert torch.equal(read(packs, 0), state_of(0))  # type: ignore[arg-type]  # mapped: still there
    assert read(later, 0) is None and key_of(1) not in later
    packs.refresh()
    assert key_of(0) not in packs
    packs.put({key_of(0): state_of(0)})
    assert torch.equal(read(opened(tmp_path), 0), state_of(0))  # type: ignore[arg-type]


def test_a_pack_deleted_while_it_is_being_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path)
    packs = opened(tmp_path)
    packs._open.popitem()[1].close()

    def too_late(path: Path, framework: str) -> None:
        path.unlink()
        raise RuntimeError(f"unable to open file <{path}> in read-only mode")  # torch's words

    monkeypatch.setattr("instructedit.base.pack_file.safe_open", too_late)
    assert read(packs, 0) is None and key_of(1) not in packs and not file.exists()
    monkeypatch.undo()
    packs.put({key_of(0): state_of(0)})
    assert torch.equal(read(packs, 0), state_of(0))  # type: ignore[arg-type]


def test_the_folder_deleted_while_it_is_in_use(tmp_path: Path) -> None:
    file = written(tmp_path)
    packs = opened(tmp_path)
    for path in file.parent.iterdir():
        path.unlink()
    file.parent.rmdir()
    packs.refresh()
    assert key_of(0) not in packs and packs.used_bytes == 0
    packs.put({key_of(1): state_of(1)})
    assert {path.name for path in file.parent.iterdir()} > {"about.json"} and not packs.stopped


def test_a_rank_that_notices_late_leaves_the_mended_file_alone(tmp_path: Path) -> None:
    file = written(tmp_path)
    flip(file, file.stat().st_size - 3)
    early, late = opened(tmp_path), opened(tmp_path)
    assert any([read(early, n) is None for n in range(4)])
    early.put({key_of(n): state_of(n) for n in range(4)})
    assert any([read(late, n) is None for n in range(4)])
    assert file.exists()
    late._seen = None
    late.refresh()
    assert all(torch.equal(read(late, n), state_of(n)) for n in range(4))  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"fingerprint": "c" * 64}, {"first_block": 3}, {"torch": "9"}])
def test_packs_of_another_address_are_never_given(
    tmp_path: Path, change: dict[str, str | int], caplog: pytest.LogCaptureFixture
) -> None:
    file = written(tmp_path)
    other = packs_in(tmp_path, **change)
    other.refresh()
    assert other.folder != file.parent and key_of(0) not in other
    other.folder.mkdir()
    moved = other.folder / file.name
    moved.write_bytes(file.read_bytes())  # by hand
    other._seen = None
    other.refresh()
    assert key_of(0) not in other and moved.exists()
    assert str(moved) in caplog.text and "another base" in caplog.text


def test_an_entry_of_another_shape_or_dtype_is_broken(tmp_path: Path) -> None:
    file = written(tmp_path)
    assert opened(tmp_path).get(key_of(0), len(state_of(0)) + 1) is None
    assert not file.exists()
    packs = packs_in(tmp_path)
    packs.put({key_of(0): state_of(0).double()})
    assert read(packs, 0) is None and packs.folder.is_dir() and not list(packs.folder.glob("*.safetensors"))


def test_a_state_in_the_place_of_another_is_broken(tmp_path: Path) -> None:
    file = written(tmp_path, range(0, 41, 40))
    with safe_open(file, framework="pt") as whole:
        metadata, (first, second) = whole.metadata(), sorted(whole.keys())
        states = whole.get_tensor(first), whole.get_tensor(second)
    metadata[first], metadata[second] = metadata[second], metadata[first]
    file.write_bytes(save({first: states[1], second: states[0]}, metadata))
    packs = opened(tmp_path)
    assert read(packs, 0) is None and read(packs, 40) is None and not file.exists()


def test_a_cap_ends_the_writing_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = packs_in(tmp_path, first_block=3)
    elsewhere.put({key_of(n): state_of(n) for n in range(4)})
    size = elsewhere.used_bytes
    packs = packs_in(tmp_path, limit=2 * size + 300)  # what lies under other addresses counts
    packs.put({key_of(n): state_of(n) for n in range(4)})
    assert not packs.stopped
    for n in (4, 5):
        packs.put({key_of(n): state_of(n)})
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1
    assert "full" in caplog.text and "model.store.disk_gib" in caplog.text and str(tmp_path) in caplog.text
    assert key_of(4) not in packs and torch.equal(read(packs, 0), state_of(0))  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_written_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    packs = packs_in(tmp_path)
    packs.put({key_of(0): state_of(0)})
    whole = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        whole(path, data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        packs.put({key_of(1): state_of(1)})
    packs.put({key_of(2): state_of(2)})
    assert len(caplog.records) == 1
    assert "No space left on device" in caplog.text and str(packs.folder) in caplog.text
    assert torch.equal(read(packs, 0), state_of(0)) and key_of(2) not in packs  # type: ignore[arg-type]
    assert not list(packs.folder.glob("*.tmp"))


def test_a_root_that_is_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "root").write_text("")
    packs = packs_in(tmp_path / "root")
    packs.refresh()
    packs.put({key_of(0): state_of(0)})
    assert packs.stopped and len(caplog.records) == 1 and key_of(0) not in packs


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() == 0 and not os.path.exists("/usr/bin/setpriv"), reason="root may write anywhere")
def test_a_read_only_folder_is_read(tmp_path: Path) -> None:
    written(tmp_path)
    reader = f"""
import torch
from pathlib import Path
from instructedit.base.packs import Packs
from tests.base.pack_writer import *
packs = Packs(Path({str(tmp_path)!r}), ADDRESS, "base", torch.float32, 2**30)
packs.refresh()
assert torch.equal(packs.get(key_of(0), len(state_of(0))), state_of(0))
packs.put({{key_of(9): state_of(9)}})
print(packs.stopped)
"""
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    unprivileged = ["/usr/bin/setpriv", "--bounding-set", "-all", "--inh-caps", "-all"] if os.geteuid() == 0 else []
    try:
        done = subprocess.run(
            [*unprivileged, sys.executable, "-c", reader], capture_output=True, text=True, cwd=Path(__file__).parents[2]
        )
    finally:
        for path in (tmp_path, *tmp_path.rglob("*")):
            path.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert "Permission denied" in done.stdout and "model.store.folder" in done.stdout


def test_temporary_files_of_killed_writers_go_after_an_hour(tmp_path: Path) -> None:
    folder = written(tmp_path).parent
    for name, hours in (("old.tmp", 2), ("new.tmp", 0.5)):
        (folder / name).write_bytes(b"half a pack")
        then = time.time() - hours * 3600
        os.utime(folder / name, (then, then))
    opened(tmp_path)
    assert [path.name for path in folder.glob("*.tmp")] == ["new.tmp"]


def test_few_packs_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs_module, "OPEN_PACKS", 2)
    for n in range(6):
        written(tmp_path, range(n, n + 1))
    packs = opened(tmp_path)
    for n in (0, 5, 3, 0, 1, 4, 2, 0):
        assert torch.equal(read(packs, n), state_of(n)) and len(packs._open) <= 2  # type: ignore[arg-type]


def test_a_settled_folder_is_not_looked_through_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path).parent
    then = time.time() - 60
    os.utime(folder, (then, then))
    packs = opened(tmp_path)
    monkeypatch.setattr(Path, "iterdir", lambda _path: pytest.fail("looked again"))
    packs.refresh()
    monkeypatch.undo()
    written(tmp_path, range(4, 6))
    packs.refresh()
    assert key_of(4) in packs


def test_a_pack_written_in_the_same_tick_of_the_clock_is_found(tmp_path: Path) -> None:
    folder = written(tmp_path).parent
    packs, then = opened(tmp_path), folder.stat().st_mtime_ns
    written(tmp_path, range(4, 6))
    os.utime(folder, ns=(then, then))
    packs.refresh()
    assert key_of(4) in packs


def writer(root: Path, seed: int, seconds: float) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.base.pack_writer", str(root), str(seed), str(seconds)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_many_processes_write_one_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    processes = [writer(tmp_path, seed, 6) for seed in range(4)]
    assert [process.wait(120) for process in processes] == [0] * 4
    packs = opened(tmp_path)
    for n in range(N_KEYS):
        assert torch.equal(read(packs, n), state_of(n))  # type: ignore[arg-type]
    assert not caplog.records and not list(tmp_path.rglob("*.tmp"))


@pytest.mark.slow
def test_writers_killed_in_the_middle_leave_nothing_broken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    processes = [writer(tmp_path, seed, 10**6) for seed in range(3)]
    deadline = time.time() + 60
    while len(list(tmp_path.rglob("*.safetensors"))) < 3 and time.time() < deadline:
        time.sleep(0.02)
    time.sleep(1)
    for process in processes:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    packs = opened(tmp_path)
    there = [n for n in range(N_KEYS) if key_of(n) in packs]
    assert there and all(torch.equal(read(packs, n), state_of(n)) for n in there)  # type: ignore[arg-type]
    assert not caplog.records
    packs.put({key_of(n): state_of(n) for n in range(N_KEYS)})
    assert all(torch.equal(read(opened(tmp_path), n), state_of(n)) for n in range(N_KEYS))  # type: ignore[arg-type]
