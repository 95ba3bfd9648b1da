"""Names beside points and above charts: how wide they are, cut or broken to fit, and placed so that none covers another.

Widths are estimated from the letters, so that SVG, whose font is the reader's, and PNG follow one rule.
"""

import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from engine.results.scripts import drawable

_SMALL, _LARGE = 0.58, 0.66  # mean widths of small letters, of capitals and digits, of the font's size ...
_WIDE = 1.0  # ... and of Chinese and Japanese signs
_LONGEST = 28  # letters of a name in a chart
_LONGEST_FILE = 60  # letters of a file's name in a table of text
_LEAST = 10  # letters of a line, however narrow it is
_POINT = 5  # half the side of the square that a point takes

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Label:
    """A name beside its point, `anchor` ("start", "middle" or "end") at x; `text` is empty where there was no room."""

    x: float
    y: float
    text: str
    anchor: str


def short(name: str, longest: int = _LONGEST) -> str:
    """A name as charts show it."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def shorter_file_name(path: str) -> str:
    """A path for a table: the middle of a file name that would push the other columns away is cut out, its ends stay."""
    folder, slash, name = path.rpartition("/")
    if len(name) <= _LONGEST_FILE:
        return path
    behind = (_LONGEST_FILE - 1) // 2
    return f"{folder}{slash}{name[: _LONGEST_FILE - 1 - behind]}…{name[-behind:]}"


def text_width(text: str, font: float) -> float:
    """Estimated width of a line in the unit of the font's size."""
    return font * sum(map(_glyph_width, text))


def _glyph_width(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF":
        return _WIDE
    return _LARGE if character.isupper() or character.isdigit() else _SMALL


def wrapped(text: str, inches: float, points: float, lines: int = 2) -> str:
    """Text of a PNG in lines of at most so many inches, in a font of so many points; what does not fit is cut off."""
    shown, room = drawable(text), inches * 72
    letters = max(_LEAST, int(room * len(shown) / max(text_width(shown, points), 1)))
    for most in range(letters, _LEAST - 1, -1):  # fewer where the wide letters of a text stand together
        found = textwrap.wrap(shown, most, max_lines=lines, placeholder=" …")
        if all(text_width(line, points) <= room for line in found):
            break
    return "\n".join(found)


def place_labels(
    spots: Sequence[tuple[float, float]],
    names: Sequence[str],
    font: float,
    width: float,
    height: float,
    left: float = 0,
    dots: Sequence[tuple[float, float]] = (),
) -> tuple[Label, ...]:
    """A label around each point where there is room: over no other label or point, and over as few dots as can be.

    Args:
        spots: the points, x right and y down, in a chart of `width` x `height` whose columns before `left` are taken.
        dots: smaller marks without names.
    """
    taken = [_around(x, y, _POINT) for x, y in spots]
    small = [_around(x, y, _POINT - 1) for x, y in dots]
    labels = []
    for index, ((x, y), name) in enumerate(zip(spots, names, strict=True)):
        text = short(name)
        found: list[tuple[int, Label, Box]] = []
        for label, box in _places(x, y, text, font):
            fits = box[0] >= left + 2 and box[2] <= width - 2 and box[1] >= 2 and box[3] <= height - 2
            if fits and not any(_overlap(box, other) for i, other in enumerate(taken) if i != index):
                found.append((sum(_overlap(box, dot) for dot in small), label, box))
        if found:
            _, label, box = min(found, key=lambda place: place[0])
            taken.append(box)
            labels.append(label)
        else:
            labels.append(Label(x, y, "", "start"))
    return tuple(labels)


def _places(x: float, y: float, text: str, font: float) -> list[tuple[Label, Box]]:
    """Where a label may stand, the best place first: right, left, above, below, and aslant."""
    long = text_width(text, font)
    places = (
        (x + 9, y + 4, "start"), (x - 9, y + 4, "end"), (x, y - 10, "middle"), (x, y + 18, "middle"),
        (x + 5, y - 8, "start"), (x + 5, y + 16, "start"), (x - 5, y - 8, "end"), (x - 5, y + 16, "end"),
    )  # fmt: skip
    begin = {"start": 0.0, "middle": long / 2, "end": long}
    return [
        (Label(at_x, at_y, text, anchor), (at_x - begin[anchor], at_y - font, at_x - begin[anchor] + long, at_y + 3))
        for at_x, at_y, anchor in places
    ]


def _around(x: float, y: float, reach: float) -> Box:
    return x - reach, y - reach, x + reach, y + reach


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
