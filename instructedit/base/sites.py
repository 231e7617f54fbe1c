"""Sites: which matrices of a base are edited, found by "last N blocks, these matrices" or by name.

Knows nothing about gradients, updates or where the weights came from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn
from transformers.pytorch_utils import Conv1D

from instructedit.errors import InputError, unknown

if TYPE_CHECKING:
    from instructedit.base.model import Base


@dataclass(frozen=True)
class Site:
    """One edited matrix of the base, y = x W.

    Args:
        name: dotted path in ``base.model``, for instance ``"model.layers.29.mlp.down_proj"``.
        block: index of the block it is in.
        d_in: width of x.
        d_out: width of y.
    """

    name: str
    block: int
    d_in: int
    d_out: int


@dataclass(frozen=True)
class SiteSpec:
    """How sites are chosen.

    Args:
        last_blocks: edit matrices of this many blocks, counted from the end.
        matrices: names of matrices in a block (``"down_proj"`` or ``"mlp.down_proj"``); None takes
            the family's MLP matrices.
        names: full site names; where given, the two choices above are not used.
    """

    last_blocks: int = 3
    matrices: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None


def find_sites(base: "Base", spec: SiteSpec) -> tuple[Site, ...]:
    """Return the chosen sites in the order the forward pass reaches them.

    Raises:
        InputError: for a block, matrix or site that does not exist, or an empty choice; the message
            names what exists.
    """
    chosen = _by_name(base, spec.names) if spec.names is not None else _by_block(base, spec)
    if not chosen:
        raise InputError("No site was chosen: the list of names or matrices is empty. Name at least one.")
    order = {(block, path): rank for block in range(base.n_blocks) for rank, path in enumerate(_linear(base, block))}
    return tuple(_site(base, block, path) for block, path in sorted(chosen, key=lambda key: (key[0], order[key])))


def stored_in_out(module: nn.Module) -> bool:
    """Say whether a site's weight is stored (d_in, d_out), as Conv1D does, or (d_out, d_in)."""
    return isinstance(module, Conv1D)


def _by_block(base: "Base", spec: SiteSpec) -> set[tuple[int, str]]:
    if not 1 <= spec.last_blocks <= base.n_blocks:
        raise InputError(
            f"last_blocks is {spec.last_blocks}, but base {base.name!r} has {base.n_blocks} blocks. "
            f"Set it between 1 and {base.n_blocks}."
        )
    chosen = set()
    for block in range(base.n_blocks - spec.last_blocks, base.n_blocks):
        paths = _linear(base, block)
        for wanted in base.adaptor.matrices if spec.matrices is None else spec.matrices:
            chosen.add((block, _match(base, wanted, paths)))
    return chosen


def _match(base: "Base", wanted: str, paths: Sequence[str]) -> str:
    """Resolve a full or a short matrix name; the MLP wins where attention has the same short name."""
    found = [path for path in paths if path == wanted] or [path for path in paths if path.endswith(f".{wanted}")]
    found = [path for path in found if path in base.adaptor.matrices] or found
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"Matrix {wanted!r} is ambiguous in base {base.name!r}: write one of {', '.join(found)}.")
    raise unknown(f"matrix of base {base.name!r}", wanted, paths)


def _by_name(base: "Base", names: Sequence[str]) -> set[tuple[int, str]]:
    known = {
        f"{base.adaptor.block_path(block)}.{path}": (block, path)
        for block in range(base.n_blocks)
        for path in _linear(base, block)
    }
    for name in names:
        if name not in known:
            raise InputError(
                f"Site {name!r} is not in base {base.name!r} (blocks 0-{base.n_blocks - 1}, matrices "
                f"{', '.join(_linear(base, 0))}). Name sites within {base.adaptor.block_path(0)} .. "
                f"{base.adaptor.block_path(base.n_blocks - 1)}, for instance {list(known)[-1]!r}."
            )
    if len(set(names)) != len(names):
        raise InputError(f"A site is named twice in {', '.join(names)}. Name each site once.")
    return {known[name] for name in names}


def _linear(base: "Base", block: int) -> list[str]:
    """Paths of all matrices in a block; modules are registered in forward order in both families."""
    modules = base.adaptor.blocks_of(base.model)[block].named_modules()
    return [path for path, module in modules if isinstance(module, nn.Linear | Conv1D)]


def _site(base: "Base", block: int, path: str) -> Site:
    name = f"{base.adaptor.block_path(block)}.{path}"
    module = base.model.get_submodule(name)
    if isinstance(module, Conv1D):
        return Site(name, block, d_in=module.nx, d_out=module.nf)
    assert isinstance(module, nn.Linear)
    return Site(name, block, d_in=module.in_features, d_out=module.out_features)
