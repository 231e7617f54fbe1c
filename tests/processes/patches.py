"""What a test changes or notes inside a rank, before the program starts in it."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any


def _rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def note_order(folder: str) -> None:
    """Write down which records each micro-batch holds: its number, and the records' ids."""
    from lightning_modules.edit_datamodule import EditDataModule

    real = EditDataModule.micro
    path = Path(folder) / f"order-{os.getpid()}-{_rank()}.jsonl"

    def micro(self: EditDataModule, index: int) -> Any:
        batch = real(self, index)
        line = {"index": index, "rank": self.rank, "ranks": self.world_size, "ids": batch.record_ids}
        with path.open("a") as file:
            file.write(json.dumps(line | {"tasks": batch.tasks}) + "\n")
        return batch

    EditDataModule.micro = micro  # type: ignore[method-assign]


def stop_at(step: str, folder: str) -> None:
    """Note the order, and give rank 0 the signal to stop in the middle of a step."""
    note_order(folder)
    at_loss(int(step), lambda: os.kill(os.getpid(), signal.SIGTERM), rank=0)


def fail_at(step: str, rank: str) -> None:
    """Let one rank fail in the middle of a step."""

    def fail() -> None:
        raise ZeroDivisionError("made to fail")

    at_loss(int(step), fail, rank=int(rank))


def hang_at(step: str, rank: str) -> None:
    """Let one rank not come back."""
    at_loss(int(step), lambda: time.sleep(600), rank=int(rank))


def nan_at(step: str, rank: str) -> None:
    """Let one rank's loss be no number in one step."""
    from dataclasses import replace

    from lightning_modules import editor_module

    real, calls = editor_module.meta_loss, [0]

    def counted(*args: Any) -> Any:
        calls[0] += 1
        result = real(*args)
        bad = calls[0] == int(step) and _rank() == int(rank)
        return replace(result, loss=result.loss * float("nan")) if bad else result

    editor_module.meta_loss = counted


