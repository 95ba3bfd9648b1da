"""Scores of segments -> moments: the best pairs of start and end that do not overlap each other too much.

log p_start(i) + log p_end(j) + w * sum over i..j of the log-odds of being inside,  i <= j
"""

import numpy as np
import torch

from engine.moments.measures import iou


def best_moments(
    logits: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    edges: torch.Tensor,
    *,
    frame_score: float,
    count: int,
    max_overlap: float,
) -> torch.Tensor:
    """The best moments of each row, float64 [N, count, 3]: start and end in seconds, score; -inf where there are no more.

    Args:
        logits: of start, end and inside, [N, T] each, as `MomentNetwork` gives them.
        edges: float64 [N, T + 1], seconds; behind a row's last segment its last edge is repeated.
    """
    start, end, inside = (part.double() for part in logits)
    real = torch.isfinite(start)
    total = torch.where(real, inside, 0.0).cumsum(dim=1)
    before = torch.nn.functional.pad(total, (1, 0))[:, :-1]
    steps = torch.arange(start.shape[1], device=start.device)
    length = steps[None, :] - steps[:, None] + 1  # [T, T] from i to j
    likely = total[:, None, :] - before[:, :, None]
    score = start.log_softmax(1)[:, :, None] + end.log_softmax(1)[:, None, :] + frame_score * likely
    score = score.masked_fill((length < 1) | ~real[:, :, None] | ~real[:, None, :], -torch.inf)
    first, last = edges[:, :-1], edges[:, 1:]
    found = []
    for _ in range(count):
        value, place = score.flatten(1).max(dim=1)
        i, j = place // score.shape[1], place % score.shape[1]
        begin, finish = first.gather(1, i[:, None]), last.gather(1, j[:, None])
        found.append(torch.cat([begin, finish, value[:, None]], dim=1))
        shared = torch.minimum(last, finish)[:, None, :] - torch.maximum(first, begin)[:, :, None]
        union = torch.maximum(last, finish)[:, None, :] - torch.minimum(first, begin)[:, :, None]
        near = shared > max_overlap * union
        near[torch.arange(len(i)), i, j] = True
        score = score.masked_fill(near, -torch.inf)
    return torch.stack(found, dim=1)


def merged(found: np.ndarray, count: int, max_overlap: float) -> np.ndarray:
    """The `count` best of moments from all parts of a video, float64 [K, 3], the best first, overlapping ones dropped."""
    found = found[np.isfinite(found[:, 2])]
    left = found[np.argsort(-found[:, 2], kind="stable")]
    kept = []
    while len(left) and len(kept) < count:
        kept.append(left[0])
        left = left[1:][iou(left[:1, :2], left[1:, :2])[0] <= max_overlap]
    return np.array(kept).reshape(-1, 3)
