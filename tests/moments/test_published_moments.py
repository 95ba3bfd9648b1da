"""The real annotations beside the checkout: what is in them, and the prior that any claimed number must clear."""

import dataclasses

import pytest

from engine.errors import InputError
from engine.moments.annotations import Annotations, Report, check
from engine.moments.prior import Prior, fit_prior
from engine.moments.queries import knows_a_word
from engine.moments.readers import read_moments

# file: queries, videos, what is wrong
COUNTS = {
    "charades_sta_train.txt": (12404, 5336, {"ends_before_start": 4}),
    "charades_sta_test.txt": (3720, 1334, {}),
    "charades_sta_test_lighthouse.jsonl": (3720, 1334, {}),
    "activitynet_captions_val1.json": (17505, 4917, {"ends_after_video": 5}),
    "tacos_test.json": (4001, 25, {"ends_after_video": 5}),
    "qvhighlights_val.jsonl": (1550, 1519, {}),
}


def read(shared_data, name) -> tuple[Annotations, Report]:
    report = Report()
    rows = read_moments(shared_data / "annotations" / name)
    return check(rows, "test", None, knows_a_word("glove", None), report), report


@pytest.mark.parametrize("name", COUNTS)
def test_published_annotations(shared_data, name):
    found, report = read(shared_data, name)
    assert (len(found), len(set(found.videos)), report.counts) == COUNTS[name]
    assert max(map(len, found.windows)) == (25 if name.startswith("qv") else 1)
    assert all(
        window.min() >= 0 and not window.max() > d for window, d in zip(found.windows, found.durations, strict=True)
    )


def shown(prior: Prior, found: Annotations) -> list[float]:
    return [100 * share for share in prior.recall(found).values()]


def test_the_prior_of_charades_is_the_reference_one(shared_data):
    """The training part here tells no durations, so it is fitted on the test part; the published one agrees."""
    found, _ = read(shared_data, "charades_sta_test_lighthouse.jsonl")
    prior = fit_prior(found)
    assert prior.intervals[1:] == ((0.0, 0.3), (0.0, 0.35))
    assert shown(prior, found) == pytest.approx([49.5, 30.7, 17.3], abs=0.5)
    bare, _ = read(shared_data, "charades_sta_train.txt")
    with pytest.raises(InputError, match="the prior needs the duration of every video"):
        fit_prior(bare)


def test_priors_of_published_training_parts(shared_data):
    """Their training parts are not here. Fitted on them by `fit_prior`, the intervals are these (QVHighlights: first windows)."""
    tacos, _ = read(shared_data, "tacos_test.json")
    assert shown(Prior(((0.125, 0.3), (0.625, 0.925), (0.55, 0.925))), tacos) == pytest.approx(
        [10.8, 3.0, 1.1], abs=0.5
    )
    several, _ = read(shared_data, "qvhighlights_val.jsonl")
    first = dataclasses.replace(several, windows=[windows[:1] for windows in several.windows])
    prior = Prior(((0.0, 0.4), (0.0, 0.5), (0.0, 0.225)))
    assert shown(prior, first) == pytest.approx([31.1, 12.7, 8.4], abs=0.5)
    assert all(any_ >= one for any_, one in zip(shown(prior, several), shown(prior, first), strict=True))


def test_a_prior_fitted_on_what_it_is_measured_on_is_an_upper_bound(shared_data):
    """ActivityNet Captions: only the first annotation of the validation videos is here, the reference's is of the second."""
    found, _ = read(shared_data, "activitynet_captions_val1.json")
    own = shown(fit_prior(found), found)
    assert own == pytest.approx([42.9, 27.4, 16.1], abs=0.2)
    other = shown(Prior(((0.0, 1.0), (0.0, 0.5), (0.5, 1.0))), found)
    assert all(mine >= theirs for mine, theirs in zip(own, other, strict=True)) and other[0] == pytest.approx(
        42.9, abs=0.1
    )
