"""What a run says about itself as it goes: what it is, what is skipped, what it is worth after an epoch."""

import math
import shlex
from typing import Any

import torch

from engine import __version__
from engine.errors import InputError
from engine.gpus import unfit
from engine.processes.distributed import gather
from engine.schema.parser import to_tree
from engine.training.finite import FOLDER, write_origins
from engine.training.run import Run, save_run
from engine.training.telemetry import Telemetry


def introduce(run: Run, telemetry: Telemetry) -> None:
    """The first lines of the log: what is trained, on what, how."""
    device = run.ranks.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    telemetry.message(f"unseen {__version__}, torch {torch.__version__}, {run.ranks.world_size} rank(s), {name}")
    if run.config.run.device == "auto" and device.type == "cpu" and torch.cuda.is_available():
        telemetry.message(f"device: cpu (run.device is auto, and {unfit(0)})")
    for line in (*run.task.introduce(run), *run.notes):
        telemetry.message(line)
    telemetry.event("start", step=run.step, total_steps=run.total_steps, config=to_tree(run.config))


def tell_beside_loss(run: Run, telemetry: Telemetry) -> None:
    """What the task has to draw beside the loss. All ranks call it."""
    values = run.task.beside_loss()
    if values:
        telemetry.scalars(run.step, values)


def tell_news(run: Run, telemetry: Telemetry, *, sums: bool = False) -> None:
    """Say what the task has found out on this rank since the last time; with `sums`, what it has counted so far."""
    for line in run.task.news(sums=sums):
        telemetry.message(line)


def tell_skipped(run: Run, telemetry: Telemetry) -> None:
    """Say what was skipped since the last time; end the run if too many steps in a row were. All ranks call it.

    Raises:
        InputError: with the folder in which the bad batches and the state they met are kept for replay.
    """
    skipped = run.guard.read(run.scaler)
    if run.scaler.is_enabled():
        telemetry.scalars(run.step, {"train/loss_scale": skipped.scale})
    if skipped.new:
        telemetry.scalars(run.step, {"train/skipped_steps": float(skipped.total)})
        telemetry.message(
            f"step {run.step}: {skipped.new} step(s) skipped, loss or gradient was not finite ({skipped.total} so far)"
        )
    if run.scaler.is_enabled() and skipped.scale <= 1:
        telemetry.message(
            f"step {run.step}: the fp16 loss scale has collapsed to {skipped.scale:g}: gradients overflow all the same"
        )
    if skipped.in_a_row < run.guard.limit:
        return
    folder, done = run.folder / FOLDER, run.step
    run.step -= skipped.in_a_row  # nothing has changed since: this is the state that the first bad batch met
    origins = gather(run.guard.origins(run.step))
    if run.ranks.is_main:
        save_run(run, folder / "checkpoint.pt")
        write_origins(folder, origins, run.task.sample_name)
    telemetry.event("not_finite", step=done, in_a_row=skipped.in_a_row, scale=skipped.scale)
    raise InputError(
        f"loss or gradient was not finite in {skipped.in_a_row} steps in a row, from step {run.step + 1} on: lower "
        "train.lr, set train.grad_clip, or use train.precision=fp32; see which batch, sample and layer with "
        f"`python tools/replay_batch.py {shlex.quote(str(folder))}`. The last checkpoint is intact"
    )


def measure(run: Run, telemetry: Telemetry, epoch: int) -> dict[str, Any] | None:
    """What the task measures while training. Returns what is the best now (`Run.best`), if it is this.

    Collective: all ranks call it.
    """
    measured = run.task.measure(run)
    telemetry.scalars(run.step, measured.scalars)
    telemetry.message(f"epoch {epoch}: {measured.told}")
    run.measured = run.step
    value = -math.inf if math.isnan(measured.value) else measured.value
    if run.best["metric"] and value < run.best["value"]:
        return None
    # The later of two equal ones: it has been trained longer.
    return {"value": value, "step": run.step, "metric": measured.metric}
