"""Steps whose loss or gradient is not finite: skipped on the device, counted, and kept for a replay.

Whether a step is bad is decided and acted upon on the device, so the host never waits for it; it reads the
counters when it reads the loss anyway. Once `limit` steps in a row were bad every further one is skipped
too, until the host sees it: so the weights are then still those that the first bad batch met.
"""

import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from engine.data.batch import Batch
from engine.processes.distributed import mean_over_ranks

FOLDER = "not_finite"  # in the run folder


@dataclass(frozen=True, slots=True)
class BatchOrigin:
    """Where the snippets of one rank's batch came from: rows of the training set and first frames."""

    step: int  # steps done before this one
    video: list[int]
    start: list[int]


@dataclass(frozen=True, slots=True)
class Skipped:
    """What the host knows of the bad steps. `scale` is the fp16 loss scale, 1 without one."""

    total: int
    new: int
    in_a_row: int
    scale: float


class FiniteGuard:
    """Skips the optimiser steps that would carry NaN or infinity into the weights.

    A gradient that overflows under a loss scale above 1 is skipped but not held against the run: the scaler
    lowers the scale, and the next step may be good. At a scale of 1 or less the scale has collapsed.

    Args:
        limit: bad steps in a row that end the run.
        remember: steps whose origin is kept, at least as many as may pass before the host looks.
    """

    def __init__(self, limit: int, remember: int, device: torch.device) -> None:
        self.limit = limit
        self._counts = torch.zeros(2, dtype=torch.int64, device=device)  # skipped in all, in a row
        self._one = torch.ones((), device=device)
        self._origins: deque[BatchOrigin] = deque(maxlen=limit + remember)
        self._seen = 0

    def restore(self, total: int) -> None:
        """Go on counting from a checkpoint; a row of bad steps begins anew."""
        self._counts.copy_(torch.tensor([total, 0]))
        self._seen = total

    def remember(self, step: int, batch: Batch) -> None:
        """Keep where a batch came from."""
        self._origins.append(BatchOrigin(step, batch.video.tolist(), batch.start.tolist()))

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        loss: torch.Tensor,
        gradient_norm: torch.Tensor,
        statistics_norm: torch.Tensor,
    ) -> torch.Tensor:
        """Update the weights unless the loss, gradient or statistics of any rank are not finite. Collective.

        Args:
            optimizer: a fused one (PyTorch's fused kernels skip where `found_inf` is 1, without the host).
            loss, gradient_norm: scalars on the device; the norm after unscaling.
            statistics_norm: of batch-norm's buffers, which a batch can spoil while its loss stays finite.

        Returns:
            Whether the step was skipped: bool scalar on the device.
        """
        values = torch.stack([value.detach().float() for value in (loss, statistics_norm, gradient_norm)])
        finite = torch.isfinite(mean_over_ranks(values))
        is_counted = ~finite[:2].all() | (~finite[2] & (scaler.scale(self._one) <= 1))
        is_over = self._counts[1] >= self.limit
        is_bad = ~finite.all() | is_over
        self._counts[0] += is_bad
        self._counts[1] = (self._counts[1] + 1) * (is_counted | is_over)
        optimizer.found_inf = is_bad.float()
        optimizer.step()
        scaler.update()
        return is_bad

    @property
    def total(self) -> int:
        """Steps skipped so far (the host waits for the device)."""
        return int(self._counts[0].item())

    def read(self, scaler: torch.amp.GradScaler) -> Skipped:
        """What was skipped, in all and since the last call (the host waits for the device)."""
        total, in_a_row = self._counts.tolist()
        new, self._seen = total - self._seen, total
        return Skipped(total, new, in_a_row, scaler.get_scale())

    def origins(self, first: int) -> list[BatchOrigin]:
        """The batches from step `first` on, at most `limit`."""
        return [origin for origin in self._origins if origin.step >= first][: self.limit]


def gradient_norm(model: nn.Module) -> torch.Tensor:
    """The norm of all gradients together, a scalar on the device."""
    return nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])


def statistics_norm(model: nn.Module) -> torch.Tensor:
    """The norm of batch-norm's statistics together, a scalar on the device; 0 if there are none (C3D)."""
    statistics = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if not statistics:  # torch's norm of nothing would be on the CPU
        return torch.zeros((), device=next(model.parameters()).device)
    return nn.utils.get_total_norm(statistics)


def copy_buffers(model: nn.Module) -> list[torch.Tensor]:
    """Batch-norm's statistics as they are now (a bad batch spoils them in its forward pass): one flat tensor a type."""
    return [_flat(buffers) for buffers in _by_type(model)]


@torch.no_grad()
def restore_buffers(model: nn.Module, before: Sequence[torch.Tensor], where: torch.Tensor) -> None:
    """Put the statistics back if `where` (bool scalar on the device) is true.

    In a handful of launches: a copy and a choice for each of some hundred buffers would keep a host busy for longer than
    a GPU computes.
    """
    for buffers, old in zip(_by_type(model), before, strict=True):
        chosen = torch.where(where, old, _flat(buffers)).split([buffer.numel() for buffer in buffers])
        torch._foreach_copy_(buffers, [part.view(buffer.shape) for part, buffer in zip(chosen, buffers, strict=True)])


def _flat(buffers: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([buffer.reshape(-1) for buffer in buffers])


def _by_type(model: nn.Module) -> list[list[torch.Tensor]]:
    """The buffers, those of one type together."""
    kinds: dict[torch.dtype, list[torch.Tensor]] = {}
    for buffer in model.buffers():
        kinds.setdefault(buffer.dtype, []).append(buffer)
    return list(kinds.values())


def write_origins(folder: Path, origins: Sequence[Sequence[BatchOrigin]], name: Callable[[int, int], str]) -> Path:
    """Write `batches.json`: for each rank its bad batches, by row and by name.

    Args:
        origins: of each rank.
        name: (row, first frame) -> the sample for people.
    """
    ranks = [
        [asdict(o) | {"snippets": [name(v, s) for v, s in zip(o.video, o.start, strict=True)]} for o in of_rank]
        for of_rank in origins
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "batches.json"
    path.write_text(json.dumps({"world_size": len(ranks), "ranks": ranks}, indent=1) + "\n", encoding="utf-8")
    return path
