"""Choosing a decoder. The choice is made once, is stated in the log, and never changes silently."""

import ctypes
import functools
import importlib
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from engine.data.batch import ClipFormat, VideoDecoder
from engine.data.isolated import IsolatedDecoder
from engine.data.manifest import Manifest
from engine.data.nvdec import mixed_up_videos, unfit_videos
from engine.data.stills import MixedDecoder, StillDecoder
from engine.data.store.index import INDEX_NAME, StoreIndex, is_stored, split_stored_path
from engine.distributed import usable_cores
from engine.errors import InputError

_NVDEC_LIBRARY = "libnvcuvid.so.1"  # comes with the NVIDIA driver, if it was installed with video support
_INSTALL = "pip install -e '.[cuda13]' (or '.[cuda12]' for V100 and older drivers)"


def choose_decoder(name: str, device: torch.device, manifests: Sequence[Manifest] = ()) -> tuple[str, str]:
    """Which decoder `name` ("auto", "dali", "nvcodec" or "pyav") means on `device`, and why, in one line for the log.

    auto: DALI where it can use the GPU's decoding engine and that engine decodes all of `manifests`, else PyAV.

    Raises:
        InputError: "dali" or "nvcodec" was asked for by name and cannot run here, or not for the snippet stores of `manifests`.
    """
    if name == "pyav":
        return "pyav", "data.decoder is pyav"
    if name == "nvcodec":
        from engine.data.nvcodec.decode import nvcodec_problem

        if problem := nvcodec_problem(device, manifests) or _store_problem(manifests, device):
            raise InputError(f"data.decoder is nvcodec, but {problem}; or set data.decoder=pyav")
        return "nvcodec", f"data.decoder is nvcodec, on {device}"
    if name == "auto" and device.type != "cuda":
        return "pyav", f"data.decoder is auto and the device is {device.type}"
    problem = dali_problem(device) or _store_problem(manifests, device)
    if name == "auto" and problem:
        return "pyav", f"data.decoder is auto and {problem}"
    num_unfit = sum(int(unfit_videos(manifest).sum()) for manifest in manifests) if name == "auto" else 0
    if num_unfit:
        total = sum(map(len, manifests))
        return "pyav", (
            f"data.decoder is auto and DALI on the GPU cannot decode {num_unfit} of {total} videos frame by frame "
            "(codec, container or odd size): re-encode them as H.264 in MP4 to use NVDEC"
        )
    num_mixed_up = mixed_up_videos(manifests) if manifests and device.type == "cuda" else 0
    mixed_up = (
        f"DALI on the GPU may decode {num_mixed_up} videos as if they had the height of others (engine/data/nvdec.py)"
    )
    if name == "auto" and num_mixed_up:
        return "pyav", f"data.decoder is auto and {mixed_up}: ingest them into a store (tools/ingest.py) to use NVDEC"
    if name == "auto":
        stills = "; stills are decoded there too" if any(manifest.is_still.any() for manifest in manifests) else ""
        return "dali", f"data.decoder is auto and {device} has NVDEC{stills}"
    if problem:
        raise InputError(f"data.decoder is dali, but {problem}; or set data.decoder=pyav")
    where = "GPU" if device.type == "cuda" else "CPU: VP8, VP9 and MJPEG only"
    return "dali", f"data.decoder is dali, on the {where}{f'; BEWARE: {mixed_up}' if num_mixed_up else ''}"


def _store_problem(manifests: Sequence[Manifest], device: torch.device) -> str | None:
    """Why DALI cannot decode the snippet stores among these on `device`; None where it can, or there are none."""
    for index in sorted({index for manifest in manifests for index in _stores(manifest)}):
        if device.type != "cuda":
            return f"'{index.parent}' is a snippet store of H.264, which DALI decodes on a GPU only"
        if StoreIndex(index).settings.b_frames:
            return f"the snippet store '{index.parent}' was made with B-frames, which DALI would show out of order"
    return None


def _stores(manifest: Manifest) -> set[Path]:
    """The indices of the snippet stores that a manifest names."""
    paths = filter(is_stored, manifest.table.column("path").to_pylist())
    examples = {f"/{path}".partition(f"/{INDEX_NAME}/")[0]: path for path in paths}  # one of each store
    return {split_stored_path(manifest.root / path)[0] for path in examples.values()}


def dali_problem(device: torch.device) -> str | None:
    """Why DALI cannot decode for `device`, and what to do about it; None where it can."""
    if device.type not in ("cuda", "cpu"):
        return f"DALI decodes for cuda and cpu devices, not for {device.type}"
    try:
        importlib.import_module("engine.data.dali.decode")
    except ImportError as error:
        return f"DALI cannot be imported ({error}): {_INSTALL}"
    if device.type == "cuda":
        try:
            ctypes.CDLL(_NVDEC_LIBRARY)
        except OSError as error:
            return f"NVDEC cannot be used ({error}): install the driver's video libraries"
    return None


def default_threads() -> int:
    """The CPU cores this process may use, shared among the ranks of this machine; at least 1."""
    return max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def build_decoder(
    name: str,
    clip: ClipFormat,
    device: torch.device,
    num_threads: int,
    max_batch_size: int,
    *,
    in_processes: bool = False,
) -> VideoDecoder:
    """The decoder that `name` ("auto", "dali", "nvcodec" or "pyav") means on `device`, with one for stills beside it.

    Stills are decoded by DALI where it decodes videos on a GPU, else by PIL.

    Args:
        clip: the shape of a snippet.
        device: where the clips are wanted.
        num_threads: videos decoded at the same time; 0: `default_threads()`.
        max_batch_size: requests of one `decode` call at most (DALI and processes reserve room for them).
        in_processes: PyAV decodes in `num_threads` processes instead of threads.

    Raises:
        InputError: as `choose_decoder`.
    """
    num_threads = num_threads or default_threads()
    chosen, _ = choose_decoder(name, device)
    if chosen == "pyav":
        videos = _build_pyav(clip, device, num_threads, max_batch_size, in_processes)
        return MixedDecoder(videos, StillDecoder(clip, device, num_threads))
    if chosen == "nvcodec":
        from engine.data.nvcodec.decode import NvCodecDecoder

        return MixedDecoder(NvCodecDecoder(clip, device, num_threads), StillDecoder(clip, device, num_threads))
    build = functools.partial(_build_dali, clip, device, num_threads, max_batch_size)
    if device.type == "cpu":
        # On the CPU some damaged MJPEG files crash DALI 2.4 itself (docs/reliability.md).
        videos = IsolatedDecoder("dali", build, clip, max_batch_size)
        # PIL reads no more of a JPEG than it needs.
        return MixedDecoder(videos, StillDecoder(clip, device, num_threads))
    from engine.data.dali.stills import DaliStillDecoder

    return MixedDecoder(build(), DaliStillDecoder(clip, device, num_threads, max_batch_size))


def _build_pyav(
    clip: ClipFormat, device: torch.device, num_threads: int, max_batch_size: int, in_processes: bool
) -> VideoDecoder:
    if in_processes:
        from engine.data.pyav.processes import ProcessDecoder

        return ProcessDecoder(clip, device, num_threads, max_batch_size)
    from engine.data.pyav.decode import PyAVDecoder

    return PyAVDecoder(clip, device, num_threads)


def _build_dali(clip: ClipFormat, device: torch.device, num_threads: int, max_batch_size: int) -> VideoDecoder:
    from engine.data.dali.decode import DaliDecoder

    return DaliDecoder(clip, device, num_threads, max_batch_size)
