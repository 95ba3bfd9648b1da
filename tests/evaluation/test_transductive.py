"""Videos named together: the formula written out densely, a problem where it must help, and what must not move it."""

import numpy as np
import pytest
import torch

from engine.errors import InputError
from engine.evaluation.metrics import evaluate_embeddings, half_of_classes
from engine.evaluation.transductive import check_together, name_together, nearest_classes


def clusters(classes: int = 5, each: int = 24, noise: float = 2.5, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Features in one cluster a class, scores that are barely right, and the true classes."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(classes).repeat_interleave(each)
    centres = torch.randn(classes, 16, generator=generator)
    features = 7 + centres[label] + 0.3 * torch.randn(len(label), 16, generator=generator)
    scores = torch.eye(classes)[label] + noise * torch.randn(len(label), classes, generator=generator)
    return features, scores, label


def right(scores: torch.Tensor, label: torch.Tensor) -> float:
    return float((scores.argmax(dim=1) == label).double().mean())


def written_out(features: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Zhou et al.'s closed form, (1 - a) (I - a D^-1/2 W D^-1/2)^-1 Y, of dense matrices in float64."""
    x = features - features.mean(axis=0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cosine = x @ x.T
    np.fill_diagonal(cosine, -2)
    weight = np.zeros_like(cosine)
    for row, others in enumerate(np.argsort(-cosine, axis=1)[:, :10]):
        weight[row, others] = np.maximum(cosine[row, others], 0) ** 3
    weight = (weight + weight.T) / 2
    root = 1 / np.sqrt(weight.sum(axis=1))
    y = np.exp((scores - scores.mean(axis=0)) / scores.std(axis=0))
    y /= y.sum(axis=1, keepdims=True)
    shares = np.linalg.solve(np.eye(len(x)) - 0.9 * root[:, None] * weight * root, 0.1 * y)
    return shares / shares.sum(axis=1, keepdims=True)


def test_it_is_the_closed_form():
    features, scores, _ = clusters()
    found = name_together(features, scores).numpy()
    np.testing.assert_allclose(found, written_out(features.double().numpy(), scores.double().numpy()), atol=2e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert found.std(axis=0).min() > 0.02  # not all the same


def test_what_looks_alike_gets_the_name_that_most_of_it_fits():
    features, scores, label = clusters()
    assert 0.25 < right(scores, label) < 0.5
    assert right(name_together(features, scores), label) > 0.9


def test_random_scores_stay_at_chance():
    found = []
    for seed in range(60):
        features, _, label = clusters(seed=seed)
        scores = torch.randn(len(label), 5, generator=torch.Generator().manual_seed(1000 + seed))
        found.append(right(name_together(features, scores), label))
    assert np.mean(found) == pytest.approx(0.2, abs=3 * np.std(found, ddof=1) / 60**0.5)


def test_order_units_and_copies_do_not_matter():
    features, scores, label = clusters()
    first = name_together(features, scores)
    order = torch.randperm(len(label), generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(name_together(features[order], scores[order]), first[order], rtol=0, atol=1e-6)
    in_units = scores * torch.tensor([1.0, 5.0, 0.1, 40.0, 3.0]) + torch.tensor([0.0, 9.0, -4.0, 1.0, 100.0])
    torch.testing.assert_close(name_together(features, in_units), first, rtol=0, atol=1e-5)
    features[24], scores[24] = features[0], scores[0]  # a copy
    both = name_together(features, scores)[[0, 24]]
    torch.testing.assert_close(both[0], both[1], rtol=0, atol=0.05)


def test_videos_that_nothing_tells_apart_are_named_by_themselves():
    scores = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.5]])
    own = ((scores - scores.mean(dim=0)) / scores.std(dim=0, correction=0)).softmax(dim=1)
    torch.testing.assert_close(name_together(torch.ones(3, 4), scores), own)
    same = name_together(torch.ones(3, 4), torch.ones(3, 2))
    torch.testing.assert_close(same, torch.full((3, 2), 0.5))


def test_rounding_names_no_video():
    """Copies of one video, whose scores differ in their last digits: no class is said of one and not of the other."""
    generator = torch.Generator().manual_seed(0)
    scores = 0.02 + 2e-9 * torch.randn(5, 3, generator=generator, dtype=torch.float64)
    found = name_together(torch.ones(5, 4), scores)
    torch.testing.assert_close(found, torch.full((5, 3), 1 / 3), rtol=0, atol=0)
    point, classes = torch.randn(1, 1002, generator=generator), torch.randn(3, 1002, generator=generator)
    for count in range(3, 40):
        shares, best = nearest_classes(point.expand(count, -1).contiguous(), classes, 1, torch.ones(count, 4))
        assert len(set(best[:, 0].tolist())) == len(set(shares[:, 0].tolist())) == 1, count


def test_each_half_of_the_classes_is_a_test_of_its_own():
    features, scores, label = clusters()
    classes = [f"class {index}" for index in range(5)]
    result = evaluate_embeddings("five", scores, label, classes, torch.eye(5), features=features)
    assert result.transductive and result.all_classes.top1 > 0.9
    found = []
    for seed in range(10):
        half = torch.from_numpy(half_of_classes(classes, seed))
        kept = torch.isin(label, half)
        _, best = nearest_classes(scores[kept], torch.eye(5)[half], 1, features[kept])
        found.append(float((half[best[:, 0]] == label[kept]).double().mean()))
    assert [split.top1 for split in result.half_classes.splits] == pytest.approx(found)
    alone = evaluate_embeddings("five", scores, label, classes, torch.eye(5))
    assert not alone.transductive and alone.all_classes.top1 < 0.5
    with pytest.raises(InputError, match="test set 'five': 3 videos and 5 classes: named together"):
        evaluate_embeddings("five", scores[:3], label[:3], classes, torch.eye(5), features=features[:3])


def test_too_few_videos():
    check_together(3, 3, "VIDEO")
    with pytest.raises(
        InputError, match=r"VIDEO: 1 video and 2 classes: .* name more videos, only the classes that occur"
    ):
        check_together(1, 2, "VIDEO")


def test_a_half_with_fewer_videos_than_classes_is_left_out_where_they_are_named_together():
    labels = torch.tensor([0] * 8 + [1, 2])
    classes, features = list("abcdefghij"), torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
    given = torch.eye(10)[labels], labels, classes, torch.eye(10)
    kept = [sum(int(label) in half_of_classes(classes, seed) for label in labels) for seed in range(10)]
    assert sum(0 < count < 5 for count in kept) and sum(count >= 5 for count in kept)
    assert len(evaluate_embeddings("ten", *given).half_classes.splits) == sum(count > 0 for count in kept)
    together = evaluate_embeddings("ten", *given, features=features)
    assert len(together.half_classes.splits) == sum(count >= 5 for count in kept)
