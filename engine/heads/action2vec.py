"""A recurrent network over a video's windows into word space, after Action2Vec (Hahn, Silva and Rehg, 2019).

windows ──PCA──▶ LSTM ──dropout──▶ LSTM ──attention over its steps──▶ linear ──▶ point in word space ──linear──▶ seen classes

The loss is a ranking loss between points and class vectors plus the cross-entropy of the seen classes, weighted. Published
are an LSTM and not a GRU, and most sizes (see `Action2VecHead`); not known are the size of the second LSTM, the form of its
attention, what the classes are told from, margin and weight: those here are ours.
"""

import torch
from torch import nn
from torch.nn import functional

from engine.heads.classes import Classes
from engine.heads.head import Components, batches, seeded
from engine.heads.sequences import Sequences, run


class Action2VecHead:
    """A `Head`. Sizes are for a thousand videos of some ten windows on a CPU; published ones in brackets.

    Args:
        components: of the PCA [500 of C3D's 4096]. width: of the first LSTM [1024] and, here, of the second.
        dropout: between them [0.5]. windows: of a video at most, evenly spread [52 clips].
        margin: of the ranking loss. class_weight: of the cross-entropy beside it.
    """

    def __init__(
        self,
        components: int = 64,
        width: int = 64,
        dropout: float = 0.5,
        windows: int = 52,
        margin: float = 0.2,
        class_weight: float = 0.1,
        epochs: int = 15,
        batch: int = 64,
        rate: float = 2e-3,
    ) -> None:
        self.components, self.width, self.dropout, self.windows = components, width, dropout, windows
        self.margin, self.class_weight = margin, class_weight
        self.epochs, self.batch, self.rate = epochs, batch, rate

    def fit(self, videos: Sequences, label: torch.Tensor, classes: Classes, seed: int) -> None:
        """See `Head`."""
        with seeded(seed) as generator:
            self.inputs = Components.of(videos.values, self.components)
            inputs, vectors = self._inputs(videos), classes.vectors
            self.network = _Network(inputs.values.shape[1], self.width, vectors.shape[1], self.dropout)
            told = nn.Linear(vectors.shape[1], len(vectors))
            optimiser = torch.optim.Adam([*self.network.parameters(), *told.parameters()], lr=self.rate)
            for rows in batches(len(inputs), self.batch, self.epochs, generator):
                points, own = self.network(inputs[rows]), label[rows]
                loss = ranking(points, vectors, own, self.margin)
                loss = loss + self.class_weight * functional.cross_entropy(told(points), own)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            self.network.eval()

    @torch.inference_mode()
    def rank(self, videos: Sequences, classes: Classes) -> torch.Tensor:
        """See `Head`: cosines."""
        return functional.normalize(self.network(self._inputs(videos)), dim=1) @ classes.vectors.T

    def _inputs(self, videos: Sequences) -> Sequences:
        return videos.thinned(self.windows).map(self.inputs)


class _Network(nn.Module):
    def __init__(self, inputs: int, width: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.LSTM(inputs, width, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.LSTM(width, width, batch_first=True)
        self.attention = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))
        self.linear = nn.Linear(width, outputs)

    def forward(self, videos: Sequences) -> torch.Tensor:
        """Points [N, D] of N videos."""
        steps, _ = run(self.first, videos.padded(), videos.lengths)
        steps, _ = run(self.second, self.dropout(steps), videos.lengths)
        weights = self.attention(steps).masked_fill(~videos.is_step()[:, :, None], -torch.inf).softmax(dim=1)
        return self.linear((weights * steps).sum(dim=1))


def ranking(points: torch.Tensor, vectors: torch.Tensor, label: torch.Tensor, margin: float) -> torch.Tensor:
    """By how much the cosine [N] with the own class fails to exceed that with another by `margin`, mean over all others.

    points [N, D], unit vectors [C, D], label int64 [N] -> scalar; 0 where there is one class.
    """
    cosines = functional.normalize(points, dim=1) @ vectors.T
    lacking = (margin + cosines - cosines.gather(1, label[:, None])).clamp(min=0)
    others = torch.ones_like(lacking).scatter(1, label[:, None], 0)
    return (lacking * others).sum() / others.sum().clamp(min=1)
