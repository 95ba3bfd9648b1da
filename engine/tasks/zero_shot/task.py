"""Zero-shot recognition as a task: what `engine/train.py` trains unless the config says otherwise."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from engine.config import Config
from engine.data.batch import ClipBatch
from engine.data.loading.loader import ClipLoader
from engine.data.sampling.plans import plan_version
from engine.data.sampling.sampler import epoch_length
from engine.data.sets.footage import REARRANGED, Footage
from engine.data.sets.sources import DataSet, class_lookup
from engine.errors import InputError
from engine.models.embedder import Embedder
from engine.models.weights import checkpoint_classes, checkpoint_files, weights_files
from engine.processes.distributed import Ranks
from engine.provenance import FILE as PROVENANCE
from engine.provenance import changed_manifest
from engine.results import pictures
from engine.results.figures import figure_array
from engine.semantics.overlap import check_pretrained
from engine.semantics.same_names import changed_classes
from engine.tasks.decoding import Decoding
from engine.tasks.task import Measured, Task
from engine.tasks.token_batches import TokenBatches
from engine.tasks.zero_shot.control import control_config
from engine.tasks.zero_shot.known import Known, videos_seen_before
from engine.tasks.zero_shot.measuring import measure
from engine.tasks.zero_shot.model import build_model
from engine.tasks.zero_shot.outcome import Outcome, conclude, recorded, show, show_before_control
from engine.tasks.zero_shot.rehearsal import rehearse
from engine.tasks.zero_shot.sets import Sets, read_sets
from engine.tasks.zero_shot.trained import FIELDS
from engine.training.losses import build_loss
from engine.training.network import is_compiled
from engine.training.precision import Precision
from engine.training.run import Run
from engine.training.telemetry import Telemetry, escaped

_PROJECTED = "class_vectors"  # what TensorBoard's projector calls them


class ZeroShot(Task):
    """Videos are trained towards the vectors of their classes and measured on classes never seen (see `Task`)."""

    sections = ("model", "clip", "words", "loss")
    fields = FIELDS
    output = "class vectors"

    def __init__(self, config: Config, ranks: Ranks, precision: Precision, sets: Sets) -> None:
        super().__init__(config, ranks, precision)
        self.sets = sets
        self.plan = plan_version(config.data.plan, len(sets.train.manifest))
        self.criterion = build_loss(config.loss, sets.classes.vectors)
        self.prior_classes = sets.prior_classes  # and those of the weights it starts from, see `begin`
        self.files_before = np.zeros(0, np.int64)  # contents of the files that those weights were trained on
        self.notes = list(sets.notes)

    @classmethod
    def build(cls, config: Config, ranks: Ranks, precision: Precision) -> Self:
        return cls(config, ranks, precision, read_sets(config, ranks.device))

    @cached_property
    def epoch_size(self) -> int:
        """Counted once: it is asked for several times a step."""
        return epoch_length(self.sets.weights, self.config.data.clips_per_epoch)

    @property
    def is_remote(self) -> bool:
        return self.sets.train.manifest.is_remote

    @cached_property
    def targets(self) -> torch.Tensor:
        """The class vectors [C, D] where the model is, in the type of its weights."""
        return self.sets.classes.vectors.to(self.ranks.device, self.precision.weights)

    def build_model(self) -> Embedder:
        model, notes = build_model(
            self.config,
            self.ranks.device,
            self.precision,
            self.config.clip,
            self.sets.classes.dim,
            self.criterion,
        )
        self.model = model
        self.notes += notes
        return model

    def batches(self, run: Run, part: tuple[int, int] | None = None) -> ClipLoader | TokenBatches[ClipBatch]:
        sets = self.sets
        classes = class_lookup(sets.train.manifest, sets.train.classes)
        part = part or (self.ranks.rank, self.ranks.world_size)
        loader = sets.decoding.training_clips(
            sets.train.manifest, classes, sets.weights, part, run.stream_position, self.plan
        )
        tokens = run.model.tokens
        return loader if tokens is None else TokenBatches(loader, tokens, _with_visible, run.step, *part)

    def points(self, network: nn.Module, batch: ClipBatch) -> torch.Tensor:
        """The batch as points of the word space [N, D]; its clips are normalised in one pass over memory on a GPU."""
        normalisation = self.model.normalisation  # as it is where the model is now: padded on a GPU
        clips = normalisation(batch.frames, self.precision.compute, channels_last=self.config.train.channels_last)
        with self.precision.autocast(self.ranks.device):
            return network(clips, batch.visible)

    def loss(self, network: nn.Module, batch: ClipBatch) -> torch.Tensor:
        return self.criterion(self.points(network, batch), self.targets, batch.class_index)

    def loss_of_each(self, network: nn.Module, batch: ClipBatch) -> tuple[torch.Tensor, torch.Tensor]:
        points, label = self.points(network, batch), batch.class_index
        loss = self.criterion(points, self.targets, label)
        each = [self.criterion(points[i : i + 1], self.targets, label[i : i + 1]) for i in range(len(label))]
        return loss, torch.stack(each).detach()

    def rehearse(self) -> list[str]:
        return rehearse(self.config, self.sets)

    def measure(self, run: Run) -> Measured:
        return measure(run, self.sets)

    def conclude(self, run: Run, telemetry: Telemetry) -> Outcome:
        return conclude(run, self.sets, self._known(), telemetry)

    def _known(self) -> Known:
        footage = self.sets.footage
        trained = None if footage.is_large else np.unique(np.concatenate([footage.trained_files, self.files_before]))
        named = [("training", self.sets.train.classes), ("pretrained weights", self.prior_classes)]
        return Known(named, trained, self.config.train.exclude_overlap, self.sets.words)

    def recorded(self, run: Run) -> Outcome | None:
        return recorded(run, self.sets)

    control = staticmethod(control_config)
    show_before_control = staticmethod(show_before_control)
    show = staticmethod(show)

    @property
    def has_control(self) -> bool:
        return self.config.run.control

    def introduce(self, run: Run) -> list[str]:
        train, model = self.sets.train, self.config.model
        compiled = ", compiled" if is_compiled(self.config, self.ranks.device) else ""
        return [
            f"training: {len(train.manifest)} videos of {len(train.classes)} classes ({train.name}); "
            f"{run.total_steps} steps of {run.config.train.batch_size} snippets, {run.config.train.epochs} epochs",
            *(self._introduced(each.data) for each in self.sets.measured if each is not self.sets.held_out_videos),
            f"class vectors: {self.sets.classes.description}",
            f"model: {model}, {sum(p.numel() for p in run.model.parameters()):,} parameters, "
            f"{run.model.weights_from}, {self.precision.name}{compiled}",
            f"decoder: {self.sets.decoding}",
        ]

    def _introduced(self, data: DataSet) -> str:
        known = len(self._known().classes_of(data))
        what = f"test, {known} of its classes trained on" if known else "unseen"
        return f"{what}: {len(data.manifest)} videos of {len(data.classes)} classes ({data.name})"

    @property
    def decoding(self) -> Decoding:
        """Who decodes the clips."""
        return self.sets.decoding

    def news(self, *, sums: bool) -> list[str]:
        return self.decoding.news(sums=sums)

    def show_first(self, run: Run, batch: ClipBatch, telemetry: Telemetry) -> None:
        """The class vectors for TensorBoard's projector, and the first snippets with their class names."""
        if telemetry.writer is None:
            return
        classes = self.sets.classes
        # Of a start that was killed before its first checkpoint; TensorBoard warns of what it writes over.
        shutil.rmtree(Path(telemetry.writer.log_dir) / "00000" / _PROJECTED, ignore_errors=True)
        telemetry.writer.add_embedding(classes.vectors, [escaped(name) for name in classes.names], tag=_PROJECTED)
        count = min(self.config.log.sample_clips, len(batch))
        if count:
            names = [classes.names[index] for index in batch.class_index[:count].tolist()]
            sheet = pictures.sample_sheet(batch.frames[:count], names)
            telemetry.writer.add_image("training_snippets", figure_array(sheet), run.step, dataformats="HWC")

    def sample_name(self, video: int, start: int) -> str:
        manifest = self.sets.train.manifest
        (of_class,) = manifest.classes_of(np.array([video]))
        return f"{manifest.path(video)} from frame {start}: {manifest.classes[of_class]}"

    def state(self) -> dict[str, Any]:
        return {
            "train_classes": list(self.sets.train.classes),
            "prior_classes": list(self.prior_classes),
            "embed_dim": self.sets.classes.dim,
            "num_videos": len(self.sets.train.manifest),
            "videos": replace(self.sets.footage, before=self.files_before).to_state(),
        }

    def changes(self, state: Mapping[str, Any]) -> list[str]:
        of_tests = [name for _, names in self.sets.test_classes for name in names]
        told = changed_classes(state["train_classes"], self.sets.train.classes, of_tests)
        changed = [told] if told else []
        remembered = Footage.from_state(state)
        if remembered is not None and not told:  # other classes have other videos
            gone, new = remembered.difference(self.sets.footage)
            where = " and ".join(source.manifest for source in self.config.data.train)
            if gone or new:
                changed.append(
                    f"set of videos ({gone} of its {len(remembered.rows)}{remembered.unit} are not in {where}, {new} others are)"
                )
        elif remembered is None and len(self.sets.train.manifest) != state["num_videos"]:
            changed.append("number of training videos")
        return changed

    def recall(self, state: Mapping[str, Any], folder: Path) -> list[str]:
        """The same videos in the order and the parts of the checkpoint, whatever they are called by now.

        Raises:
            InputError: the checkpoint has row numbers alone, and the manifests are not those that they are of.
        """
        if list(self.sets.train.classes) != list(state["train_classes"]):
            return []
        remembered, ours = Footage.from_state(state), self.sets.footage
        if remembered is not None:
            if not remembered.is_rearranged(ours, drawn=self.config.data.draws_videos):
                return []
            self._put(read_sets(self.config, self.ranks.device, remembered))
            return [REARRANGED]
        self._put(read_sets(self.config, self.ranks.device, join_copies=False))
        reason = changed_manifest(folder, self.config.data.train)
        if reason and (folder / PROVENANCE).is_file():
            raise InputError(
                f"run folder '{folder}' holds a run that remembers its videos by row numbers alone, as earlier versions did, "
                f"and {reason}: put that one back, or choose another run.folder"
            )
        return [f"the videos of this run are taken by row numbers, unchecked: {reason}"] if reason else []

    def _put(self, sets: Sets) -> None:
        self.sets = sets
        self.__dict__.pop("epoch_size", None)

    def begin(self, resumed: Mapping[str, Any] | None, source: Mapping[str, Any] | None) -> list[str]:
        """Hold the classes that the weights have seen against the test classes (paper Eq. 3), and the videos against all measured.

        Raises:
            InputError: they overlap, and the config does not allow it.
        """
        if resumed is not None:
            self.prior_classes = tuple(resumed.get("prior_classes", self.prior_classes))
            remembered = Footage.from_state(resumed)
            self.files_before = self.files_before if remembered is None else remembered.before
        elif source is not None:
            self.prior_classes = tuple(dict.fromkeys([*self.prior_classes, *checkpoint_classes(source)]))
            self.files_before = checkpoint_files(source)
        elif self.config.model.weights:
            self.files_before = weights_files(self.config.model.weights)
        overlap = self.config.train.exclude_overlap
        return [
            *check_pretrained(overlap, self.prior_classes, self.sets.test_classes, self.sets.words),
            *videos_seen_before(self.files_before, [each.data for each in self.sets.measured]),
        ]


def _with_visible(clips: ClipBatch, visible: torch.Tensor) -> ClipBatch:
    return replace(clips, visible=visible)
