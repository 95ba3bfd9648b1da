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
from engine.data.nvdec import unfit_videos
from engine.data.stills import MixedDecoder, StillDecoder
from engine.data.store.index import is_stored, split_stored_path
from engine.distributed import usable_cores
from engine.errors import InputError

_NVDEC_LIBRARY = "libnvcuvid.so.1"  # comes with the NVIDIA driver, if it was installed with video support
_INSTALL = "pip install -e '.[cuda13]' (or '.[cuda12]' for V100 and older drivers)"


def choose_decoder(name: str, device: torch.device, manifests: Sequence[Manifest] = ()) -> tuple[str, str]:
    """Which decoder `name` ("auto", "dali" or "pyav") means on `device`, and why, in one line for the log.

    auto: DALI where it can use the GPU's decoding engine and that engine decodes all of `manifests`, else PyAV.

    Raises:
        InputError: "dali" was asked for by name and cannot run here, or videos lie in a snippet store.
    """
    if name == "pyav":
        return "pyav", "data.decoder is pyav"
    if name == "auto" and device.type != "cuda":
        return "pyav", f"data.decoder is auto and the device is {device.type}"
    problem = dali_problem(device)
    if name == "auto" and problem:
        return "pyav", f"data.decoder is auto and {problem}"
    store = next(filter(None, map(_store_of, manifests)), None)
    if store and not problem:
        problem = f"'{store}' is a snippet store, which PyAV reads and DALI does not"
    if name == "auto" and store:
        return "pyav", f"data.decoder is auto and {problem}"
    num_unfit = sum(int(unfit_videos(manifest).sum()) for manifest in manifests) if name == "auto" else 0
    if num_unfit:
        total = sum(map(len, manifests))
        return "pyav", (
            f"data.decoder is auto and DALI on the GPU cannot decode {num_unfit} of {total} videos frame by frame "
            "(codec, container or odd size): re-encode them as H.264 in MP4 to use NVDEC"
        )
    if name == "auto":
        return "dali", f"data.decoder is auto and {device} has NVDEC"
    if problem:
        raise InputError(f"data.decoder is dali, but {problem}; or set data.decoder=pyav")
    return "dali", f"data.decoder is dali, on the {'GPU' if device.type == 'cuda' else 'CPU: VP8, VP9 and MJPEG only'}"


def _store_of(manifest: Manifest) -> Path | None:
    """The first snippet store that a manifest names."""
    paths = manifest.table.column("path").to_pylist()
    place = next((split_stored_path(manifest.root / path) for path in paths if is_stored(path)), None)
    return place[0].parent if place else None


def dali_problem(device: torch.device) -> str | None:
    """Why DALI cannot decode for `device`, and what to do about it; None where it can."""
    if device.type not in ("cuda", "cpu"):
        return f"DALI decodes for cuda and cpu devices, not for {device.type}"
    try:
        importlib.import_module("engine.data.dali")
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
    name: str, clip: ClipFormat, device: torch.device, num_threads: int, max_batch_size: int
) -> VideoDecoder:
    """The decoder that `name` ("auto", "dali" or "pyav") means on `device`, with one for stills beside it.

    Args:
        clip: the shape of a snippet.
        device: where the clips are wanted.
        num_threads: videos decoded at the same time; 0: `default_threads()`.
        max_batch_size: requests of one `decode` call at most (DALI reserves room for them).

    Raises:
        InputError: as `choose_decoder`.
    """
    num_threads = num_threads or default_threads()
    videos = _build_video_decoder(name, clip, device, num_threads, max_batch_size)
    return MixedDecoder(videos, StillDecoder(clip, device, num_threads))


def _build_video_decoder(
    name: str, clip: ClipFormat, device: torch.device, num_threads: int, max_batch_size: int
) -> VideoDecoder:
    chosen, _ = choose_decoder(name, device)
    if chosen == "dali":
        build = functools.partial(_build_dali, clip, device, num_threads, max_batch_size)
        # On the CPU some damaged MJPEG files crash DALI 2.4 itself (docs/reliability.md).
        return IsolatedDecoder("dali", build, clip, max_batch_size) if device.type == "cpu" else build()
    from engine.data.pyav.decode import PyAVDecoder

    return PyAVDecoder(clip, device, num_threads)


def _build_dali(clip: ClipFormat, device: torch.device, num_threads: int, max_batch_size: int) -> VideoDecoder:
    from engine.data.dali import DaliDecoder

    return DaliDecoder(clip, device, num_threads, max_batch_size)
