"""Who takes part in `decode_gpu`: functions from snippets to clips on the device, each in a process of its own."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from bench.busy import BusyMeter
from bench.material import Material
from bench.readers import GpuReader, accv_on_gpu, torchcodec_on_gpu
from engine.data.batch import ClipFormat, SnippetRequest, VideoDecoder
from engine.data.decoders import dali_problem
from engine.data.geometry import crop_window
from engine.data.manifests.manifest import Manifest
from engine.data.nvcodec.decode import NvCodecDecoder, nvcodec_problem
from engine.data.nvdec import unfit_videos
from engine.data.pyav.decode import PyAVDecoder
from engine.errors import InputError

SHARES = (0.125, 0.25, 0.5)  # of the CPU in a hybrid
REFERENCE, OURS, PEER = "PyAV store", "DALI store", "PyNvVideoCodec"
OTHERS = ("torchcodec mp4", "ACCV-Lab mp4")  # others' libraries: whether they can is known when they are tried
_LEAST_S = 3.0  # of a run, where it is told how busy engines are: a dozen samples
HEVC = {REFERENCE: "PyAV hevc", OURS: "DALI hevc", PEER: "PyNvVideoCodec hevc"}  # the same on a store of HEVC


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a contestant: clips per second by the clock and of CPU time, mean share of time (%) engines were busy."""

    by_clock: float
    by_computing: float
    decoder_busy: float
    gpu_busy: float


Decode = Callable[[Sequence[SnippetRequest]], torch.Tensor]
Contestant = Callable[[Sequence[tuple[int, int]]], torch.Tensor]  # (row, start) -> clips


class Contender:
    """One of them, in the process that is its own.

    Raises:
        InputError or whatever a library raises: it cannot be built, or does not decode a first snippet.
    """

    def __init__(self, name: str, material: Material, device: torch.device, threads: int, batch: int) -> None:
        self._decode = builders(material, device, threads, batch)[name]()
        self._snippets, self._device, self._batch = material.snippets, device, batch
        self._decode(self._snippets[:1])

    def first(self) -> np.ndarray:
        """The first batch, uint8 [N, T, H, W, 3]."""
        return self._decode(self._snippets[: self._batch]).cpu().numpy()

    def run(self) -> Run:
        """All snippets, once or as often as it takes to see how busy engines are."""
        with BusyMeter(self._device) as busy:
            clock, computing, count = time.perf_counter(), time.process_time(), 0
            while not count or (busy.is_told and time.perf_counter() - clock < _LEAST_S):
                for first in range(0, len(self._snippets), self._batch):
                    self._decode(self._snippets[first : first + self._batch])
                if self._device.type == "cuda":
                    torch.cuda.synchronize(self._device)
                count += len(self._snippets)
            clock, computing = time.perf_counter() - clock, time.process_time() - computing
        return Run(count / clock, count / computing, busy.decoder, busy.gpu)


def names(material: Material, device: torch.device) -> tuple[list[str], dict[str, str]]:
    """Who takes part as far as is known beforehand, the reference first; name -> reason of those that do not."""
    taking, skipped = [REFERENCE], {}
    files = {OURS: material.store, "DALI mp4": material.mp4, "DALI raw": material.raw}
    for name, manifest in (files | ({HEVC[OURS]: material.hevc} if material.hevc else {})).items():
        if reason := dali_problem_of(manifest, device):
            skipped[name] = reason
        else:
            taking.append(name)
    if OURS in taking:
        taking += [f"hybrid {share:g}" for share in SHARES]
    if reason := nvcodec_problem(device):
        skipped[PEER] = reason
    else:
        taking += [PEER, *(f"hybrid nv {share:g}" for share in SHARES), *([HEVC[PEER]] if material.hevc else [])]
    taking += [HEVC[REFERENCE]] if material.hevc else []
    return [*taking, *OTHERS], skipped


