"""The CPU decoder: everything FFmpeg reads, by way of PyAV.

Videos are decoded in parallel, each by one thread of FFmpeg; the requests of a batch that ask for the
same one share one pass through it, in order. Where `files.py` loses count of a file's frames after a seek,
or the container cannot seek, the file is read again from its start, where counting needs no help. Frames
that no snippet keeps are never converted.

How pixels become RGB is stated in `convert.py`; which of them are shown, in `engine/data/geometry.py`.
"""

import os
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import av
import numpy as np
import torch

from engine.data.batch import ClipFormat, DecodedClips, SnippetRequest, Video, VideoDecoder
from engine.data.geometry import crop_window, snippet_frames
from engine.data.loading.transfer import DeviceCopier
from engine.data.motion import clip_cells
from engine.data.pyav.convert import FrameConverter
from engine.data.pyav.files import TOO_SLOW, FileFrames, LostCount, Unusable, start_clock
from engine.data.pyav.gops import GopDecoder, StoredFrames
from engine.data.pyav.opening import reason_of
from engine.data.pyav.snippets import SnippetWriter
from engine.data.pyav.vectors import MotionTrack
from engine.data.store.index import is_stored
from engine.data.store.motion import stored_motion
from engine.data.store.reader import StoreError
from engine.machine import OUT_OF_FILES


class PyAVDecoder(VideoDecoder):
    """Decodes snippets on the CPU with FFmpeg.

    Args:
        clip: the shape every snippet is brought to.
        device: where the clips are wanted; on a GPU they arrive beside the training step (engine/data/loading/transfer.py).
        num_threads: files decoded at the same time.
        time_limit_s: seconds that one snippet may take; a file that takes longer has failed.
        is_patient: the limit begins anew with each frame that is decoded, for snippets deep in a file that cannot be sought.
    """

    name = "pyav"

    def __init__(
        self,
        clip: ClipFormat,
        device: torch.device,
        num_threads: int,
        *,
        time_limit_s: float = 60.0,
        is_patient: bool = False,
    ) -> None:
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, not {num_threads}")
        self._clip, self._copy, self._time_limit_s = clip, DeviceCopier(device), time_limit_s
        self._num_threads, self._is_patient = num_threads, is_patient
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="pyav", initializer=compute_alone)
        self._local = threading.local()

    def submit(self, requests: Sequence[SnippetRequest]) -> Callable[[], DecodedClips]:
        """See `VideoDecoder`."""
        clip = self._clip
        shape = (len(requests), clip.num_frames, clip.crop, clip.crop, 3)
        host = self._copy.empty(shape, torch.uint8)
        clips = host.numpy()
        motion = torch.zeros((len(requests), *clip.motion_shape), dtype=torch.uint8) if clip.motion else None
        cells = None if motion is None else motion.numpy()
        jobs = deque(split_into_jobs(requests, self._num_threads))
        failures: dict[int, str] = {}

        def work() -> None:  # not a task for each job: a thread that waits for every one would be woken every time
            while rows := _take(jobs):
                failures.update(self.decode_file({row: requests[row] for row in rows}, clips, cells))

        working = [self._pool.submit(work) for _ in range(min(self._num_threads, len(jobs)))]

        def wait() -> DecodedClips:
            for done in working:
                done.result()
            return DecodedClips(
                self._copy(host), dict(sorted(failures.items())), None if motion is None else self._copy(motion)
            )

        return wait

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def decode_file(
        self, requests: dict[int, SnippetRequest], clips: np.ndarray, motion: np.ndarray | None = None
    ) -> dict[int, str]:
        """Decode requests that all name one file, in the calling thread.

        Args:
            requests: by their row of `clips`.
            clips: uint8 [N, T, H, W, C], of which these rows are filled.
            motion: uint8 [N, T, h, w], likewise, if the clip's format asks for it.

        Returns:
            Row -> reason of the failed.
        """
        video = next(iter(requests.values())).video
        indices: dict[int, list[tuple[int, int]]] = defaultdict(list)  # frame number -> rows and indices it goes to
        for row, request in requests.items():
            for index, number in enumerate(snippet_frames(request.video, request.start, self._clip)):
                indices[number].append((row, index))
        missing, writers = dict(indices), self._writers(requests, clips)
        speeds = None if motion is None or is_stored(video.path) else _Speeds(requests, indices, self._clip, motion)
        try:
            deadline = start_clock(video, self._time_limit_s * len(requests))
            if motion is not None and speeds is None:
                for row, request in requests.items():
                    motion[row] = stored_motion(request, self._clip)
            try:
                _fill(self._source(video, deadline, speeds), missing, writers, speeds, seek=True)
            except (LostCount, av.FFmpegError) as error:  # a decoder that was sent between frames may fail there
                deadline = start_clock(video, self._time_limit_s) if self._is_patient else deadline
                if isinstance(error, LostCount) or speeds:
                    missing, writers = dict(indices), self._writers(requests, clips)
                    speeds = speeds and _Speeds(requests, indices, self._clip, motion)
                _fill(self._source(video, deadline, speeds), missing, writers, speeds, seek=False)
        except (av.FFmpegError, OSError, StoreError, Unusable) as error:
            failed = sorted({row for waiting in missing.values() for row, _ in waiting})
            reason = _explain(error)
            if len(requests) == 1 or reason == TOO_SLOW:
                return dict.fromkeys(failed, reason)
            # One may spoil it for all.
            alone = [self.decode_file({row: requests[row]}, clips, motion) for row in failed]
            return {row: reason for failures in alone for row, reason in failures.items()}
        return {}

    def _source(self, video: Video, deadline: float, speeds: "_Speeds | None") -> FileFrames | StoredFrames:
        if not is_stored(video.path):
            patience_s = self._time_limit_s if self._is_patient else None
            return FileFrames(video, deadline, speeds and speeds.track, patience_s=patience_s)
        if not hasattr(self._local, "groups"):
            self._local.groups = GopDecoder()
        return StoredFrames(video, self._local.groups, deadline)

    def _writers(self, requests: dict[int, SnippetRequest], clips: np.ndarray) -> dict[int, SnippetWriter]:
        if not hasattr(self._local, "convert"):
            self._local.convert = FrameConverter()
        return {
            row: SnippetWriter(clips[row], crop_window(request, self._clip), self._local.convert)
            for row, request in requests.items()
        }


