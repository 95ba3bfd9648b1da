"""Moment search as a task of the engine (see `Task`): `task: moments` in a config."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional

from engine.config import Config, load_config
from engine.features.cache import Stamp
from engine.moments.measures import measure
from engine.moments.network import MomentNetwork
from engine.processes.distributed import Ranks
from engine.schema.keys import with_keys
from engine.tasks.moments.batches import MomentBatch, MomentBatches
from engine.tasks.moments.data import MomentData, read_moment_data
from engine.tasks.moments.outcome import (
    MomentOutcome,
    conclude,
    find_all,
    recorded,
    show,
    why_not_others,
    why_not_untrained,
)
from engine.tasks.moments.trained import FIELDS
from engine.tasks.task import Measured, Task
from engine.training.precision import Precision
from engine.training.run import Run
from engine.training.telemetry import Telemetry, escaped


class Moments(Task):
    """A network learns which seconds of a video a sentence tells of; the best checkpoint is chosen on held-out training videos."""

    sections = ("words",)  # what of `moments` is fixed its keys say
    fields = FIELDS
    output = "features"

    def __init__(self, config: Config, ranks: Ranks, precision: Precision, data: MomentData) -> None:
        super().__init__(config, ranks, precision)
        self.data, self.notes = data, data.notes

    @classmethod
    def build(cls, config: Config, ranks: Ranks, precision: Precision) -> Self:
        return cls(config, ranks, precision, read_moment_data(config, ranks))

    @staticmethod
    def before(config: Config) -> Config | None:
        """The run whose network gives the features."""
        if config.moments is None or config.moments.encoder is None:
            return None
        earlier = load_config(Path(config.moments.encoder), [])
        same = ("device", "deterministic", "cpu_threads", "timeout_s")
        return with_keys(earlier, {f"run.{key}": getattr(config.run, key) for key in same})

    @property
    def epoch_size(self) -> int:
        return len(self.data.train)

    def build_model(self) -> MomentNetwork:
        return MomentNetwork(self.data.features.stamp.width, self.data.queries.dim, self.data.config)

    def batches(self, run: Run, part: tuple[int, int] | None = None) -> MomentBatches:
        rank, world_size = part or (self.ranks.rank, self.ranks.world_size)
        seed, size = self.config.run.seed, self.config.train.batch_size
        return MomentBatches(
            self.data, seed, size, rank, world_size, self.ranks.device, self.precision.weights, run.stream_position
        )

    def loss(self, network: nn.Module, batch: MomentBatch) -> torch.Tensor:
        return self._losses(network, batch).mean()

    def loss_of_each(self, network: nn.Module, batch: MomentBatch) -> tuple[torch.Tensor, torch.Tensor]:
        each = self._losses(network, batch)
        return each.mean(), each.detach()

    def _losses(self, network: nn.Module, batch: MomentBatch) -> torch.Tensor:
        """Of each sample [N]: where it starts, where it ends, and which segments are in it."""
        with self.precision.autocast(self.ranks.device):
            start, end, inside = network(batch.frames, batch.is_segment, batch.tokens, batch.is_token)
        spans = functional.cross_entropy(start, batch.first, reduction="none")
        spans = spans + functional.cross_entropy(end, batch.last, reduction="none")
        loss = torch.where(batch.has_moment, spans, 0.0)
        if self.data.config.frame_weight:
            each = functional.binary_cross_entropy_with_logits(inside, batch.inside.to(inside.dtype), reduction="none")
            real = batch.is_segment.to(each.dtype)
            loss = loss + self.data.config.frame_weight * (each * real).sum(1) / real.sum(1)
        return loss

    def measure(self, run: Run) -> Measured:
        held = self.data.held_out
        if held is None:
            return Measured({}, "nothing is held out (moments.held_out)", 0.0, "newest")
        result = measure(find_all(run, self.data, held, held.tokens), held.annotations.windows)
        scalars = {f"held_out/{name}": value for name, value in result.to_dict().items() if isinstance(value, float)}
        recall = "  ".join(f"R@1 IoU {at:g} {value:.3f}" for (k, at), value in result.recall.items() if k == 1)
        return Measured(
            scalars, f"held out {recall}  mean IoU {result.mean_iou:.3f}", result.mean_iou, "held-out mean IoU"
        )

    def conclude(self, run: Run, telemetry: Telemetry) -> MomentOutcome:
        outcome = conclude(run, self.data)
        for split, result in outcome.results.tests.items():
            for part, numbers in result.items():
                values = {
                    f"{escaped(split)}/{part}/{name}": v for name, v in (numbers or {}).items() if isinstance(v, float)
                }
                telemetry.scalars(run.step, values)
        return outcome

    def recorded(self, run: Run) -> MomentOutcome | None:
        return recorded(run, self.data)

    @staticmethod
    def show(reached: MomentOutcome, control: Any | None) -> None:
        show(reached)

    def introduce(self, run: Run) -> list[str]:
        data, config = self.data, self.data.config
        held = f", {len(data.held_out)} held out" if data.held_out else ""
        tests = ", ".join(f"{len(part)} {part.name}" for part in data.tests)
        apart = why_not_untrained(data)
        unasked = {part.name: why_not_others(part.annotations.videos) for part in data.tests}
        return [
            f"training: {len(data.train)} queries of {len(set(data.train.annotations.videos))} videos{held}; test: {tests}",
            f"{run.total_steps} steps of {run.config.train.batch_size} queries, {run.config.train.epochs} epochs",
            f"features: {data.features.stamp.model}, {data.features.stamp.width} numbers a window of {data.features.stamp.grid}",
            f"queries: {data.queries.description}",
            f"model: {config.fusion}, width {config.width}, {sum(p.numel() for p in run.model.parameters()):,} parameters, "
            f"{self.precision.name}",
            *(f"queries of other videos: not measured on {name}: {why}" for name, why in unasked.items() if why),
            *([f"no training: not measured, the features cannot be held against words: {apart}"] if apart else []),
        ]

    def sample_name(self, video: int, start: int) -> str:
        known = self.data.train.annotations
        return f"{known.videos[video]}: {known.queries[video]!r}"

    def state(self) -> dict[str, Any]:
        stamp = self.data.features.stamp
        return {
            "features_digest": stamp.digest,
            "features": dataclasses.asdict(stamp),
            "video_dim": stamp.width,
            "query_dim": self.data.queries.dim,
            "num_queries": len(self.data.train),
            "queries_digest": self.data.learnt_digest,
            "videos_digest": self.data.learnt_videos_digest,
        }

    def changes(self, state: Mapping[str, Any]) -> list[str]:
        stamp, changed, digest = self.data.features.stamp, [], self.data.learnt_digest
        videos = self.data.learnt_videos_digest
        if state["features_digest"] != stamp.digest:
            changed.append(f"model of the features ({stamp.model} here)")
        elif Stamp.of(state["features"]).grid != stamp.grid:
            changed.append(f"windows of the features ({stamp.grid} here)")
        if state["num_queries"] != len(self.data.train):
            changed.append("number of training queries")
        elif state.get("queries_digest", digest) != digest:  # earlier versions kept none
            changed.append("set of training queries, or of their moments")
        elif videos and state.get("videos_digest") not in (None, "", videos):  # nor of these
            changed.append("set of videos of the training queries, by their contents")
        return changed
