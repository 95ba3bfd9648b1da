"""A training step of a transformer that is shown a part of the tokens (model.tokens): the shares take turns.

    python tools/bench_throughput.py tokens --shares 1 0.5 0.25 0.125

The clips and their motion are random and on the device; the tokens are selected by motion in every step, as part of it. Nothing
is decoded. Each share has a process of its own: in one, torch.compile would make graphs of any number of tokens from the second
number on, which a run at one share does not get. On a CPU seconds are those that the process computed, so that other load does
not count (those of its threads add up); on a GPU those that passed, the mean of several steps a turn.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from bench.apart import Apart
from bench.material import check_counts
from bench.peaks import time_calls
from bench.rows import Row, table
from bench.trainers import Setting, bench_run, setting_config
from bench.turns import Turns
from engine.data.batch import ClipBatch
from engine.errors import InputError
from engine.processes.distributed import choose_device
from engine.records import append_record
from engine.schema.keys import with_keys
from engine.train import train_step

_WARMUP_STEPS = 2
_GPU_STEPS = 8  # of a turn
_LIMIT_S = 600.0  # that building a share's network, its warm-up or a turn may take


def run(arguments: argparse.Namespace) -> None:
    """Measure, print a table, append a record.

    Raises:
        InputError: an option out of range, or a share that failed (the others are recorded).
    """
    check_counts(arguments, "batch", "repeats")
    if bad := [share for share in arguments.shares if not 0 < share <= 1]:
        raise InputError(f"--shares has {bad[0]:g}: each must be above 0, and 1 at most")
    device = choose_device(arguments.device)
    sizes = {name: getattr(arguments, name) for name in ("backbone", "frames", "crop", "batch")}
    setting = Setting("engine compiled" if arguments.compile else "engine", device.type, width=64, steps=0, **sizes)
    with Turns[Apart, float](close=Apart.close) as turns:
        for share in dict.fromkeys(arguments.shares):
            start = partial(Apart, Share, setting, share, limit_s=_LIMIT_S)
            turns.enter(f"{share:g}", start, lambda each: each.call("warm_up"))
        for _ in turns.take(arguments.repeats, lambda each: each.call("step")):
            pass
    rows = [
        Row(f"{name} of the tokens", "", "", seconds, {"clips_per_s": setting.batch / seconds["p50"]})
        for name, seconds in turns.summaries(float).items()
    ]
    if rows:
        print(table(rows).text())
    if rows and not arguments.no_record:
        results = [asdict(row) for row in rows]
        append_record(
            "tokens", n=arguments.repeats, device_type=device.type, compiled=arguments.compile, results=results, **sizes
        )
    if turns.failures:
        raise InputError("; ".join(f"--shares {name}: {reason}" for name, reason in turns.failures.items()))


class Share:
    """A step at one share of the tokens, in the process that is its own."""

    def __init__(self, setting: Setting, share: float) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self._step = _build_step(setting, share, Path(folder))
        self._device = torch.device(setting.device)

    def warm_up(self) -> None:
        """Untimed steps, compilation among them."""
        for _ in range(_WARMUP_STEPS):
            self.step()

    def step(self) -> float:
        """Seconds of a step."""
        return _timed(self._step, self._device)


def _build_step(setting: Setting, share: float, folder: Path) -> Callable[[], None]:
    config = with_keys(setting_config(setting, folder), {"clip.motion": True, "model.tokens.share": share})
    run = bench_run(config, torch.device(setting.device))
    frames, motion = (
        torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(setting.device)
        for size in (
            (setting.batch, setting.frames, setting.crop, setting.crop, 3),
            (setting.batch, *config.clip.motion_shape),
        )
    )
    nowhere = torch.zeros(setting.batch, dtype=torch.int64)
    labels = torch.arange(setting.batch, device=frames.device) % len(run.task.targets)
    batch, tokens = ClipBatch(frames, labels, video=nowhere, start=nowhere, motion=motion), run.model.tokens

    def step() -> None:
        visible = None if tokens is None else tokens(tokens.draw(run.step, setting.batch, frames.device), motion)
        train_step(run, replace(batch, visible=visible))

    return step


def _timed(step: Callable[[], None], device: torch.device) -> float:
    """Seconds of a step. On a GPU of several behind each other: one that begins on an idle GPU waits for its launches."""
    if device.type == "cuda":
        return statistics.mean(time_calls(step, device, warmup=1, repeats=_GPU_STEPS))
    begun = time.process_time()
    step()
    return time.process_time() - begun
