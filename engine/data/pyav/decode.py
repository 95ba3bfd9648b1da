"""The CPU decoder: everything FFmpeg reads, by way of PyAV.

Files are decoded in parallel, each by one thread of FFmpeg; the requests of a batch that ask for the
same file share one pass through it, in order. A frame is known by its *number in the decoder's output*:
a key frame is recognised by its time stamp, frames are counted from there, and every key frame that
comes by later confirms the count. If one does not, or the container cannot seek, the file is read
again from its start, where counting needs no help. Frames that no snippet keeps are never converted.

How pixels become RGB is stated in `convert.py`; which of them are shown, in `engine/data/geometry.py`.
"""

import threading
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import av
import numpy as np
import torch
from av.container import InputContainer
from av.stream import Discard
from av.video.stream import VideoStream

from engine.data.batch import ClipFormat, DecodedClips, SnippetRequest, Video
from engine.data.geometry import CropWindow, crop_window, snippet_frames
from engine.data.pyav.convert import FrameConverter
from engine.data.pyav.groups import GroupDecoder, StoredFrames
from engine.data.pyav.packets import codec_name, padded
from engine.data.pyav.probe import MAX_PIXELS, video_stream
from engine.data.store.index import is_stored
from engine.data.store.reader import StoreError
from engine.data.transfer import DeviceCopier

_TOO_SLOW = "decoding took longer than the time limit"
_SEEK_GAIN = 4  # frames: a seek that saves fewer costs more than decoding on


class _Unusable(Exception):
    """The file, or what is left of it, cannot be used; the message is meant for the user."""


class _LostCount(Exception):
    """After a seek the frames are not those that the manifest's key frames promise."""


class _FrameSource:
    """The frames of one open file, by their number in presentation order."""

    def __init__(self, video: Video, deadline: float) -> None:
        _check_file(video)
        self._keys = () if len(set(video.key_pts)) < len(video.key_pts) else video.key_frames
        self._frame_of_pts = dict(zip(video.key_pts, video.key_frames, strict=True))
        self._pts_of_frame = dict(zip(video.key_frames, video.key_pts, strict=True))
        self._deadline = deadline
        self._container = av.open(
            f"file:{video.path}",  # a name may hold a colon
            container_options={"protocol_whitelist": "file"},  # nothing that a file names is fetched
            metadata_errors="replace",
            timeout=max(deadline - time.monotonic(), 0),  # ends a demuxer that loops
        )
        try:
            self._stream = _select_stream(self._container)
            if video.codec and codec_name(self._stream) != video.codec:  # another file of the same size
                raise _Unusable(f"it is {codec_name(self._stream)}, the manifest says {video.codec}: index it again")
            header = (self._stream.codec_context.width, self._stream.codec_context.height)
        except BaseException:
            self._container.close()
            raise
        # A stream may change its size on the way: then the later pictures are scaled to the same window.
        # The header and the first picture may differ too; one of them is what the manifest says.
        self._size_known = header == (video.width, video.height)
        self._video = video

    def close(self) -> None:
        self._container.close()

    def frames(self, numbers: Sequence[int], *, seek: bool) -> Iterator[tuple[int, av.VideoFrame]]:
        """The frames of these ascending numbers, with them.

        Raises:
            _LostCount: what was yielded may be wrong; ask again with `seek=False`.
            _Unusable: there are fewer frames, the picture has another size, or time is up.
        """
        output, position = self._output(), 0
        for number in numbers:
            key = _last_at_most(self._keys, number) if seek else None
            if key is not None and key >= position + _SEEK_GAIN:
                output, position = self._seek(key, number)
            for picture in output:
                if seek and self._pts_of_frame.get(position, picture.pts) != picture.pts:
                    raise _LostCount
                position += 1
                if position > number:
                    yield number, picture
                    break
            else:
                if seek:
                    raise _LostCount
                raise _Unusable(
                    f"only {position} frames decode, frame {number} was asked for"
                    f" (the manifest says {self._video.file_frames}): index it again"
                )

    def _seek(self, key: int, number: int) -> tuple[Iterator[av.VideoFrame], int]:
        """Go to a key frame; also gives the number of the frame that comes next."""
        pts = self._pts_of_frame[key]
        before = _last_at_most(self._keys, key - 1)
        for target in (key, before):  # without an index (MPEG-PS, MPEG-TS) a demuxer may land behind its target
            if target is None:
                break
            try:
                self._container.seek(self._pts_of_frame[target], stream=self._stream)
            except av.FFmpegError as error:
                raise _LostCount from error
            output = self._output()
            for picture in output:
                # What comes before the first known key frame is thrown away: pictures of an open group that
                # refer to frames before the landing.
                found = self._frame_of_pts.get(picture.pts)
                if found is not None and found <= number:
                    return chain([picture], output), found
                if picture.pts is not None and picture.pts > pts:
                    break
        raise _LostCount

    def _output(self) -> Iterator[av.VideoFrame]:
        for packet in self._container.demux(self._stream):
            if time.monotonic() > self._deadline:
                raise _Unusable(_TOO_SLOW)
            for picture in packet.decode():
                self._check_size(picture)
                yield picture

    def _check_size(self, picture: av.VideoFrame) -> None:
        if not self._size_known and (picture.width, picture.height) != (self._video.width, self._video.height):
            raise _Unusable(
                f"its pictures are {picture.width}x{picture.height}, the manifest says"
                f" {self._video.width}x{self._video.height}: index it again"
            )
        self._size_known = True


