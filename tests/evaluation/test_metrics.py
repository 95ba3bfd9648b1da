"""Accuracies against cases worked out by hand and an independent brute-force computation."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.data.batch import SampleFailure
from engine.errors import InputError
from engine.evaluation.metrics import evaluate_embeddings, half_of_classes


def test_case_by_hand():
    """Classes on the axes; each video points where it is said to, at any length."""
    classes = ["run", "walk", "swim", "jump", "sit", "fly"]
    axes = torch.eye(6)
    #           true, nearest, second
    answers = [(0, 0, 1), (0, 0, 2), (0, 1, 0), (1, 2, 1), (1, 2, 0), (2, 2, 0), (3, 0, 1), (5, 0, 1)]
    embeddings = torch.stack(
        [(axes[near] + 0.5 * axes[second]) * (i + 1) for i, (_, near, second) in enumerate(answers)]
    )
    labels = torch.tensor([true for true, _, _ in answers])
    result = evaluate_embeddings("six", embeddings, labels, classes, axes)

    whole = result.all_classes
    assert (whole.num_classes, whole.num_videos) == (6, 8)
    assert whole.top1 == pytest.approx(3 / 8)
    # The four axes that are neither nearest nor second all score 0; the lower ones fill the five. So the last video
    # gets run, walk, swim, jump, sit, and fly alone is missed.
    assert whole.top5 == pytest.approx(7 / 8)
    assert whole.mean_class == pytest.approx((2 / 3 + 0 + 1 + 0 + 0) / 5)
    assert whole.chance_top1 == pytest.approx(1 / 6)
    assert whole.chance_top5 == pytest.approx(5 / 6)

    expected = np.zeros((6, 6), dtype=int)
    expected[0, 0], expected[0, 1], expected[1, 2], expected[2, 2], expected[3, 0] = 2, 1, 2, 1, 1
    expected[5, 0] = 1
    assert np.array_equal(result.confusion, expected)
    table = {row.name: row for row in result.per_class}
    assert (table["run"].num_videos, table["run"].confused_with, table["run"].confused_count) == (3, "walk", 1)
    assert (table["walk"].top1, table["walk"].confused_with, table["walk"].confused_count) == (0.0, "swim", 2)
    assert (table["swim"].top1, table["swim"].confused_with, table["swim"].confused_count) == (1.0, "", 0)
    assert table["sit"].num_videos == 0
    assert math.isnan(table["sit"].top1)
    assert result.predicted[:, 0].tolist() == [near for _, near, _ in answers]
    assert np.allclose(result.cosine[:, 0], 1 / math.sqrt(1.25))


def brute_force(embeddings: np.ndarray, labels: np.ndarray, vectors: np.ndarray) -> tuple[float, float, float]:
    """top-1, top-5 and mean-class accuracy by plain loops over float64 cosines."""
    hits1, hits5, by_class = [], [], {}
    for embedding, label in zip(embeddings, labels, strict=True):
        cosines = [embedding @ v / (np.linalg.norm(embedding) * np.linalg.norm(v)) for v in vectors]
        better = sum(cosine > cosines[label] for cosine in cosines)
        hits1.append(better < 1)
        hits5.append(better < 5)
        by_class.setdefault(label, []).append(better < 1)
    return np.mean(hits1), np.mean(hits5), np.mean([np.mean(values) for values in by_class.values()])


@pytest.mark.parametrize(("num_classes", "num_videos", "dim"), [(5, 40, 7), (13, 150, 8), (51, 199, 30)])
def test_both_protocols_against_brute_force(num_classes, num_videos, dim):
    generator = np.random.default_rng(num_classes)
    names = [f"class {c:03d}" for c in generator.permutation(num_classes)]  # not in sorted order
    vectors = generator.standard_normal((num_classes, dim))
    labels = generator.integers(0, num_classes, num_videos)
    embeddings = 3.0 * (vectors[labels] + 1.5 * generator.standard_normal((num_videos, dim)))
    result = evaluate_embeddings(
        "random",
        torch.from_numpy(embeddings).float(),
        torch.from_numpy(labels),
        names,
        torch.from_numpy(vectors).float(),
    )
    whole = result.all_classes
    assert (whole.top1, whole.top5, whole.mean_class) == pytest.approx(brute_force(embeddings, labels, vectors))
    assert 0.05 < whole.top1 < 1
    assert result.confusion.sum() == num_videos
    assert np.trace(result.confusion) / num_videos == pytest.approx(whole.top1)

    expected = []
    for seed in range(10):
        np.random.seed(seed)  # the rule as the authors' code has it
        half = [names.index(sorted(names)[c]) for c in np.random.permutation(num_classes)[: num_classes // 2]]
        kept = np.isin(labels, half)
        own_labels = np.array([half.index(label) for label in labels[kept]])
        expected.append(brute_force(embeddings[kept], own_labels, vectors[half]))
    halves = result.half_classes
    assert len(halves.splits) == 10
    assert {split.num_classes for split in halves.splits} == {num_classes // 2}
    for measure, column in zip(("top1", "top5", "mean_class"), np.array(expected).T, strict=True):
        assert [getattr(split, measure) for split in halves.splits] == pytest.approx(column.tolist())
        assert halves.mean(measure) == pytest.approx(column.mean())
        assert halves.std(measure) == pytest.approx(column.std(ddof=1))
    assert halves.to_dict()["chance_top1"] == pytest.approx(1 / (num_classes // 2))


@pytest.mark.parametrize(("num_classes", "half"), [(101, 50), (51, 25), (200, 100)])
def test_halves_are_the_reference_rule_and_touch_no_global_state(num_classes, half):
    names = [f"{c:03d}" for c in range(num_classes)]
    np.random.seed(77)
    untouched = np.random.random(3).tolist()
    np.random.seed(77)
    ours = [half_of_classes(names, seed) for seed in range(10)]
    assert np.random.random(3).tolist() == untouched
    for seed, chosen in enumerate(ours):
        np.random.seed(seed)
        assert chosen.tolist() == np.random.permutation(num_classes)[: num_classes // 2].tolist()
        assert len(set(chosen.tolist())) == half


def test_half_goes_by_sorted_name_not_by_place():
    names = ["d", "a", "c", "b", "e", "f"]
    chosen = {names[c] for c in half_of_classes(names, 3)}
    assert chosen == {sorted(names)[c] for c in half_of_classes(sorted(names), 3)}


def test_too_few_classes_for_halves():
    result = evaluate_embeddings("three", torch.eye(3), torch.arange(3), ["a", "b", "c"], torch.eye(3))
    assert result.half_classes is None
    assert result.all_classes.top1 == 1.0
    assert result.all_classes.chance_top5 == 1.0


def test_result_is_plain_json_and_names_failures():
    failures = [SampleFailure(Path("bad.mp4"), "moov atom not found")]
    result = evaluate_embeddings(
        "x", torch.eye(4)[:2], torch.tensor([0, 1]), list("abcd"), torch.eye(4), failures=failures
    )
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["failures"] == [{"path": "bad.mp4", "reason": "moov atom not found"}]
    assert content["all_classes"]["num_videos"] == 2
    assert content["per_class"][3] == {
        "name": "d", "num_videos": 0, "top1": None, "confused_with": "", "confused_count": 0,
    }  # fmt: skip
    assert content["half_classes"]["num_classes"] == 2


def test_half_without_videos_is_left_out_of_the_mean():
    """Only class a has videos; halves without it have nothing to say."""
    result = evaluate_embeddings("one", torch.eye(4)[:1], torch.tensor([0]), list("abcd"), torch.eye(4))
    with_a = [seed for seed in range(10) if 0 in half_of_classes(list("abcd"), seed)]
    assert 0 < len(with_a) < 10
    assert len(result.half_classes.splits) == len(with_a)
    assert result.half_classes.mean("top1") == 1.0


def test_nothing_to_evaluate_is_an_error_with_the_reason():
    with pytest.raises(InputError, match="'x' cannot be evaluated: it has no videos"):
        evaluate_embeddings("x", torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64), ["a", "b"], torch.eye(2))
    failures = [SampleFailure(Path("bad.mp4"), "why")]
    with pytest.raises(InputError, match=r"none of its 1 videos could be decoded; 'bad.mp4': why"):
        evaluate_embeddings(
            "x", torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64), ["a", "b"], torch.eye(2), failures=failures
        )


def test_diverged_model_is_an_error_not_a_score():
    embeddings = torch.eye(4)
    embeddings[2, 1] = float("nan")
    with pytest.raises(InputError, match="1 of 4 videos are not finite"):
        evaluate_embeddings("x", embeddings, torch.arange(4), list("abcd"), torch.eye(4))


def test_the_share_of_the_largest_class():
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 3, 5])
    whole = evaluate_embeddings("six", torch.eye(6)[labels], labels, list("abcdef"), torch.eye(6)).all_classes
    assert whole.largest_class == pytest.approx(3 / 8)
