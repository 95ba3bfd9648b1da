"""Heads that stand on what the network knows: by hand, alone and beside a regression, and where training helps or misleads."""

import feature_options
import pytest
import torch
from torch.nn import functional

from engine.data.config import ClassSplitConfig
from engine.data.sets.class_splits import split_classes
from engine.errors import InputError
from engine.heads.catalogue import OBJECT_HEADS
from engine.heads.classes import Classes, WordClasses
from engine.heads.labelled import LabelledFeatures
from engine.heads.objects import KnownObjects, ObjectsRidgeHead, Spread, StandardisedObjectsHead
from engine.heads.sequences import Sequences
from engine.heads.splits import accuracy, apart_from, measure, together
from engine.models.image_network import ImageNetwork
from engine.models.image_weights import installed_network
from engine.models.weights import load_backbone_weights
from engine.semantics.config import WordsConfig

KNOWN, SEEN, UNSEEN, DIM, WIDTH, EACH = 60, 30, 6, 8, 24, 12


def drawn(generator: torch.Generator, number: int, dim: int = DIM) -> torch.Tensor:
    return functional.normalize(torch.randn(number, dim, generator=generator), dim=1)


def short(features: torch.Tensor) -> Sequences:
    """Videos of one window each."""
    return Sequences.of(list(features[:, None]))


def classes(vectors: torch.Tensor) -> Classes:
    return Classes(tuple(f"class {index}" for index in range(len(vectors))), vectors, lambda: short(vectors), None)


