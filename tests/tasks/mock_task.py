"""The smallest task: a line is fitted to points drawn anew for every step. What a new task must bring, and no more."""

import dataclasses

import torch
from torch import nn

from engine.tasks.task import Measured, Task


@dataclasses.dataclass
class Points:
    x: torch.Tensor  # float [N, 1]
    video: torch.Tensor
    start: torch.Tensor
    failures: tuple = ()

    def __len__(self):
        return len(self.x)

    def chunk(self, parts):
        return [Points(*part) for part in zip(*(c.chunk(parts) for c in (self.x, self.video, self.start)), strict=True)]


class Line(Task):
    slope, epoch_size, fields, notes = 3.0, 24, ("slope",), ("a line is fitted",)

    def build_model(self):
        return nn.Linear(1, 1)

    def batches(self, run, part=None):
        epoch, position = run.stream_position
        place, (rank, world_size) = epoch * self.epoch_size + position, part or (self.ranks.rank, self.ranks.world_size)
        while True:  # sample i is a function of (seed, i)
            mine = torch.arange(place + rank, place + self.config.train.batch_size, world_size)
            yield Points(torch.sin(mine + self.config.run.seed).unsqueeze(1), mine, mine % 7)
            place += self.config.train.batch_size

    def loss(self, network, batch):
        noise = 0.1 * torch.randn_like(batch.x)  # seeded by (seed, step, rank), as dropout is
        return (network(batch.x) + noise - self.slope * batch.x).square().mean()

    def measure(self, run):
        error = abs(run.evaluated.weight.item() - self.slope)
        return Measured({"line/error": error}, f"slope off by {error:.3f}", -error, "slope")

    def conclude(self, run, telemetry):
        (run.folder / "line.txt").write_text(f"{run.evaluated.weight.item()}")
        return run.evaluated.weight.item()

    def state(self):
        return {"slope": self.slope}

    def changes(self, state):
        return ["slope"] if state["slope"] != self.slope else []
