"""What a run shows: TensorBoard, a progress bar or plain lines, and a structured log. Rank 0 only.

`log.txt` holds what the terminal showed, `log.jsonl` the same events for programs. Reading the loss
off a GPU makes the host wait for it, so that happens once in `log.every_steps` steps and not in each. A point
of the loss is the mean since the one before; in a run that was resumed in between, since its checkpoint.
"""

import html
import math
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from engine.data.batch import Batch
from engine.files.json_lines import JsonLines
from engine.processes.distributed import Ranks, gather, mean_over_ranks
from engine.terminal.screen import plain


def escaped(text: str) -> str:
    """Text for TensorBoard, which shows it in a browser: names of classes and files come from elsewhere."""
    return html.escape(plain(text).replace("\n", "\\n"), quote=False)


def duration(seconds: float) -> str:
    """A length of time as people say it: 40 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _put_before_now(folder: Path) -> None:
    """TensorBoard reads a run's files by the times in their names: those by a clock that was ahead of this one are renamed."""
    now = int(time.time())
    for path in folder.glob("events.out.tfevents.*"):
        written = re.fullmatch(r"events\.out\.tfevents\.((\d+)\..*)", path.name)
        if written and int(written[2]) >= now:
            path.rename(path.with_name(f"events.out.tfevents.{now - 1:010d}.{written[1]}"))


