"""Seen against unseen classes at every bias, and the bias that suits videos held out of the training.

A trained model leans to the classes it was trained on. Calibrated stacking takes a bias off the score of every seen class
before the largest wins; the accuracies of both kinds over all biases are a curve, and the area under it needs no choice of a
bias (Chao, Changpinyo, Gong and Sha, ECCV 2016). Here a score is a cosine, and both accuracies are means over classes.
"""

from dataclasses import dataclass

import numpy as np
import torch

from kernels.cosine_topk import cosine_topk


@dataclass(frozen=True, slots=True)
class Contest:
    """Videos of one kind, seen or unseen, between the best class of either kind.

    margin: float64 [V], the largest cosine to a seen class less the largest to an unseen one. At bias b a video is given a
        seen class where margin >= b.
    right: bool [V], whether the nearest class of its own kind is its class. label: int64 [V].
    """

    margin: np.ndarray
    right: np.ndarray
    label: np.ndarray

    @classmethod
    def of(
        cls, points: torch.Tensor, label: torch.Tensor, seen: torch.Tensor, unseen: torch.Tensor, *, is_seen: bool
    ) -> "Contest":
        """From points float [V, D], their classes int64 [V] into the vectors of their own kind, and both kinds' vectors."""
        (seen_score, seen_class), (unseen_score, unseen_class) = (
            cosine_topk(points, side, 1) for side in (seen, unseen)
        )
        margin = (seen_score.double() - unseen_score.double())[:, 0].cpu().numpy()
        nearest = (seen_class if is_seen else unseen_class)[:, 0].cpu().numpy()
        labels = label.cpu().numpy()
        return cls(margin, nearest == labels, labels)

    def __len__(self) -> int:
        return len(self.margin)

    @property
    def hit(self) -> np.ndarray:
        """float64 [V]: what a video adds to mean-class accuracy if it is given a class of its own kind."""
        _, index, counts = np.unique(self.label, return_inverse=True, return_counts=True)
        return self.right / (len(counts) * counts[index])

    def where(self, chosen: np.ndarray) -> "Contest":
        """Some of the videos, bool [V]."""
        return Contest(self.margin[chosen], self.right[chosen], self.label[chosen])


def seen_accuracy(seen: Contest, bias: float | np.ndarray) -> float:
    """Mean-class accuracy of the videos of seen classes at a bias, or at one for each video."""
    return float(seen.hit[seen.margin >= bias].sum())


def unseen_accuracy(unseen: Contest, bias: float) -> float:
    """Mean-class accuracy of the videos of unseen classes at a bias."""
    return float(unseen.hit[unseen.margin < bias].sum())


def harmonic_mean(seen: float, unseen: float) -> float:
    """0 if one of them is."""
    return 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0


def curve(seen: Contest, unseen: Contest) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the accuracies change, and what they are between: biases [P], seen [P + 1] and unseen [P + 1].

    Element i is that of biases in (biases[i - 1], biases[i]]. The first has all videos given seen classes, the last unseen ones.
    """
    biases = np.unique(np.concatenate([seen.margin, unseen.margin]))

    def below(contest: Contest) -> np.ndarray:
        order = np.argsort(contest.margin, kind="stable")
        sums = np.concatenate([[0.0], np.cumsum(contest.hit[order])])
        return sums[np.concatenate([[0], np.searchsorted(contest.margin[order], biases, side="right")])]

    not_seen = below(seen)
    return biases, not_seen[-1] - not_seen, below(unseen)


def area_under_curve(seen: Contest, unseen: Contest) -> float:
    """AUSUC, from 0 to 1: under seen over unseen accuracy, points joined by straight lines."""
    _, seen_values, unseen_values = curve(seen, unseen)
    return float(np.trapezoid(seen_values, unseen_values))


def best_bias(seen: Contest, unseen: Contest) -> float:
    """The bias of the largest harmonic mean: the middle of its interval, of equal ones that nearest to 0; 0 if none names both."""
    biases, seen_values, unseen_values = curve(seen, unseen)
    total = seen_values + unseen_values
    means = np.divide(2 * seen_values * unseen_values, total, out=np.zeros_like(total), where=total > 0)[1:-1]
    if not len(means) or means.max() <= 0:
        return 0.0
    middles = (biases[:-1] + biases[1:]) / 2
    best = middles[means >= means.max() - 1e-12]
    return float(best[np.abs(best).argmin()])
