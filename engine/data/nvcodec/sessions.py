"""NVDEC sessions of NVIDIA's PyNvVideoCodec, and a few of them kept for later. The one place that imports the library.

What was read in its source (2.x) and is relied on here:

A packet may hold many coded frames; the library's parser tells them apart. The frames that come back lie in memory of
  the session that the next call of `Decode` writes again, all on the session's stream: work that was queued there before
  that call still reads the old ones, so nobody waits on the host.
An empty packet ends the stream: what is still within comes out, and nothing of it is left for the next snippet.
A damaged frame is concealed and still comes out; only a frame that is missing is noticed. An error of CUDA itself
  ends the process with a line that begins with [FATAL] (seen with a driver that has no device).
A session that meets another size goes on with surfaces of the old one, or crops wrongly where the coded size is the same
  and the shown one is not. So a session is of one coded size, and is fed frames that crop nothing.
"""

import contextlib
import importlib
import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch

from engine.errors import InputError

_CODECS = {"h264": "H264", "hevc": "HEVC"}  # the engine's names, and the library's
Kind = tuple[str, int, int]  # codec, coded width and height


def import_nvcodec() -> ModuleType:
    """The module.

    Raises:
        InputError: it is not installed, or finds no driver.
    """
    try:
        return importlib.import_module("PyNvVideoCodec")
    except (ImportError, RuntimeError) as error:  # RuntimeError: without the driver's encoding library
        reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        raise InputError(f"PyNvVideoCodec cannot be imported ({reason}): pip install -e '.[nvdec]'") from error


class SessionError(Exception):
    """A snippet that does not decode; the message is meant for the user."""


class Session:
    """One decoder with a stream of its own, for one thread at a time."""

    def __init__(self, module: ModuleType, device: torch.device, kind: Kind) -> None:
        self.kind = kind
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._module = module
        self._decoder = module.CreateDecoder(
            gpuid=device.index or 0,
            codec=getattr(module.cudaVideoCodec, _CODECS[kind[0]]),
            cudastream=self.stream.cuda_stream if self.stream else 0,
            usedevicememory=device.type == "cuda",
        )

    def decode(self, coded: Sequence[bytes], wanted: Sequence[int], target: torch.Tensor) -> None:
        """Decode all frames of a snippet, and copy some; all on the session's stream, whose work may not be done yet.

        Args:
            coded: frames, in the order they are shown, the first a key frame.
            wanted: numbers among them, not descending.
            target: uint8 [len(wanted), 3 * H / 2, W], filled with NV12.

        Raises:
            SessionError: it decodes to other frames than expected.
        """
        shown = copied = 0
        for data in (b"".join(coded), b""):
            frames = self._decoder.Decode(self._packet(data))
            end = bisect_left(wanted, shown + len(frames))
            if copied < end:
                found = [self._tensor(frames[number - shown]) for number in wanted[copied:end]]
                if any(each.shape != target.shape[1:] or each.dtype != target.dtype for each in found):
                    raise SessionError(
                        f"it decodes to {found[0].dtype} {tuple(found[0].shape)}, not to 8-bit 4:2:0 as coded"
                    )
                torch.stack(found, out=target[copied:end])
            shown, copied = shown + len(frames), end
        if shown != len(coded):
            raise SessionError(f"{shown} frames came out of the {len(coded)} that went in: the store is damaged")

    def _packet(self, data: bytes) -> Any:
        packet = self._module.PacketData()
        if data:
            packet.bsl_data, packet.bsl = np.frombuffer(data, np.uint8).ctypes.data, len(data)  # alive while it is used
        return packet

    def _tensor(self, frame: Any) -> torch.Tensor:
        """A view of the session's memory. Asked for itself: torch would first ask in three ways that the library refuses."""
        if self.stream is None:
            return torch.from_dlpack(frame)
        return torch.from_dlpack(frame.__dlpack__(stream=self.stream.cuda_stream))


class Sessions:
    """Lends sessions to threads and keeps those that come back, the last used ones, `most_kept` of them.

    Opening one is said to take tens of milliseconds. As many are open of a kind as threads needed at once.
    """

    def __init__(self, device: torch.device, most_kept: int) -> None:
        self._module, self._device, self._most_kept = import_nvcodec(), device, most_kept
        self._idle: list[Session] = []  # the last used at the end
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def lend(self, kind: Kind) -> Iterator[Session]:
        """A session of a kind. After an error it is not used again: something of the snippet may be left in it."""
        session = self._take(kind) or Session(self._module, self._device, kind)
        yield session
        with self._lock:
            self._idle.append(session)
            ended = self._idle[: -self._most_kept]
            del self._idle[: -self._most_kept]
        ended.clear()  # outside of the lock: the GPU is waited for

    def close(self) -> None:
        """End all that are idle."""
        with self._lock:
            self._idle.clear()

    def _take(self, kind: Kind) -> Session | None:
        with self._lock:
            index = next((n for n in reversed(range(len(self._idle))) if self._idle[n].kind == kind), None)
            return None if index is None else self._idle.pop(index)
