"""A trained model over a video and some queries: moments in seconds, best first. Training measures with this, searching uses it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from engine.errors import InputError
from engine.features.cache import VideoFeatures
from engine.moments.config import MomentsConfig
from engine.moments.decoding import best_moments, merged
from engine.moments.network import MULTIPLE
from engine.moments.queries import QueryEncoder
from engine.moments.segments import Segments, cut_segments, parts
from engine.training.precision import Precision

COUNT = 5  # moments of a query that are shown
MEASURED = 10  # that are measured: mAP counts so many, as QVHighlights' evaluation does
_BATCH = 64  # pairs of a part of a video and a query, in one pass


@dataclass(frozen=True)
class MomentFinder:
    """network: in eval mode, on `device`. queries: as it was trained with."""

    network: nn.Module
    queries: QueryEncoder
    config: MomentsConfig
    device: torch.device
    precision: Precision

    def find(self, video: VideoFeatures, queries: Sequence[str], count: int = COUNT) -> list[np.ndarray]:
        """The moments of each query in a video of any length: float64 [K, 3], start and end in seconds, score; K <= `count`.

        Raises:
            InputError: a query is empty, too long, or has no known word; or the video has no windows.
        """
        segments = cut_segments(video, self.config.segment_s)
        return self.find_pairs([(segments, self.queries.tokens(query)) for query in queries], count)

    def find_pairs(self, pairs: Sequence[tuple[Segments, np.ndarray]], count: int = COUNT) -> list[np.ndarray]:
        """The moments of each pair of a video and a query's tokens, float32 [L, E]."""
        cut = [
            (row, first, last)
            for row, (seen, _) in enumerate(pairs)
            for first, last in parts(len(seen), self.config.segments)
        ]
        found: list[list[np.ndarray]] = [[] for _ in pairs]
        was_training = self.network.training
        self.network.eval()
        for begin in range(0, len(cut), _BATCH):
            some = cut[begin : begin + _BATCH]
            moments = self._search(
                [(pairs[row][0].part(first, last), pairs[row][1]) for row, first, last in some], count
            )
            for (row, _, _), moment in zip(some, moments, strict=True):
                found[row].append(moment)
        self.network.train(was_training)
        return [merged(np.concatenate(each), count, self.config.max_overlap) for each in found]

    @torch.inference_mode()
    def relevance(self, segments: Segments, tokens: np.ndarray) -> np.ndarray:
        """How likely each segment is in the moment, 0 to 1: float64 [T]; where parts overlap, the mean of both.

        By the second task, or, in a model that has not learnt it, by start and end: begun, and not yet over.
        """
        total, times = np.zeros(len(segments)), np.zeros(len(segments))
        cut = parts(len(segments), self.config.segments)
        for begin in range(0, len(cut), _BATCH):
            some = cut[begin : begin + _BATCH]
            start, end, inside = self._logits([(segments.part(*part), tokens) for part in some])
            begun, over = start.double().softmax(1).cumsum(1), end.double().softmax(1).flip(1).cumsum(1).flip(1)
            likely = (inside.double().sigmoid() if self.config.frame_weight else begun * over).cpu().numpy()
            for (first, last), row in zip(some, likely, strict=True):
                total[first:last] += row[: last - first]
                times[first:last] += 1
        return total / times

    def _logits(self, pairs: Sequence[tuple[Segments, np.ndarray]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        video, is_segment = padded([seen.features for seen, _ in pairs], self.device, self.precision.weights)
        query, is_token = padded([tokens for _, tokens in pairs], self.device, self.precision.weights)
        with self.precision.autocast(self.device):
            return self.network(video, is_segment, query, is_token)

    @torch.inference_mode()
    def _search(self, pairs: Sequence[tuple[Segments, np.ndarray]], count: int) -> np.ndarray:
        logits = self._logits(pairs)
        width = logits[0].shape[1] + 1
        edges = np.stack([np.pad(seen.edges, (0, width - len(seen.edges)), mode="edge") for seen, _ in pairs])
        scale = self.config.frame_score if self.config.frame_weight else 0.0
        how = {"frame_score": scale, "count": count, "max_overlap": self.config.max_overlap}
        return best_moments(logits, torch.from_numpy(edges).to(self.device), **how).cpu().numpy()


def padded(
    rows: Sequence[np.ndarray], device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """Arrays [n_i, D] as one tensor [N, T, D] with zeros behind, T a multiple of `MULTIPLE`, and bool [N, T] where they are.

    Raises:
        InputError: they are not of one width.
    """
    widths = {row.shape[1] for row in rows}
    if len(widths) != 1:
        raise InputError(
            f"features of different lengths ({', '.join(map(str, sorted(widths)))}) cannot be searched together"
        )
    length = -(-max(map(len, rows)) // MULTIPLE) * MULTIPLE
    batch = np.zeros((len(rows), length, widths.pop()), dtype=np.float32)
    for place, row in zip(batch, rows, strict=True):
        place[: len(row)] = row
    is_real = torch.arange(length) < torch.tensor([len(row) for row in rows])[:, None]
    return torch.from_numpy(batch).to(device, dtype), is_real.to(device)
