"""What experiments decide: the gain that a claim speaks of, its interval, and the verdict."""

import pytest

from engine.experiments.claims import (
    FROZEN_PRETRAINED,
    Finding,
    amounts,
    claims_table,
    diversity,
    pretraining,
    snippets,
)
from engine.results.spread import difference, interval, values_needed
from tests.experiments.test_reports import measured

OURS, FROZEN, FEWER = "end to end, fewer videos", "frozen, fewer videos", "end to end, fewer classes"


def at(curve, x, videos, values):
    return [measured(curve, split, value, x=x, videos=videos) for split, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((0.10, 0.12, 0.11), "holds"),
        ((-0.10, -0.12, -0.11), "does not hold: the opposite does"),
        ((0.10, -0.02, 0.04), "cannot be told; 12 splits would tell"),
        ((0.10, -0.10, 0.0001), "cannot be told; over 1000 splits would tell"),
        ((0.1,), "cannot be told from one split"),
    ],
)
def test_verdict_is_what_the_interval_says(values, verdict):
    assert Finding("a", "unseen", dict(enumerate(values))).verdict == verdict


def test_number_of_splits_that_would_tell_is_the_least_that_does():
    values = [0.1, -0.02, 0.04]
    mean, std = 0.04, 0.06
    needed = values_needed(values, 1000)
    spread = [mean - std, mean + std] * 50  # of this mean and, nearly, this standard deviation
    assert interval(spread[: needed + 3]).low > 0 > interval(spread[: needed - 3]).low
    assert values_needed(values, needed - 1) is None
    assert difference([(0.3, 0.2), (0.5, 0.2)]) == interval([0.3 - 0.2, 0.5 - 0.2])


def test_amounts_pairs_equal_shares_and_equal_numbers_of_videos():
    values = at(OURS, 0.1, 100, (0.30, 0.32)) + at(OURS, 1, 1000, (0.50, 0.54))
    values += at(FROZEN, 0.1, 100, (0.20, 0.21)) + at(FROZEN, 1, 1000, (0.20, 0.21))
    values += (
        at(FROZEN_PRETRAINED, 1, 1000, (0.40, 0.40)) + at(FEWER, 25, 95, (0.10, 0.20)) + at(FEWER, 50, 500, (0.2, 0.2))
    )
    values += at(FEWER, 60, 1000, (0.50, 0.54))  # all of them: the whole beside itself says nothing
    found = {each.claim: each.gain for each in amounts(values, "unseen")}
    assert found == {
        "end to end above frozen random features, 0.1 of the videos": pytest.approx({0: 0.1, 1: 0.11}),
        "end to end above frozen random features, 1 of the videos": pytest.approx({0: 0.3, 1: 0.33}),
        "end to end above frozen random features: by more with 1 of the videos than with 0.1": pytest.approx(
            {0: 0.2, 1: 0.22}
        ),
        "end to end above frozen pretrained features, 1 of the videos": pytest.approx({0: 0.1, 1: 0.14}),
        "10 classes above 25, 100 videos above 95": pytest.approx(
            {0: 0.2, 1: 0.12}
        ),  # 50 classes: no share has as many
    }


def test_of_two_shares_of_nearly_as_many_videos_the_nearer_is_taken():
    values = at(OURS, 0.1, 95, (0.30, 0.32)) + at(OURS, 0.11, 100, (0.40, 0.42)) + at(FEWER, 25, 100, (0.1, 0.2))
    (finding,) = amounts(values, "unseen")
    assert finding.claim == "10 classes above 25, 100 videos of either"
    assert finding.gain == pytest.approx({0: 0.3, 1: 0.22})


def test_draws_of_a_split_count_once():
    values = [measured(OURS, 0, 0.5, draw=draw, x=1) for draw in (0, 1)] + [measured(FROZEN, 0, 0.1, x=1)]
    values += [measured(FROZEN, 0, 0.3, draw=1, x=1), measured(FROZEN, 1, 0.3, x=1)]
    (finding,) = amounts(values, "unseen")
    assert finding.gain == {0: pytest.approx(0.3)}  # split 1 has no partner


def test_diversity_pretraining_and_snippets():
    clusters = at("end to end", 1, 10, (0.5, 0.6)) + at("end to end", 5, 10, (0.3, 0.2))
    assert [each.gain for each in diversity(clusters, "unseen")] == [pytest.approx({0: 0.2, 1: 0.4})]
    values = at("pretrained on pictures", 0.1, 10, (0.4, 0.5)) + at("from scratch", 0.1, 10, (0.1, 0.1))
    values += at("pretrained on pictures", 1, 100, (0.6, 0.6)) + at("from scratch", 1, 100, (0.5, 0.4))
    few, many, most_where_few = pretraining(values, "unseen")
    assert few.gain == pytest.approx({0: 0.3, 1: 0.4}) and many.gain == pytest.approx({0: 0.1, 1: 0.2})
    assert (
        most_where_few.gain == pytest.approx({0: 0.2, 1: 0.2}) and "with 0.1 of the videos than" in most_where_few.claim
    )
    rows = at("e2e + multi", 0, 10, (0.4, 0.4)) + at("e2e", 0, 10, (0.3, 0.2))
    shown = claims_table(list(snippets(rows, "unseen", 25)))
    assert shown.rows == [["e2e + multi: 25 snippets of a video above one", "unseen", 2, "+0.150 (-0.485 to +0.785)",
                           "cannot be told; 4 splits would tell"]]  # fmt: skip