def problem(seed: int, *, hidden: float = 1.0):
    """A network that knows 60 objects, and videos of classes that lie among them in word space: (objects, features, label,
    vectors). It is blind to three quarters of word space but for `hidden` of it; its features are not.
    """
    generator = torch.Generator().manual_seed(seed)
    names, vectors = drawn(generator, KNOWN), drawn(generator, SEEN + UNSEEN)
    mixer = torch.linalg.qr(torch.randn(WIDTH, DIM, generator=generator)).Q.T
    seen_by_it = torch.ones(DIM)
    seen_by_it[: 3 * DIM // 4] = hidden
    objects = KnownObjects(8 * (names * seen_by_it) @ mixer, torch.zeros(KNOWN), names)
    label = torch.arange(SEEN + UNSEEN).repeat_interleave(EACH)
    return objects, vectors[label] @ mixer + 0.1 * torch.randn(len(label), WIDTH, generator=generator), label, vectors


def named(name: str, objects, features, label, vectors) -> float:
    head, is_seen = OBJECT_HEADS[name](objects), label < SEEN
    head.fit(short(features)[is_seen], label[is_seen], classes(vectors[:SEEN]), 0)
    return accuracy(head.rank(short(features)[~is_seen], classes(vectors[SEEN:])), label[~is_seen] - SEEN).mean_class


def test_the_command_line_knows_them():
    assert tuple(OBJECT_HEADS) == feature_options.OBJECT_HEAD_NAMES


def test_roots_are_of_the_mean_over_windows_of_what_the_layer_says():
    """Probabilities by hand: a bias of log 1, 2 and 5 alone, and a window that adds log 3 to the first."""
    layer = torch.tensor([[3.0], [1.0], [1.0]]).log(), torch.tensor([1.0, 2.0, 5.0]).log()
    videos = Sequences.of([torch.zeros(1, 1), torch.tensor([[0.0], [1.0]])])
    found = KnownObjects(*layer, torch.eye(3)).roots(videos)
    expected = torch.tensor([[1 / 8, 2 / 8, 5 / 8], [(1 / 8 + 3 / 10) / 2, (2 / 8 + 2 / 10) / 2, (5 / 8 + 5 / 10) / 2]])
    torch.testing.assert_close(found.square(), expected.double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", OBJECT_HEADS)
def test_unseen_classes_are_named_and_other_words_are_at_chance(name):
    found, control = [], []
    for seed in range(10):
        objects, features, label, vectors = problem(seed)
        found.append(named(name, objects, features, label, vectors))
        others = drawn(torch.Generator().manual_seed(50 + seed), len(vectors))
        control.append(named(name, objects, features, label, others))
    control = torch.tensor(control)
    assert sum(found) / len(found) > 0.7
    assert abs(control.mean() - 1 / UNSEEN) < 3 * control.std() / len(control) ** 0.5 < 0.2


def test_a_regression_sees_what_the_network_has_no_names_for():
    gains = []
    for seed in range(10):
        blind = problem(seed, hidden=0.0)
        gains.append(named("objects_ridge", *blind) - named("objects_standardised", *blind))
    assert sum(gains) / len(gains) > 0.1


def test_scores_by_hand():
    objects, features, label, vectors = problem(3)
    keep = torch.cat([torch.arange(5), torch.arange(40, SEEN * EACH)])  # a class of fewer videos counts as much
    features, label = features[keep], label[keep]
    is_seen, asked = label < SEEN, vectors[SEEN:]
    head = ObjectsRidgeHead(objects)
    videos, unseen = short(features), classes(asked)
    head.fit(videos, label, classes(vectors[:SEEN]), 0)

    def standardised(scores: torch.Tensor) -> torch.Tensor:
        share = torch.tensor([1 / int((label == each).sum()) for each in label], dtype=torch.float64)
        share = (share / share.sum())[:, None]
        mean = (share * scores).sum(dim=0)
        return (scores - mean) / (share * (scores - mean).square()).sum(dim=0).sqrt()

    roots = (features @ objects.weight.T).double().softmax(dim=1).sqrt()
    cosines = asked.double() @ objects.vectors.double().T
    cosines[cosines < cosines.topk(50, dim=1).values[:, -1:]] = 0
    weight, bias = head.layer
    points = functional.normalize(features.double() @ weight.T + bias, dim=1)
    expected = standardised(roots @ cosines.T) + standardised(points @ asked.double().T)
    assert bool(is_seen.all())
    torch.testing.assert_close(head.rank(videos, unseen), expected)
    alone = StandardisedObjectsHead(objects)
    alone.fit(videos, label, classes(vectors[:SEEN]), 0)
    torch.testing.assert_close(alone.rank(videos, unseen), standardised(roots @ cosines.T))


def test_a_class_that_all_videos_score_alike_decides_nothing():
    spread = Spread.of(torch.ones(4, 2, dtype=torch.float64), torch.tensor([0, 0, 2, 2]))
    assert spread.scores(torch.ones(1, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)).tolist() == [[0, 0]]


def test_further_videos_are_seen_but_for_classes_that_overlap():
    generator = torch.Generator().manual_seed(0)
    names = ("archery", "diving", "tennis swing", "rope jumping")
    own = LabelledFeatures(short(torch.randn(8, 5, generator=generator)), torch.arange(4).repeat(2), names)
    more = ("swing", "cliff diving", "shooting an arrow", "running", "archery")
    also = LabelledFeatures(short(torch.randn(10, 5, generator=generator)), torch.arange(5).repeat(2), more)
    found = list(
        measure(own, [ClassSplitConfig(0, 2)], ["linear"], WordsConfig(source="random", dim=DIM), [also], 0.05)
    )
    unseen = split_classes(names, ClassSplitConfig(0, 2))["unseen"]
    overlap = {"archery": {"archery"}, "diving": {"cliff diving"}, "tennis swing": {"swing"}, "rope jumping": set()}
    left = set(more) - set().union(*(overlap[name] for name in unseen))
    assert [each.seen for each in found] == [2 + len(left)] * 2
    with pytest.raises(InputError, match="split 0: every seen class overlaps"):
        list(measure(own, [ClassSplitConfig(0, 2)], ["linear"], WordsConfig(source="random"), [also], 2.0))


def test_names_apart_by_distance_and_by_words():
    vectors = {"a": [1.0, 0.0], "b": [0.8, 0.6], "c": [0.0, 1.0], "red c": [-1.0, 0.0]}

    def words(names):
        return classes(torch.tensor([vectors[name] for name in names]))

    assert apart_from(["a"], ["b", "c", "red c"], words, 0.05) == ["b", "c", "red c"]
    assert apart_from(["a"], ["b", "c", "red c"], words, 0.3) == ["c", "red c"]
    assert apart_from(["red c"], ["a", "b", "c"], words, 0.05) == ["a", "b"]
    assert apart_from(["c"], ["a", "red c"], words, 0.05) == ["a"]


def test_classes_of_several_sets_stay_apart():
    first = LabelledFeatures(short(torch.tensor([[1.0], [2.0], [3.0]])), torch.tensor([0, 1, 1]), ("run", "swim"))
    second = LabelledFeatures(short(torch.tensor([[4.0], [5.0]])), torch.tensor([0, 1]), ("run", "box"))
    videos, label, names = together([(first, ["swim"]), (second, ["box", "run"])])
    assert videos.values[:, 0].tolist() == [2, 3, 4, 5] and label.tolist() == [0, 0, 2, 1]
    assert names == ["swim", "box", "run"]
    assert WordClasses(WordsConfig(source="glove"))(["run", "box", "run"]).vectors.shape == (3, 50)


def test_known_classes_are_averaged_over_the_windows_of_a_video():
    objects, _, _, vectors = problem(0)
    windows = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
    known = (windows @ objects.weight.T).double().softmax(dim=1)
    expected = torch.stack([known[:2].mean(dim=0), known[2]]).sqrt() @ objects.weights(vectors).T
    videos = Sequences(windows, torch.tensor([2, 1]))
    torch.testing.assert_close(OBJECT_HEADS["objects"](objects).rank(videos, classes(vectors)), expected)


def test_the_installed_layer_is_the_networks_own():
    installed = installed_network("installed")
    network = ImageNetwork(installed.backbone, 1, 32, with_classifier=True)
    load_backbone_weights(network, "installed")
    weight, bias = installed.classifier()
    assert torch.equal(weight, network.network.classifier.weight) and torch.equal(bias, network.network.classifier.bias)
