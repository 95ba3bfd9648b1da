"""Names in any script: drawn by some font, or spelt; never a box, and never a warning."""

import warnings

import pytest
from matplotlib import font_manager
from matplotlib.text import Text

from engine.results import scripts
from engine.results.figures import figure_array, new_figure, save_figure

NAMES = [
    "滑雪", "スキー", "가위질", "स्केटिंग", "تزلج على الجليد", "😀 dance 🏂🏽", "👩‍🚀", "$x$ of \\frac", "naïve Ω", "русский танец",
    "ไทย", "a\tb", "bad \udce9 byte", "\x07bell", "ქართული", "தமிழ்", "",
]  # fmt: skip


@pytest.fixture
def dejavu_only(monkeypatch):
    """A machine with no font but matplotlib's own."""
    entries = [entry for entry in font_manager.fontManager.ttflist if entry.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    caches = [scripts._drawable, scripts._family, scripts._system_fonts]
    for clear in [cached.cache_clear for cached in caches]:
        clear()
    yield
    for clear in [cached.cache_clear for cached in caches]:
        clear()


def test_what_no_font_has_is_spelt_and_the_rest_is_left(dejavu_only):
    spelt = {
        "滑雪 run": "\\u6ed1\\u96ea run",
        "スキー": "suki",
        "가위질": "gawijil",
        "स्केटिंग": "skettinga",
        "🏂🏽": ":snowboarder:",
        "a\tb": "a\\tb",
        "\udce9": "\\udce9",
        "تزلج": "تزلج",
        "naïve Ω русский ∑": "naïve Ω русский ∑",
        "two\nlines": "two\nlines",
    }
    assert {name: scripts.drawable(name) for name in spelt} == spelt


def test_a_font_of_the_machine_is_taken_before_anything_is_spelt(dejavu_only, monkeypatch):
    monkeypatch.setattr(scripts, "_draws", lambda path, character: ("cjk" in path) == (ord(character) > 0x2FFF))
    monkeypatch.setattr(scripts, "_system_fonts", lambda: [("Some Sans", "a.ttf"), ("Some CJK", "cjk.ttc")])
    assert scripts.drawable("滑雪 run") == "滑雪 run"
    assert (scripts._family("滑"), scripts._family("r")) == ("Some CJK", "")
    text = new_figure(2, 1).text(0, 0, "滑雪")
    scripts._fit(text)
    assert text.get_fontfamily()[-1] == "Some CJK"


def test_no_font_is_looked_for_to_draw_the_end_of_a_line(dejavu_only, monkeypatch):
    monkeypatch.setattr(scripts, "_draws", lambda path, character: character != "\n" or path == "b.ttf")
    monkeypatch.setattr(scripts, "_system_fonts", lambda: [("Some Sans", "b.ttf")])
    for shown in ("two\nlines", "zwei\nhübsche"):
        text = new_figure(2, 1).text(0, 0, shown)
        before = text.get_fontfamily()
        scripts._fit(text)
        assert (text.get_text(), text.get_fontfamily()) == (shown, before)


def test_every_text_of_a_figure_is_drawn_without_a_warning_or_a_box(dejavu_only, tmp_path):
    figure = new_figure(12, 12)
    axes, other = figure.subplots(1, 2)
    axes.set_xticks(range(len(NAMES)), NAMES, rotation=90)
    axes.set_yticks(range(len(NAMES)), NAMES)
    for index, name in enumerate(NAMES):
        other.plot([0, 1], [0, -index], label=name or "-")
        other.text(0, index, name)
    other.legend()
    figure.suptitle(NAMES[7])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert figure_array(figure).std() > 10
        save_figure(figure, tmp_path / "names.png")  # once more, of the same texts
    shown = [text.get_text() for text in figure.findobj(Text) if text.get_text()]
    assert {"\\u6ed1\\u96ea", "$x$ of \\frac", "gawijil", "\\x07bell"} <= set(shown)
    assert not any(text.get_parse_math() for text in figure.findobj(Text) if "$" in text.get_text())
    assert [label.get_text() for label in axes.get_xticklabels()] == [scripts.drawable(name) for name in NAMES]
    assert axes.get_xticklabels()[0].get_rotation() == 90


def test_numbers_of_a_logarithmic_axis_stay_what_matplotlib_makes_of_them():
    figure = new_figure(4, 3)
    axes = figure.subplots()
    axes.loglog([1, 1000], [0.001, 10])
    figure_array(figure)
    labels = [label for label in axes.get_xticklabels() if "$" in label.get_text()]
    assert labels and all(label.get_parse_math() for label in labels)
