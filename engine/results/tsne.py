"""Points of a space of many dimensions on a plane, near ones near each other (t-SNE, van der Maaten and Hinton 2008)."""

from typing import Literal

import numpy as np

FEWEST = 4  # points: fewer show nothing
_PERPLEXITY = 30.0  # as in the paper; less where there are few points


def tsne(
    points: np.ndarray,
    *,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    init: Literal["pca", "random"] = "pca",
    steps: int = 1000,
) -> np.ndarray:
    """Points [N, D] on a plane: float32 [N, 2], always the same for the same points. N is at least `FEWEST`."""
    from sklearn.manifold import TSNE  # seconds to import, and only reports need it

    perplexity = min(_PERPLEXITY, (len(points) - 1) / 3)
    plane = TSNE(perplexity=perplexity, metric=metric, init=init, max_iter=steps, random_state=0)
    return plane.fit_transform(points)
