"""Memory of a training step: measured on the CPU, by the formula, and that of a textbook MEND step.

    python benchmarks/memory.py --base smollm2-135m --rank 256 --textbook
    python benchmarks/memory.py --base gpt2-xl --blocks 8 --rank 1920 --textbook
    python benchmarks/random_base.py /tmp/llama-7b-random            # or --blocks 5: what is kept has the same size
    python benchmarks/memory.py --base /tmp/llama-7b-random --placement tail_only --dtype bfloat16 --rank 1920

Each measurement is a process of its own that builds the base, makes three steps (trunk states stored before) and
watches its anonymous resident memory, 200 times a second; what the program takes by itself (a step on a tiny base
comes before) and the stored states are subtracted. A base that is mapped from its file is copied, so that it counts.
The CPU's libraries are told to keep nothing: the C library gives memory back to the system as soon as it is let go of,
and oneDNN keeps no compiled kernel for each shape that it met. --as-usual lets them do what they do by default.

The formula is that of docs/placement.md, with the batch's own rows and the trunk on the CPU: no block of it is
there during a step. A textbook's step is one edit at a time, so the number of requests does not change it.
Linux with glibc alone: it reads /proc.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from output import print_json, print_table
from setting import DTYPES, LAST_BLOCKS, make_base, make_batches, make_editor
from textbook import ACCUMULATED, textbook_step

from instructedit.base import Base, load_base
from instructedit.base.memory import count_base, count_editor
from instructedit.base.sizes import Memory, Placing, StepSize, accelerator_memory
from instructedit.data.collate import Batch
from instructedit.data.rows import Rows
from instructedit.hypernet.editor import HyperEditor
from instructedit.metatrain import LossWeights, Stage, meta_loss
from instructedit.optimisers import make_adam

WEIGHTS = LossWeights()
STEPS = 3

KEEP_NOTHING = {
    "MALLOC_MMAP_THRESHOLD_": str(2**16),
    "MALLOC_TRIM_THRESHOLD_": "0",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "0",
}
"""To be in the environment before the libraries are loaded."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2-135m", help="smollm2-135m, gpt2-xl, llama-2-7b, or a folder")
    parser.add_argument("--placement", choices=("replicated", "tail_only"), default="replicated")
    parser.add_argument("--rank", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--textbook", action="store_true", help="measure the textbook's step too")
    parser.add_argument("--blocks", type=int, help="another depth for a random base, for a quick look")
    parser.add_argument(
        "--as-usual", action="store_true", help="let the CPU's libraries keep what they keep by default"
    )
    parser.add_argument("--own", choices=("ours", "textbook"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.own:
        print(json.dumps(measure(given)))
        return
    found = {which: _alone(which, given) for which in ("ours", *(["textbook"] if given.textbook else []))}
    ours = found["ours"]
    parts = {"formula": ours["formula"]} | {name: told["measured"] for name, told in found.items()}
    keys = ("base", "editor", "step", "total")
    title = f"{_name(given)}, {given.placement}, {given.dtype}, rank {given.rank}, batch {given.batch}: GB"
    rows = [(name, *(told[key] / 1e9 for key in keys)) for name, told in parts.items()]
    print_table(("", "base", "editor, gradients, Adam", "a step more", "together"), rows, title)
    off = {key: ours["measured"][key] / ours["formula"][key] - 1 for key in keys}
    told = ", ".join(f"{key} {100 * share:+.1f} %" for key, share in off.items())
    print(f"\nmeasured against the formula: {told}\n\n{ours['arithmetic']}")
    about = {"base": _name(given), "placement": given.placement, "rank": given.rank, "batch": given.batch}
    print_json("memory", {**about, **parts, "off": off}, given.dtype)


def _name(given: argparse.Namespace) -> str:
    return Path(given.base).name + (f" ({given.blocks} blocks)" if given.blocks else "")


def _alone(which: str, given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure in a process of its own and return what it tells."""
    settings = {} if given.as_usual else KEEP_NOTHING
    command = [sys.executable, *sys.argv, "--own", which]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | settings)
    if done.returncode:
        sys.exit(done.stderr)
    told: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return told


def measure(given: argparse.Namespace) -> dict[str, object]:
    """Build, make some steps, and return bytes by part."""
    dtype = DTYPES[given.dtype]
    _warm_up()
    start = anonymous()
    base = _base(given, dtype)
    for parameter in base.model.parameters():
        if given.placement == "replicated":
            parameter.data = parameter.data.clone()  # it may be mapped from a file
    if given.placement == "tail_only":
        base.keep_tail(base.n_blocks - LAST_BLOCKS)
    with_base = anonymous()
    texts = make_batches(base, given.batch, STEPS)
    editor, stage = make_editor(base, given.rank, texts[:1])
    optimizer = make_adam(editor.parameters(), 1e-6)
    wanted = {ids for batch in texts for ids in _rows(batch).ids}
    states = sum(state.nbytes for state in stage.store.states(list(wanted)))
    peaks = []
    rest = 0
    for batch in texts:
        with Watch() as watch:
            _step(given.own, base, editor, stage, batch)
            optimizer.step()
        peaks.append(watch.peak)
        optimizer.zero_grad(set_to_none=False)  # gradients stay: they are the editor's share
        rest = anonymous()
    # The first step makes the gradients and Adam's moments.
    most = max(range(1, STEPS), key=peaks.__getitem__)
    formula = by_formula(base, editor, given, texts[most], dtype)
    measured = {"base": with_base - start, "editor": rest - with_base - states, "step": peaks[most] - rest}
    measured["total"] = sum(measured.values())
    parts = {"base": formula.base, "editor": formula.editor, "step": formula.step, "total": formula.total}
    return {"measured": measured, "formula": parts, "arithmetic": arithmetic(base, editor, given, texts[most], dtype)}


def _warm_up() -> None:
    """Load what a step needs whatever the base: libraries, records, a tokenizer, threads."""
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 4}
    base = make_base("llama-2-7b", torch.float32, **shape, num_hidden_layers=LAST_BLOCKS + 1)
    texts = make_batches(base, 2, 1)
    editor, stage = make_editor(base, 4, texts)
    for which in ("ours", "textbook"):
        _step(which, base, editor, stage, texts[0])
    make_adam(editor.parameters(), 1e-6).step()


def _step(which: str, base: Base, editor: HyperEditor, stage: Stage, batch: Batch) -> None:
    """One step's gradients: all of a batch's requests together, or two of them one by one."""
    if which == "ours":
        result = meta_loss(editor, stage, batch, WEIGHTS)
        (result.loss / len(batch)).backward()
        return
    for request in range(ACCUMULATED):
        (textbook_step(base, editor, batch, request, WEIGHTS).loss / ACCUMULATED).backward()


def _base(given: argparse.Namespace, dtype: torch.dtype) -> Base:
    if Path(given.base).is_dir() or given.placement == "tail_only":
        return load_base(given.base, dtype, placement=given.placement)
    if given.blocks is None:
        return make_base(given.base, dtype)
    return make_base(given.base, dtype, **{"n_layer" if given.base == "gpt2-xl" else "num_hidden_layers": given.blocks})


def _rows(batch: Batch) -> Rows:
    return batch.inner + batch.rephrase + batch.avoid + batch.locality


def step_size(batch: Batch) -> StepSize:
    """What the formula needs of a batch; tokens are padded within a role's pass, as a step pads them."""
    rows = _rows(batch)
    passes = (batch.inner + batch.rephrase + batch.avoid, batch.locality)
    padded = sum(len(role) * max(map(len, role.ids), default=0) for role in passes)
    return StepSize(
        rows=len(rows),
        inner_rows=len(batch.inner),
        local_rows=len(batch.locality),
        tokens=padded / len(rows),
        targets=sum(rows.n_target) / len(rows),
        inner_tokens=batch.inner.n_tokens / len(batch.inner),
    )


def by_formula(base: Base, editor: HyperEditor, given: argparse.Namespace, batch: Batch, dtype: torch.dtype) -> Memory:
    """The library's own estimate, for this batch."""
    sizes = count_base(base.model, LAST_BLOCKS)
    shapes = [(site.d_in, site.d_out) for site in editor.sites]
    in_last = sum(base.at_targets(site) for site in editor.sites)
    counted = count_editor(editor, shapes, given.rank, editor.config.n_blocks, in_last)
    placing = Placing(given.placement, str(dtype).removeprefix("torch."), trunk_device="cpu")  # type: ignore[arg-type]
    return accelerator_memory(sizes, counted, placing, step_size(batch))


def arithmetic(base: Base, editor: HyperEditor, given: argparse.Namespace, batch: Batch, dtype: torch.dtype) -> str:
    """The formula's numbers in words."""
    sizes, step = count_base(base.model, LAST_BLOCKS), step_size(batch)
    numbers = sizes.whole if given.placement == "replicated" else sizes.tail + sizes.head
    parameters = sum(parameter.numel() for parameter in editor.parameters())
    formula = by_formula(base, editor, given, batch, dtype)
    return (
        f"base {numbers / 1e6:.1f} M numbers x {dtype.itemsize} bytes = {formula.base / 1e9:.3f} GB\n"
        f"editor {parameters / 1e6:.1f} M parameters x 16 bytes = {formula.editor / 1e9:.3f} GB\n"
        f"step of {step.rows} rows of {step.tokens:.1f} tokens with padding and {step.targets:.1f} target tokens, "
        f"{step.inner_rows} of them edit inputs and {step.local_rows} locality inputs = {formula.step / 1e9:.3f} GB\n"
        f"together {formula.total / 1e9:.3f} GB"
    )


def anonymous() -> int:
    """Bytes of this process's own memory that are resident."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status tells no RssAnon")


class Watch:
    """Watches the memory while its block runs."""

    def __enter__(self) -> "Watch":
        self.peak = anonymous()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._over.is_set():
            self.peak = max(self.peak, anonymous())
            time.sleep(0.005)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


if __name__ == "__main__":
    main()
