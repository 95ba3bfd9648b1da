"""Several decoders behind the contract of one: each request of a batch goes to the decoder that can take it.

    video ──rule──▶ the accelerator (DALI), a share of what it takes ──fails──▶ PyAV ──fails──▶ a failure
               └──▶ PyAV
    still ──▶ DALI on a GPU ──fails──▶ PIL

A decoder's part of a batch is decoded in a thread of its own, so that all are busy at once and one that has done its part goes
on with the next batch. What came out is put together on the side, not in line with the training step.
"""

import functools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from engine.data.batch import DecodedClips, SnippetRequest, Video, VideoDecoder
from engine.data.loading.transfer import on_stream
from engine.data.nvdec import Rule
from engine.data.shares import Share, Turn

MANY_FAILURES = 64  # clips that an accelerator failed: if they are the half of what it was given, it is given no more

File = tuple[object, ...]
Done = Callable[[int, float], None]  # of clips and seconds


@dataclass(eq=False)
class Routes:
    """Who decodes what in a run: shared by its decoders, of training and of evaluation.

    rule: why the accelerator is not given a video. share: of what it takes, see `shares.py`.
    remember: do not try a file again that the accelerator failed. Without, a resumed run decodes all as the whole run does.
    clips: decoded so far, by each decoder. num_given, num_failed: clips that the accelerator was given, and those it failed.
    """

    rule: Rule
    share: Share = field(default_factory=Share)
    remember: bool = True
    clips: Counter[str] = field(default_factory=Counter)
    num_given: int = 0
    num_failed: int = 0
    last_failure: str = ""
    _failed: set[File] = field(default_factory=set)
    _is_off: bool = False  # the accelerator fails too much of what it is given

    def takes(self, video: Video) -> bool:
        """Whether the accelerator may be given a video."""
        return not self._is_off and video.file not in self._failed and self.rule(video) is None

    def note(self, name: str, num_given: int, failures: Sequence[tuple[Video, str]]) -> None:
        """The accelerator of this name was given so many clips, and failed some."""
        self.num_given += num_given
        self.num_failed += len(failures)
        for video, reason in failures:
            self.last_failure = f"{video.path}: {reason}"
            if self.remember:
                self._failed.add(video.file)
        if not self._is_off and self.num_failed >= MANY_FAILURES and 2 * self.num_failed > self.num_given:
            self._is_off = True
            line = (
                f"decoder: {name} failed {self.num_failed} of {self.num_given} clips and is given no more in this run"
            )
            self.share.settle(0.0, f"{line}; the last: {self.last_failure}")


