"""The last layer chosen for classes it has not seen: ridge regression from features to class vectors.

    features [V, F] of training videos ──▶ folds of whole classes held out ──▶ strength that names them best ──▶ linear layer

A network trained on few classes fits them: nothing in its loss asks that its linear layer, from features to word space, hold
for any other class. Ridge regression is that layer in closed form with one number to choose, how far it is shrunk, and that
number can be chosen for the purpose: by the zero-shot accuracy on training classes held out of the regression, as the test
classes are held out of the training. Test classes choose nothing.

The features themselves have seen the held-out training classes (the backbone was trained on all of them), so the accuracy on
them is higher than on new classes; it serves to compare strengths.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from engine.errors import InputError

STRENGTHS = tuple(float(value) for value in np.logspace(-4, 4, 17))
_PARTITIONS, _FOLDS = 10, 5
MIN_CLASSES = 4  # two to hold out, two to learn from


@dataclass(frozen=True)
class RidgeLayer:
    """A linear layer, weight float64 [D, F] and bias [D], and how its strength was chosen.

    scores: mean zero-shot accuracy on held-out training classes, for each strength tried. chance: of those folds.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    strength: float
    scores: dict[float, float]
    chance: float


class _Solver:
    """Ridge regression of one set of videos, solved for any strength.

    Minimises the sum over videos of q_v |W z_v + m - y_v|^2 plus strength |W|^2, with z the features standardised over these
    videos, y the class vector, m the mean of the class vectors, and q_v = 1 / (C times the videos of v's class): classes
    count alike, and a strength means the same for any number of videos. One decomposition serves all strengths.
    """

    def __init__(self, features: torch.Tensor, label: torch.Tensor, vectors: torch.Tensor) -> None:
        classes, index, counts = label.unique(return_inverse=True, return_counts=True)
        share = (1.0 / (len(classes) * counts.double()))[index][:, None]
        self.mean = (share * features).sum(dim=0)
        self.scale = (share * (features - self.mean).square()).sum(dim=0).sqrt()
        self.scale = torch.where(self.scale > 1e-9 * self.scale.max(), self.scale, torch.inf)  # dead features: left out
        self.target_mean = vectors[classes].mean(dim=0)
        weight = share.sqrt()
        rows = weight * (features - self.mean) / self.scale
        targets = weight * (vectors[label] - self.target_mean)
        if len(rows) < rows.shape[1]:  # the kernel form: as many unknowns as videos
            self.values, kernel_basis = torch.linalg.eigh(rows @ rows.T)
            self.basis, self.cross = rows.T @ kernel_basis, kernel_basis.T @ targets
        else:
            self.values, self.basis = torch.linalg.eigh(rows.T @ rows)
            self.cross = self.basis.T @ (rows.T @ targets)
        self.values = self.values.clamp(min=0)

    def solve(self, strength: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight [D, F] and bias [D] for features as they are (not standardised)."""
        weight = (self.basis @ (self.cross / (self.values + strength)[:, None])).T / self.scale
        return weight, self.target_mean - weight @ self.mean

    def scores(self, features: torch.Tensor, candidates: torch.Tensor) -> Iterator[torch.Tensor]:
        """For each of `STRENGTHS` the products [V, K] of the points of features [V, F] with candidates [K, D].

        The weights, of F times D numbers, are not made: a video's place in the basis is the same for every strength.
        """
        places = ((features - self.mean) / self.scale) @ self.basis
        cross, constant = self.cross @ candidates.T, candidates @ self.target_mean
        for strength in STRENGTHS:
            yield places @ (cross / (self.values + strength)[:, None]) + constant


def fit_ridge(
    features: torch.Tensor, label: torch.Tensor, vectors: torch.Tensor, strength: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight float64 [D, F] and bias [D] of the ridge regression from features to class vectors.

    Args:
        features: [V, F], one row a video. label: int64 [V], into `vectors`. vectors: [C, D], class vectors.
        strength: of the penalty, over 0; 1 shrinks a feature's weight by half where it stands alone.
    """
    return _Solver(features.double(), label, vectors.double()).solve(strength)


def check_enough_classes(number: int) -> None:
    """Whether some of so many training classes can be held out of a regression.

    Raises:
        InputError: too few.
    """
    if number < MIN_CLASSES:
        raise InputError(f"{number} training classes: at least {MIN_CLASSES} are needed to hold some of them out")


def choose_ridge(
    features: torch.Tensor,
    label: torch.Tensor,
    vectors: torch.Tensor,
    *,
    seed: int = 0,
) -> RidgeLayer:
    """Ridge regression over all training classes, of the strength that best names classes held out of it.

    Args:
        features: [V, F], one row a video. label: int64 [V], into `vectors`. vectors: unit class vectors [C, D].
        seed: of ten random partitions of the classes into five folds (of at least two classes), over which accuracy
            among the classes of the fold held out is averaged. Classes of equal vectors are held out together, and any
            of them is a right answer for the others. Of equal strengths the largest is taken.

    Raises:
        InputError: too few classes to hold any out.
    """
    features, vectors = features.double(), vectors.double()
    first = _first_equals(vectors)
    present = first[label].unique().numpy()  # a class of which no video could be decoded says nothing when held out
    check_enough_classes(len(present))
    generator = np.random.default_rng(seed)
    folds = [
        torch.from_numpy(present[fold])
        for _ in range(_PARTITIONS)
        for fold in np.array_split(generator.permutation(len(present)), min(_FOLDS, len(present) // 2))
    ]
    hits = torch.stack([_held_out_accuracy(features, label, vectors, first, fold) for fold in folds]).mean(dim=0)
    scores = dict(zip(STRENGTHS, hits.tolist(), strict=True))
    strength = max(STRENGTHS, key=lambda value: (scores[value], value))
    weight, bias = fit_ridge(features, label, vectors, strength)
    chance = float(np.mean([1 / len(fold) for fold in folds]))
    return RidgeLayer(weight, bias, strength, scores, chance)


def _first_equals(vectors: torch.Tensor) -> torch.Tensor:
    """For each row the first one that is equal to it, int64 [C]: itself, where no two are equal."""
    places: dict[bytes, int] = {}
    return torch.tensor([places.setdefault(row.tobytes(), place) for place, row in enumerate(vectors.numpy())])


def _held_out_accuracy(
    features: torch.Tensor, label: torch.Tensor, vectors: torch.Tensor, first: torch.Tensor, fold: torch.Tensor
) -> torch.Tensor:
    """Accuracy on the classes of `fold`, among them alone, of regressions over the others: float64 [strengths].

    Args:
        first: int64 [C], see `_first_equals`; `fold` holds values of it.
    """
    truth = first[label]
    is_held = torch.isin(truth, fold)
    solver = _Solver(features[~is_held], label[~is_held], vectors)
    candidates = functional.normalize(vectors[fold], dim=1)
    return torch.stack(
        [
            (fold[scores.argmax(dim=1)] == truth[is_held]).double().mean()
            for scores in solver.scores(features[is_held], candidates)
        ]
    )
