"""Names in any script, in pictures: by the fonts of the machine, and where none has a character by what it is called.

matplotlib's own font has Latin, Greek, Cyrillic, Hebrew, Arabic and some signs. For the others every font on the machine is
looked into, and those that can draw them follow the own one in the text's list of families. What no font can draw is
spelt in ASCII: letters and syllables by their Unicode names (क as "ka"), signs by theirs in colons, Chinese characters,
which have none, by their numbers ("\\u6ed1"). So nothing becomes a box, and nothing is warned of.
"""

import functools
import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

_NO_FONTS = ("Last Resort",)  # draw every character as a box
_SPOKEN = re.compile(r"(?:LETTER|VOWEL SIGN|SYLLABLE|VOWEL|CONSONANT|CHARACTER|DIGIT)(?: (?:SMALL|CAPITAL))? (.+)")
_SILENT = re.compile(r"VIRAMA|NUKTA|VARIATION SELECTOR|ZERO WIDTH|TONE MARK|SOUND MARK|EMOJI MODIFIER")
_TAKES_A = re.compile(r"VIRAMA|VOWEL SIGN")  # the vowel that is in an Indic letter's name is then not spoken


def fit_scripts(figure: "Figure") -> None:
    """Give every text of a figure the fonts that draw it; none is taken for a formula."""
    from matplotlib.axis import Axis
    from matplotlib.text import Text

    for axis in figure.findobj(Axis):
        labels = [label.get_text() for label in axis.get_ticklabels()]
        if labels != (shown := [drawable(label) for label in labels]):
            axis.set_ticklabels(shown)  # else they would be written again when they are drawn
    for text in figure.findobj(Text):
        _fit(text)


def _fit(text: "Text") -> None:
    shown = text.get_text()
    if "\\mathdefault" in shown:  # matplotlib's own number on a logarithmic axis
        return
    line = shown.replace("\n", "")
    if line.isascii() and "$" not in line and line.isprintable():
        return
    text.set_parse_math(False)
    text.set_text(drawable(shown))
    families = [family for family in map(_family, dict.fromkeys(line)) if family]
    if families:
        text.set_fontfamily([*text.get_fontfamily(), *dict.fromkeys(families)])


def drawable(text: str) -> str:
    """Text as a picture can show it: characters that no font has are spelt in ASCII."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    spelt = ""
    for character in text:
        is_missing = _family(character) is None
        if is_missing and spelt.endswith("a") and _TAKES_A.search(unicodedata.name(character, "")):
            spelt = spelt[:-1]
        spelt += _drawable(character)
    return spelt


@functools.cache
def _drawable(character: str) -> str:
    if character == "\n" or (character.isprintable() and _family(character) is not None):
        return character
    name = unicodedata.name(character, "")
    if _SILENT.search(name) or unicodedata.category(character) == "Cf":
        return ""
    if name.endswith("SIGN ANUSVARA"):
        return "n"
    if spoken := _SPOKEN.search(name):
        return re.sub(r"[^a-z0-9]", "", spoken[1].rpartition(" WITH ")[0].lower() or spoken[1].lower())
    if name and unicodedata.category(character)[0] == "S":
        return f":{name.lower()}:"
    return character.encode("unicode_escape", "surrogatepass").decode()


@functools.cache
def _family(character: str) -> str | None:
    """ "" where the own font has it, the family of another one that has it, or None."""
    from matplotlib import font_manager

    if _draws(font_manager.findfont(font_manager.FontProperties()), character):
        return ""
    return next((family for family, path in _system_fonts() if _draws(path, character)), None)


@functools.cache
def _system_fonts() -> list[tuple[str, str]]:
    """(family, path) of the machine's fonts, upright and of usual weight first; those newer than matplotlib's list too."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    for path in set(font_manager.findSystemFonts()) - {entry.fname for entry in manager.ttflist}:
        try:
            manager.addfont(path)
        except (OSError, RuntimeError, ValueError):  # damaged, or of a kind that matplotlib cannot draw
            continue
    entries = [entry for entry in manager.ttflist if not entry.name.startswith(_NO_FONTS)]
    entries.sort(key=lambda entry: (entry.style != "normal", str(entry.weight) not in ("400", "normal"), entry.name))
    return [(entry.name, entry.fname) for entry in entries]


def _draws(path: str, character: str) -> bool:
    from matplotlib import font_manager

    try:
        font = font_manager.get_font(path)
        if not font.get_char_index(ord(character)):
            return False
        font.load_char(ord(character))
    except (OSError, RuntimeError):  # damaged, or a font of coloured pictures
        return False
    return True