def builders(material: Material, device: torch.device, threads: int, batch: int) -> dict[str, Callable[[], Contestant]]:
    """Name -> what builds the function from snippets to clips on the device."""
    clip = material.clip

    def pyav() -> Decode:
        return _checked(PyAVDecoder(clip, device, threads))

    def dali() -> Decode:
        from engine.data.dali.decode import DaliDecoder

        return _checked(DaliDecoder(clip, device, threads, batch))

    def peer() -> Decode:
        return _checked(NvCodecDecoder(clip, device, threads))

    store, hevc = material.store, material.hevc
    found: dict[str, Callable[[], Contestant]] = {
        REFERENCE: lambda: on(store, pyav()),
        OURS: lambda: on(store, dali()),
        "DALI mp4": lambda: on(material.mp4, dali()),
        "DALI raw": lambda: on(material.raw, dali()),
        PEER: lambda: on(store, peer()),
        HEVC[REFERENCE]: lambda: on(hevc, pyav()),
        HEVC[OURS]: lambda: on(hevc, dali()),
        HEVC[PEER]: lambda: on(hevc, peer()),
        "torchcodec mp4": lambda: on(material.mp4, cropped(torchcodec_on_gpu(device, clip.num_frames, threads), clip)),
        "ACCV-Lab mp4": lambda: on(material.mp4, cropped(accv_on_gpu(device, clip.num_frames, batch), clip)),
    }
    for share in SHARES:
        found[f"hybrid {share:g}"] = lambda share=share: on(store, split_between(pyav(), dali(), share))
        found[f"hybrid nv {share:g}"] = lambda share=share: on(store, split_between(pyav(), peer(), share))
    return found


def dali_problem_of(manifest: Manifest, device: torch.device) -> str | None:
    """Why DALI does not decode these videos on this device; None where it does."""
    if problem := dali_problem(device):
        return problem
    unfit = int(unfit_videos(manifest).sum())
    return f"{unfit} of {len(manifest)} videos are not for NVDEC (codec, container or odd size)" if unfit else None


def on(manifest: Manifest, decode: Decode) -> Contestant:
    """The videos of a manifest decoded in a certain way, from the middle of the frame."""
    return lambda snippets: decode(
        [SnippetRequest(manifest.video(row), start, 0.5, 0.5, False) for row, start in snippets]
    )


def cropped(read: GpuReader, clip: ClipFormat) -> Decode:
    """Whole frames of a reader, cut; they must not have to be scaled."""

    def decode(requests: Sequence[SnippetRequest]) -> torch.Tensor:
        clips, windows = [], [crop_window(request, clip) for request in requests]
        for request, window in zip(requests, windows, strict=True):
            if (window.width, window.height) != (request.video.width, request.video.height):
                raise InputError(f"'{request.video.path}' would have to be scaled: give the store's --short-side")
        whole = read([(request.video.path, request.start) for request in requests])
        for frames, window in zip(whole, windows, strict=True):
            clips.append(frames[:, window.top : window.top + clip.crop, window.left : window.left + clip.crop])
        return torch.stack(clips)

    return decode


def _checked(decoder: VideoDecoder) -> Decode:
    def decode(requests: Sequence[SnippetRequest]) -> torch.Tensor:
        decoded = decoder.decode(requests)
        for reason in decoded.failures.values():
            raise InputError(f"snippets that do not decode: {reason}")
        return decoded.frames

    return decode


def split_between(one: Decode, other: Decode, share: float) -> Decode:
    """The first `share` of each batch by one, the rest by the other, at the same time."""
    pool = ThreadPoolExecutor(1)

    def decode(requests: Sequence[SnippetRequest]) -> torch.Tensor:
        border = round(share * len(requests))
        if border in (0, len(requests)):
            return (one if border else other)(requests)
        begun = pool.submit(one, requests[:border])
        rest = other(requests[border:])
        return torch.cat([begun.result(), rest])

    return decode
