"""Other ways to read snippets from video files, each as its own documentation recommends: on one core, and on a GPU.

A reader gives the frames `start` to `start + count - 1` as uint8 RGB [count, H, W, 3]. None of them can be told to
convert a crop only; the crop is cut from what they give, which costs next to nothing.
"""

import ctypes
import importlib.metadata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import torch

from engine.errors import InputError

Reader = Callable[[Path, float, int, int], np.ndarray]  # path, frames per second, start, count
GpuReader = Callable[
    [Sequence[tuple[Path, int]]], list[torch.Tensor]
]  # (path, start) -> uint8 [count, H, W, 3] of each


def read_with_pyav(path: Path, fps: float, start: int, count: int) -> np.ndarray:
    """Open, seek to the key frame before, decode, `to_ndarray`."""
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        wanted = (start - 0.5) / fps + float((stream.start_time or 0) * stream.time_base)
        container.seek(max(0, int(wanted / stream.time_base)), stream=stream)
        for frame in container.decode(stream):
            if frame.time >= wanted:
                frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == count:
                break
    return np.stack(frames)


def _decord() -> Reader:
    import decord

    def read(path: Path, fps: float, start: int, count: int) -> np.ndarray:
        try:
            reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
            return reader.get_batch(range(start, start + count)).asnumpy()
        except decord.DECORDError as error:  # derives from nothing that others raise
            raise RuntimeError(str(error)) from error

    return read


def _torchcodec() -> Reader:
    from torchcodec.decoders import VideoDecoder

    def read(path: Path, fps: float, start: int, count: int) -> np.ndarray:
        # "approximate" saves a scan of the file and is exact at a constant frame rate
        decoder = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="approximate")
        return decoder.get_frames_in_range(start, start + count).data.numpy()

    return read


def _video_reader() -> Reader:
    # Its wheel does not say where one of its own libraries lies.
    for file in importlib.metadata.files("video-reader-rs") or ():
        if "libsharpyuv" in file.name:
            ctypes.CDLL(str(file.locate()))
    import video_reader

    def read(path: Path, fps: float, start: int, count: int) -> np.ndarray:
        return video_reader.PyVideoReader(str(path), threads=1).get_batch(list(range(start, start + count)))

    return read


_BUILDERS = {"decord2": _decord, "torchcodec": _torchcodec, "video_reader-rs": _video_reader}


def find_readers(samples: Sequence[Path], count: int) -> tuple[dict[str, Reader], dict[str, str]]:
    """The readers that can read the first `count` frames of these files, and why the others cannot."""
    readers, missing = {"PyAV": read_with_pyav}, {}
    for name, build in _BUILDERS.items():
        try:
            reader = build()
            for sample in samples:
                reader(sample, 25.0, 0, count)
        except ModuleNotFoundError:  # or its package, whose files are asked for
            missing[name] = "not installed"
        except (ImportError, OSError) as error:
            missing[name] = f"does not load: {_first_line(error)}"
        except RuntimeError as error:  # torchcodec without FFmpeg's shared libraries; decord2 and pictures coded larger
            missing[name] = f"does not work: {_first_line(error)}"
        else:
            readers[name] = reader
    return readers, missing


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def torchcodec_on_gpu(device: torch.device, count: int, num_threads: int) -> GpuReader:
    """torchcodec's CUDA decoder, so many files at the same time.

    Raises:
        InputError: it is not installed, or the device is none.
    """
    if device.type != "cuda":
        raise InputError(f"torchcodec is asked for its CUDA decoder, and the device is {device.type}")
    try:
        from torchcodec.decoders import VideoDecoder
    except ModuleNotFoundError as error:
        raise InputError("torchcodec is not installed: pip install -e '.[bench]'") from error
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="torchcodec")

    def read(snippet: tuple[Path, int]) -> torch.Tensor:
        path, start = snippet
        decoder = VideoDecoder(path, device=str(device), dimension_order="NHWC", seek_mode="approximate")
        frames = decoder.get_frames_in_range(start, start + count).data
        if decoder.cpu_fallback:
            raise InputError(f"torchcodec decodes on the CPU instead: {decoder.cpu_fallback}")
        return frames

    return lambda snippets: list(pool.map(read, snippets))


def accv_on_gpu(device: torch.device, count: int, most_files: int) -> GpuReader:
    """NVIDIA's on-demand decoder of ACCV-Lab: a batch of files, several neighbouring frames of each, in one call.

    Raises:
        InputError: it is not installed (it has no wheels: it is built from its repository), or the device is none.
    """
    if device.type != "cuda":
        raise InputError(f"ACCV-Lab decodes on NVIDIA GPUs, not on {device.type}")
    try:
        from accvlab import on_demand_video_decoder as library
    except (ModuleNotFoundError, RuntimeError) as error:  # RuntimeError: its own libraries are missing
        text = "ACCV-Lab's on_demand_video_decoder is not installed: build it from github.com/NVIDIA/ACCV-Lab"
        raise InputError(text) from error
    reader = library.CreateBatchAsyncStreamReader(
        num_of_set=1,
        num_of_file=most_files,
        max_frames_per_decode_call=count,
        iGpu=device.index or 0,
        suppressNoColorRangeWarning=True,
    )

    def read(snippets: Sequence[tuple[Path, int]]) -> list[torch.Tensor]:
        files, frames = [str(path) for path, _ in snippets], [[*range(start, start + count)] for _, start in snippets]
        reader.Decode(files, frames, False)
        shown = reader.GetBuffer(files, frames, False)  # what was decoded, complete; the next call writes over it
        return [torch.stack([torch.as_tensor(each, device=device) for each in video]) for video in shown]

    return read
