"""The one look: colours and figures come from one file."""

import re

import pytest

from engine.results.figures import Bar, accuracy_bars, class_colors, new_figure, series_colors
from tests.environment import ROOT


def test_no_other_file_names_a_colour_or_makes_a_figure():
    own = ROOT / "engine" / "results" / "figures.py"
    others = [path for room in ("engine", "tools") for path in (ROOT / room).rglob("*.py") if path != own]
    found = [path for path in others if re.search(r'"#[0-9a-fA-F]{6}"|\bFigure\(', path.read_text(encoding="utf-8"))]
    assert len(others) > 100
    assert found == []


def test_colours_of_classes_differ():
    for count in (3, 12, 13, 101):
        colors = class_colors(count)
        assert len(set(colors)) == count
        assert all(re.fullmatch("#[0-9a-f]{6}", color) for color in colors)
    assert series_colors(9)[7:] == series_colors(2)


def test_bars_are_in_per_cent_with_their_errors():
    axes = new_figure(4, 3).subplots()
    bars = [Bar("a name of two lines", 0.5), Bar("b", 0.4, 0.2), Bar("chance, 2500 classes", 1 / 2500)]
    assert accuracy_bars(axes, bars) == pytest.approx(60)
    assert [bar.get_height() for bar in axes.patches] == [50, 40, 0.04]
    assert [text.get_text() for text in axes.texts] == ["50.0 %", "40.0 %", "0.04 %"]
    assert axes.get_xticklabels()[0].get_text() == "a name of two\nlines"
