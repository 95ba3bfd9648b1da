"""The ridge head: against its definition, and on classes that neither it nor its strength has seen."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from engine.errors import InputError
from engine.heads.ridge_regression import STRENGTHS, choose_ridge, fit_ridge
from engine.semantics.classes import build_class_embeddings
from engine.semantics.config import WordsConfig

VERBS = "run jump swim climb cook paint dance sing drive ride shoot throw kick punch row ski dive surf skate bowl wash shave"


def problem(noise: float, *, dims: int = 40, each: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features that are a noisy linear function of real word vectors: (features, label, vectors)."""
    generator = torch.Generator().manual_seed(0)
    vectors = build_class_embeddings(VERBS.split(), WordsConfig()).vectors.double()
    mixer = torch.randn(vectors.shape[1], dims, generator=generator, dtype=torch.float64)
    label = torch.arange(len(vectors)).repeat_interleave(each)
    features = vectors[label] @ mixer + noise * torch.randn(len(label), dims, generator=generator, dtype=torch.float64)
    return 5 + 3 * features, label, vectors


def accuracy(
    weight: torch.Tensor, bias: torch.Tensor, features: torch.Tensor, label: torch.Tensor, vectors: torch.Tensor
) -> float:
    return (
        ((features @ weight.T + bias) @ functional.normalize(vectors, dim=1).T)
        .argmax(dim=1)
        .eq(label)
        .double()
        .mean()
        .item()
    )


@pytest.mark.parametrize("dims", [40, 300])  # fewer and more than videos: both forms
def test_ridge_solves_its_own_problem(dims):
    """The gradient of the penalised, class-balanced squares is zero at the solution."""
    features, label, vectors = problem(0.5, dims=dims)
    keep = torch.rand(len(label), generator=torch.Generator().manual_seed(1)) < 0.6  # classes of unequal size
    features, label = features[keep], label[keep]
    strength = 0.3
    weight, bias = fit_ridge(features, label, vectors, strength)
    share = (1 / (len(vectors) * torch.bincount(label).double()))[label][:, None]
    mean = (share * features).sum(0)
    scale = (share * (features - mean).square()).sum(0).sqrt()
    z = ((features - mean) / scale).requires_grad_(False)
    standard = (weight * scale).requires_grad_()
    residual = z @ standard.T + vectors.mean(0) - vectors[label]
    loss = (share * residual.square()).sum() + strength * standard.square().sum()
    loss.backward()
    assert standard.grad.abs().max() < 1e-12
    torch.testing.assert_close(z @ standard.T + vectors.mean(0), features @ weight.T + bias)


def test_limits_of_the_strength():
    features, label, vectors = problem(0.0)
    weight, bias = fit_ridge(features, label, vectors, 1e12)
    torch.testing.assert_close(features @ weight.T + bias, vectors.mean(0).expand(len(features), -1))
    weight, bias = fit_ridge(features, label, vectors, 1e-9)  # 40 features, 22 classes, no noise: solved exactly
    torch.testing.assert_close(features @ weight.T + bias, vectors[label], atol=1e-4, rtol=0)


def test_a_dead_feature_changes_nothing():
    features, label, vectors = problem(0.5)
    expected = choose_ridge(features, label, vectors)
    dead = torch.cat([features, torch.full((len(features), 1), 7.0)], dim=1)
    found = choose_ridge(dead, label, vectors)
    assert found.strength == expected.strength
    torch.testing.assert_close(found.weight[:, :-1], expected.weight)
    assert (found.weight[:, -1] == 0).all()


def test_strength_is_chosen_for_classes_that_were_held_out():
    """With much noise the layer that fits the training classes best is not the one that names others best."""
    features, label, vectors = problem(1.5, dims=150)
    is_seen = label < 16
    head = choose_ridge(features[is_seen], label[is_seen], vectors[:16])
    assert list(head.scores) == sorted(head.scores)
    assert head.scores[head.strength] == max(head.scores.values()) > 1.5 * head.chance
    assert 0.25 <= head.chance <= 1 / 3  # folds of three or four of 16 classes
    unseen = features[~is_seen], label[~is_seen] - 16, vectors[16:]
    weak = fit_ridge(features[is_seen], label[is_seen], vectors[:16], min(head.scores))
    chosen = accuracy(head.weight, head.bias, *unseen)
    assert chosen > accuracy(*weak, *unseen) + 0.05
    assert chosen > 2 / 6
    again = choose_ridge(features[is_seen], label[is_seen], vectors[:16])
    assert torch.equal(again.weight, head.weight)


