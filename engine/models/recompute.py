"""Activation checkpointing: a part of a network keeps only its input and is computed again in the backward pass.

The gradients are the same. What the part would change by being computed twice, batch-norm's running statistics, it
changes once; dropout inside it draws the same numbers both times.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(part: nn.Module | Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """`part(x)`, of which the backward pass will find only `x` in memory."""
    if not torch.is_grad_enabled():
        return part(x)
    modules = list(part.modules()) if isinstance(part, nn.Module) else []
    norms = [module for module in modules if isinstance(module, _BatchNorm)]

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_at_rest(norms)

    return checkpoint(
        part,
        x,
        use_reentrant=False,
        # The state of the generator is only looked up for those who draw: a captured CUDA graph may not ask for it.
        preserve_rng_state=any(isinstance(module, nn.modules.dropout._DropoutNd) for module in modules),
        # torch.compile recomputes values and never effects: there is nothing to hold back.
        **({} if torch.compiler.is_compiling() else {"context_fn": contexts}),
    )


@contextmanager
def _statistics_at_rest(norms: list[_BatchNorm]) -> Iterator[None]:
    """Batch-norms compute as ever, but move copies of their running statistics."""
    held = [(norm, name, buffer) for norm in norms if norm.training for name, buffer in norm.named_buffers()]
    for norm, name, buffer in held:
        setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, name, buffer in held:
            setattr(norm, name, buffer)
