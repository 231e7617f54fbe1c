"""Context managers that watch or change what a module computes, and are gone afterwards.

Hooks are put on when the block is entered and taken off when it is left, also by an exception.
This module knows module paths; it knows nothing about edits, gradients or model families.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass
class Recorded:
    """What one module saw and said in its last forward pass: input (..., d_in), output (..., d_out)."""

    x: Tensor
    y: Tensor


@contextmanager
def record(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Recorded]]:
    """Record input and output of the named modules while the block runs.

    The outputs are the very tensors of the graph, so ``torch.autograd.grad`` can differentiate with
    respect to them; the inputs are detached.

    Args:
        model: the module the names are relative to.
        names: dotted module paths.

    Yields:
        A dictionary that fills as the modules run; the last pass wins.
    """
    seen: dict[str, Recorded] = {}

    def hook_for(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = Recorded(args[0].detach(), output)

        return hook

    with ExitStack() as stack:
        for name in names:
            handle = model.get_submodule(name).register_forward_hook(hook_for(name))
            stack.callback(handle.remove)
        yield seen


@contextmanager
def replace(model: nn.Module, functions: Mapping[str, Callable[[Tensor, Tensor], Tensor]]) -> Iterator[None]:
    """Let each named module return ``function(x, y)`` instead of ``y`` while the block runs.

    Args:
        model: the module the names are relative to.
        functions: per dotted module path, a function of the module's input (..., d_in) and output
            (..., d_out) that gives the new output (..., d_out).
    """

    def hook_for(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
        def hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return function(args[0], output)

        return hook

    with ExitStack() as stack:
        for name, function in functions.items():
            handle = model.get_submodule(name).register_forward_hook(hook_for(function))
            stack.callback(handle.remove)
        yield


def count_hooks(model: nn.Module) -> int:
    """Count the forward hooks on a model and all its parts; a test's way to see that none was left."""
    return sum(len(module._forward_hooks) for module in model.modules())