@pytest.mark.parametrize("dims", [30, 200])
def test_strengths_are_measured_as_by_a_regression_for_each(dims):
    """Every fold and strength solved directly, with classes of unequal size; the accuracies are the same."""
    features, label, vectors = problem(2.0, dims=dims)
    keep = torch.rand(len(label), generator=torch.Generator().manual_seed(2)) < torch.linspace(0.3, 1, len(label))
    features, label = features[keep], label[keep]
    found = choose_ridge(features, label, vectors, seed=3)
    draws = np.random.default_rng(3)
    folds = [fold for _ in range(10) for fold in np.array_split(draws.permutation(len(vectors)), 5)]
    for strength in list(found.scores)[::4]:
        accuracies = []
        for fold in map(torch.from_numpy, folds):
            is_held = torch.isin(label, fold)
            weight, bias = directly(features[~is_held], label[~is_held], vectors, strength)
            named = fold[
                ((features[is_held] @ weight.T + bias) @ functional.normalize(vectors[fold], dim=1).T).argmax(1)
            ]
            accuracies.append((named == label[is_held]).double().mean().item())
        assert found.scores[strength] == pytest.approx(np.mean(accuracies), abs=1e-12)
    weight, bias = directly(features, label, vectors, found.strength)
    torch.testing.assert_close((found.weight, found.bias), (weight, bias), rtol=1e-7, atol=1e-9)


def directly(features, label, vectors, strength):
    """The normal equations of the balanced, standardised regression, solved as they stand."""
    share = (1 / (len(label.unique()) * torch.bincount(label).double()))[label][:, None]
    mean = (share * features).sum(0)
    scale = (share * (features - mean).square()).sum(0).sqrt()
    z = (features - mean) / scale
    centre = (share * vectors[label]).sum(0)
    moments = z.T @ (share * z) + strength * torch.eye(z.shape[1], dtype=z.dtype)
    weight = torch.linalg.solve(moments, z.T @ (share * (vectors[label] - centre))).T / scale
    return weight, centre - weight @ mean


def test_too_few_classes():
    features, label, vectors = problem(0.1)
    with pytest.raises(InputError, match="3 training classes: at least 4"):
        choose_ridge(features[label < 3], label[label < 3], vectors[:3])


def test_a_class_without_videos_is_not_held_out_and_takes_no_fold_with_it():
    """None of its videos could be decoded: the strength is that of the classes that are there."""
    features, label, vectors = problem(2.0)
    gone = label >= len(vectors) // 2
    found = choose_ridge(features[~gone], label[~gone], vectors)
    expected = choose_ridge(features[~gone], label[~gone], vectors[: len(vectors) // 2])
    assert found.scores == expected.scores and found.chance == expected.chance
    assert all(0 <= score <= 1 for score in found.scores.values())  # and no NaN
    with pytest.raises(InputError, match="3 training classes: at least 4"):
        choose_ridge(features[label < 3], label[label < 3], vectors)


def test_classes_of_equal_vectors_are_held_out_together():
    """One name of two sets, kept as two classes: the strength is that of the classes told once, and no twin counts as wrong."""
    features, label, vectors = problem(2.0)
    twice = label + len(vectors) * (torch.arange(len(label)) % 2)  # every other video is of its class's twin
    found, expected = choose_ridge(features, twice, vectors.repeat(2, 1)), choose_ridge(features, label, vectors)
    assert found.scores == pytest.approx(expected.scores) and found.chance == expected.chance
    assert found.strength == expected.strength
    torch.testing.assert_close((found.weight, found.bias), (expected.weight, expected.bias))
    with pytest.raises(InputError, match="3 training classes: at least 4"):
        choose_ridge(features[label < 3], twice[label < 3], vectors.repeat(2, 1))


def test_of_equal_strengths_the_largest_is_taken():
    found = choose_ridge(*problem(0.0))  # without noise many strengths name all held-out classes
    best = [strength for strength in STRENGTHS if found.scores[strength] == max(found.scores.values())]
    assert len(best) > 1 and found.strength == max(best)