def at_loss(call: int, act: Any, rank: int) -> None:
    """Do something in a rank's ``call``-th loss."""
    from lightning_modules import editor_module

    real, calls = editor_module.meta_loss, [0]

    def counted(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == call and _rank() == rank:
            act()
        return real(*args)

    editor_module.meta_loss = counted


def show_parts() -> None:
    """Print, when training starts, how much of editor and base this rank holds, and every dtype in use."""
    from lightning_modules.editor_module import EditorModule

    real = EditorModule.on_train_batch_end
    held = _note_cut_blocks()

    def told(self: EditorModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        real(self, outputs, batch, batch_idx)
        if self.trainer.global_step != 2:
            return
        parts: dict[str, Any] = {"rank": _rank()}
        for name, parameters in {
            "editor": list(self.editor.parameters()),
            "base": list(self.stage.base.model.parameters()),
        }.items():
            parts[f"{name}_local"] = sum(_local(value) for value in parameters)
            parts[f"{name}_whole"] = sum(_whole(value) for value in parameters)
            parts[f"{name}_dtypes"] = sorted({str(value.dtype) for value in parameters})
            parts[f"{name}_grads"] = sum(value.grad is not None for value in parameters)
        optimizer = self.trainer.strategy.optimizers[0]
        state = getattr(optimizer, "optimizer", optimizer).state
        tensors = [value for own in state.values() for key, value in own.items() if key != "step"]
        parts["adam_dtypes"] = sorted({str(value.dtype) for value in tensors})
        parts["adam_local"] = sum(_local(value) for value in tensors)
        print("PARTS " + json.dumps(parts | held), flush=True)

    EditorModule.on_train_batch_end = told  # type: ignore[method-assign]


def _note_cut_blocks() -> dict[str, int]:
    """Count passes through a block of a cut trunk, those after which the block is still whole, and whole ones left."""
    from instructedit.base.kept import KeysAndValues
    from instructedit.base.split import Split

    found = {"passes": 0, "whole_after_pass": 0, "whole_in_the_end": 0}
    run, pieces = KeysAndValues.run, Split.trunk_pieces

    def noted_run(self: KeysAndValues, block: Any, *rest: Any) -> Any:
        out = run(self, block, *rest)
        cut = [value for value in _blocks(block) if hasattr(value, "ds_tensor")]
        found["passes"] += bool(cut)
        found["whole_after_pass"] += bool(cut) and all(value.numel() == value.ds_numel for value in cut)
        return out

    def noted_pieces(self: Split, passes: Any) -> Any:
        out = pieces(self, passes)
        cut = [value for value in _blocks(self._trunk) if hasattr(value, "ds_tensor")]
        found["whole_in_the_end"] += sum(value.numel() == value.ds_numel for value in cut)
        return out

    KeysAndValues.run, Split.trunk_pieces = noted_run, noted_pieces  # type: ignore[method-assign]
    return found


def _blocks(decoder: Any) -> list[Any]:
    """The parameters of a decoder's blocks."""
    (blocks,) = [child for child in decoder.children() if type(child).__name__ == "ModuleList"]
    return list(blocks.parameters())


def _local(value: Any) -> int:
    if hasattr(value, "ds_tensor"):
        return int(value.ds_tensor.numel())
    return int(value.to_local().numel() if hasattr(value, "to_local") else value.numel())


def _whole(value: Any) -> int:
    return int(getattr(value, "ds_numel", value.numel()))


def slow_everything(folder: str) -> None:
    """Leave time to be interrupted in a save, between its renames and in a validation; tell by files what goes on."""
    from lightning_modules.callbacks import checkpoints, validation
    from lightning_modules.editor_module import EditorModule

    marks = Path(folder)

    class Slow:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: Any) -> int:
            (marks / "saving").touch()
            time.sleep(0.002)
            return int(self.file.write(data))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    save, rename, link = checkpoints.torch.save, checkpoints.os.replace, checkpoints.os.link

    def slowly(content: Any, file: Any) -> None:
        save(content, Slow(file))

    def renamed(source: Any, target: Any) -> None:
        time.sleep(0.03)
        rename(source, target)

    def linked(source: Any, target: Any) -> None:
        time.sleep(0.03)
        link(source, target)

    checkpoints.torch.save = slowly  # type: ignore[assignment]
    checkpoints.os.replace = renamed  # type: ignore[assignment]
    checkpoints.os.link = linked  # type: ignore[assignment]

    validate = validation.run_validation

    def validated(*args: Any, **more: Any) -> Any:
        (marks / "validating").touch()
        time.sleep(0.3)
        return validate(*args, **more)

    validation.run_validation = validated
    ended = EditorModule.on_train_batch_end

    def stepped(self: EditorModule, *args: Any) -> None:
        ended(self, *args)
        (marks / f"step-{self.trainer.global_step}").touch()

    EditorModule.on_train_batch_end = stepped  # type: ignore[method-assign]


def die_in_save(moment: str) -> None:
    """Be killed at one moment of the save of step 6, or before the best checkpoint gets its name."""
    from lightning_modules.callbacks import checkpoints

    save, rename = checkpoints.torch.save, checkpoints.os.replace

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    class Half:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: Any) -> int:
            written = int(self.file.write(data))
            self.file.flush()
            if self.file.tell() > 20_000:
                die()
            return written

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    def saved(content: Any, file: Any) -> None:
        save(content, Half(file) if moment == "writing" and content["global_step"] == 6 else file)

    def renamed(source: Any, target: Any) -> None:
        name = Path(target).name
        before = name.startswith("step-")
        between = name == "last.ckpt" and any(Path(target).parent.glob("step-*.ckpt"))
        best = name == "best.ckpt"
        if {"before the renames": before, "between the renames": between, "before the best": best}.get(moment):
            die()
        rename(source, target)

    checkpoints.torch.save = saved  # type: ignore[assignment]
    checkpoints.os.replace = renamed  # type: ignore[assignment]


def weigh_loading() -> None:
    """Print how much resident memory loading a cut base takes: at most while it lasts, and what stays."""
    import ctypes
    import gc

    from lightning_modules.strategies.zero import Zero

    # Each matrix of its own: what is freed leaves the process at once, and holes do not count as held.
    ctypes.CDLL(None).mallopt(-3, 1 << 18)  # M_MMAP_THRESHOLD

    real = Zero.partitioned

    def weighed(self: Zero, *args: Any) -> Any:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before = _resident()
        base = real(self, *args)
        gc.collect()
        after = _resident()
        told = {
            "rank": _rank(),
            "peak": after["VmHWM"] - before["VmRSS"],
            "stays": after["RssAnon"] - before["RssAnon"],
        }
        print("MEMORY " + json.dumps(told), flush=True)
        return base

    Zero.partitioned = weighed  # type: ignore[method-assign]


def _resident() -> dict[str, int]:
    """Kinds of resident memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {
        name: int(rest.split()[0]) * 1024
        for name, _, rest in (line.partition(":") for line in lines)
        if "Rss" in name or name in ("VmHWM", "VmRSS")
    }
