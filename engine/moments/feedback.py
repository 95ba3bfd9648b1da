"""What the best moments of an index look like, added to what is looked for: pseudo-relevance feedback (Rocchio 1971).

query ──▶ the best shots of the videos ──▶ what they show beyond the average window ──┐
query ────────────────────────────────────────────────────────────────────────────────┴▶ mean ──▶ what is looked for

Words say little of how a thing looks on the user's videos; where several moments show it, the plain ones find the others.
tools/moments_in_a_row.py measures what that brings.
"""

from collections.abc import Iterable

import numpy as np

BEST = 20  # shots that are listened to
WEIGHT = 0.5  # of what they show, beside the query
_POWER = 3  # of a shot's cosine with the query: how much it has to say


def with_looks(
    vector: np.ndarray, videos: Iterable[np.ndarray], average: np.ndarray, weight: float = WEIGHT
) -> np.ndarray:
    """A query's vector, moved towards what its best shots show: float32 [D], of length 1.

    Args:
        vector: float32 [D], of length 1.
        videos: what the shots of each show, float32 [P, D], see `engine.moments.shots.looks_of_shots`.
        average: float [D], see `engine.moments.retrieval.average_window`.
        weight: of the looks, 0 to 1.
    """
    cosines, looks = [], []
    for shown in videos:
        cosine = shown @ vector
        best = np.argsort(-cosine, kind="stable")[:BEST]
        cosines.append(cosine[best])
        looks.append(shown[best])
    cosine, shown = np.concatenate(cosines), np.concatenate(looks)
    best = np.argsort(-cosine, kind="stable")[:BEST]
    beyond = np.maximum(cosine[best], 0) ** _POWER @ (shown[best] - average)
    wanted = (1 - weight) * vector + weight * _unit(beyond)
    return _unit(wanted).astype(np.float32)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
