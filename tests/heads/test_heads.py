"""Each head on a constructed problem: unseen classes are named where vectors mean something, at chance where they do not."""

import options
import pytest
import torch
from torch.nn import functional

from engine.data.config import ClassSplitConfig
from engine.errors import InputError
from engine.heads.catalogue import HEADS
from engine.heads.head import Standard, batches
from engine.heads.splits import RANDOM, WORDS, LabelledFeatures, Measured, accuracy, measure, summarise
from engine.semantics.config import WordsConfig

SEEN, UNSEEN, DIM, WIDTH, EACH = 24, 6, 8, 24, 20


def problem(seed: int = 0):
    """Features that are a noisy linear function of class vectors: (features, label, vectors) of all classes."""
    generator = torch.Generator().manual_seed(seed)
    vectors = functional.normalize(torch.randn(SEEN + UNSEEN, DIM, generator=generator), dim=1)
    mixer = torch.randn(DIM, WIDTH, generator=generator)
    label = torch.arange(SEEN + UNSEEN).repeat_interleave(EACH)
    features = vectors[label] @ mixer + 0.3 * torch.randn(len(label), WIDTH, generator=generator)
    return 5 + 0.1 * features, label, vectors


def named(name: str, features, label, vectors, seed: int = 0) -> float:
    head, is_seen = HEADS[name](), label < SEEN
    head.fit(features[is_seen], label[is_seen], vectors[:SEEN], seed)
    return accuracy(head.rank(features[~is_seen], vectors[SEEN:]), label[~is_seen] - SEEN)[1]


def test_the_command_line_knows_the_catalogue():
    assert tuple(HEADS) == options.HEAD_NAMES


@pytest.mark.parametrize("name", HEADS)
def test_unseen_classes_are_named_and_random_vectors_are_at_chance(name):
    features, label, vectors = problem()
    assert named(name, features, label, vectors) > 0.8
    drawn = []
    for seed in range(12):
        generator = torch.Generator().manual_seed(100 + seed)
        random = functional.normalize(torch.randn(vectors.shape, generator=generator), dim=1)
        drawn.append(named(name, features, label, random, seed))
    drawn = torch.tensor(drawn)
    assert abs(drawn.mean() - 1 / UNSEEN) < 3 * drawn.std() / len(drawn) ** 0.5 < 0.15


@pytest.mark.parametrize("name", HEADS)
def test_a_fit_is_repeatable_and_leaves_the_generator_alone(name):
    features, label, vectors = problem()
    dead = torch.cat([features, torch.full((len(features), 1), 3.0)], dim=1)  # and bears a feature that never changes
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    scores = []
    for seed in (1, 1):
        head = HEADS[name]()
        head.fit(dead[: SEEN * EACH], label[: SEEN * EACH], vectors[:SEEN], seed)
        scores.append(head.rank(dead[SEEN * EACH :], vectors[SEEN:]))
    assert torch.equal(*scores) and torch.isfinite(scores[0]).all()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_standard_features_and_batches():
    features = torch.tensor([[1.0, 7.0], [3.0, 7.0]])
    assert Standard.of(features)(features).tolist() == [[-1, 0], [1, 0]]
    parts = list(batches(5, 2, 2, torch.Generator().manual_seed(0)))
    assert [len(part) for part in parts] == [2, 2, 1, 2, 2, 1]
    assert all(torch.cat(parts[i : i + 3]).sort().values.tolist() == [0, 1, 2, 3, 4] for i in (0, 3))


def test_accuracy_counts_classes_alike():
    scores = torch.eye(3)[[0, 0, 0, 1]]
    assert accuracy(scores, torch.tensor([0, 0, 0, 2])) == (0.75, 0.5)


def test_splits_are_those_of_all_tools_and_differences_are_paired():
    features, label, _ = problem()
    names = tuple(f"class {index:02}" for index in range(SEEN + UNSEEN))
    data = LabelledFeatures(features, label, names)
    splits = [ClassSplitConfig(seed, SEEN) for seed in range(2)]
    found = list(measure(data, splits, ["ridge", "linear"], WordsConfig(source="random", dim=DIM)))
    assert [(m.split, m.words, m.head) for m in found[:4]] == [
        (0, words, head) for words in (WORDS, RANDOM) for head in ("ridge", "linear")
    ]
    rows = list(summarise(found, "ridge"))
    assert [row["difference"] for row in rows if row["head"] == "ridge"] == [0, 0]
    with pytest.raises(InputError, match="none would be unseen"):
        list(measure(data, [ClassSplitConfig(0, 30)], ["ridge"], WordsConfig(source="random")))


def test_a_summary_by_hand():
    values = {"a": (0.2, 0.4), "b": (0.5, 0.5)}
    found = [Measured(h, WORDS, s, 0.1, m, 0.2, 1.0) for h, each in values.items() for s, m in enumerate(each)]
    first, second = summarise(found, "a")
    assert (first["mean_class"], first["mean_class_sd"]) == (pytest.approx(0.3), pytest.approx(0.2 / 2**0.5))
    assert (second["difference"], second["difference_se"]) == (pytest.approx(0.2), pytest.approx(0.1))
