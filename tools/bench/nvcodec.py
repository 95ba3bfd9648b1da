"""NVIDIA's PyNvVideoCodec decoding snippets from a store: the peer of DALI on the very same bytes.

Its core decoder takes coded pictures from memory and gives RGB frames on the GPU; they are cropped, not scaled, so the
store's short side must be the snippets'. One decoder for each thread and size, used again and again.
"""

import ctypes
import importlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import torch

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.dali.bitstreams import load_pictures
from engine.data.geometry import crop_window, snippet_frames
from engine.errors import InputError


def import_nvcodec() -> ModuleType:
    """The module.

    Raises:
        InputError: it is not installed, or finds no driver.
    """
    try:
        return importlib.import_module("PyNvVideoCodec")
    except (ImportError, RuntimeError) as error:  # RuntimeError: without the driver's encoding library
        reason = next(iter(str(error).splitlines()), "no reason given")
        raise InputError(f"PyNvVideoCodec cannot be imported ({reason}): pip install -e '.[bench]'") from error


def coded_snippet(request: SnippetRequest, clip: ClipFormat) -> tuple[bytes, dict[int, list[int]]]:
    """What is decoded for a snippet of a stored video (Annex B), and: number of a decoded picture -> its places in the clip."""
    numbers = snippet_frames(request.video, request.start, clip)
    wanted = sorted(set(numbers))
    pictures, found = load_pictures(request.video, wanted)
    places = {
        picture: [place for place, each in enumerate(numbers) if each == number]
        for picture, number in zip(found, wanted, strict=True)
    }
    return b"".join(pictures), places


class NvCodecDecoder:
    """Decodes snippets of stored videos on a GPU with PyNvVideoCodec."""

    def __init__(self, clip: ClipFormat, device: torch.device, num_threads: int) -> None:
        self._module = import_nvcodec()
        self._clip, self._device = clip, device
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="nvcodec")
        self._local = threading.local()

    def decode(self, requests: Sequence[SnippetRequest]) -> torch.Tensor:
        """Clips uint8 [N, T, H, W, C] on the device."""
        clip = self._clip
        shape = (len(requests), clip.num_frames, clip.crop, clip.crop, 3)
        frames = torch.empty(shape, dtype=torch.uint8, device=self._device)
        torch.cuda.current_stream(self._device).synchronize()  # the memory is free for other streams
        list(self._pool.map(self._decode_one, requests, frames))
        return frames

    def close(self) -> None:
        """End the threads, and with them their decoders."""
        self._pool.shutdown()

    def _decode_one(self, request: SnippetRequest, clip_thwc: torch.Tensor) -> None:
        video, window = request.video, crop_window(request, self._clip)
        if (window.width, window.height) != (video.width, video.height):
            raise InputError(f"'{video.path}' would have to be scaled: give the store's --short-side")
        data, places = coded_snippet(request, self._clip)
        rows, columns = (slice(at, at + self._clip.crop) for at in (window.top, window.left))
        decoder, stream = self._decoder(video.width, video.height)
        count = 0
        with torch.cuda.stream(stream):
            for packet in (data, b""):  # the empty one asks for what is still within
                for picture in decoder.Decode(self._packet(packet)):
                    if count in places:
                        clip_thwc[places[count]] = torch.from_dlpack(picture)[rows, columns]
                    count += 1
        stream.synchronize()
        if count <= max(places):
            raise InputError(f"'{video.path}': PyNvVideoCodec gave only {count} of {max(places) + 1} frames")

    def _packet(self, data: bytes) -> object:
        packet = self._module.PacketData()
        if data:
            self._local.data = ctypes.create_string_buffer(data, len(data))  # kept until the next one
            packet.bsl_data, packet.bsl = ctypes.addressof(self._local.data), len(data)
        return packet

    def _decoder(self, width: int, height: int) -> tuple[object, torch.cuda.Stream]:
        """This thread's decoder for a size, and its stream."""
        if not hasattr(self._local, "decoders"):
            self._local.decoders, self._local.stream = {}, torch.cuda.Stream(self._device)
        if (width, height) not in self._local.decoders:
            self._local.decoders[width, height] = self._module.CreateDecoder(
                gpuid=self._device.index,
                codec=self._module.cudaVideoCodec.H264,
                cudastream=self._local.stream.cuda_stream,
                usedevicememory=True,
                outputColorType=self._module.OutputColorType.RGB,
            )
        return self._local.decoders[width, height], self._local.stream
