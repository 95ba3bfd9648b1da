"""How far a video's point in word space is from its class.

Each loss takes points of videos, float [N, D], the vectors of the training classes, float [C, D], and the classes of the
videos, int64 [N], and returns a scalar, the mean over the videos; the arithmetic is fp32 or better whatever autocast does
around it. `aurl` also trains vectors of its own.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from engine.config import LossConfig
from engine.training.precision import without_autocast

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def squared(points: torch.Tensor, class_vectors: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distance to the class vector (paper Eq. 2), mean over the batch.

    Eq. 2 sums over the batch; the mean keeps the learning rate independent of the batch size and of the number of
    ranks. Adam does not see the difference but for its epsilon.
    """
    points, target = _comparable(points, class_vectors[label])
    return (points - target).square().sum(dim=1).mean()


def mse(points: torch.Tensor, class_vectors: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Mean squared error over all N x D elements, as in the authors' code: `squared` divided by D."""
    points, target = _comparable(points, class_vectors[label])
    return functional.mse_loss(points, target)


def cosine(points: torch.Tensor, class_vectors: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """1 - cosine similarity (the distance of Eq. 1), mean over the batch; a zero vector is at distance 1."""
    points, target = _comparable(points, class_vectors[label])
    return 1 - functional.cosine_similarity(points, target, dim=1).mean()


class Aurl(nn.Module):
    """Alignment and uniformity with synthetic classes, after AURL (Pu et al., CVPR 2022).

    With unit vectors s_c of the class names, w_c of learnable class centres and v of a video of class y, the sum of

        H(v, s, y)      the video must pick its class name,
        H(v, w, y)      the video must pick its class centre,
        H(s', w', k)    of synthetic classes: each mixed name s'_k must pick the centre w'_k mixed in the same way,

    with H(a, b, i) = -log(exp(g cos(a, b_i)) / sum_j exp(g cos(a, b_j))) and g = `scale`. The numerator of H aligns a video
    with its class; the denominator spreads the classes over the sphere (uniformity). The mixing weights are
    uniform(0, 1), drawn anew each step from torch's generator (as dropout is, so a resumed run draws the same); a synthetic
    class lies on the sphere among its parents. They stand for classes that were never seen: the third term asks that what
    the centres have learnt from videos holds between the seen classes too.

    Three things differ from the paper. It maps names and videos into a space of their own, by one MLP each; here the space
    is that of the class vectors, so that a trained model is used like any other and few training classes suffice: names
    stay where they are, and the mixed names move the centres alone. Centres start at the class names (there: at random).
    And `synthetic_parents` may mix few classes in place of all.

    Args:
        class_vectors: unit vectors of the training classes, float [C, D]: where the centres start.
    """

    def __init__(self, config: LossConfig, class_vectors: torch.Tensor) -> None:
        super().__init__()
        self.config = config
        self.centres = nn.Parameter(class_vectors.clone())

    def forward(self, points: torch.Tensor, class_vectors: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """The loss of the module's docstring; the third term is the same for every video of the batch."""
        config = self.config
        with without_autocast(points.device):
            points, names = _comparable(points, class_vectors[label])[0], _precise(class_vectors)
            centres = _precise(self.centres)
            loss = pick(points, names, label, config.scale)
            loss = loss + config.centre_weight * pick(points, centres, label, config.scale)
            if config.synthetic_weight:
                count, parents = config.synthetic_classes or len(names), config.synthetic_parents
                weights = mixing_weights(count, len(names), parents, names.dtype, names.device)
                own = torch.arange(count, device=names.device)
                mixed = (mix(weights, vectors) for vectors in (names, centres))
                loss = loss + config.synthetic_weight * pick(*mixed, own, config.scale)
        return loss


def pick(points: torch.Tensor, choices: torch.Tensor, label: torch.Tensor, scale: float) -> torch.Tensor:
    """Mean cross-entropy of picking choice `label` by cosine: float [N, D], float [C, D], int64 [N] -> scalar."""
    cosines = functional.normalize(points, dim=1) @ functional.normalize(choices, dim=1).T
    return functional.cross_entropy(scale * cosines, label)


def mixing_weights(
    count: int, num_classes: int, parents: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Weights of synthetic classes, float [count, num_classes]: uniform(0, 1) for each parent, 0 for other classes.

    Args:
        parents: how many classes are mixed, drawn anew for each; 0, or more than there are: all.
    """
    weights = torch.rand(count, num_classes, dtype=dtype, device=device)
    if not 0 < parents < num_classes:
        return weights
    drawn = torch.rand(count, num_classes, device=device).topk(parents, dim=1).indices
    return weights * torch.zeros_like(weights).scatter_(1, drawn, 1.0)


def mix(weights: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Unit vectors of synthetic classes: weights [K, C] of unit vectors along `vectors` [C, D] -> [K, D]."""
    return functional.normalize(weights @ functional.normalize(vectors, dim=1), dim=1)


def build_loss(config: LossConfig, class_vectors: torch.Tensor) -> Loss:
    """The loss that `loss.name` asks for; `aurl` is a module whose parameters are to be trained with the model.

    Args:
        class_vectors: of the training classes, float [C, D].
    """
    if config.name == "aurl":
        return Aurl(config, class_vectors)
    return {"squared": squared, "mse": mse, "cosine": cosine}[config.name]


def _comparable(points: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if points.ndim != 2 or points.shape != target.shape:  # broadcasting would hide the mistake
        raise ValueError(f"prediction {tuple(points.shape)} and target {tuple(target.shape)} must both be [N, D]")
    return _precise(points), _precise(target)


def _precise(tensor: torch.Tensor) -> torch.Tensor:
    """At least fp32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
