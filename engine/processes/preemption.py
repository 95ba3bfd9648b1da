"""Stopping when asked: SIGTERM or SIGUSR1 of a scheduler, Ctrl-C, or a terminal that is closed, then a checkpoint, then the end.

A signal only raises a flag; the loop looks at it where a checkpoint can be taken. With several ranks the
flags are combined once a step, so that all stop after the same step although the signals arrive at
different moments (or at one rank alone). The combining runs beside the step, over a group of its own on
the CPU: its answer is read one step later, and no GPU is waited for.
"""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import torch
import torch.distributed as dist

from engine.errors import is_rank_0
from engine.processes import early_signals

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
AGAIN_S = 1.0  # a SIGINT so soon after another is no second Ctrl-C: torchrun hands on what its ranks have had already


class Preempted(Exception):
    """The run was asked to stop and can be gone on with by the same command."""


class StopVote:
    """Whether this rank was asked to stop, and whether the ranks have agreed to."""

    def __init__(self) -> None:
        self.signal_name = ""
        self._flag = torch.zeros(1, dtype=torch.int32)
        self._pending: dist.Work | None = None

    def requested(self) -> bool:
        """Whether a signal reached this rank."""
        return bool(self.signal_name)

    def agreed(self, group: dist.ProcessGroup | None) -> bool:
        """True on all ranks in the same call once any of them was asked to. Collective: call it once a step.

        Args:
            group: all ranks, on gloo; None where there is one rank.
        """
        if group is None:
            return self.requested()
        is_agreed = self._answer()
        if not is_agreed:
            self._flag.fill_(int(self.requested()))
            self._pending = dist.all_reduce(self._flag, dist.ReduceOp.MAX, group=group, async_op=True)
        return is_agreed

    def finish(self) -> None:
        """Wait for the vote under way, if any: the group must not be left in the middle of one.

        Where a rank died the vote fails too. What the run itself met says more, and is not to be hidden by that.
        """
        with suppress(RuntimeError):
            self._answer()

    def _answer(self) -> bool:
        if self._pending is None:
            return False
        self._pending.wait()
        self._pending = None
        return bool(self._flag.item())


@contextmanager
def stop_on_signals() -> Iterator[StopVote]:
    """While inside, the `SIGNALS` ask for a stop instead of ending the process. Main thread only.

    Raises:
        KeyboardInterrupt: Ctrl-C came a second time.
    """
    vote, asked_at = StopVote(), float("inf")

    def ask(number: int, _: FrameType | None) -> None:
        nonlocal asked_at
        if number == signal.SIGINT and time.monotonic() > asked_at + AGAIN_S:
            raise KeyboardInterrupt
        if number == signal.SIGINT and not vote.requested() and is_rank_0():
            print(
                "interrupted: saves and stops after this step; Ctrl-C again stops at once", file=sys.stderr, flush=True
            )
        asked_at = min(asked_at, time.monotonic())
        vote.signal_name = signal.Signals(number).name

    is_nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    heard = [number for number in SIGNALS if not (is_nohup and number == signal.SIGHUP)]
    before = {number: signal.signal(number, ask) for number in heard}
    if early_signals.came():
        vote.signal_name = signal.SIGUSR1.name
    try:
        yield vote
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
