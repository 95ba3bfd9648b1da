"""Losses against numbers worked out by hand."""

import math

import pytest
import torch
from torch.nn import functional

from engine.config import LossConfig
from engine.semantics.classes import build_class_embeddings
from engine.semantics.config import WordsConfig
from engine.training.losses import Aurl, build_loss, mix, mixing_weights, pick

POINTS = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 4.0]])
VECTORS = torch.tensor([[0.0, 4.0], [0.0, 1.0], [1.0, 0.0]])
LABEL = torch.tensor([2, 0, 1])  # so the targets are (1, 0), (0, 4), (0, 1)
# squared distances 4, 25, 9; cosines 1 / sqrt(5), 0, 1
EXPECTED = {"squared": 38 / 3, "mse": 38 / 6, "cosine": 1 - (5**-0.5 + 0 + 1) / 3}


@pytest.mark.parametrize("name", EXPECTED)
def test_by_hand(name):
    loss = build_loss(LossConfig(name), VECTORS)(POINTS, VECTORS, LABEL)
    assert loss.shape == () and loss.item() == pytest.approx(EXPECTED[name], rel=1e-6)


def test_gradient_of_squared_does_not_depend_on_the_batch_size():
    loss = build_loss(LossConfig("squared"), VECTORS)
    gradients = []
    for repeats in (1, 4):
        bias = torch.zeros(2, requires_grad=True)
        loss(POINTS.repeat(repeats, 1) + bias, VECTORS, LABEL.repeat(repeats)).backward()
        gradients.append(bias.grad)
    torch.testing.assert_close(gradients[0], 2 * (POINTS - VECTORS[LABEL]).mean(0))
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("name", [*EXPECTED, "aurl"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fp32_arithmetic_whatever_autocast(name, dtype):
    torch.manual_seed(0)
    points, vectors, label = torch.randn(64, 300).to(dtype), torch.randn(9, 300), torch.randint(9, (64,))
    config = LossConfig(name, synthetic_weight=0.0)  # what is drawn in another type is another draw
    expected = build_loss(config, vectors.double())(points.double(), vectors.double(), label)
    with torch.autocast("cpu", torch.bfloat16):
        loss = build_loss(config, vectors)(points, vectors, label)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_cosine_of_a_zero_vector_is_distance_one_with_a_finite_gradient():
    points = torch.zeros(1, 2, requires_grad=True)
    loss = build_loss(LossConfig("cosine"), VECTORS)(points, VECTORS, LABEL[:1])
    loss.backward()
    assert loss.item() == 1 and torch.isfinite(points.grad).all()


@pytest.mark.parametrize("name", [*EXPECTED, "aurl"])
def test_shapes_that_would_broadcast_are_refused(name):
    with pytest.raises(ValueError, match=r"\(1, 2\) and target \(3, 2\)"):
        build_loss(LossConfig(name), VECTORS)(POINTS[:1], VECTORS, LABEL)


def test_aurl_of_aligned_and_uniform_classes():
    """C orthogonal classes, each video on its class: every cross-entropy is log(1 + (C - 1) exp(-scale))."""
    num_classes, scale = 5, 3.0
    vectors, label = torch.eye(num_classes, 8, dtype=torch.float64), torch.arange(num_classes)
    term = math.log(1 + (num_classes - 1) * math.exp(-scale))
    off = LossConfig("aurl", scale=scale, centre_weight=0.0, synthetic_weight=0.0)
    points = 7 * vectors  # only their direction counts
    assert build_loss(off, vectors)(points, vectors, label).item() == pytest.approx(term)
    # one parent for each synthetic class: a mixed class is its parent, and two of them may be the same class
    torch.manual_seed(0)
    weights = mixing_weights(num_classes, num_classes, 1, torch.float64, torch.device("cpu"))
    parent = weights.argmax(dim=1)
    same = torch.bincount(parent, minlength=num_classes)[parent].double()
    synthetic = (same + (num_classes - same) * math.exp(-scale)).log().mean().item()
    torch.manual_seed(0)
    whole = build_loss(LossConfig("aurl", scale=scale, synthetic_weight=0.5, synthetic_parents=1), vectors)
    assert whole(points, vectors, label).item() == pytest.approx(2 * term + 0.5 * synthetic)
    # worst: all classes in one point cannot be told apart
    one = vectors[:1].expand(num_classes, -1)
    assert build_loss(LossConfig("aurl"), one)(one, one, label).item() == pytest.approx(3 * math.log(num_classes))


def test_aurl_is_lower_when_aligned_and_when_uniform():
    torch.manual_seed(1)
    vectors = functional.normalize(torch.randn(6, 12, dtype=torch.float64), dim=1)
    label = torch.arange(6)
    config = LossConfig("aurl", synthetic_weight=0.0)
    aligned = build_loss(config, vectors)(vectors, vectors, label)
    assert aligned < build_loss(config, vectors)(vectors[(label + 1) % 6], vectors, label)
    crowded = functional.normalize(vectors + 3 * vectors.mean(0), dim=1)
    assert aligned < build_loss(config, crowded)(crowded, crowded, label)


@pytest.mark.parametrize("parents", [0, 2])
def test_gradients_of_aurl(parents):
    """Against finite differences in fp64, for the points and for the centres; the draw is held."""
    torch.manual_seed(2)
    vectors = torch.randn(4, 5, dtype=torch.float64)
    points = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    loss = Aurl(LossConfig("aurl", synthetic_classes=6, synthetic_parents=parents), torch.randn_like(vectors))

    def value(points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return torch.func.functional_call(loss, {"centres": centres}, (points, vectors, torch.tensor([0, 3, 0])))

    assert torch.autograd.gradcheck(value, (points, loss.centres))


@pytest.mark.parametrize(("parents", "expected"), [(0, 7), (2, 2), (7, 7), (9, 7)])
def test_synthetic_classes_lie_on_the_sphere_among_their_parents(parents, expected):
    torch.manual_seed(4)
    vectors = functional.normalize(torch.randn(7, 20, dtype=torch.float64), dim=1)
    weights = mixing_weights(200, 7, parents, torch.float64, torch.device("cpu"))
    assert weights.shape == (200, 7) and ((weights > 0).sum(dim=1) == expected).all() and weights.max() <= 1
    assert weights[weights > 0].mean().item() == pytest.approx(0.5, abs=0.05)
    mixed = mix(weights, 3 * vectors)  # the length of a parent does not count
    torch.testing.assert_close(mixed.norm(dim=1), torch.ones(200, dtype=torch.float64))
    if expected == 2:  # between the two, on the arc that joins them: the angles add up
        first, second = weights.topk(2, dim=1).indices.T
        apart = (vectors[first] * vectors[second]).sum(dim=1).acos()
        ways = [(mixed * vectors[part]).sum(dim=1).acos() for part in (first, second)]
        torch.testing.assert_close(ways[0] + ways[1], apart)
        assert (ways[0] <= ways[1]).all()  # nearer to the one with more weight


def test_a_mix_is_drawn_from_the_seed_of_the_step():
    config, vectors = LossConfig("aurl"), torch.eye(4)
    loss = build_loss(config, functional.normalize(vectors + 0.3, dim=1))
    draws = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        draws.append(loss(vectors, vectors, torch.arange(4)).item())
    assert draws[0] == draws[1] != draws[2]


def test_aurl_learns_a_map_that_holds_for_classes_it_has_not_seen():
    """Features that are a noisy linear function of real word vectors; a linear layer learns them from 16 classes."""
    verbs = "run jump swim climb cook paint dance sing drive ride shoot throw kick punch row ski dive surf skate bowl"
    vectors = build_class_embeddings(verbs.split(), WordsConfig()).vectors
    seen, unseen = vectors[:16], vectors[16:]
    torch.manual_seed(0)
    mixer = torch.randn(vectors.shape[1], 40) / 6

    def videos(classes: torch.Tensor, each: int) -> tuple[torch.Tensor, torch.Tensor]:
        label = torch.arange(len(classes)).repeat_interleave(each)
        return torch.tanh(classes[label] @ mixer + 0.05 * torch.randn(len(label), 40)), label

    features, label = videos(seen, 12)
    test, test_label = videos(unseen, 50)
    linear = torch.nn.Linear(40, vectors.shape[1])
    loss = build_loss(LossConfig("aurl"), seen)
    assert isinstance(loss, Aurl)
    optimizer = torch.optim.Adam([*linear.parameters(), *loss.parameters()], lr=0.02)
    values = []
    for _ in range(150):
        optimizer.zero_grad()
        values.append(loss(linear(features), seen, label))
        values[-1].backward()
        optimizer.step()
    assert values[-1] < 0.6 * values[0]
    nearest = (functional.normalize(linear(test), dim=1) @ unseen.T).argmax(dim=1)
    assert (nearest == test_label).float().mean() > 0.5  # chance 0.25
    assert pick(linear(features), loss.centres, label, 10.0) < pick(linear(features), seen, label, 10.0)
    moved = functional.cosine_similarity(loss.centres, seen).mean()
    assert 0.3 < moved < 0.999  # centres have gone to their videos, but not away from their names
