"""What is asked of every figure, whatever it shows: it is drawn, without a warning, and its texts lie within it."""

import itertools
import warnings
from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text

from engine.results import figures

UGLY = [
    "滑雪 downhill",
    "スキー",
    "تزلج على الجليد",
    "😀 dance 🏂🏽",
    "$x$",
    "one long name " * 9,
    "C:\\\\path",
    "a\tb",
]


def texts_within(figure: Figure) -> None:
    """Every text of a figure lies within it, and no warning is given as it is drawn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = figures.figure_array(figure)
    assert pixels.std() > 5  # something is drawn
    renderer = figure.canvas.get_renderer()
    off = {
        text for axes in figure.findobj(Axes) for axis in (axes.xaxis, axes.yaxis) for text in _not_drawn(axis, axes)
    }
    for text in set(figure.findobj(Text)) - off:
        extent = text.get_window_extent(renderer)
        if text.get_text().strip():
            assert extent.x0 >= -1 and extent.x1 <= pixels.shape[1] + 1, text.get_text()
            assert extent.y0 >= -1 and extent.y1 <= pixels.shape[0] + 1, text.get_text()


def _not_drawn(axis: Axis, axes: Axes) -> list[Text]:
    """Texts of an axis that is switched off, and of ticks beyond its ends."""
    low, high = sorted(axis.get_view_interval())
    beyond = [tick for tick in (*axis.majorTicks, *axis.minorTicks) if not low <= tick.get_loc() <= high]
    return axis.findobj(Text) if not axes.axison else [text for tick in beyond for text in tick.findobj(Text)]


def apart(texts: Iterable[Text], figure: Figure) -> None:
    """No text covers another."""
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer).padded(-0.5) for text in texts if text.get_text()]
    assert boxes
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
