"""Choosing the decoders of a run. The choice is made once, is stated in the log, and never changes silently."""

import ctypes
import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from engine.data.batch import ClipFormat, Video, VideoDecoder
from engine.data.manifests.manifest import Manifest
from engine.data.motion import VECTOR_CODECS
from engine.data.nvdec import NvdecRule, Rule, refusal_counts
from engine.data.routing import RoutedDecoder, Routes
from engine.data.shares import MeasuredShare, Share
from engine.data.stills import StillDecoder
from engine.data.store.index import StoreIndex, is_stored, split_stored_path
from engine.data.store.motion import WithStoredMotion
from engine.data.store.reader import ADD_MOTION
from engine.errors import InputError
from engine.files.addresses import shown
from engine.machine import rank_cores

_NVDEC_LIBRARY = "libnvcuvid.so.1"  # comes with the NVIDIA driver, if it was installed with video support
_INSTALL = "pip install -e '.[cuda13]' (or '.[cuda12]' for V100 and older drivers)"


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A decoder that takes some videos and leaves the rest to PyAV.

    problem: why it cannot decode for a device at all. rule: of the videos of a run, why it is not given one of them.
    build: it, for (clip, device, threads, largest batch). stills: the same, for frames; None where PIL is left to do it.
    """

    problem: Callable[[torch.device], str | None]
    rule: Callable[[Sequence[Manifest]], Rule]
    build: Callable[[ClipFormat, torch.device, int, int], VideoDecoder]
    stills: Callable[[ClipFormat, torch.device, int, int], VideoDecoder | None]


@dataclass(frozen=True, slots=True)
class DecoderChoice:
    """Who decodes the videos of a run, decided once.

    name: "pyav", or the accelerator beside it. why: one line for the log.
    routes: what the accelerator is given and what has come of it; None for PyAV alone.
    """

    name: str
    why: str
    routes: Routes | None = None


def choose_decoder(
    name: str, device: torch.device, manifests: Sequence[Manifest] = (), *, by_rule: bool = False, motion: bool = False
) -> DecoderChoice:
    """Who decodes these videos on `device`, and why.

    pyav: PyAV. The name of an accelerator: it takes what it can, and PyAV the rest.
    auto: on a GPU the first accelerator that can work there, beside PyAV; how much of what it takes it is given is measured
    in the first seconds of decoding (`shares.py`). Else PyAV.

    Args:
        by_rule: auto gives the accelerator all it takes, whatever is faster: then who decodes what depends on no timing.
        motion: with the motion of the clips, which an accelerator has from stores alone.

    Raises:
        InputError: an accelerator was asked for by name and cannot work here, a store of `manifests` is not there, or videos
            have no motion to give.
    """
    if motion:
        refuse_motionless(manifests)
    if name == "pyav":
        return DecoderChoice("pyav", "data.decoder is pyav")
    if name != "auto":
        if problem := ACCELERATORS[name].problem(device):
            raise InputError(f"data.decoder is {name}, but {problem}; or set data.decoder=pyav")
        return _beside_pyav(name, f"data.decoder is {name}", manifests, Share(), by_rule, motion)
    if device.type != "cuda":
        return DecoderChoice("pyav", f"data.decoder is auto and the device is {device.type}")
    problems = {each: accelerator.problem(device) for each, accelerator in ACCELERATORS.items()}
    found = next((each for each, problem in problems.items() if not problem), None)
    if found is None:
        return DecoderChoice("pyav", f"data.decoder is auto and {'; '.join(problems.values())}")
    if by_rule:
        why = f"data.decoder is auto, {device} has NVDEC, and run.deterministic forbids a choice by timing"
        return _beside_pyav(found, why, manifests, Share(), by_rule, motion)
    why = f"data.decoder is auto, {device} has NVDEC: {found}, pyav or both, by the rates of the first seconds"
    return _beside_pyav(found, why, manifests, MeasuredShare(found, "pyav"), by_rule, motion)


def refuse_motionless(manifests: Sequence[Manifest]) -> None:
    """Refuse videos whose motion cannot be told.

    Raises:
        InputError: of each codec, and each store without motion, how many there are, with the mend.
    """
    reasons = refusal_counts(_motion_refusal, manifests)
    if reasons:
        listed = "; ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()))
        raise InputError(f"clip.motion is on, and some videos have no motion to give: {listed}")


def _motion_refusal(video: Video) -> str | None:
    if is_stored(video.path):
        index = split_stored_path(video.path)[0]
        return None if StoreIndex(index).has_motion else f"in the store '{shown(index.parent.resolve())}': {ADD_MOTION}"
    if video.codec in VECTOR_CODECS:
        return None
    return f"{video.codec}, of which FFmpeg gives out no vectors: ingest them (tools/ingest.py --motion)"


def _beside_pyav(
    name: str, why: str, manifests: Sequence[Manifest], share: Share, by_rule: bool, motion: bool
) -> DecoderChoice:
    """An accelerator with PyAV beside it; in the log, how many videos that one has to take and why."""
    rule = ACCELERATORS[name].rule(manifests)
    if motion:
        rule = functools.partial(_stored_rule, rule, "motion vectors are in the file")
    routes = Routes(rule, share, remember=not by_rule)
    reasons = refusal_counts(rule, manifests)
    if not reasons:
        return DecoderChoice(name, why, routes)
    total = sum(count for manifest in manifests for video, count in manifest.kind_counts() if not video.is_still)
    listed = ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()))
    told = f"{reasons.total():,} of {total:,} videos are for pyav alone ({listed})"
    if reasons.total() == total and isinstance(share, MeasuredShare):
        return DecoderChoice("pyav", f"data.decoder is auto and {told}")
    return DecoderChoice(name, f"{why}; {told}", routes)


def dali_problem(device: torch.device) -> str | None:
    """Why DALI cannot decode for `device`, and what to do about it; None where it can."""
    if device.type != "cuda":
        return f"DALI decodes on NVIDIA GPUs, not on {device.type}"
    try:
        importlib.import_module("engine.data.dali.decode")
    except ImportError as error:
        return f"DALI cannot be imported ({error}): {_INSTALL}"
    try:
        ctypes.CDLL(_NVDEC_LIBRARY)
    except OSError as error:
        return f"NVDEC cannot be used ({error}): install the driver's video libraries"
    return None


def build_decoder(
    choice: DecoderChoice | str,
    clip: ClipFormat,
    device: torch.device,
    num_threads: int,
    max_batch_size: int,
    *,
    in_processes: bool = False,
    is_patient: bool = False,
) -> RoutedDecoder:
    """The decoders of a choice behind the contract of one, with those for stills.

    Stills are decoded by DALI where it decodes videos on a GPU, else by PIL.

    Args:
        choice: of `choose_decoder`, or what that is asked ("auto", "dali", "nvcodec", "pyav"), for any videos.
        clip: the shape of a snippet.
        device: where the clips are wanted.
        num_threads: videos decoded at the same time; 0: `rank_cores()`.
        max_batch_size: requests of one `decode` call at most (DALI and processes reserve room for them).
        in_processes: PyAV decodes in `num_threads` processes instead of threads.
        is_patient: PyAV, in threads, takes as long as frames come.

    Raises:
        InputError: as `choose_decoder`.
    """
    num_threads = num_threads or rank_cores()
    choice = choose_decoder(choice, device) if isinstance(choice, str) else choice
    pyav = _build_pyav(clip, device, num_threads, max_batch_size, in_processes, is_patient)
    stills = StillDecoder(clip, device, num_threads)
    motion_shape = clip.motion_shape if clip.motion else None
    if choice.routes is None:
        return RoutedDecoder([pyav], [stills], motion_shape=motion_shape)
    accelerator = ACCELERATORS[choice.name]
    first = accelerator.build(clip, device, num_threads, max_batch_size)
    if clip.motion:
        first = WithStoredMotion(first, clip, device)
    first_of_stills = accelerator.stills(clip, device, num_threads, max_batch_size)
    both = [first_of_stills, stills] if first_of_stills else [stills]
    return RoutedDecoder([first, pyav], both, choice.routes, motion_shape=motion_shape)


def _build_pyav(
    clip: ClipFormat, device: torch.device, num_threads: int, max_batch_size: int, in_processes: bool, is_patient: bool
) -> VideoDecoder:
    if in_processes:
        from engine.data.pyav.processes import ProcessDecoder

        return ProcessDecoder(clip, device, num_threads, max_batch_size)
    from engine.data.pyav.decode import PyAVDecoder

    return PyAVDecoder(clip, device, num_threads, is_patient=is_patient)


def _build_dali(clip: ClipFormat, device: torch.device, num_threads: int, max_batch_size: int) -> VideoDecoder:
    from engine.data.dali.decode import DaliDecoder

    return DaliDecoder(clip, device, num_threads, max_batch_size)


def _dali_stills(clip: ClipFormat, device: torch.device, num_threads: int, max_batch_size: int) -> VideoDecoder:
    from engine.data.dali.stills import DaliStillDecoder

    return DaliStillDecoder(clip, device, num_threads, max_batch_size)


def _nvcodec_problem(device: torch.device) -> str | None:
    from engine.data.nvcodec.decode import nvcodec_problem

    return nvcodec_problem(device)


def _stored_rule(rule: Rule, why: str, video: Video) -> str | None:
    """A rule for stored videos; others are not taken, and why."""
    return rule(video) if is_stored(video.path) else why


def _nvcodec_rule(manifests: Sequence[Manifest]) -> Rule:
    return functools.partial(_stored_rule, NvdecRule.of(manifests), "in no snippet store")


def _build_nvcodec(clip: ClipFormat, device: torch.device, num_threads: int, max_batch_size: int) -> VideoDecoder:
    from engine.data.nvcodec.decode import NvCodecDecoder

    return NvCodecDecoder(clip, device, num_threads)


ACCELERATORS = {  # in the order in which `auto` asks whether they can work
    "dali": Accelerator(lambda device: dali_problem(device), NvdecRule.of, _build_dali, _dali_stills),
    "nvcodec": Accelerator(_nvcodec_problem, _nvcodec_rule, _build_nvcodec, lambda *_: None),
}
