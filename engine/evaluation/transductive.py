"""Naming videos together: those that look alike get the same name. Transductive zero-shot recognition.

    scores [V, C] ──each class's in standard deviations from its mean──▶ softmax ──▶ shares [V, C] ──┐
    features [V, F] ──less their mean, each video with those nearest by cosine──▶ graph ──▶ shares flow along it

Label propagation (Zhou et al., "Learning with Local and Global Consistency", NeurIPS 2003; from words in place of labelled
examples: Stojnić, Kalantidis and Tolias, CVPR 2024). No label is read, but a video's name depends on the others asked about with
it, so this is not the paper's protocol. It takes each of the classes to be shown by some of the videos: counting a class from its
mean gives every class about as much to say. Where few of the classes occur, names are worse than those of each video by itself.

The three settings were chosen on everyday actions, not on UCF101 (docs/pretrained.md).
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from engine.errors import InputError
from kernels.cosine_topk import cosine_topk

NEIGHBOURS = 10  # of each video in the graph
PASSED_ON = 0.9  # of a video's shares: what it takes over from its neighbours; the rest is its own
_SHARPNESS = 3  # an edge is the cosine to this power
_ROUNDING = 1e-6  # of a class's scores: copies of one video differ by less
_STEPS = 100  # what is left to flow after them is below PASSED_ON ** _STEPS = 3e-5


class WithFeatures(nn.Module):
    """A model as `embed_videos` takes it, whose points are followed by what videos are compared by.

    Args:
        model: an `Embedder`, or a `Classifier` of engine/naming/.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.normalisation, self.tokens = model.normalisation, model.tokens
        self.embed_dim = model.embed_dim
        self.training = model.training

    def features(self, clips: torch.Tensor, **shown: torch.Tensor) -> torch.Tensor:
        """Of the model."""
        return self.model.features(clips, **shown)

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Features of V videos -> points and what videos are compared by, [V, embed_dim + F]."""
        return torch.cat([self.model.project(features).float(), self.model.compared(features).float()], dim=1)

    def apart(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What `project` gave, of any number of videos, as points [V, embed_dim] and features [V, F]."""
        return points[:, : self.embed_dim], points[:, self.embed_dim :]


def check_together(num_videos: int, num_classes: int, what: str, how: str = "--transductive") -> None:
    """Whether so many videos can be named together.

    Args:
        what: whose videos these are. how: what the user asked for it by.

    Raises:
        InputError: there are fewer videos than classes, so not every class can be shown by one.
    """
    if num_videos < num_classes:
        raise InputError(
            f"{what}: {num_videos} video{'s'[: num_videos != 1]} and {num_classes} classes: named together ({how}), each "
            "class must be shown by some of the videos: name more videos, only the classes that occur, or each video by itself"
        )


def nearest_classes(
    points: torch.Tensor, class_vectors: torch.Tensor, k: int, features: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k classes that name each video best, best first: cosines float32 [V, k] and indices int64 [V, k].

    Args:
        points, class_vectors: float32 [V, D] and [C, D], compared by cosine.
        features: [V, F] of the same videos: name them together. In place of cosines there are shares then.
    """
    if features is None:
        return cosine_topk(points, class_vectors, k)
    cosines = functional.normalize(points.double(), dim=1) @ functional.normalize(class_vectors.double(), dim=1).T
    shares = name_together(features, cosines)
    best = shares.argsort(dim=1, descending=True, stable=True)[:, :k]
    return shares.gather(1, best), best


def name_together(features: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Each video's shares of the classes, float32 [V, C]; rows sum to 1, and the largest is the answer.

    Args:
        features: float [V, F], finite: what videos are compared by, on any device.
        scores: float [V, C], on the same device: how well each video fits each class by itself, the larger the better; each
            class in units of its own.
    """
    own = _in_deviations(scores.double()).softmax(dim=1)
    graph = _graph(features)
    shares = own
    for _ in range(_STEPS if graph._nnz() else 0):
        shares = PASSED_ON * torch.sparse.mm(graph, shares) + (1 - PASSED_ON) * own
    return (shares / shares.sum(dim=1, keepdim=True)).float()


def _in_deviations(scores: torch.Tensor) -> torch.Tensor:
    """[V, C] less each column's mean, in its standard deviations; a column of one value, but for rounding, is 0."""
    gap, spread = scores - scores.mean(dim=0), scores.std(dim=0, correction=0)
    return torch.where(spread > _ROUNDING * scores.abs().amax(dim=0), gap / spread, 0)


def _graph(features: torch.Tensor) -> torch.Tensor:
    """The graph of V videos, sparse float64 [V, V], symmetric, each edge over the roots of its ends' degrees."""
    count = len(features)
    centred = functional.normalize(features.double() - features.double().mean(dim=0), dim=1).float()
    cosine, other = cosine_topk(centred, centred, min(NEIGHBOURS + 1, count))  # the video itself among them
    one = torch.arange(count, device=features.device)[:, None].expand_as(other)
    edge = cosine.double().clamp(min=0) ** _SHARPNESS / 2
    kept = (edge > 0) & (one != other)
    ends = torch.stack([one[kept], other[kept]])
    both = torch.cat([ends, ends.flip(0)], dim=1)
    graph = torch.sparse_coo_tensor(both, edge[kept].repeat(2), (count, count), check_invariants=True).coalesce()
    degree = torch.zeros(count, dtype=torch.float64, device=features.device)
    degree.index_add_(0, graph.indices()[0], graph.values())
    root = degree.clamp(min=1e-30).rsqrt()
    row, column = graph.indices()
    values = root[row] * graph.values() * root[column]
    return torch.sparse_coo_tensor(graph.indices(), values, (count, count), check_invariants=True).coalesce()
