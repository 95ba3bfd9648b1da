"""How others load videos for training, for the baselines of `train`: uint8 snippets and class numbers, endlessly.

opencv    the authors' code: read the video from its first frame, keep the snippet's frames, scale each, crop
pyav      a careful user: seek to the key frame before the snippet, convert and crop what is needed, DataLoader
"""

from collections.abc import Generator, Iterator

import av
import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from engine.data.batch import ClipFormat
from engine.data.manifests.manifest import Manifest

Batch = tuple[torch.Tensor, torch.Tensor]  # uint8 [N, T, H, W, 3], int64 [N]


class RandomSnippets(Dataset[tuple[np.ndarray, int]]):
    """A random snippet of each video (paper Sec. 3.2), uint8 [T, crop, crop, 3], with its class number.

    Args:
        how: "opencv" or "pyav".
    """

    def __init__(self, manifest: Manifest, clip: ClipFormat, how: str) -> None:
        self.clip, self.read = clip, {"opencv": _read_with_opencv, "pyav": _read_with_pyav}[how]
        self.paths = [str(manifest.video(row).path) for row in range(len(manifest))]
        self.lengths, self.labels = manifest.num_frames.tolist(), manifest.class_index.tolist()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        generator = np.random.default_rng(int(torch.randint(2**31, ())))  # torch's own is seeded anew in each worker
        start = int(generator.integers(0, max(self.lengths[index] - self.clip.span, 0), endpoint=True))
        frames = self.read(self.paths[index], start, self.clip)
        frames += [frames[-1]] * (self.clip.num_frames - len(frames))  # too short: the last frame again
        clip_thwc = np.stack(frames)
        height, width = clip_thwc.shape[1:3]
        top, left = (int(generator.integers(0, side - self.clip.crop, endpoint=True)) for side in (height, width))
        clip_thwc = clip_thwc[:, top : top + self.clip.crop, left : left + self.clip.crop]
        if generator.random() < 0.5:
            clip_thwc = clip_thwc[:, :, ::-1]
        return np.ascontiguousarray(clip_thwc), self.labels[index]


def _scaled_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    factor = short_side / min(width, height)
    return round(width * factor), round(height * factor)


def _read_with_opencv(path: str, start: int, clip: ClipFormat) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(path), []
    for number in range(start + clip.span):
        is_read, frame = capture.read()
        if not is_read:
            break
        if number >= start and (number - start) % clip.stride == 0:
            size = _scaled_size(frame.shape[1], frame.shape[0], clip.short_side)
            frames.append(cv2.resize(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), size))
    capture.release()
    if not frames:
        raise OSError(f"OpenCV cannot read '{path}'")
    return frames


def _read_with_pyav(path: str, start: int, clip: ClipFormat) -> list[np.ndarray]:
    frames: list[np.ndarray] = []
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        first = float((stream.start_time or 0) * stream.time_base)
        wanted = [first + (start + index * clip.stride - 0.5) / stream.average_rate for index in range(clip.num_frames)]
        container.seek(max(0, int(wanted[0] / stream.time_base)), stream=stream)
        width, height = _scaled_size(stream.width, stream.height, clip.short_side)
        for frame in container.decode(stream):
            if frame.time >= wanted[len(frames)]:
                frames.append(frame.to_ndarray(format="rgb24", width=width, height=height))
            if len(frames) == clip.num_frames:
                break
    if not frames:
        raise OSError(f"PyAV finds no frame at {start} in '{path}'")
    return frames


class _Endless(Sampler[int]):
    """Places of a set, epoch after epoch, each shuffled anew."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from torch.randperm(self.length).tolist()


def endless_batches(
    snippets: RandomSnippets, batch_size: int, workers: int, device: torch.device
) -> Generator[Batch, None, None]:
    """A DataLoader whose workers read ahead past the ends of epochs, on the device. They end when it is closed."""
    loader = DataLoader(
        snippets,
        batch_size,
        sampler=_Endless(len(snippets)),
        drop_last=True,
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )
    for frames, labels in loader:
        yield frames.to(device, non_blocking=True), labels.to(device, non_blocking=True)
