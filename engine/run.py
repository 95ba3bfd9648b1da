"""The state of a training run: built from a config, saved to and restored from checkpoints."""

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from engine.checkpoint import (
    LOSS_PART,
    checkpoint_file,
    clip_format,
    drop_old_checkpoints,
    network_weights,
    newest_checkpoint,
    read_checkpoint,
    save_checkpoint,
    set_aside_later,
)
from engine.config import Config
from engine.data.batch import VideoDecoder
from engine.data.decoders import build_decoder, choose_decoder
from engine.data.loader import ClipLoader, StreamPlan
from engine.data.sampler import epoch_length
from engine.data.sources import DataSet, TrainingData, class_lookup, load_tests, load_training, load_training_sets
from engine.distributed import Ranks, barrier, main_rank_first
from engine.errors import InputError
from engine.finite import FiniteGuard
from engine.losses import Loss, build_loss
from engine.models.embedder import Embedder, build_embedder
from engine.models.weights import checkpoint_classes, weights_classes
from engine.optim import build_optimizer
from engine.precision import Precision, choose_precision, precision_notes
from engine.preemption import StopVote
from engine.schema import parse, to_tree
from engine.semantics.classes import ClassEmbeddings, build_class_embeddings
from engine.semantics.overlap import check_pretrained, read_class_names, remove_overlap
from engine.watchdog import Watchdog

# A checkpoint resumes only a run that means the same by these.
_MUST_MATCH = ("model", "clip", "words", "loss")


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
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    guard: FiniteGuard
    precision: Precision
    loss: Loss
    decoder: str  # chosen once for all of the run's videos
    decoder_why: str
    prior_classes: tuple[str, ...] = ()  # that the weights it started from were trained on (D_p of the paper)
    step: int = 0
    measured: int = 0  # the last step after which accuracy was measured
    best: dict[str, Any] = field(default_factory=lambda: {"value": -1.0, "step": 0, "metric": ""})
    notes: list[str] = field(default_factory=list)  # what to tell the user when logging starts

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
        torch.backends.cudnn.benchmark = False
    # Words of test classes are read now too: a missing one should stop the run before days of training.
    classes = build_class_embeddings(data.train.classes, config.words)
    for held in [*tests, data.unseen]:
        if held is not None:
            build_class_embeddings(held.classes, config.words)
    torch.manual_seed(config.run.seed)
    model = build_embedder(config.model, clip_format(config), classes.vectors.shape[1])
    loss = build_loss(config.loss, classes.vectors)
    if isinstance(loss, nn.Module):  # what it trains is stepped, averaged over ranks and saved with the model
        model.add_module(LOSS_PART, loss)
    if config.train.sync_bn and ranks.world_size > 1:
        if ranks.device.type == "cpu":
            raise InputError("train.sync_bn needs GPUs: leave it off on CPUs")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    memory = torch.channels_last_3d if config.train.channels_last else torch.contiguous_format
    precision = choose_precision(config.train.precision, ranks.device)
    weights = torch.float64 if precision.name == "fp64" else torch.float32
    model.to(ranks.device, weights, memory_format=memory)
    sets = [data.train, *(held for held in (data.seen, data.unseen) if held), *tests]
    decoder, why = choose_decoder(config.data.decoder, ranks.device, [each.manifest for each in sets])
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
        optimizer=build_optimizer(model, config.train, ranks.device),
        scaler=torch.amp.GradScaler(ranks.device.type, enabled=precision.name == "fp16"),
        guard=FiniteGuard(config.train.max_skipped_steps, config.log.every_steps, ranks.device),
        precision=precision,
        loss=loss,
        decoder=decoder,
        decoder_why=why,
        prior_classes=prior_classes,
        notes=[*notes, *unknown, *precision_notes(precision, ranks.device, config.model.form)],
    )
    _restore(run)
    run.notes += check_pretrained(overlap, run.prior_classes, test_classes, config.words)
    run.network = _network(run)
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


