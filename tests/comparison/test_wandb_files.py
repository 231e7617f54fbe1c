"""Offline files of Weights & Biases: read to the last whole record, and cut there."""

import struct
import zlib
from pathlib import Path

import pytest

from instructedit.comparison.wandb_files import BLOCK, FILE_HEADER, UnknownFormat, mend, records


def framed(contents: list[bytes]) -> bytes:
    """Write records as wandb does: in blocks, a record that does not fit goes on in the next one."""
    file = bytearray(FILE_HEADER)
    for content in contents:
        first = True
        while True:
            left = BLOCK - len(file) % BLOCK
            if left < 7:
                file += bytes(left)
                continue
            part, content = content[: left - 7], content[left - 7 :]
            kind = (1 if first else 4) if not content else (2 if first else 3)
            file += struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part
            first = False
            if not content:
                break
    return bytes(file)


def history(step: int, size: int = 0) -> bytes:
    from wandb.proto.wandb_internal_pb2 import Record

    record = Record()
    record.history.step.num = step
    record.history.item.add(key="x", value_json="1" * size)
    return bytes(record.SerializeToString())


def begun() -> bytes:
    from wandb.proto.wandb_internal_pb2 import Record

    record = Record()
    record.run.run_id = "abc"
    return bytes(record.SerializeToString())


def start(folder: Path, time: str, content: bytes, kind: str = "offline-") -> Path:
    path = folder / f"{kind}run-20260101_{time}-abc" / "run-abc.wandb"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_records_of_any_size_are_read_and_a_torn_end_is_cut_off(tmp_path: Path) -> None:
    sizes = (10, 32_700, 5, 100_000, 1)
    contents = [begun(), *(history(step, size) for step, size in enumerate(sizes, 1))]
    whole = framed(contents)
    path = start(tmp_path, "000001", whole)
    found = list(records(path))
    assert [record.history.step.num for _, record in found] == [0, 1, 2, 3, 4, 5]
    assert [len(record.history.item[0].value_json) for _, record in found[1:]] == list(sizes)
    ends = [end for end, _ in found]
    assert ends[-1] == len(whole) and mend(tmp_path, "abc") == 5 and path.read_bytes() == whole
    cuts = {place for end in ends for place in (end - 1, end, end + 1, end + 6, end + 8)} | {BLOCK, 3 * BLOCK + 3}
    for cut in sorted(cut for cut in cuts if ends[0] <= cut < len(whole)):
        path.write_bytes(whole[:cut])
        kept = max(end for end in ends if end <= cut)
        assert mend(tmp_path, "abc") == ends.index(kept), cut
        assert path.read_bytes() == whole[:kept]


def test_the_newest_start_with_a_step_tells_and_one_without_anything_goes(tmp_path: Path) -> None:
    assert mend(tmp_path, "abc") == 0
    start(tmp_path, "000001", framed([begun(), history(3)]))
    online = start(tmp_path, "000002", framed([begun(), history(7)]), kind="")
    nothing = start(tmp_path, "000003", framed([begun()]))
    dead = start(tmp_path, "000004", FILE_HEADER)  # `wandb sync` takes none of the folders where it meets this one
    empty = start(tmp_path, "000005", b"")
    other = start(tmp_path / "other", "000006", framed([history(9)]))
    assert mend(tmp_path, "abc") == 7
    assert not dead.parent.exists() and not empty.parent.exists()
    assert online.exists() and nothing.exists() and other.exists()


def test_a_torn_file_that_was_sent_is_not_sent_again(tmp_path: Path) -> None:
    whole = framed([begun(), history(1), history(2)])
    torn, kept = start(tmp_path, "000002", whole[:-3]), start(tmp_path, "000001", whole)
    for path in (torn, kept):
        path.with_name(path.name + ".syncstate").touch()
    assert mend(tmp_path, "abc") == 1
    assert torn.with_name("run-abc.wandb.synced").exists() and not kept.with_name("run-abc.wandb.synced").exists()


def test_damage_inside_ends_the_reading_and_another_format_is_left_alone(tmp_path: Path) -> None:
    content = bytearray(framed([begun(), history(1), history(2), history(3)]))
    content[content.index(history(2))] ^= 1
    path = start(tmp_path, "000001", bytes(content))
    assert mend(tmp_path, "abc") == 1
    path.write_bytes(b"something else altogether")
    with pytest.raises(UnknownFormat):
        mend(tmp_path, "abc")
    assert path.read_bytes() == b"something else altogether"
