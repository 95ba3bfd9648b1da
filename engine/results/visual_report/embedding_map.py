"""Videos and class names of the word space on a plane."""

from dataclasses import dataclass

import numpy as np
import torch

from engine.evaluation.evaluate import choose_rows
from engine.evaluation.metrics import ZeroShotResult
from engine.results.tsne import FEWEST, tsne

MAX_VIDEOS = 600  # more points say no more, and t-SNE takes its time
_STEPS = 500


@dataclass(frozen=True, slots=True)
class EmbeddingMap:
    """Places on a plane, each axis in [0, 1].

    videos: float32 [N, 2]. places: int64 [N], which of the result's videos they are. classes: float32 [C, 2].
    """

    videos: np.ndarray
    places: np.ndarray
    classes: np.ndarray


def embedding_map(result: ZeroShotResult, vectors: torch.Tensor) -> EmbeddingMap | None:
    """t-SNE by cosine distance of the videos' embeddings together with the class vectors; the same each time.

    Args:
        vectors: float32 [C, D], of `result.classes`.

    Returns:
        None where there is nothing to spread out: fewer than four points, one dimension, or all points the same.
    """
    rows = choose_rows(len(result.labels), MAX_VIDEOS)
    points = np.concatenate([result.embeddings[rows], vectors.cpu().numpy()]).astype(np.float64)
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    if len(points) < FEWEST or points.shape[1] < 2 or np.ptp(points, axis=0).max() < 1e-6:
        return None
    # Of unit vectors the squared Euclidean distance is twice the cosine distance: t-SNE sees the same neighbours.
    plane = tsne(points, steps=_STEPS)
    low, high = plane.min(axis=0), plane.max(axis=0)
    plane = ((plane - low) / np.maximum(high - low, 1e-12)).astype(np.float32)
    return EmbeddingMap(plane[: len(rows)], rows, plane[len(rows) :])