def _network(run: Run) -> nn.Module:
    network: nn.Module = run.model
    if run.ranks.world_size > 1:
        devices = [run.ranks.device.index] if run.ranks.device.type == "cuda" else None
        network = DistributedDataParallel(network, device_ids=devices)
    return torch.compile(network) if run.config.train.compile else network


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
    """A decoder of the run's kind for batches of at most `max_batch_size` snippets."""
    clip, threads = clip_format(run.config), run.config.data.decode_threads
    return build_decoder(run.decoder, clip, run.ranks.device, threads, max_batch_size)


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
        },
    )


def save_newest(run: Run) -> None:
    """Keep the run's present state to resume from, and drop the oldest kept one."""
    save_run(run, run.folder / "checkpoints" / f"step_{run.step:08d}.pt")
    drop_old_checkpoints(run.folder, run.config.checkpoint.keep)


def save_best(run: Run) -> None:
    """Keep the run's present state as the best one so far."""
    save_run(run, run.folder / "checkpoints" / "best.pt")


def _restore(run: Run) -> None:
    """Resume from the run's own checkpoint, or start from another's weights, or from nothing."""
    resume = run.config.run.resume
    # Rank 0 chooses, so that all ranks read the same file even while its disk is slow to show others.
    state = None
    if resume == "never":
        taken, _ = newest_checkpoint(run.folder)
        if taken is not None:
            raise InputError(
                f"run.resume is 'never' but '{run.folder}' holds checkpoints (step {taken['step']}): "
                "choose another run.folder, or remove the old one"
            )
    elif resume == "auto":
        state, passed_over = newest_checkpoint(run.folder)
        run.notes += [f"passed over: {line}" for line in passed_over]
        steps = main_rank_first(state["step"] if state else None)
        if steps != (state["step"] if state else None):
            raise InputError(
                f"ranks see different checkpoints in '{run.folder}': it must lie on a disk that all nodes share"
            )
    else:
        state = read_checkpoint(checkpoint_file(Path(resume)))
    if state is not None:
        _resume(run, state)
    elif run.config.train.init_from:
        source = checkpoint_file(Path(run.config.train.init_from))
        start = read_checkpoint(source)
        _load_weights(run.model, start["model"], source)
        run.prior_classes = tuple(dict.fromkeys([*run.prior_classes, *checkpoint_classes(start)]))
        run.notes.append(f"weights from {source}")
    barrier()
    if state is not None and run.ranks.is_main:
        set_aside_later(run.folder, run.step)


def _resume(run: Run, state: dict[str, Any]) -> None:
    tree, saved = to_tree(run.config), to_tree(parse(Config, state["config"]))  # keys that came later: their default
    changed = [name for name in _MUST_MATCH if tree[name] != saved[name]]
    if list(run.data.train.classes) != list(state["train_classes"]):
        changed.append("training classes")
    if len(run.data.train.manifest) != state["num_videos"]:
        changed.append("number of training videos")
    elif run.epoch_size != state.get("epoch_size", run.epoch_size):
        changed.append("length of an epoch (data.train.N.weight, data.clips_per_epoch)")
    if tree["train"]["batch_size"] != state["config"]["train"]["batch_size"]:
        changed.append("train.batch_size")
    if changed:
        raise InputError(
            f"run folder '{run.folder}' holds a run with another {', '.join(changed)}: choose another run.folder, "
            "remove that one, or undo the change"
        )
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.scaler.load_state_dict(state["scaler"])
    run.step, run.best = state["step"], state["best"]
    run.prior_classes = tuple(state.get("prior_classes", run.prior_classes))
    run.measured = state.get("measured", run.step)
    run.guard.restore(state.get("skipped_steps", 0))
    run.notes.append(f"resumed at step {run.step} (epoch {state['epoch']}, position {state['position']})")


def _load_weights(model: nn.Module, weights: dict[str, torch.Tensor], source: Path) -> None:
    own = model.state_dict()
    weights = network_weights(weights)
    wrong = [key for key in network_weights(own) if key not in weights or weights[key].shape != own[key].shape]
    if wrong:
        raise InputError(
            f"train.init_from: '{source}' is of another model; tensors that do not fit: {', '.join(wrong[:8])}"
        )
    model.load_state_dict(weights, strict=False)
