"""Masked pretraining as a task of the engine (see `Task`): `task: masked` in a config."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from engine.config import Config
from engine.data.sampling.plans import plan_version
from engine.data.sampling.sampler import epoch_length
from engine.data.sets.footage import REARRANGED, Footage
from engine.errors import InputError
from engine.evaluation.snippets import check_readable
from engine.models.backbone import Normalisation, build_backbone
from engine.models.video_transformer import VideoTransformer, token_grid
from engine.models.weights import (
    checkpoint_classes,
    checkpoint_files,
    load_backbone_weights,
    weights_classes,
    weights_files,
)
from engine.processes.distributed import Ranks, mean_over_ranks
from engine.results.figures import save_figure
from engine.tasks.decoding import Decoding
from engine.tasks.masked.batches import MaskedBatch
from engine.tasks.masked.data import MaskedData, read_data
from engine.tasks.masked.filling import Filling
from engine.tasks.masked.masks import Masker
from engine.tasks.masked.measuring import Measuring
from engine.tasks.masked.network import MaskedAutoencoder, constant_loss, empty_sums
from engine.tasks.masked.outcome import MaskedOutcome, conclude, recorded, show
from engine.tasks.masked.pictures import mask_sheet
from engine.tasks.task import Measured, Task
from engine.tasks.token_batches import TokenBatches
from engine.training.network import is_compiled
from engine.training.precision import Precision
from engine.training.run import Run
from engine.training.telemetry import Telemetry

_SHOWN = 2  # clips whose masks are drawn


class Masked(Task):
    """A video transformer fills in what is hidden of clips; the best checkpoint is the one that does so best on held-out videos."""

    fields = ("videos",)
    output = "patches"

    def __init__(self, config: Config, ranks: Ranks, precision: Precision, data: MaskedData) -> None:
        super().__init__(config, ranks, precision)
        self.data, self.notes = data, list(data.notes)
        options = config.masked
        masker = Masker(options.mask, options.ratio, token_grid(config.clip, config.model.backbone))
        self.filling = Filling(masker, Normalisation(), precision, config.train.channels_last)
        self.plan = plan_version(config.data.plan, len(data.train.manifest))
        self.prior_classes: tuple[str, ...] = ()  # of the weights it starts from, and the contents of their videos
        self.files_before = np.zeros(0, np.int64)
        self._patches = empty_sums(ranks.device)  # of the steps since the last `beside_loss`

    @classmethod
    def build(cls, config: Config, ranks: Ranks, precision: Precision) -> Self:
        """See `Task`.

        Raises:
            InputError: also of a network that cannot be trained so, and of masks that clips do not allow.
        """
        name, mask = config.model.backbone, config.masked.mask
        if not name.startswith("vit_"):
            raise InputError(f"task masked trains vit_tiny, vit_small or vit_base: set model.backbone (here {name})")
        if config.model.freeze_backbone:
            raise InputError("task masked trains the backbone: leave model.freeze_backbone out")
        if config.model.tokens.share < 1:
            raise InputError("task masked shows what masked.ratio leaves of the tokens: leave model.tokens out")
        if mask == "mgm" and not config.clip.motion:
            raise InputError("masked.mask mgm needs the motion of the clips: set clip.motion=true, or take smm")
        _, rows, columns = token_grid(config.clip, name)
        if rows * columns < 2:
            raise InputError(
                f"clip.crop={config.clip.crop} is a single token of 16x16: nothing could be seen beside it"
            )
        return cls(config, ranks, precision, read_data(config, ranks.device))

    @cached_property
    def epoch_size(self) -> int:
        return epoch_length(self.data.weights, self.config.data.clips_per_epoch)

    @property
    def is_remote(self) -> bool:
        return self.data.train.manifest.is_remote

    def build_model(self) -> MaskedAutoencoder:
        config = self.config
        backbone = build_backbone(config.model, config.clip)
        assert isinstance(backbone, VideoTransformer)
        if config.model.weights:
            self.notes.append(f"the encoder starts from {load_backbone_weights(backbone, config.model.weights)}")
        backbone.recompute = config.train.checkpoint_activations
        return MaskedAutoencoder(backbone, config.masked)

    def batches(self, run: Run, part: tuple[int, int] | None = None) -> TokenBatches[MaskedBatch]:
        data, part = self.data, part or (self.ranks.rank, self.ranks.world_size)
        no_class = np.zeros(len(data.train.classes), np.int64)
        loader = data.decoding.training_clips(
            data.train.manifest, no_class, data.weights, part, run.stream_position, self.plan
        )
        return TokenBatches(loader, self.filling.masker, MaskedBatch, run.step, *part)

    def loss(self, network: nn.Module, batch: MaskedBatch) -> torch.Tensor:
        return self._losses(network, batch).mean()

    def loss_of_each(self, network: nn.Module, batch: MaskedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        each = self._losses(network, batch)
        return each.mean(), each.detach()

    def _losses(self, network: nn.Module, batch: MaskedBatch) -> torch.Tensor:
        """Of each clip [N]."""
        predicted, targets = self.filling(network, batch.clips.frames, batch.mask)
        self._patches += targets.sums()
        return targets.errors(predicted).mean(dim=1)

    def beside_loss(self) -> dict[str, float]:
        """What the best constant patch would have."""
        value = constant_loss(mean_over_ranks(self._patches))
        self._patches.zero_()
        return {"train/constant_loss": value}

    def rehearse(self) -> list[str]:
        if self.data.held_out is not None:
            check_readable([self.data.held_out], self.config.clip)
        return []

    def measure(self, run: Run) -> Measured:
        measuring = self._held_out(run)
        if measuring is None:
            return Measured({}, "nothing is held out (data.validation.video_share)", 0.0, "newest")
        evaluate = run.config.evaluate
        filled = measuring.filled(evaluate.during_snippets, evaluate.max_videos)
        scalars = {"held_out/loss": filled.loss, "held_out/constant_loss": filled.constant}
        return Measured(scalars, f"held out: {filled}", -filled.loss, "held-out loss")

    def _held_out(self, run: Run) -> Measuring | None:
        held = self.data.held_out
        return None if held is None else Measuring(run, self.filling, self.data.decoding, held.manifest)

    def conclude(self, run: Run, telemetry: Telemetry) -> MaskedOutcome:
        held = self._held_out(run)
        shown = held or Measuring(run, self.filling, self.data.decoding, self.data.train.manifest)
        return conclude(run, held, shown, telemetry)

    def recorded(self, run: Run) -> MaskedOutcome | None:
        return recorded(run)

    @staticmethod
    def show(reached: MaskedOutcome, control: Any | None) -> None:
        show(reached)

    def introduce(self, run: Run) -> list[str]:
        data, config, masker = self.data, self.config, self.filling.masker
        held = f", {len(data.held_out.manifest)} held out" if data.held_out else ""
        tokens = masker.grid[0] * masker.grid[1] * masker.grid[2]
        hidden = masker.hidden * masker.grid[0]
        compiled = ", compiled" if is_compiled(config, self.ranks.device) else ""
        return [
            f"pretraining without labels: {len(data.train.manifest)} videos ({data.train.name}){held}; "
            f"{run.total_steps} steps of {config.train.batch_size} snippets, {config.train.epochs} epochs",
            f"masks: {masker.kind}, {hidden} of {tokens} tokens hidden ({hidden / tokens:.3f})",
            f"model: {config.model}, decoder of {config.masked.decoder_depth} blocks, "
            f"{sum(p.numel() for p in run.model.parameters()):,} parameters, {self.precision.name}{compiled}",
            f"decoder: {data.decoding}",
        ]

    def show_first(self, run: Run, batch: MaskedBatch, telemetry: Telemetry) -> None:
        """The first clips under masks of every kind."""
        count = min(_SHOWN, self.config.log.sample_clips)
        if telemetry.writer is None or not count:
            return
        sheet = mask_sheet(batch.clips, self.filling.masker, run.config.run.seed, count)
        pixels = save_figure(sheet, run.folder / "masks.png")
        telemetry.writer.add_image("masks", pixels, run.step, dataformats="HWC")

    @property
    def decoding(self) -> Decoding:
        """Who decodes the clips."""
        return self.data.decoding

    def news(self, *, sums: bool) -> list[str]:
        return self.decoding.news(sums=sums)

    def sample_name(self, video: int, start: int) -> str:
        return f"{self.data.train.manifest.path(video)} from frame {start}"

    def state(self) -> dict[str, Any]:
        """No class was seen: what is trained from these weights is held against these videos alone."""
        return {
            "train_classes": [],
            "prior_classes": list(self.prior_classes),
            "videos": replace(self.data.footage, before=self.files_before).to_state(),
        }

    def changes(self, state: Mapping[str, Any]) -> list[str]:
        remembered = Footage.from_state(state)
        gone, new = remembered.difference(self.data.footage)
        what = remembered.unit or " videos"
        return [f"set of videos ({gone} of its{what} are gone, {new} others are there)"] if gone or new else []

    def recall(self, state: Mapping[str, Any], folder: Path) -> list[str]:
        remembered = Footage.from_state(state)
        if not remembered.is_rearranged(self.data.footage, drawn=self.config.data.draws_videos):
            return []
        self.data = read_data(self.config, self.ranks.device, remembered)
        self.__dict__.pop("epoch_size", None)
        return [REARRANGED]

    def begin(self, resumed: Mapping[str, Any] | None, source: Mapping[str, Any] | None) -> list[str]:
        weights = self.config.model.weights
        if resumed is not None:
            self.prior_classes, self.files_before = tuple(resumed["prior_classes"]), Footage.from_state(resumed).before
        elif source is not None:
            self.prior_classes, self.files_before = checkpoint_classes(source), checkpoint_files(source)
        elif weights:
            self.prior_classes, self.files_before = tuple(weights_classes(weights) or ()), weights_files(weights)
        return []