class PyAVDecoder:
    """Decodes snippets on the CPU with FFmpeg (a `VideoDecoder`).

    Args:
        clip: the shape every snippet is brought to.
        device: where the clips are wanted; on a GPU they arrive beside the training step (engine/data/transfer.py).
        num_threads: files decoded at the same time.
        time_limit_s: seconds that one snippet may take; a file that takes longer has failed.
    """

    name = "pyav"

    def __init__(self, clip: ClipFormat, device: torch.device, num_threads: int, *, time_limit_s: float = 60.0) -> None:
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, not {num_threads}")
        self._clip, self._copy, self._time_limit_s = clip, DeviceCopier(device), time_limit_s
        self._num_threads = num_threads
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="pyav")
        self._local = threading.local()

    def decode(self, requests: Sequence[SnippetRequest]) -> DecodedClips:
        """Decode all requests; a bad video is a failure with its reason, never an exception.

        Returns:
            Clips uint8 [N, T, H, W, C] on the device, in the order of the requests.
        """
        clip = self._clip
        shape = (len(requests), clip.num_frames, clip.crop, clip.crop, 3)
        host = self._copy.empty(shape, torch.uint8)
        clips = host.numpy()
        jobs = split_into_jobs(requests, self._num_threads)
        failures: dict[int, str] = {}
        for failed in self._pool.map(lambda rows: self._decode_file({row: requests[row] for row in rows}, clips), jobs):
            failures.update(failed)
        return DecodedClips(self._copy(host), dict(sorted(failures.items())))

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _decode_file(self, requests: dict[int, SnippetRequest], clips: np.ndarray) -> dict[int, str]:
        """Decode requests (by row) that all name one file, into their rows; returns row -> reason of the failed."""
        video = next(iter(requests.values())).video
        places: dict[int, list[tuple[int, int]]] = defaultdict(list)  # frame number -> rows and places it goes to
        for row, request in requests.items():
            for place, number in enumerate(snippet_frames(request.video, request.start, self._clip)):
                places[number].append((row, place))
        windows = {row: crop_window(request, self._clip) for row, request in requests.items()}
        missing = dict(places)
        deadline = time.monotonic() + self._time_limit_s * len(requests)
        try:
            try:
                self._fill(self._source(video, deadline), missing, windows, clips, seek=True)
            except (_LostCount, av.FFmpegError) as error:  # a decoder that was sent between frames may fail there
                if isinstance(error, _LostCount):
                    missing = dict(places)
                self._fill(self._source(video, deadline), missing, windows, clips, seek=False)
        except (av.FFmpegError, OSError, StoreError, _Unusable) as error:
            failed = sorted({row for waiting in missing.values() for row, _ in waiting})
            reason = _explain(error)
            if len(requests) == 1 or reason == _TOO_SLOW:
                return dict.fromkeys(failed, reason)
            alone = [self._decode_file({row: requests[row]}, clips) for row in failed]  # one may spoil it for all
            return {row: reason for failures in alone for row, reason in failures.items()}
        return {}

    def _source(self, video: Video, deadline: float) -> _FrameSource | StoredFrames:
        if not is_stored(video.path):
            return _FrameSource(video, deadline)
        if not hasattr(self._local, "groups"):
            self._local.groups = GroupDecoder()
        return StoredFrames(video, self._local.groups, deadline)

    def _fill(
        self,
        source: _FrameSource | StoredFrames,
        missing: dict[int, list[tuple[int, int]]],
        windows: dict[int, CropWindow],
        clips: np.ndarray,
        *,
        seek: bool,
    ) -> None:
        """One pass through the file: every missing frame into its rows and places; what is done is missing no more."""
        if not hasattr(self._local, "convert"):
            self._local.convert = FrameConverter()
        try:
            for number, picture in source.frames(sorted(missing), seek=seek):
                scaled: dict[tuple[int, int], tuple[np.ndarray, ...]] = {}
                for row, place in missing.pop(number):
                    window = windows[row]
                    size = (window.width, window.height)
                    if size not in scaled:
                        scaled[size] = self._local.convert(picture, *size)
                    for channel, plane in enumerate(scaled[size]):
                        clips[row, place, :, :, channel] = cut(plane, window, self._clip.crop)
        finally:
            source.close()


