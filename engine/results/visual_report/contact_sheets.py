"""The videos that a model is most right and most wrong about, each as a row of its frames."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.data.batch import ClipFormat
from engine.data.decoders import build_decoder
from engine.data.sets.sources import DataSet
from engine.evaluation.metrics import ZeroShotResult
from engine.evaluation.snippets import video_requests

_MOST = 6  # of the best videos, and of the worst
NUM_FRAMES = 6  # of a video, from its beginning to its end
SIDE = 128  # pixels of a frame

# Single frames of the centre crop: what the network sees of a video, over all of its length.
_FRAME = ClipFormat(num_frames=1, short_side=SIDE, crop=SIDE)


@dataclass(frozen=True, slots=True)
class ContactSheet:
    """A video and what the model said of it.

    path: as the manifest has it.
    cosine: to the class that was predicted; true_cosine: to the true one.
    frames: uint8 [T, H, W, C]; None if it cannot be decoded any more, for the reason in `problem`.
    """

    path: str
    true: str
    predicted: str
    cosine: float
    true_cosine: float
    frames: np.ndarray | None
    problem: str = ""

    @property
    def is_right(self) -> bool:
        return self.true == self.predicted


def contact_sheets(
    dataset: DataSet, result: ZeroShotResult, vectors: torch.Tensor
) -> tuple[list[ContactSheet], list[ContactSheet]]:
    """The best and the worst videos of a test set, at most six of each and one of a class.

    Videos are ordered by their margin: the cosine to the true class less that to the nearest other one. The best are
    right by the largest margin, the worst wrong by the largest. All are decoded by PyAV, on any machine alike.

    Args:
        vectors: float32 [C, D], of `result.classes`.
    """
    cosine = class_cosines(result.embeddings, vectors)
    margin = _margins(cosine, result.labels)
    is_right = result.predicted[:, 0] == result.labels
    order = np.argsort(-margin, kind="stable")
    best = _one_of_each_class(order[is_right[order]], result.labels)
    worst = _one_of_each_class(order[~is_right[order]][::-1], result.labels)
    frames = _decode(dataset, [int(result.rows[index]) for index in (*best, *worst)])
    paths = dataset.manifest.strings("path")

    def sheet(index: int) -> ContactSheet:
        row, label, nearest = int(result.rows[index]), result.labels[index], result.predicted[index, 0]
        pictures, problem = frames[row]
        cosines = float(cosine[index, nearest]), float(cosine[index, label])
        return ContactSheet(
            str(paths[row]), result.classes[label], result.classes[nearest], *cosines, pictures, problem
        )

    return [sheet(index) for index in best], [sheet(index) for index in worst]


def class_cosines(embeddings: np.ndarray, vectors: torch.Tensor) -> np.ndarray:
    """Cosine of each video [V, D] and each class [C, D]: float32 [V, C]."""
    videos = torch.nn.functional.normalize(torch.from_numpy(embeddings), dim=1)
    return (videos @ torch.nn.functional.normalize(vectors.float().cpu(), dim=1).T).numpy()


def _margins(cosine: np.ndarray, labels: np.ndarray) -> np.ndarray:
    indices = np.arange(len(labels))
    others = cosine.copy()
    others[indices, labels] = -1.0
    return cosine[indices, labels] - others.max(axis=1)


def _one_of_each_class(order: np.ndarray, labels: np.ndarray) -> list[int]:
    """The first of each class, so that one easy class does not fill the page."""
    first = dict(zip(labels[order[::-1]].tolist(), order[::-1].tolist(), strict=True))
    kept = set(first.values())
    return [index for index in order.tolist() if index in kept][:_MOST]


def _decode(dataset: DataSet, rows: Sequence[int]) -> dict[int, tuple[np.ndarray | None, str]]:
    """Row -> its frames [T, H, W, C], or None and why it has none."""
    found: dict[int, tuple[np.ndarray | None, str]] = {}
    decoder = build_decoder("pyav", _FRAME, torch.device("cpu"), 1, NUM_FRAMES)
    try:
        for row in rows:
            decoded = decoder.decode(list(video_requests(dataset.manifest, [row], _FRAME, NUM_FRAMES)))
            if decoded.failures:
                found[row] = None, next(iter(decoded.failures.values()))
            else:
                found[row] = decoded.frames[:, 0].numpy(), ""
    finally:
        decoder.close()
    return found