def _fill(
    source: FileFrames | StoredFrames,
    missing: dict[int, list[tuple[int, int]]],
    writers: dict[int, SnippetWriter],
    speeds: "_Speeds | None",
    *,
    seek: bool,
) -> None:
    """One pass through the file: every missing frame into its rows and indices; what is done is missing no more."""
    numbers = sorted(missing)
    try:
        for number, frame in source.frames(speeds.with_later(numbers) if speeds else numbers, seek=seek):
            converted: dict[tuple[int, int], np.ndarray] = {}
            for row, index in missing.pop(number, ()):
                writers[row].put(index, frame, converted)
    finally:
        source.close()
        if speeds:
            speeds.put(at_end=True)


class _Speeds:
    """The motion of the frames of one file, on its way into the rows and indices that the frames go to."""

    def __init__(
        self,
        requests: Mapping[int, SnippetRequest],
        indices: Mapping[int, Sequence[tuple[int, int]]],
        clip: ClipFormat,
        motion: np.ndarray,
    ) -> None:
        video = next(iter(requests.values())).video
        self.track = MotionTrack(video.codec, sorted(indices))
        self._video, self._indices, self._crop, self._motion = video, indices, clip.crop, motion
        self._windows = {row: crop_window(request, clip) for row, request in requests.items()}

    def with_later(self, numbers: Sequence[int]) -> Iterator[int]:
        """These numbers of frames, ascending, and between them those whose vectors they may have."""
        end, reached = self._video.file_frames, -1
        for number, following in pairwise([*numbers, end]):
            if number == end - 1 and number in self._video.key_frames and reached < number - 1:
                yield number - 1  # none comes behind it
            yield number
            self.put()
            reached = number
            while self.track.is_waiting and reached + 1 < following:
                reached += 1
                yield reached
                self.put()

    def put(self, *, at_end: bool = False) -> None:
        """Write what is known now."""
        for number, (grid, size) in self.track.ready(at_end=at_end):
            for row, index in self._indices[number]:
                self._motion[row, index] = clip_cells(grid[None], size, self._windows[row], self._crop)[0]


_SETTING = threading.Lock()


def compute_alone() -> None:
    """Have torch compute with one thread in the calling thread, and in it alone.

    Parallelism is over files: OpenMP threads of every decoding thread would wait for each other, spinning. Torch's number
    of threads is a setting of each thread that has computed, and a default for those that have not; the default is put
    back from a thread that ends.
    """
    with _SETTING:
        default = torch.get_num_threads()
        torch.set_num_threads(1)
        restoring = threading.Thread(target=torch.set_num_threads, args=(default,))
        restoring.start()
        restoring.join()


def _take(jobs: deque[list[int]]) -> list[int] | None:
    """The next job, None if there is none; several threads may ask."""
    try:
        return jobs.popleft()
    except IndexError:
        return None


def split_into_jobs(requests: Sequence[SnippetRequest], num_threads: int) -> list[list[int]]:
    """Rows of the requests that one thread decodes in one pass through a file.

    All requests of a file stay together unless threads would idle: then a file that can be entered at
    its key frames is shared out, in order of time.
    """
    files: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for row, request in enumerate(requests):
        files[request.video.file].append(row)
    jobs = []
    for rows in files.values():
        rows.sort(key=lambda row: requests[row].video.first_frame + requests[row].start)
        video = requests[rows[0]].video
        enterable = len(video.key_frames) > 1 or is_stored(video.path)
        parts = max(1, min(len(rows), num_threads // len(files))) if enterable else 1
        jobs += [part.tolist() for part in np.array_split(np.array(rows), parts)]
    return jobs


def _explain(error: Exception) -> str:
    if (number := getattr(error, "errno", None)) in OUT_OF_FILES:  # no fault of the video's
        raise OSError(number, os.strerror(number)) from error
    if isinstance(error, FileNotFoundError):
        return "the file is missing"
    if isinstance(error, av.error.ExitError):
        return TOO_SLOW
    if isinstance(error, av.FFmpegError):
        return f"FFmpeg: {error.strerror}"
    return reason_of(error)
