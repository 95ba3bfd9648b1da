"""The PyNvVideoCodec decoder: snippets of stores through NVDEC with sessions that stay open, to clips on the GPU.

    requests ──▶ coded frames of the GOPs ──▶ sessions (`sessions.py`), in threads ──▶ NV12 ──▶ clips (`convert.py`)

Threads read, feed and wait for the video engines; Python's lock is free meanwhile. Their frames go into one tensor for
each coded size, on the streams of the sessions. What makes clips of it is queued once for a batch, behind all of them, on
a stream of the decoder's own; the calling thread waits for that one, and no training step does.
"""

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from engine.data.batch import ClipFormat, DecodedClips, SnippetRequest, Video, VideoDecoder
from engine.data.dali.bitstreams import STORED_CODECS, BitstreamError, load_frames
from engine.data.geometry import CropWindow, crop_window, snippet_frames
from engine.data.loading.transfer import on_stream
from engine.data.nvcodec.convert import scaled_crop, to_rgb, window_places
from engine.data.nvcodec.sessions import Kind, SessionError, Sessions, import_nvcodec
from engine.data.store.index import is_stored
from engine.errors import InputError, SourceGone
from engine.machine import OUT_OF_FILES

_SESSIONS_PER_THREAD = 4  # kept open: sizes differ from video to video
_CONVERTED_AT_ONCE = 16  # snippets: what lies between NV12 and RGB takes ten times the room of the clips


def nvcodec_problem(device: torch.device) -> str | None:
    """Why PyNvVideoCodec does not decode for `device`, and what to do about it; None where it does."""
    if device.type != "cuda":
        return f"PyNvVideoCodec decodes on NVIDIA GPUs, not on {device.type}"
    try:
        import_nvcodec()
    except InputError as error:
        return str(error)
    return None


class NvCodecDecoder(VideoDecoder):
    """Decodes snippets of stored videos with PyNvVideoCodec.

    Args:
        clip: the shape of a snippet.
        device: a cuda device; the clips never leave it.
        num_threads: snippets decoded at the same time.

    Raises:
        InputError: the library is not installed, or finds no driver.
    """

    name = "nvcodec"

    def __init__(self, clip: ClipFormat, device: torch.device, num_threads: int) -> None:
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        self._clip, self._device, self._num_threads = clip, device, num_threads
        self._sessions = Sessions(device, _SESSIONS_PER_THREAD * num_threads)
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="nvcodec")
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def submit(self, requests: Sequence[SnippetRequest]) -> Callable[[], DecodedClips]:
        """See `VideoDecoder`."""
        batch = _Batch(requests, self._clip, self._device, self._stream)

        def work() -> None:
            while (row := batch.take()) is not None:
                batch.decode(row, self._sessions)

        working = [self._pool.submit(work) for _ in range(min(self._num_threads, len(requests)))]

        def wait() -> DecodedClips:
            for done in working:
                done.result()
            with on_stream(self._stream):
                frames = batch.convert()
            if self._stream:
                self._stream.synchronize()
                frames.record_stream(torch.cuda.current_stream(self._device))
            return DecodedClips(frames, dict(sorted(batch.failures.items())))

        return wait

    def close(self) -> None:
        """End the threads and the sessions."""
        self._pool.shutdown(cancel_futures=True)
        self._sessions.close()


