"""The state of a training run: built from a config, saved to and restored from checkpoints."""

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.checkpoint import clip_format, drop_old_checkpoints, save_checkpoint
from engine.command_line import output_folder
from engine.config import Config
from engine.data.batch import VideoDecoder
from engine.data.decoders import DecoderChoice, build_decoder, choose_decoder
from engine.data.loader import ClipLoader, StreamPlan
from engine.data.sampler import epoch_length
from engine.data.sources import DataSet, TrainingData, class_lookup, load_tests, load_training, load_training_sets
from engine.distributed import Ranks
from engine.ema import KEY as AVERAGE
from engine.ema import WeightAverage, build_average
from engine.finite import FiniteGuard
from engine.losses import Loss, build_loss
from engine.models.embedder import Embedder
from engine.models.weights import weights_classes
from engine.network import as_called, build_model
from engine.optim import build_optimizer
from engine.precision import Precision, choose_precision
from engine.preemption import StopVote
from engine.resume import restore
from engine.schema import to_tree
from engine.semantics.classes import ClassEmbeddings, build_class_embeddings
from engine.semantics.overlap import check_pretrained, read_class_names, remove_overlap
from engine.watchdog import Watchdog


@dataclass
class Run:
    """Everything that `train` needs; `step` counts optimiser steps done, and so places the data stream."""

    config: Config
    ranks: Ranks
    stop: StopVote
    watchdog: Watchdog
    folder: Path
    data: TrainingData
    tests: list[DataSet]
    classes: ClassEmbeddings  # of the training classes, in the order of the labels
    model: Embedder
    network: nn.Module  # the model as it is called: distributed, compiled
    average: WeightAverage | None  # of the model's weights, if train.ema_decay asks for it
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    guard: FiniteGuard
    precision: Precision
    loss: Loss
    decoder: DecoderChoice  # made once for all of the run's videos
    prior_classes: tuple[str, ...] = ()  # that the weights it started from were trained on (D_p of the paper)
    step: int = 0
    measured: int = 0  # the last step after which accuracy was measured
    best: dict[str, Any] = field(default_factory=lambda: {"value": -1.0, "step": 0, "metric": ""})
    notes: list[str] = field(default_factory=list)  # what to tell the user when logging starts

    @property
    def evaluated(self) -> Embedder:
        """The model whose accuracy is measured: with averaged weights, or as it is trained."""
        is_average = self.average is not None and self.config.evaluate.weights != "trained"
        return self.average.model if is_average else self.model

    @cached_property
    def epoch_size(self) -> int:
        """Snippets of an epoch over all ranks. Counted once: it is asked for several times a step."""
        return epoch_length(self.data.weights, self.config.data.clips_per_epoch)

    @property
    def total_steps(self) -> int:
        """Steps after which every snippet of every epoch has been seen (the last batch may reach past it)."""
        return -(-self.config.train.epochs * self.epoch_size // self.config.train.batch_size)

    @property
    def stream_position(self) -> tuple[int, int]:
        """(epoch, position) of the next snippet: the two integers the data resume from."""
        return divmod(self.step * self.config.train.batch_size, self.epoch_size)

    @property
    def ends_epoch(self) -> bool:
        """Whether the last step done was the last of an epoch, or of the run."""
        epoch_before = (self.step - 1) * self.config.train.batch_size // self.epoch_size
        return self.step > 0 and (self.stream_position[0] > epoch_before or self.step == self.total_steps)

    @property
    def measures_now(self) -> bool:
        """Whether accuracy is due after the last step done."""
        is_due = self.stream_position[0] % self.config.evaluate.every_epochs == 0 or self.step == self.total_steps
        return self.ends_epoch and is_due


def build_run(config: Config, ranks: Ranks, stop: StopVote) -> Run:
    """Read the data, the words and the model of a run, and resume it if it was started before."""
    if ranks.is_main:
        output_folder(Path(config.run.folder), "run.folder")
    tests = load_tests(config.data.tests)
    test_classes = [(test.name, test.classes) for test in tests]
    training_sets = load_training_sets(config.data)
    training_classes = [(part.name, part.classes) for part in training_sets]
    overlap = config.train.exclude_overlap
    removed, notes = remove_overlap(overlap, training_classes, test_classes, config.words)
    data = load_training(config.data, without=removed, sets=training_sets)
    prior_classes, unknown = _weights_classes(config)
    if config.run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS may add in another order
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not config.run.deterministic  # tries cuDNN's algorithms once for each shape
    # Words of test classes are read now too: a missing one should stop the run before days of training.
    classes = build_class_embeddings(data.train.classes, config.words)
    for held in [*tests, data.unseen]:
        if held is not None:
            build_class_embeddings(held.classes, config.words)
    loss = build_loss(config.loss, classes.vectors)
    precision = choose_precision(config.train.precision, ranks.device)
    model, model_notes = build_model(config, ranks, precision, clip_format(config), classes.vectors.shape[1], loss)
    sets = [data.train, *(held for held in (data.seen, data.unseen) if held), *tests]
    manifests, by_rule = [each.manifest for each in sets], config.run.deterministic
    decoder = choose_decoder(config.data.decoder, ranks.device, manifests, by_rule=by_rule)
    run = Run(
        config=config,
        ranks=ranks,
        stop=stop,
        watchdog=Watchdog(ranks.store, ranks.rank, ranks.world_size, config.run.timeout_s),
        folder=Path(config.run.folder),
        data=data,
        tests=tests,
        classes=classes,
        model=model,
        network=model,
        average=build_average(model, config),
        optimizer=build_optimizer(model, config.train, ranks.device),
        scaler=torch.amp.GradScaler(ranks.device.type, enabled=precision.name == "fp16"),
        guard=FiniteGuard(config.train.max_skipped_steps, config.log.every_steps, ranks.device),
        precision=precision,
        loss=loss,
        decoder=decoder,
        prior_classes=prior_classes,
        notes=[*notes, *unknown, *model_notes],
    )
    restore(run)
    run.notes += check_pretrained(overlap, run.prior_classes, test_classes, config.words)
    run.network = as_called(run.model, config, ranks)
    return run


def _weights_classes(config: Config) -> tuple[tuple[str, ...], list[str]]:
    """The classes that `model.weights` were trained on, and a line for the log where that is not known."""
    named = config.train.exclude_overlap.pretrained_classes
    if named:
        return read_class_names(Path(named)), []
    known = weights_classes(config.model.weights) if config.model.weights else ()
    if known is not None:
        return known, []
    return (), [
        f"what classes '{config.model.weights}' was trained on is not known, so they are not held against the test "
        "classes: name them in train.exclude_overlap.pretrained_classes"
    ]


def build_loader(run: Run, stream: StreamPlan | None = None) -> ClipLoader:
    """The stream of training batches of this rank, or of the one that `stream` names, from where the run stands."""
    config, ranks = run.config, run.ranks
    stream = stream or StreamPlan(
        config.run.seed, config.train.batch_size, ranks.rank, ranks.world_size, config.clip.flip
    )
    local = stream.batch_size // stream.world_size
    epoch, position = run.stream_position
    return ClipLoader(
        run.data.train.manifest,
        class_lookup(run.data.train.manifest, run.data.train.classes),
        make_decoder(run, local),
        clip_format(config),
        stream,
        config.data,
        epoch=epoch,
        position=position,
        weights=run.data.weights,
    )


def make_decoder(run: Run, max_batch_size: int) -> VideoDecoder:
    """The decoders of the run's choice for batches of at most `max_batch_size` snippets."""
    clip, threads = clip_format(run.config), run.config.data.decode_threads
    processes = run.config.data.decode_processes
    return build_decoder(run.decoder, clip, run.ranks.device, threads, max_batch_size, in_processes=processes)


def save_run(run: Run, path: Path) -> None:
    """Write a checkpoint of the run (rank 0 only; the others need not call it)."""
    epoch, position = run.stream_position
    save_checkpoint(
        path,
        {
            "model": run.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "scaler": run.scaler.state_dict(),
            "config": to_tree(run.config),
            "train_classes": list(run.data.train.classes),
            "prior_classes": list(run.prior_classes),
            "embed_dim": run.classes.vectors.shape[1],
            "num_videos": len(run.data.train.manifest),
            "epoch_size": run.epoch_size,
            "step": run.step,
            "epoch": epoch,
            "position": position,
            "best": run.best,
            "measured": run.measured,
            "skipped_steps": run.guard.total,
            **({AVERAGE: run.average.model.state_dict()} if run.average else {}),
        },
    )


def save_newest(run: Run) -> None:
    """Keep the run's present state to resume from, and drop the oldest kept one."""
    save_run(run, run.folder / "checkpoints" / f"step_{run.step:08d}.pt")
    drop_old_checkpoints(run.folder, run.config.checkpoint.keep)


def save_best(run: Run) -> None:
    """Keep the run's present state as the best one so far."""
    save_run(run, run.folder / "checkpoints" / "best.pt")