class Lane:
    """A decoder with a thread that waits for it, so that it is known when a part is done and the next one begun at once.

    Args:
        is_waited_for: by the caller instead, without that thread.
    """

    def __init__(self, decoder: VideoDecoder, *, is_waited_for: bool = False) -> None:
        self.decoder, self.name = decoder, decoder.name
        self._thread = None if is_waited_for else ThreadPoolExecutor(1, thread_name_prefix=f"wait-{decoder.name}")
        self._free_since = 0.0

    def submit(self, requests: Sequence[SnippetRequest], done: Done | None = None) -> Callable[[], DecodedClips]:
        """As `VideoDecoder.submit`; `done` hears how many clips there are and how long the decoder was busy with them."""
        asked = time.perf_counter()
        wait = self.decoder.submit(requests)
        if self._thread is None:
            return wait

        def work() -> DecodedClips:
            try:
                return wait()
            finally:
                now = time.perf_counter()
                busy_s, self._free_since = now - max(asked, self._free_since), now
                if done is not None:
                    done(len(requests), busy_s)

        return self._thread.submit(work).result

    def close(self) -> None:
        """Wait for what was begun, and release the decoder."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self.decoder.close()


class RoutedDecoder(VideoDecoder):
    """Decodes each request by a decoder that takes it; what that one fails, by the next.

    Args:
        videos: the accelerator, if there is one, and PyAV. stills: those of stills, in the order they are tried.
        routes: what the accelerator is given; needed where there is one.
        motion_shape: of a clip's motion (T, h, w), if it is wanted. Decoders of stills give none: it is 0.

    Attributes:
        decoders: all of them by their names; those of stills by "stills" and, on a GPU, "dali stills".
        routes: as given.
    """

    def __init__(
        self,
        videos: Sequence[VideoDecoder],
        stills: Sequence[VideoDecoder],
        routes: Routes | None = None,
        *,
        motion_shape: tuple[int, int, int] | None = None,
    ) -> None:
        self.name, self.reads_here = videos[0].name, any(decoder.reads_here for decoder in videos)
        self.routes, self._motion_shape = routes, motion_shape
        is_one = routes is None  # nothing to be measured or taken over: no threads beside those of the decoders
        self._videos = [Lane(decoder, is_waited_for=is_one) for decoder in videos]
        self._stills = [Lane(decoder, is_waited_for=is_one) for decoder in stills]
        self.decoders = {lane.name: lane.decoder for lane in (*self._videos, *self._stills)}
        self._put_together = _Joiner()
        self._owed = 0.0  # clips that the accelerator should have had more than it did
        self._is_measured = routes is not None and routes.share.claim()

    def submit(self, requests: Sequence[SnippetRequest]) -> Callable[[], DecodedClips]:
        """See `VideoDecoder`."""
        turn = self.routes.share.begin() if self._is_measured and requests else None
        ways = self._ways(requests, turn)
        rows_of: dict[Lane, list[int]] = {}
        for row, way in enumerate(ways):
            rows_of.setdefault(way[0], []).append(row)
        rows_of = rows_of or {self._videos[-1]: []}
        if turn is not None:
            turn.num_left = len(rows_of)
        begun = []
        for lane, rows in rows_of.items():
            done = turn and functools.partial(self.routes.share.end_part, turn, lane.name)
            begun.append((lane, rows, lane.submit([requests[row] for row in rows], done)))
        return functools.partial(self._finish, requests, ways, begun)

    def close(self) -> None:
        """Release all of them."""
        for lane in (*self._videos, *self._stills):
            lane.close()
        if self._is_measured:
            self.routes.share.release()

    def _ways(self, requests: Sequence[SnippetRequest], turn: Turn | None) -> list[Sequence[Lane]]:
        """The decoders of each request, in the order they are tried."""
        last = self._videos[-1:]
        ways = [self._stills if request.video.is_still else last for request in requests]
        if self.routes is None:
            return ways
        fit: dict[File, list[int]] = {}  # rows of a file stay together: one pass through it may do
        for row, request in enumerate(requests):
            if not request.video.is_still and self.routes.takes(request.video):
                fit.setdefault(request.video.file, []).append(row)
        share = self.routes.share.value if turn is None else turn.value
        for rows in fit.values():
            self._owed += share * len(rows)
            if share == 1.0 or (share > 0.0 and self._owed >= len(rows) / 2):
                for row in rows:
                    ways[row] = self._videos
                self._owed -= len(rows)
        if share in (0.0, 1.0):
            self._owed = 0.0
        return ways

    def _finish(
        self,
        requests: Sequence[SnippetRequest],
        ways: Sequence[Sequence[Lane]],
        begun: Sequence[tuple[Lane, list[int], Callable[[], DecodedClips]]],
    ) -> DecodedClips:
        parts = [(lane, rows, wait()) for lane, rows, wait in begun]
        frames, failures = self._put_together(len(requests), [(rows, part.frames) for _, rows, part in parts]), {}
        motion = self._motion(len(requests), [(rows, part) for _, rows, part in parts])
        for lane, rows, part in parts:
            failures |= {rows[index]: reason for index, reason in part.failures.items()}
            self._note(lane, rows, requests, failures)
        while again := [row for row in failures if len(ways[row]) > 1]:
            lane = ways[again[0]][1]
            again = [row for row in again if ways[row][1] is lane]
            found = lane.submit([requests[row] for row in again])()
            ways = [way[1:] if row in again else way for row, way in enumerate(ways)]
            frames = self._put_together(len(requests), [(again, found.frames)], frames)
            motion = self._motion(len(requests), [(again, found)], motion)
            failures = {row: reason for row, reason in failures.items() if row not in again}
            failures |= {again[index]: reason for index, reason in found.failures.items()}
            self._note(lane, again, requests, failures)
        return DecodedClips(frames, dict(sorted(failures.items())), motion)

    def _motion(
        self, count: int, parts: Sequence[tuple[list[int], DecodedClips]], into: torch.Tensor | None = None
    ) -> torch.Tensor | None:
        """That of the clips of each part, as `_Joiner` puts them together; None if nobody asks for it."""
        if self._motion_shape is None:
            return None
        zeros = self._put_together.zeros
        given = [
            (rows, zeros(part.frames, (len(rows), *self._motion_shape)) if part.motion is None else part.motion)
            for rows, part in parts
        ]
        return self._put_together(count, given, into)

    def _note(
        self, lane: Lane, rows: Sequence[int], requests: Sequence[SnippetRequest], failures: Mapping[int, str]
    ) -> None:
        """Remember what a decoder has done with its part."""
        if self.routes is None:
            return
        bad = [(requests[row].video, failures[row]) for row in rows if row in failures]
        self.routes.clips[lane.name] += len(rows) - len(bad)
        if lane is self._videos[0]:
            self.routes.note(lane.name, len(rows), bad)


class _Joiner:
    """Puts the clips of several decoders together: on a GPU on a stream of its own, so that no training step is waited for."""

    def __init__(self) -> None:
        self._stream: torch.cuda.Stream | None = None

    def __call__(
        self, count: int, parts: Sequence[tuple[list[int], torch.Tensor]], into: torch.Tensor | None = None
    ) -> torch.Tensor:
        """uint8 [count, ...]: the clips of each part at its rows, the others as they are in `into`."""
        if len(parts) == 1 and into is None:
            return parts[0][1]  # all rows, in order
        like = parts[0][1]

        def joined() -> torch.Tensor:
            return self._write(like.new_empty((count, *like.shape[1:])) if into is None else into, parts)

        return self._aside(like, joined)

    def zeros(self, like: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """Of the kind, and where, another tensor is."""
        return self._aside(like, functools.partial(like.new_zeros, shape))

    def _aside(self, like: torch.Tensor, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What is made, complete: it may be used on any stream at once."""
        if not like.is_cuda:
            return make()
        self._stream = self._stream or torch.cuda.Stream(like.device)
        with on_stream(self._stream):
            made = make()
        self._stream.synchronize()
        made.record_stream(torch.cuda.current_stream(like.device))
        return made

    @staticmethod
    def _write(frames: torch.Tensor, parts: Sequence[tuple[list[int], torch.Tensor]]) -> torch.Tensor:
        for rows, clips in parts:
            frames[torch.tensor(rows, device=frames.device)] = clips
        return frames
