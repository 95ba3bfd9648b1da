"""When a set's result says of itself that it may mean nothing."""

import numpy as np
import pytest

from engine.results.accuracy import Accuracy, ClassAccuracy, SetResult


def result(confusion):
    """Of videos of class (row) taken for class (column)."""
    confusion = np.array(confusion)
    per_class = tuple(ClassAccuracy(f"class {i}", int(row.sum()), 0.0, "", 0) for i, row in enumerate(confusion))
    top1 = float(np.trace(confusion) / max(1, confusion.sum()))
    whole = Accuracy(len(confusion), int(confusion.sum()), top1, 1.0, top1)
    return SetResult(
        name="x", all_classes=whole, half_classes=None, per_class=per_class, confusion=confusion, failures=()
    )


@pytest.mark.parametrize(
    ("confusion", "said"),
    [
        ([[9, 1, 0], [1, 8, 1], [0, 1, 9]], []),
        ([[4, 3, 3], [3, 4, 3], [3, 3, 4]], ["not above chance (0.333)"]),
        ([[0, 9, 1], [1, 0, 9], [9, 1, 0]], ["top-1 0.000 of 30 videos"]),
        ([[100, 0, 0], [55, 45, 0], [55, 0, 45]], ["'class 0' takes 70% of all answers, and has 33%"]),
        ([[10, 0], [10, 0]], ["not above chance", "'class 0' takes 100% of all answers, and has 50%"]),
        ([[80, 0, 0], [2, 8, 0], [2, 0, 8]], []),  # it has most of the videos
        ([[400, 300, 300], [300, 400, 300], [300, 300, 400]], []),  # the same shares, of many videos
        ([[7, 3], [4, 6]], ["top-1 0.650 of 20 videos"]),
        ([[0, 0], [0, 0]], []),
        ([[5]], []),
    ],
)
def test_doubts(confusion, said):
    told = result(confusion).doubts
    assert len(told) == len(said) and all(part in line for part, line in zip(said, told, strict=True))
    again = result(confusion).to_dict()
    assert again["doubts"] == told and SetResult.from_dict(again).doubts == told
