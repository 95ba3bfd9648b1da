"""When a set's result says of itself that it may mean nothing."""

from dataclasses import replace

import numpy as np
import pytest

from engine.results.accuracy import Accuracy, ClassAccuracy, SetResult, beside_control, percent


def result(confusion):
    """Of videos of class (row) taken for class (column)."""
    confusion = np.array(confusion)
    per_class = tuple(ClassAccuracy(f"class {i}", int(row.sum()), 0.0, "", 0) for i, row in enumerate(confusion))
    top1 = float(np.trace(confusion) / max(1, confusion.sum()))
    shares = [row[index] / row.sum() for index, row in enumerate(confusion) if row.sum()]
    most = confusion.sum(axis=1).max() / max(1, confusion.sum())
    mean_class = float(np.mean(shares)) if shares else float("nan")
    whole = Accuracy(len(confusion), int(confusion.sum()), top1, 1.0, mean_class, float(most))
    return SetResult(
        name="x", all_classes=whole, half_classes=None, per_class=per_class, confusion=confusion, failures=()
    )


TWO_TAKE_MOST = [[5, 5, 0, 0, 0, 0] for _ in range(6)]


@pytest.mark.parametrize(
    ("confusion", "said"),
    [
        ([[9, 1, 0], [1, 8, 1], [0, 1, 9]], []),
        ([[4, 3, 3], [3, 4, 3], [3, 3, 4]], ["not above chance (0.333)"]),
        ([[0, 9, 1], [1, 0, 9], [9, 1, 0]], ["mean-class accuracy 0.000 of 30 videos"]),
        ([[100, 0, 0], [55, 45, 0], [55, 0, 45]], ["'class 0' takes 70% of all answers, and has 33%"]),
        ([[10, 0], [10, 0]], ["not above chance", "'class 0' takes 100% of all answers, and has 50%"]),
        ([[80, 0, 0], [2, 8, 0], [2, 0, 8]], []),  # it has most of the videos
        ([[90, 10], [10, 0]], ["mean-class accuracy 0.450 of 110 videos"]),  # top-1 is 0.818: one class's share
        (TWO_TAKE_MOST, ["not above chance", "'class 0' and 'class 1' take 100% of all answers, and have 33%"]),
        ([[400, 300, 300], [300, 400, 300], [300, 300, 400]], []),  # the same shares, of many videos
        ([[7, 3], [4, 6]], ["mean-class accuracy 0.650 of 20 videos"]),
        (
            [[5, 5, 0], [5, 5, 0], [0, 0, 0]],
            ["mean-class accuracy 0.500 of 20 videos"],
        ),  # over the two that have videos
        ([[6, 4, 0], [4, 6, 0], [0, 0, 0]], []),
        (
            [[20, 0, 0, 0], [8, 12, 0, 0], [8, 0, 12, 0], [8, 0, 0, 12]],
            ["'class 0' takes 55% of all answers, and has 25%"],
        ),
        ([[0, 0], [0, 0]], []),
        ([[5]], []),
    ],
)
def test_doubts(confusion, said):
    told = result(confusion).doubts
    assert len(told) == len(said) and all(part in line for part, line in zip(said, told, strict=True))
    again = result(confusion).to_dict()
    assert again["doubts"] == told and SetResult.from_dict(again).doubts == told


def of_three_classes(**options) -> SetResult:
    """Of "fly" there is no video; "run" is right twice, "dive" once of two."""
    rows = [("run", 2, 1.0, "", 0), ("dive", 2, 0.5, "run", 1), ("fly", 0, float("nan"), "", 0)]
    return SetResult(
        name="x", all_classes=Accuracy(3, 4, 0.75, 1.0, 0.75, 0.5), half_classes=None, failures=(),
        per_class=tuple(ClassAccuracy(*row) for row in rows), confusion=np.array([[2, 0, 0], [1, 1, 0], [0, 0, 0]]), **options,
    )  # fmt: skip


def test_the_accuracy_of_unseen_classes_is_without_those_trained_on():
    assert of_three_classes().unseen_mean_class == 0.75
    assert of_three_classes(seen_classes=["run"]).unseen_mean_class == 0.5
    assert of_three_classes(seen_classes=["run", "dive"]).unseen_mean_class is None


def test_a_result_is_of_the_same_test_by_its_videos_and_classes():
    """As far as both tell: records of before contents were noted are held against the others by the rest."""
    one = of_three_classes(contents="12")
    assert one.is_same_test(of_three_classes(contents="12")) and not one.is_same_test(None)
    assert one.is_same_test(of_three_classes()) and of_three_classes().is_same_test(one)
    assert not one.is_same_test(of_three_classes(contents="34"))
    fewer = replace(of_three_classes(), all_classes=replace(one.all_classes, num_videos=3))
    others = replace(one, per_class=(*one.per_class[:2], replace(one.per_class[2], name="walk")))
    assert not one.is_same_test(fewer) and not one.is_same_test(others)


def test_the_largest_class_of_an_older_record_is_counted():
    written = of_three_classes().to_dict()
    assert written["all_classes"].pop("largest_class") == 0.5
    assert SetResult.from_dict(written).all_classes.largest_class == 0.5


def test_scores_over_own_unlabelled_videos_are_cosines_still():
    assert of_three_classes(transductive=True).is_named_together
    assert (
        not of_three_classes(transductive=True, own_unlabelled=3).is_named_together
        and not of_three_classes().is_named_together
    )


def test_small_chances_have_the_digits_that_tell_them():
    many, few = (replace(result([[9, 1], [1, 9]]).all_classes, num_classes=number) for number in (2000, 1000))
    assert [many.shown(many.chance_top1), many.shown(0.0004), many.shown(0.9), many.shown(None)] == [
        *("0.0005", "0.0004", "0.9000", "-"),
    ]
    assert [few.shown(few.chance_top1), few.shown(0.9)] == ["0.001", "0.900"]
    assert [*map(percent, (0.0005, 0.00004, 0.001, 0.5, 1, 0))] == ["0.05", "0.004", "0.1", "50.0", "100.0", "0.0"]


def test_the_row_beside_the_control_tells_a_small_chance():
    test = result([[9, 1], [1, 9]])
    many = replace(test, all_classes=replace(test.all_classes, num_classes=2000, top1=0.0004, mean_class=0.0012))
    assert beside_control(many, None) == [2000, 20, "0.0012", "-", "0.0005", "0.0004", "0.5000"]
    assert beside_control(test, test) == [2, 20, "0.900", "0.900", "0.500", "0.900", "0.500"]
