"""A whole model folder with the edit in its weights, that plain transformers loads.

Knows transformers' own way to save; the base's weights are read and never written.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from instructedit.base.model import Base
from instructedit.base.progress import quiet_progress
from instructedit.errors import InputError
from instructedit.export.changes import SiteChange, SiteReport


def write_model(
    folder: Path, changes: Sequence[SiteChange], base: Base, max_shard_size: str = "5GB"
) -> list[SiteReport]:
    """Write config, generation config, tokenizer and weights into a folder that is there.

    Each changed weight is added up in fp64 and rounded once to the base's dtype.

    Args:
        folder: where to.
        changes: the edit's changes.
        base: the base, all in memory, in the dtype that is to be written.
        max_shard_size: the largest weights file, as transformers writes it: ``"5GB"``.

    Returns:
        What is kept of each site: ``error`` is what rounding the sum has lost or added.

    Raises:
        InputError: the size cannot be read, or transformers refuses to save the base.
    """
    weights = dict(base.model.state_dict())
    reports = []
    for change in changes:
        old, added = weights[change.weight].double().cpu(), change.whole()
        new = (old + added).to(base.dtype)
        kept = new.double() - old
        reports.append(SiteReport(change.site, None, change.norm(), float(torch.linalg.matrix_norm(kept - added))))
        weights[change.weight] = new.contiguous()
    config = base.model.config
    before = {name: getattr(config, name, None) for name in ("dtype", "architectures")}
    try:
        with quiet_progress():
            base.model.save_pretrained(folder, state_dict=weights, max_shard_size=max_shard_size)
            base.tokenizer.save_pretrained(folder)
    except (ValueError, KeyError) as error:
        # A shard size that is no size, or a generation config that transformers calls invalid.
        raise InputError(f"The model cannot be saved: {str(error).strip() or type(error).__name__}") from error
    finally:
        for name, value in before.items():
            setattr(config, name, value)
    return reports