class _Batch:
    """The requests of one call, on their way. NV12 of each coded size lies in one tensor, in the order of its rows."""

    def __init__(
        self,
        requests: Sequence[SnippetRequest],
        clip: ClipFormat,
        device: torch.device,
        stream: torch.cuda.Stream | None,
    ) -> None:
        self.requests, self.clip, self.device, self.stream = requests, clip, device, stream
        self.failures: dict[int, str] = {}
        self._rows: dict[Kind, list[int]] = defaultdict(list)
        for row, request in enumerate(requests):
            if reason := _refusal(request.video):
                self.failures[row] = reason
            else:
                self._rows[_kind(request.video)].append(row)
        with on_stream(stream):
            self._nv12 = {
                kind: torch.empty(
                    (len(rows), clip.num_frames, height * 3 // 2, width), dtype=torch.uint8, device=device
                )
                for kind, rows in self._rows.items()
                for _, width, height in [kind]
            }
            self._allocated = stream.record_event() if stream else None
        self._places = {row: index for rows in self._rows.values() for index, row in enumerate(rows)}
        self._waiting = deque(self._places)  # one size after another, so that a thread finds the session it had
        self._decoded: list[torch.cuda.Event] = []
        self._lock = threading.Lock()

    def take(self) -> int | None:
        """The next row to decode, None if there is none; several threads may ask."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def decode(self, row: int, sessions: Sessions) -> None:
        """Decode a request into its NV12, or note why not."""
        request = self.requests[row]
        kind = _kind(request.video)
        numbers = snippet_frames(request.video, request.start, self.clip)
        try:
            frames, found = load_frames(request.video, sorted(set(numbers)))
            wanted = np.array(found)[np.unique(numbers, return_inverse=True)[1]].tolist()
            with sessions.lend(kind) as session, on_stream(session.stream):
                if session.stream:
                    session.stream.wait_event(self._allocated)
                    self._nv12[kind].record_stream(session.stream)  # should nobody wait for this batch
                session.decode(frames, wanted, self._nv12[kind][self._places[row]])
                if session.stream:
                    self._decoded.append(session.stream.record_event())
        except SourceGone:
            raise
        except (BitstreamError, SessionError) as error:
            self.failures[row] = str(error)
        except Exception as error:  # the library has no type for what a damaged stream brings about
            if isinstance(error, OSError) and error.errno in OUT_OF_FILES:
                raise
            self.failures[row] = (
                f"PyNvVideoCodec cannot decode it ({type(error).__name__}: {' '.join(str(error).split())})"
            )

    def convert(self) -> torch.Tensor:
        """Clips uint8 [N, T, crop, crop, 3] of all requests, once all are decoded; queued on the batch's stream."""
        for event in self._decoded:
            self.stream.wait_event(event)
        clip = self.clip
        shape = (len(self.requests), clip.num_frames, clip.crop, clip.crop, 3)
        frames = torch.zeros(shape, dtype=torch.uint8, device=self.device)
        for kind, rows in self._rows.items():
            cut, scaled = [], []
            for index, row in enumerate(rows):
                video, window = self.requests[row].video, crop_window(self.requests[row], clip)
                unscaled = (window.width, window.height) == (video.width, video.height)
                (cut if unscaled else scaled).append((index, row, window))
            for first in range(0, len(cut), _CONVERTED_AT_ONCE):
                indices, chosen, windows = zip(*cut[first : first + _CONVERTED_AT_ONCE], strict=True)
                frames[list(chosen)] = self._crops(self._nv12[kind][list(indices)], windows)
            for index, row, window in scaled:
                video = self.requests[row].video
                nv12 = self._nv12[kind][index]
                frames[row] = scaled_crop(nv12, (video.width, video.height), window, clip.crop)
        for row, request in enumerate(self.requests):
            if turns := request.video.rotation // 90 % 4:
                frames[row] = frames[row].rot90(-turns, dims=(1, 2))
        return frames

    def _crops(self, nv12: torch.Tensor, windows: Sequence[CropWindow]) -> torch.Tensor:
        """uint8 [n, T, crop, crop, 3] of NV12 [n, T, 3 * H / 2, W], not yet turned."""
        indices = [window_places(window, self.clip.crop) for window in windows]
        axes = np.array([[axis.samples for axis in both] for both in indices])  # [n, 2, 3, crop]
        of_frames = torch.from_numpy(axes).to(self.device).repeat_interleave(nv12.shape[1], dim=0)
        rgb = to_rgb(nv12.flatten(0, 1), of_frames[:, 0], of_frames[:, 1])
        return rgb.unflatten(0, nv12.shape[:2])


def _refusal(video: Video) -> str | None:
    if not is_stored(video.path):
        return "PyNvVideoCodec is fed from snippet stores alone: ingest it (tools/ingest.py), or set data.decoder=auto"
    if video.codec not in STORED_CODECS:
        return f"PyNvVideoCodec is not fed {video.codec} from stores: set data.decoder=pyav"
    return None


def _kind(video: Video) -> Kind:
    return video.codec, *STORED_CODECS[video.codec].coded_size(video.width, video.height)
