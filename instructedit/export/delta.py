"""The change of the weights alone, one safetensors file that plain torch can add: whole matrices, or two factors each.

Whole: ``<parameter>`` holds new minus old. Factors: ``<parameter>.left`` (rows, k) and ``<parameter>.right``
(k, columns), whose product is that. Both in the orientation the parameter is stored in. See docs/export.md.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from instructedit.export.changes import Factors, SiteChange, SiteReport
from instructedit.export.lora import check_rank, report, written_factors

DELTA = "delta.safetensors"
FORMAT = "instructedit-delta-1"


def write_delta(
    folder: Path,
    changes: Sequence[SiteChange],
    told: Mapping[str, Any],
    rank: int | None,
    dtype: torch.dtype,
    dense: bool,
) -> list[SiteReport]:
    """Write the file into a folder that is there.

    Args:
        folder: where to.
        changes: the edit's changes.
        told: what goes into the file's metadata besides its format, JSON values.
        rank: the most terms a site gets; None for exact ones, or for the whole matrix where the edit has one.
        dtype: dtype in the file.
        dense: whether whole matrices are written in any case; ``rank`` is None then.

    Returns:
        What is kept of each site.

    Raises:
        InputError: the rank makes no sense for this edit.
    """
    check_rank(changes, rank)
    tensors, reports = {}, []
    for change in changes:
        if dense or (rank is None and not isinstance(change.change, Factors)):
            whole = change.whole()
            tensors[change.weight] = whole.to(dtype).contiguous()
            error = float(torch.linalg.matrix_norm(tensors[change.weight].double() - whole))
            reports.append(SiteReport(change.site, None, change.norm(), error))
            continue
        (factors,) = written_factors([change], None if rank is None else min(rank, change.most_ranks), dtype)
        left, right = (factors.v, factors.u) if change.transposed else (factors.u, factors.v)
        tensors[f"{change.weight}.left"], tensors[f"{change.weight}.right"] = left.T.contiguous(), right.contiguous()
        reports.append(report(change, factors))
    metadata = {"format": FORMAT, **{name: v if isinstance(v, str) else json.dumps(v) for name, v in told.items()}}
    save_file(tensors, folder / DELTA, metadata=metadata)
    return reports
