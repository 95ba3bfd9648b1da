"""Labels: cut and broken to fit, over no other label and no point, over few dots."""

import itertools

import numpy as np
import pytest

from engine.results import labels
from engine.results.labels import place_labels, short, shorter_file_name, text_width, wrapped


def box(label, font):
    long = text_width(label.text, font)
    left = label.x - {"start": 0.0, "middle": long / 2, "end": long}[label.anchor]
    return left, label.y - font, left + long, label.y + 3


def overlap(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@pytest.mark.parametrize("count", [1, 12, 120])
def test_labels_cover_neither_each_other_nor_points_and_lie_within(count):
    spots = [tuple(spot) for spot in (np.random.default_rng(count).random((count, 2)) * (760, 360)).tolist()]
    names = ["滑雪 and 乒乓球", "a rather long name of a class that is cut", "SKI", "x"] * 30
    labels = [label for label in place_labels(spots, names[:count], 12.0, 760, 360, left=40) if label.text]
    assert len(labels) >= {1: 1, 12: 11, 120: 30}[count]
    boxes = [box(label, 12.0) for label in labels]
    assert not any(overlap(one, other) for one, other in itertools.combinations(boxes, 2))
    assert all(b[0] >= 40 and b[2] <= 760 and b[1] >= 0 and b[3] <= 360 for b in boxes)
    placed = dict(zip(spots, place_labels(spots, names[:count], 12.0, 760, 360, left=40), strict=True))
    for spot, other in itertools.product(spots, placed.items()):
        if spot != other[0] and other[1].text:
            x, y = spot
            assert not overlap((x - 5, y - 5, x + 5, y + 5), box(other[1], 12.0))


def test_dots_are_covered_only_where_there_is_no_other_room():
    around = [(120.0, 100.0), (130.0, 100.0)]  # on the right, the first choice
    assert place_labels([(100, 100)], ["a class"], 12.0, 300, 200)[0].anchor == "start"
    assert place_labels([(100, 100)], ["a class"], 12.0, 300, 200, dots=around)[0].anchor == "end"
    everywhere = [(float(x), float(y)) for x in range(0, 300, 5) for y in range(0, 200, 5)]
    assert place_labels([(100, 100)], ["a class"], 12.0, 300, 200, dots=everywhere)[0].text == "a class"


def test_texts_are_cut_and_broken_to_their_room():
    assert short("x" * 40) == "x" * 27 + "…"
    assert text_width("滑雪", 10.0) == 20.0 < text_width("snow", 10.0) < text_width("SNOW", 10.0)
    lines = wrapped("a title that is far too long for a figure of so few inches " * 4, 3, 12).split("\n")
    assert len(lines) == 2 and lines[1].endswith("…")
    assert max(text_width(line, 12) for line in lines) <= 1.1 * 3 * 72
    assert wrapped("short", 3, 12) == "short"


def test_a_line_of_wide_signs_is_no_wider_than_others(monkeypatch):
    monkeypatch.setattr(labels, "drawable", lambda text: text)  # whatever fonts there are
    found = wrapped("滑雪 " * 30 + ": 64 videos, mean over classes 33.3% (chance 6.2%)" * 2, 5.7, 12).split("\n")
    assert len(found) == 2 and 0.8 * 5.7 * 72 < max(text_width(line, 12) for line in found) <= 5.7 * 72


def test_of_a_long_file_name_the_middle_is_cut_out():
    assert shorter_file_name("/v/sea.mp4") == "/v/sea.mp4" and shorter_file_name("f" * 60) == "f" * 60
    cut = shorter_file_name("/a folder/" + "begin" + "x" * 240 + "end.mp4")
    folder, name = cut.rsplit("/", 1)
    assert folder == "/a folder" and len(name) == 60 and name.startswith("begin") and name.endswith("end.mp4")
