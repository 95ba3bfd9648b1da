"""A learnt relation of a video's windows with a class's words, after TARN (Bishay, Zoumpourlis and Patras, BMVC 2019).

windows ──bidirectional GRU──▶ steps ──┬─ each attends to the words ─▶ compared, step by step ──GRU──▶ linear ──▶ relation
words ────bidirectional GRU──▶ steps ──┘

Trained in episodes: some classes, some videos of each; every video with every class is a pair, and the sigmoid of its
relation is to be 1 for the own class and 0 for others (binary cross-entropy). Published are the parts and the width of the
GRUs; not known are the size of episodes, the rate and how often: those here are ours.
"""

import torch
from torch import nn
from torch.nn import functional

from engine.heads.classes import Classes
from engine.heads.head import Components, seeded
from engine.heads.sequences import Sequences, run

_PAIRS = 4096  # of videos and classes that are related at a time


class TarnHead:
    """A `Head`. Sizes are for a thousand videos on a CPU; published ones in brackets.

    Args:
        components: of a PCA before the GRUs [none: C3D's 4096]. width: of the GRUs [256]. comparison: of a window with the
            words that it attends to: product or difference [both]. windows: of a video at most, evenly spread.
        ways, shots: classes of an episode, and videos of each.
    """

    def __init__(
        self,
        components: int = 64,
        width: int = 32,
        comparison: str = "product",
        windows: int = 52,
        ways: int = 5,
        shots: int = 4,
        episodes: int = 200,
        rate: float = 2e-3,
    ) -> None:
        if comparison not in ("product", "difference"):
            raise ValueError(f"comparison is {comparison!r}: product or difference")
        self.components, self.width, self.comparison, self.windows = components, width, comparison, windows
        self.ways, self.shots, self.episodes, self.rate = ways, shots, episodes, rate

    def fit(self, videos: Sequences, label: torch.Tensor, classes: Classes, seed: int) -> None:
        """See `Head`."""
        with seeded(seed) as generator:
            self.inputs = Components.of(videos.values, self.components)
            inputs, words = videos.thinned(self.windows).map(self.inputs), _scaled(classes.words)
            self.network = _Network(inputs.values.shape[1], words.values.shape[1], self.width, self.comparison)
            optimiser = torch.optim.Adam(self.network.parameters(), lr=self.rate)
            members = [(label == index).nonzero()[:, 0] for index in range(len(classes))]
            present = label.unique()
            for _ in range(self.episodes):
                chosen = present[torch.randperm(len(present), generator=generator)[: self.ways]]
                rows = torch.cat([_draw(members[index], self.shots, generator) for index in chosen.tolist()])
                own = (label[rows][:, None] == chosen).float()
                optimiser.zero_grad()
                relations = self.network(inputs[rows], words[chosen])
                functional.binary_cross_entropy_with_logits(relations, own).backward()
                optimiser.step()

    @torch.inference_mode()
    def rank(self, videos: Sequences, classes: Classes) -> torch.Tensor:
        """See `Head`: relations before the sigmoid, which would make large ones equal."""
        inputs, words = videos.thinned(self.windows).map(self.inputs), _scaled(classes.words)
        parts = torch.arange(len(inputs)).split(max(1, _PAIRS // len(classes)))
        return torch.cat([self.network(inputs[rows], words) for rows in parts])


class _Network(nn.Module):
    def __init__(self, video: int, word: int, width: int, comparison: str) -> None:
        super().__init__()
        self.video = nn.GRU(video, width, batch_first=True, bidirectional=True)
        self.words = nn.GRU(word, width, batch_first=True, bidirectional=True)
        self.bilinear = nn.Linear(2 * width, 2 * width, bias=False)
        self.relation = nn.GRU(2 * width, width, batch_first=True)
        self.linear = nn.Linear(width, 1)
        self.comparison = comparison

    def forward(self, videos: Sequences, words: Sequences) -> torch.Tensor:
        """Relations [N, C] of N videos with the words of C classes."""
        seen, _ = run(self.video, videos.padded(), videos.lengths)
        read, _ = run(self.words, words.padded(), words.lengths)
        fit = torch.einsum("nth,clh->nctl", self.bilinear(seen), read)
        weights = fit.masked_fill(~words.is_step()[:, None], -torch.inf).softmax(dim=3)
        attended = torch.einsum("nctl,clh->ncth", weights, read)
        compared = seen[:, None] * attended if self.comparison == "product" else seen[:, None] - attended
        lengths = videos.lengths.repeat_interleave(len(words))
        _, last = run(self.relation, compared.flatten(0, 1), lengths)
        return self.linear(last).view(len(videos), len(words))


def _scaled(words: Sequences) -> Sequences:
    """Unit vectors with numbers around 1, as the GRUs begin with."""
    return words.map(lambda vectors: vectors * vectors.shape[1] ** 0.5)


def _draw(rows: torch.Tensor, number: int, generator: torch.Generator) -> torch.Tensor:
    return rows[torch.randint(len(rows), (number,), generator=generator)]