class Telemetry:
    """Collects what the steps report and shows it every `every_steps` steps.

    Every rank must call `step` alike (the loss is averaged over ranks); only rank 0 shows, what the other ranks could not
    decode too. The first `warmup_steps` of
    the process are timed apart, and are no part of clips/s. The time left has that of the control (`steps_of_control`) in it.
    """

    def __init__(
        self,
        folder: Path,
        ranks: Ranks,
        *,
        every_steps: int,
        batch_size: int,
        total_steps: int,
        first_step: int,
        steps_of_control: int = 0,
        warmup_steps: int = 0,
    ) -> None:
        self.ranks, self.every_steps, self.batch_size = ranks, every_steps, batch_size
        self.writer: SummaryWriter | None = None
        self._bar: tqdm | None = None
        self._loss_sum: torch.Tensor | None = None  # float64 [2]: of the finite losses, and how many they are
        self._steps = 0
        self._waited_s = 0.0
        self._warmup_steps = warmup_steps
        self._started = self._since = time.perf_counter()
        self._paused_s = 0.0
        self.num_bad = 0  # samples that could not be decoded: on rank 0 of all ranks
        self._untold: list[tuple[int, str, str]] = []  # of another rank: (step, path, reason)
        self.clips_per_second: list[float] = []
        self._text: BinaryIO | None = None
        self._events: JsonLines | None = None
        self._is_unwritable = False
        self._total_steps = total_steps
        self._steps_of_control, self._is_control_told = steps_of_control, False
        if ranks.is_main:
            folder.mkdir(parents=True, exist_ok=True)
            # purge_step: a resumed run draws over what the killed one logged after its last checkpoint.
            _put_before_now(folder / "tensorboard")
            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1 if first_step else 0)
            self._text = (folder / "log.txt").open("ab", buffering=0)  # unbuffered, as JsonLines is and for its reason
            self._events = JsonLines(folder / "log.jsonl", allow_nan=True)
            if sys.stderr.isatty():
                self._bar = tqdm(total=total_steps, initial=first_step, unit="step", desc="train", dynamic_ncols=True)

    def message(self, text: str) -> None:
        """A line for people, in the terminal and in log.txt."""
        if not self.ranks.is_main:
            return
        text = plain(text)
        if self._bar is not None:
            self._bar.write(text)
        else:
            print(text, flush=True)
        if self._text is not None:
            try:
                self._text.write(f"{text}\n".encode())
            except OSError as error:
                self._say_unwritable(error)

    def event(self, kind: str, **values: Any) -> None:
        """A line for programs, in log.jsonl."""
        if self._events is not None:
            try:
                self._events.append({"time": round(time.time(), 3), "event": kind, **values})
            except OSError as error:
                self._say_unwritable(error)

    def _say_unwritable(self, error: OSError) -> None:
        """A log that cannot be written (a full disk) must not end the training: it is told once."""
        if not self._is_unwritable:
            self._is_unwritable = True
            print(f"the log cannot be written ({error.strerror}): training goes on", file=sys.stderr, flush=True)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Points on TensorBoard curves, and an event."""
        if self.writer is not None:
            try:
                for name, value in values.items():
                    self.writer.add_scalar(escaped(name), value, step)
            except OSError as error:  # of an earlier write: TensorBoard's own thread does them
                self._say_unwritable(error)
            self.event("scalars", step=step, **values)

    def pause(self, seconds: float) -> None:
        """Time that was not training (evaluation, saving): left out of clips/s."""
        self._paused_s += seconds
        self._started += seconds

    def step(self, step: int, loss: torch.Tensor, lr: float, waited_s: float, batch: Batch) -> float | None:
        """Count one step (numbered from 1). Returns the mean loss when it was read, else None."""
        loss = loss.detach().double()
        seen = torch.stack([torch.where(loss.isfinite(), loss, 0.0), loss.isfinite().double()])
        self._loss_sum = seen if self._loss_sum is None else self._loss_sum + seen
        if self._warmup_steps:
            self._warmup_steps -= 1
            if not self._warmup_steps:
                self._warmed_up()
        else:
            self._steps += 1
            self._waited_s += waited_s
        self._name_failures(step, batch)
        if self._bar is not None:
            self._bar.update(1)
        if step % self.every_steps and step != self._total_steps:
            return None
        return self._flush(step, lr)

    def _warmed_up(self) -> None:
        if self.ranks.device.type == "cuda":
            torch.cuda.synchronize(self.ranks.device)  # what is queued belongs to the warm-up
        self._since, self._paused_s = time.perf_counter(), 0.0
        took_s = self._since - self._started
        self.message(f"warm-up: {took_s:.1f} s until the first steps were done, not part of clips/s")
        self.event("warm_up", seconds=round(took_s, 3))

    def _name_failures(self, step: int, batch: Batch) -> None:
        for failure in batch.failures:
            if self.ranks.is_main:
                self._name_failure(step, str(failure.path), failure.reason)
            else:
                self._untold.append((step, str(failure.path), failure.reason))

    def _name_failure(self, step: int, path: str, reason: str) -> None:
        self.num_bad += 1
        self.message(f"step {step}: replaced a sample that could not be decoded: {path}: {reason}")
        self.event("bad_sample", step=step, path=path, reason=reason)

    def _flush(self, step: int, lr: float) -> float:
        assert self._loss_sum is not None
        told = torch.cat([self._loss_sum, self._loss_sum.new_tensor([len(self._untold)])])
        total, count, untold = mean_over_ranks(told).tolist()
        loss = total / count if count else math.nan  # no step was finite
        if untold:  # on all ranks alike
            for failure in [failure for of_rank in gather(self._untold) for failure in of_rank]:
                self._name_failure(*failure)
            self._untold = []
        now = time.perf_counter()
        elapsed = max(now - self._since - self._paused_s, 1e-9)
        values = {"train/loss": loss, "train/learning_rate": lr, "data/bad_samples": float(self.num_bad)}
        speed = "warming up"
        if self._steps:
            rate, waits = self._steps * self.batch_size / elapsed, min(1.0, self._waited_s / elapsed)
            self.clips_per_second.append(rate)
            values |= {"speed/clips_per_second": rate, "speed/data_wait_share": waits}
            speed = f"{rate:.1f} clips/s  waiting for data {waits:.0%}  {self._left(step, rate)} left"
            self._tell_control(rate)
        if self.ranks.device.type == "cuda":
            values["memory/gpu_peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        self.scalars(step, values)
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4f}, {speed}")
        elif self.ranks.is_main:
            self.message(f"step {step}/{self._total_steps}  loss {loss:.4f}  lr {lr:.2e}  {speed}")
        self._loss_sum, self._steps, self._waited_s, self._paused_s, self._since = None, 0, 0.0, 0.0, now
        return loss

    def _left(self, step: int, rate: float) -> str:
        """How long the other steps will take, and those of the control, without evaluations: as 12:34 or 1:23:45."""
        return tqdm.format_interval((self._total_steps - step + self._steps_of_control) * self.batch_size / rate)

    def _tell_control(self, rate: float) -> None:
        """Once, as soon as it can be said."""
        if self._steps_of_control and not self._is_control_told:
            self._is_control_told = True
            needs = duration(self._steps_of_control * self.batch_size / rate)
            self.message(f"then the control: about {needs} more, which is in the time left")

    def close(self) -> None:
        """Write out what is left and close the files."""
        if self._bar is not None:
            self._bar.close()
        for file in (self.writer, self._text, self._events):
            try:
                if file is not None:
                    file.close()
            except OSError as error:
                self._say_unwritable(error)