def split_into_jobs(requests: Sequence[SnippetRequest], num_threads: int) -> list[list[int]]:
    """Rows of the requests that one thread decodes in one pass through a file.

    All requests of a file stay together unless threads would idle: then a file that can be entered at
    its key frames is shared out, in order of time.
    """
    files: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for row, request in enumerate(requests):
        files[request.video.path, request.video.file_bytes].append(row)
    jobs = []
    for rows in files.values():
        rows.sort(key=lambda row: requests[row].video.first_frame + requests[row].start)
        video = requests[rows[0]].video
        enterable = len(video.key_frames) > 1 or is_stored(video.path)
        parts = max(1, min(len(rows), num_threads // len(files))) if enterable else 1
        jobs += [part.tolist() for part in np.array_split(np.array(rows), parts)]
    return jobs


def cut(plane: np.ndarray, window: CropWindow, crop: int) -> np.ndarray:
    """The square of `crop` pixels of a scaled plane [H, W] that the window names, turned and mirrored; a view."""
    square = plane[window.top : window.top + crop, window.left : window.left + crop]
    if window.quarter_turns:
        square = np.rot90(square, -window.quarter_turns)
    return square[:, ::-1] if window.flip else square


def _check_file(video: Video) -> None:
    size = video.path.stat().st_size
    if size != video.file_bytes:
        raise _Unusable(f"it has {size} bytes, but had {video.file_bytes} when it was indexed: index it again")


def _select_stream(container: InputContainer) -> VideoStream:
    """The stream that the manifest speaks of, set to one thread; packets of all others are skipped."""
    stream = video_stream(container)
    if stream is None:
        raise _Unusable("it has no video stream")
    if stream.codec_context is None:
        raise _Unusable("this FFmpeg has no decoder for it")
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    stream.codec_context.thread_count = 1
    stream.codec_context.thread_type = "NONE"
    stream.codec_context.options = {"max_pixels": padded(MAX_PIXELS)}  # a file may have changed since it was probed
    return stream


def _explain(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "the file is missing"
    if isinstance(error, av.error.ExitError):
        return _TOO_SLOW
    if isinstance(error, av.FFmpegError):
        return f"FFmpeg: {error.strerror}"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)


def _last_at_most(numbers: Sequence[int], limit: int) -> int | None:
    """The largest of ascending numbers that is not over the limit."""
    index = bisect_right(numbers, limit)
    return numbers[index - 1] if index else None
