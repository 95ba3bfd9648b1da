"""Charts of experiments: every curve and bar is there, axes begin at zero, nothing covers anything, for names of any kind."""

from dataclasses import dataclass

import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from engine.results import figures, plots
from tests.results.drawn import UGLY, apart, texts_within


@dataclass(frozen=True)
class Estimate:
    value: float
    error: float


def stands_below(axes, figure) -> None:
    """The legend covers nothing of the axes."""
    renderer = figure.canvas.get_renderer()
    assert axes.get_legend().get_window_extent(renderer).y1 < axes.get_window_extent(renderer).y0


@pytest.mark.parametrize("log", [False, True])
def test_lines(log):
    x = [100, 300, 1000, 4000]
    lines = [
        plots.Line(UGLY[5], x, [0.1, 0.2, 0.31, 0.3], [0.02] * 4, figures.BLUE, marks=["1", "2", "3", "4"]),
        plots.Line(UGLY[0], x, [0.0, 0.0, 0.1, 0.2], [0.05] * 4, figures.ORANGE),
        plots.Line(UGLY[1], x, [0.0, 0.0, 0.1, 0.2], [0.05] * 4, figures.GREEN, band=True),
    ]
    figure = plots.lines_figure([plots.Panel(UGLY[4] * 9, "videos", lines, 0.1, log) for _ in range(2)], UGLY[5])
    texts_within(figure)
    for axes in figure.axes:
        assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 33
        (band,) = [each for each in axes.collections if isinstance(each, PolyCollection)]
        assert band.get_datalim(axes.transData).y1 == pytest.approx(25)
        assert axes.get_legend().get_texts()[0].get_text() == "chance"
        stands_below(axes, figure)


def test_the_topmost_of_points_close_together_is_whole():
    line = plots.Line("a", [40, 36], [0.25, 0.275], [0.0, 0.0], figures.BLUE, marks=["5", "4"])
    (axes,) = plots.lines_figure([plots.Panel("a set", "videos", [line], 0.25, True)], "t").axes
    assert axes.get_ylim()[1] > 1.04 * 27.5


def test_bars():
    bars = [(f"{name} {index}", Estimate(0.08 * index, 0.03)) for index, name in enumerate(UGLY)]
    figure = plots.bars_figure([(UGLY[5], bars, 0.1), ("zeros", [("a", Estimate(0.0, 0.0))], None)], UGLY[5])
    texts_within(figure)
    first, second = figure.axes
    assert [round(bar.get_height()) for bar in first.patches] == [8 * index for index in range(len(UGLY))]
    assert len(first.containers) >= len(UGLY)  # an error bar each
    assert first.get_ylim()[0] == second.get_ylim()[0] == 0 and second.get_ylim()[1] >= 5
    apart(first.get_xticklabels(), figure)
    apart(first.texts, figure)


def test_steps_show_every_curve_and_points_at_zero_whole():
    places, shares = np.linspace(0, 0.6, 7), [0.0, 0.2, 1.0, 0.4, 0.0, 0.1, 0.3]
    curves = [plots.Steps(f"method {i}", places, shares, places, shares) for i in range(9)]
    figure = plots.steps_figure([("a set", curves)], "distance")
    texts_within(figure)
    for axes in figure.axes:
        assert len(axes.lines) == len(axes.get_legend().get_texts()) == 9
        assert axes.get_ylim()[0] == 0
        assert not any(line.get_clip_on() for line in axes.lines)
        stands_below(axes, figure)


@pytest.mark.parametrize("count", [1, 30, 400])
def test_points_are_all_there_and_their_names_cover_nothing(count):
    places = np.random.default_rng(count).random((count, 2)) * (7, 3) - 40
    names = [UGLY[i % len(UGLY)] + f" {i}" for i in range(count)]
    clouds = [
        plots.Cloud("K: training", "training", places, names),
        plots.Cloud("U: test", "test", places[:1] + 1, ["test"]),
    ]
    figure = plots.points_figure(clouds)
    texts_within(figure)
    axes = figure.axes[0]
    drawn = np.concatenate([np.asarray(points.get_offsets()) for points in axes.collections])
    assert len(drawn) == count + 1
    assert (drawn > 0).all() and (drawn < [axes.get_xlim()[1], axes.get_ylim()[0]]).all()
    assert (len(axes.texts) == 0) == (count == 400)
    if axes.texts:
        assert len(axes.texts) > 0.8 * count
        apart(axes.texts, figure)
        renderer, spots = figure.canvas.get_renderer(), axes.transData.transform(drawn)
        boxes = [text.get_window_extent(renderer) for text in axes.texts]
        assert not any(box.contains(*spot) for box in boxes for spot in spots)
    stands_below(axes, figure)


def test_nothing_to_draw_is_no_figure():
    assert plots.lines_figure([], "t") is None
    assert plots.bars_figure([], "t") is None
    assert plots.bars_figure([("a", [], 0.1)], "t") is None
    assert plots.steps_figure([], "t") is None
    assert plots.points_figure([plots.Cloud("a", "test", np.empty((0, 2)), [])]) is None
