"""Who takes part in `decode_gpu`: functions from snippets to clips on the device, and why others do not."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from bench.material import Material
from bench.readers import GpuReader, accv_on_gpu, torchcodec_on_gpu
from engine.data.batch import ClipFormat, SnippetRequest, VideoDecoder
from engine.data.decoders import choose_decoder
from engine.data.geometry import crop_window
from engine.data.manifest import Manifest
from engine.data.nvcodec.decode import NvCodecDecoder, nvcodec_problem
from engine.data.nvdec import unfit_videos
from engine.data.pyav.decode import PyAVDecoder
from engine.errors import InputError

SHARES = (0.125, 0.25, 0.5)  # of the CPU in a hybrid
REFERENCE, OURS, PEER = "PyAV store", "DALI store", "PyNvVideoCodec"
HEVC = {REFERENCE: "PyAV hevc", OURS: "DALI hevc", PEER: "PyNvVideoCodec hevc"}  # the same on a store of HEVC

Decode = Callable[[Sequence[SnippetRequest]], torch.Tensor]
Contestant = Callable[[Sequence[tuple[int, int]]], torch.Tensor]  # (row, start) -> clips


def contestants(
    material: Material, device: torch.device, threads: int, batch: int
) -> tuple[dict[str, Contestant], dict[str, str]]:
    """Name -> a function from requests to clips on the device, and name -> reason of those that cannot take part."""
    clip = material.clip
    cpu = _checked(PyAVDecoder(clip, device, threads))
    runners: dict[str, Contestant] = {REFERENCE: on(material.store, cpu)}
    skipped: dict[str, str] = {}

    def dali(num_threads: int) -> Decode:
        from engine.data.dali.decode import DaliDecoder

        return _checked(DaliDecoder(clip, device, num_threads, batch))

    files = {OURS: material.store, "DALI mp4": material.mp4, "DALI raw": material.raw}
    for name, manifest in (files | ({HEVC[OURS]: material.hevc} if material.hevc else {})).items():
        if reason := dali_problem_of(manifest, device):
            skipped[name] = reason
        else:
            runners[name] = on(manifest, dali(threads))
    if OURS in runners:
        one, other = dali(max(1, threads // 2)), dali(max(1, threads // 2))
        runners[f"{OURS}, 2"] = on(material.store, split_between(one, other, 0.5))
        whole = dali(threads)
        for share in SHARES:
            runners[f"hybrid {share:g}"] = on(material.store, split_between(cpu, whole, share))
    if reason := nvcodec_problem(device, [material.store]):
        skipped[PEER] = reason
    else:
        peer = _checked(NvCodecDecoder(clip, device, threads))
        runners[PEER] = on(material.store, peer)
        for share in SHARES:
            runners[f"hybrid nv {share:g}"] = on(material.store, split_between(cpu, peer, share))
        if material.hevc:
            runners[HEVC[PEER]] = on(material.hevc, peer)
    if material.hevc:
        runners[HEVC[REFERENCE]] = on(material.hevc, cpu)
    _add_other_libraries(material, device, threads, batch, runners, skipped)
    return runners, skipped


def _add_other_libraries(
    material: Material,
    device: torch.device,
    threads: int,
    batch: int,
    runners: dict[str, Contestant],
    skipped: dict[str, str],
) -> None:
    """Those that read files: the MP4 files of the store's frames. A trial of one snippet tells whether they can."""
    clip = material.clip
    builders = {
        "torchcodec mp4": lambda: torchcodec_on_gpu(device, clip.num_frames, threads),
        "ACCV-Lab mp4": lambda: accv_on_gpu(device, clip.num_frames, batch),
    }
    for name, build in builders.items():
        try:
            runner = on(material.mp4, cropped(build(), clip))
            runner(material.snippets[:1])
        except Exception as error:  # whatever another library raises where it cannot be used
            reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
            skipped[name] = reason if isinstance(error, InputError) else f"{type(error).__name__}: {reason}"
        else:
            runners[name] = runner


def dali_problem_of(manifest: Manifest, device: torch.device) -> str | None:
    """Why DALI does not decode these videos on this device; None where it does."""
    try:
        choose_decoder("dali", device, [manifest])
    except InputError as error:
        return str(error)
    if device.type == "cuda":
        unfit = int(unfit_videos(manifest).sum())
        return f"{unfit} of {len(manifest)} videos are not for NVDEC (codec, container or odd size)" if unfit else None
    from engine.data.dali.decode import CPU_CODECS

    others = set(manifest.strings("codec")) - set(CPU_CODECS)
    return f"DALI does not decode {', '.join(sorted(others))} on the CPU" if others else None


def on(manifest: Manifest, decode: Decode) -> Contestant:
    """The videos of a manifest decoded in a certain way, from the middle of the picture."""
    return lambda snippets: decode(
        [SnippetRequest(manifest.video(row), start, 0.5, 0.5, False) for row, start in snippets]
    )


def cropped(read: GpuReader, clip: ClipFormat) -> Decode:
    """Whole pictures of a reader, cut; they must not have to be scaled."""

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
        if decoded.failures:
            raise InputError(f"snippets that do not decode: {decoded.failures}")
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
