"""Parts that videos and class vectors share, after URL (Zhu, Long, Guan, Newsam and Shao, CVPR 2018).

windows ──Gaussian kernels──▶ how near the video comes to each, its nearest window counts ──▶ X [V, M] ≈ A U
class vectors ──positive and negative parts──▶ Y [C, 2 D] ≈ B W          A: codes of videos, B: codes of classes, none negative

and the Jensen-Shannon divergence between the codes of a video and of its class is kept small; it also names unseen ones.

Certain about URL: local features pooled by Gaussian kernels as a problem of multiple instances, a non-negative matrix
factorisation shared by visual and semantic space, Jensen-Shannon divergence as its constraint. From memory, or ours: kernels
around k-means centres and their common width; the nearest window of a video as the instance that counts; a factorisation in
the projective form A = X P, B = Y Q, so that a new video or class has its code at once; sizes and weights.
"""

import torch

from engine.heads.classes import Classes
from engine.heads.head import Components, seeded
from engine.heads.sequences import Sequences

_WINDOWS = 4  # to a kernel, at least: one window alone would have no width


class AfterUrlHead:
    """A `Head`.

    Args:
        components: of a PCA before the kernels. kernels: M, fewer where windows are few. parts: length of a code.
        divergence: weight of the Jensen-Shannon divergence against the two reconstructions.
    """

    def __init__(
        self,
        components: int = 64,
        kernels: int = 128,
        parts: int = 32,
        divergence: float = 1.0,
        steps: int = 500,
        rate: float = 1e-2,
    ) -> None:
        self.components, self.kernels, self.parts = components, kernels, parts
        self.divergence, self.steps, self.rate = divergence, steps, rate

    def fit(self, videos: Sequences, label: torch.Tensor, classes: Classes, seed: int) -> None:
        """See `Head`."""
        with seeded(seed) as generator:
            self.inputs = Components.of(videos.values, self.components)
            self._place_kernels(self.inputs(videos.values), seed)
            pooled, signed = self._pool(videos), _signed(classes.vectors)
            share = (1 / torch.bincount(label, minlength=len(classes)).float())[label]
            share = share / share.sum()  # classes count alike
            shapes = [(pooled.shape[1], self.parts), (signed.shape[1], self.parts)]
            starts = [torch.rand(shape, generator=generator) / shape[0] for shape in shapes]
            starts += [torch.rand(shape[::-1], generator=generator) / self.parts for shape in shapes]
            factors = [start.requires_grad_() for start in starts]
            optimiser = torch.optim.Adam(factors, lr=self.rate)
            for _ in range(self.steps):
                to_video, to_class, of_video, of_class = factors
                codes, names = pooled @ to_video, signed @ to_class
                loss = (share * _lost(pooled, codes @ of_video)).sum() + _lost(signed, names @ of_class).mean()
                apart = jensen_shannon(_distribution(codes), _distribution(names)[label])
                loss = loss + self.divergence * (share * apart).sum()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                with torch.no_grad():
                    for factor in factors:
                        factor.clamp_(min=0)
            self.to_video, self.to_class = to_video.detach(), to_class.detach()

    @torch.inference_mode()
    def rank(self, videos: Sequences, classes: Classes) -> torch.Tensor:
        """See `Head`: the divergence of the codes, negative."""
        codes = _distribution(self._pool(videos) @ self.to_video)
        names = _distribution(_signed(classes.vectors) @ self.to_class)
        return torch.stack([-jensen_shannon(codes, name[None]) for name in names], dim=1)

    def _place_kernels(self, points: torch.Tensor, seed: int) -> None:
        """Centres among the windows [W, K], and one width: the mean distance of a window from its centre."""
        from sklearn.cluster import KMeans

        number = max(1, min(self.kernels, len(points) // _WINDOWS))
        found = KMeans(number, n_init=1, random_state=seed).fit(points.numpy())
        self.centres = torch.from_numpy(found.cluster_centers_).float()
        self.width = torch.cdist(points, self.centres).amin(dim=1).mean().clamp(min=1e-6)

    def _pool(self, videos: Sequences) -> torch.Tensor:
        """[V, M], in (0, 1]: each kernel at the window of the video where it is largest."""
        near = videos.map(lambda values: -torch.cdist(self.inputs(values), self.centres)).largest()
        return (-0.5 * (near / self.width).square()).exp()


def _signed(vectors: torch.Tensor) -> torch.Tensor:
    """Unit vectors [C, D] without negative numbers: positive and negative parts side by side, of mean square near 1."""
    return torch.cat([vectors.clamp(min=0), (-vectors).clamp(min=0)], dim=1) * (2 * vectors.shape[1]) ** 0.5


def _lost(given: torch.Tensor, again: torch.Tensor) -> torch.Tensor:
    """[N]: the square of what a reconstruction lacks, relative to the mean square of what was given."""
    return (given - again).square().mean(dim=1) / given.square().mean()


def _distribution(codes: torch.Tensor) -> torch.Tensor:
    codes = codes + 1e-6
    return codes / codes.sum(dim=1, keepdim=True)


def jensen_shannon(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """[N], in nats, between distributions over 0, [N, R] and [N, R] or [1, R]; 0 where they are equal, log 2 at most."""
    middle = ((one + other) / 2).log()
    return ((one * (one.log() - middle)).sum(dim=1) + (other * (other.log() - middle)).sum(dim=1)) / 2
