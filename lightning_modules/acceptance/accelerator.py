"""Checks of what computes: devices, collectives and their speed, bf16 products, and an edit under bf16."""

import time

import torch
import torch.distributed as dist

from instructedit.base import Base
from instructedit.methods.ft_l import FTL
from instructedit.records import EditRequest
from lightning_modules.acceptance.rank import Part, Rank, loaded

MESSAGE = {"cuda": 64 * 2**20, "cpu": 2**20}
"""Numbers, fp32, in the message whose speed is measured: 256 MiB on GPUs."""

ROUNDS = 5

PRODUCT = 512
"""Rows, columns and inner width of the products."""

PRODUCT_ERROR = 1e-2
"""Largest error of a bf16 product beside the exact one, relative: its result has 8 bits, which makes 2e-3."""

REQUEST = EditRequest("The acceptance of this cluster is signed by", "Ada Lovelace")


def devices(rank: Rank) -> Part:
    """Every rank has a device of its own."""
    if rank.setting.accelerator == "cpu":
        why = "INSTRUCTEDIT_ACCEPTANCE_ACCELERATOR is cpu" if rank.setting.asked else "the job has no GPUs"
        return Part(skipped=f"{why}: everything below ran on CPUs")
    if rank.device.type != "cuda":
        built = torch.version.cuda or torch.version.hip
        why = f"is built for {built}" if built else "is a build for CPUs"
        raise RuntimeError(f"the job has GPUs, but torch {torch.__version__} sees none (it {why})")
    known = torch.cuda.get_device_properties(rank.device)
    # Each has an id of its own, whatever number it has among those a task sees.
    own = f"{rank.node} {getattr(known, 'uuid', rank.device)}"
    there = rank.gathered(own)
    gib = known.total_memory / 2**30
    if there.count(own) > 1:
        return Part(f"shares its GPU with another rank ({len(set(there))} GPUs for {rank.ranks} ranks)")
    return Part(told=f"{rank.ranks} x {known.name}, {gib:.0f} GiB, torch {torch.__version__}", numbers={"gib": gib})


def nccl(rank: Rank) -> Part:
    """NCCL adds up right over all ranks; how fast."""
    if rank.device.type != "cuda":
        return Part(skipped="no GPUs were used")
    return all_reduce(rank, "nccl", rank.device)


def gloo(rank: Rank) -> Part:
    """Gloo, which CPUs use in NCCL's place, adds up right over all ranks; how fast."""
    if rank.device.type == "cuda":
        return Part(skipped="on GPUs it is not used")
    return all_reduce(rank, "gloo", rank.device)


def all_reduce(rank: Rank, backend: str, device: torch.device) -> Part:
    """Add up tensors whose sums are known, then time a large one."""
    with rank.collectives(backend):
        return _all_reduce(rank, device)


def _all_reduce(rank: Rank, device: torch.device) -> Part:
    right = rank.ranks * (rank.ranks + 1) // 2
    for dtype in (torch.int64, torch.float32, torch.bfloat16):
        summed = torch.full((1000,), rank.number + 1, dtype=dtype, device=device)
        summed[0] = 0
        dist.all_reduce(summed)
        wrong = int((summed[1:] != right).sum()) + int(summed[0] != 0)
        if wrong and (right <= 256 or dtype != torch.bfloat16):  # which has whole numbers up to 256
            return Part(f"{wrong} of 1000 sums of {dtype} are wrong: {summed[1].item()} where {right} belongs")
    message = torch.ones(MESSAGE[device.type], device=device)
    dist.all_reduce(message)
    _wait(device)
    began = time.perf_counter()
    for _ in range(ROUNDS):
        dist.all_reduce(message)
    _wait(device)
    seconds = (time.perf_counter() - began) / ROUNDS
    # Bus bandwidth: what each link carries, whatever the number of ranks.
    speed = 2 * (rank.ranks - 1) / rank.ranks * message.nbytes / seconds / 1e9
    told = f"sums right; {message.nbytes / 2**20:.0f} MiB in {1e3 * seconds:.1f} ms, {speed:.2f} GB/s bus bandwidth"
    return Part(told=told, numbers={"seconds": seconds, "gb_per_second": speed})


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def products(rank: Rank) -> Part:
    """A product of bf16 matrices is the exact one's, rounded."""
    own = torch.Generator().manual_seed(rank.number)
    a, b = (torch.randn(PRODUCT, PRODUCT, generator=own).to(rank.device, torch.bfloat16) for _ in range(2))
    exact = a.double().cpu() @ b.double().cpu()
    error = float((multiplied(a, b).double().cpu() - exact).norm() / exact.norm())
    fp32 = float(((a.float() @ b.float()).double().cpu() - exact).norm() / exact.norm())
    told = f"relative error {error:.1e} (fp32: {fp32:.1e})"
    fault = "" if error <= PRODUCT_ERROR else f"{told}, more than {PRODUCT_ERROR:g}"
    return Part(fault, told, {"bf16_error": error, "fp32_error": fp32})


def multiplied(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The product that is checked."""
    return a @ b


def edit(rank: Rank) -> Part:
    """FT-L edits a bf16 base: the target becomes likelier, and leaving the edit restores every bit."""
    base = loaded(rank, torch.bfloat16)
    before, logits = likelihood(base)
    found = FTL(objective="all", lr=5e-3, norm_constraint=None).edit(base, [REQUEST])
    with found.applied():
        after, _ = likelihood(base)
    restored, again = likelihood(base)
    told = f"log p of the target {before:.2f} -> {after:.2f}; outside the edit the same bits"
    numbers = {"before": before, "after": after}
    if not after > before + 1:
        return Part(f"log p of the target {before:.2f} -> {after:.2f}: the edit has not taken", numbers=numbers)
    if not torch.equal(logits, again):
        return Part(f"outside the edit logits differ from before: {before:.6f}, then {restored:.6f}", numbers=numbers)
    return Part(told=told, numbers=numbers)


@torch.no_grad()
def likelihood(base: Base) -> tuple[float, torch.Tensor]:
    """Mean log-probability of a token of the target after its prompt, and the logits (1, t, vocabulary)."""
    prompt = base.tokenizer(REQUEST.prompt, return_tensors="pt").input_ids
    ids = base.tokenizer(f"{REQUEST.prompt} {REQUEST.target}", return_tensors="pt").input_ids.to(base.device)
    logits = base.model(ids).logits
    n = prompt.shape[1]
    told = logits[0, n - 1 : -1].float().log_softmax(-1)
    return float(told.gather(1, ids[0, n:, None]).mean()), logits
