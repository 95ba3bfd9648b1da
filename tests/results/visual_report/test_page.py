"""The HTML file: hostile names stay text, nothing is loaded or run, and the numbers are the results'."""

import base64
import hashlib
import html.parser
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.evaluation.generalised import GeneralisedResult
from engine.evaluation.metrics import evaluate_embeddings
from engine.results import html_page
from engine.results.accuracy import Accuracy
from engine.results.visual_report import charts
from engine.results.visual_report.findings import Findings
from engine.results.visual_report.page import Report, render, write_page
from engine.results.visual_report.run_folder import RunFacts
from tests.results.visual_report.conftest import PLAIN, QUOTES, SCRIPT

ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "p", "h1", "h2", "h3", "dl", "dt", "dd", "div", "nav",
    "a", "section", "span", "bdi", "small", "strong", "code", "br", "table", "caption", "thead", "tbody", "tr", "th", "td", "svg",
    "rect", "line", "circle", "text", "details", "summary", "pre", "figure", "figcaption", "img", "footer",
}  # fmt: skip


class Page(html.parser.HTMLParser):
    """What a browser would find: elements with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.text += " " if tag in ("td", "th") else ""  # cells stand apart

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def report(found):
    accuracy = Accuracy(num_classes=5, num_videos=8, top1=0.5, top5=1.0, mean_class=0.5)
    return Report(
        title="run <b>1</b>",
        facts=[("checkpoint", '"><img src=x onerror=alert(4)>'), ("steered", "\x1b[31mred\u202e")],
        findings=[found],
        tau=0.05,
        generalised=[GeneralisedResult("<u>g</u>", 2, 3, accuracy, accuracy, 0.25, (), 0.4)],
        run=RunFacts(
            provenance=[("command", "train <config>")],
            packages={"torch": "2.0"},
            config="run: {folder: '</pre><script>alert(5)</script>'}",
            control={found.result.name: 0.31},
        ),
        warnings=[f"Not unseen: {SCRIPT}"],
    )


@pytest.fixture(scope="module")
def source(report):
    return render(report)


@pytest.fixture(scope="module")
def page(source):
    return Page(source)


def test_names_are_text_and_nothing_else(page):
    # SVG's <title> counts as an element of that name too.
    assert {name for name, _ in page.elements} <= ALLOWED
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcdoc")]
    for name in (
        SCRIPT,
        QUOTES,
        PLAIN,
        '0/x"onerror="alert(3).mp4',
        "1/it's <b>bold</b>.mp4",
        "other <u>",
        "run <b>1</b>",
    ):
        assert name in page.text, name
    assert "</pre><script>alert(5)</script>" in page.text
    assert "\x1b" not in page.text and "\u202e" not in page.text
    assert "\\x1b[31mred\\u202e" in page.text


def test_nothing_is_loaded_and_nothing_can_run(page, source):
    for attributes in page.all("img"):
        assert attributes["src"].startswith("data:image/jpeg;base64,")
    for attributes in page.all("a"):
        assert re.fullmatch(r"#[\w-]+", attributes["href"])
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert "script-src" not in rules
    style = source[source.index("<style>") + len("<style>") : source.index("</style>")]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert rules["style-src"] == f"'sha256-{digest}'"
    assert "prefers-color-scheme: dark" in style
    assert not re.search(r"url\(|@import|https?:", style)
    assert any(m.get("name") == "viewport" for m in page.all("meta"))


def test_contact_sheets_hold_the_frames_and_name_what_is_missing(page, found):
    pictures = page.all("img")
    shown = [sheet for sheet in (*found.best, *found.worst) if sheet.frames is not None]
    assert len(pictures) == sum(len(sheet.frames) for sheet in shown)
    data = base64.b64decode(pictures[0]["src"].split(",", 1)[1])
    pixels = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    assert np.abs(pixels - found.best[0].frames[0]).mean() < 4
    assert "Cannot be shown: " in page.text
    assert f"cosine {found.worst[0].cosine:.2f}" in page.text


def test_tables_say_what_was_measured(page, found):
    text = " ".join(page.text.split())
    whole = found.result.all_classes
    assert f"{100 * whole.top1:.1f} %" in text
    assert f"chance {100 / 3:.1f} % · control 31.0 %" in text
    assert "2 + 3 50.0 % 50.0 % 50.0 % – – 0.400 25.0 %" in text
    for row in found.result.per_class:
        assert f"{100 * row.top1:.1f} %" in text
    for near in found.nearest_seen:
        assert f"{near.distance:.3f}" in text
    assert "train <config>" in text
    assert "torch 2.0" in text


def test_a_page_without_extras_and_with_many_classes(tmp_path):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(120, 16, generator=generator)
    labels = torch.randint(0, 119, (400,), generator=generator)  # class 119 has no video
    names = [f"class {i}" for i in range(120)]
    result = evaluate_embeddings(
        "many", vectors[labels] + torch.randn(400, 16, generator=generator), labels, names, vectors
    )
    path = tmp_path / "new" / "report.html"
    write_page(Report("many", [], [Findings(result, (), "no words", (), (), None)], 0.05), path)
    page = Page(path.read_text(encoding="utf-8"))
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    assert "No distances to seen classes: no words" in page.text
    assert "Provenance" not in page.text
    cells = [r for r in page.all("rect") if (r.get("class") or "").startswith("cell")]
    assert len(cells) == (result.confusion > 0).sum()
    assert "class 119" in page.text
    (whole,) = [svg for svg in page.all("svg") if svg.get("class") == "whole"]
    assert (
        int(whole["width"]) < 800
        and "max-width: 716px" in re.search(r"^\.whole \{[^}]*\}", page_css(), re.MULTILINE)[0]
    )
    assert min(float(cell["width"]) for cell in cells) >= 4  # seen, however many classes there are


def test_the_most_frequent_confusions_of_many_classes_are_named():
    vectors = torch.eye(61)
    taken = [1, 1, 1, 3, 3, *range(61)]  # 0 for 1 three times of four, 2 for 3 two times of three
    labels = torch.tensor([0, 0, 0, 2, 2, *range(61)])
    for count, is_listed in ((61, True), (60, False)):
        kept = (labels < count) & (torch.tensor(taken) < count)
        names = [f"class {i}" for i in range(count)]
        result = evaluate_embeddings(
            "x", vectors[:count, :count][torch.tensor(taken)[kept]], labels[kept], names, vectors[:count, :count]
        )
        page = Page(render(Report("x", [], [Findings(result, (), "", (), (), None)], 0.05)))
        text = " ".join(page.text.split())
        assert (
            "true class taken for videos class 0 class 1 3 of 4 class 2 class 3 2 of 3 All 61 classes" in text
        ) == is_listed
        assert any(svg.get("class") == "whole" for svg in page.all("svg")) == is_listed
        assert (
            bool([t for t in page.all("text") if t.get("text-anchor") == "end"]) != is_listed
        )  # names beside the rows


def test_the_page_tells_how_many_halves_had_videos(tmp_path):
    labels, vectors = torch.zeros(6, dtype=torch.int64), torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    result = evaluate_embeddings("one", torch.ones(6, 5), labels, [f"c{i}" for i in range(8)], vectors)
    count = len(result.half_classes.splits)
    text = Page(render(Report("one", [], [Findings(result, (), "", (), (), None)], 0.05))).text
    assert 0 < count < 10 and f"{count} random halves" in text and "ten random halves" not in text


def test_charts_keep_their_size_on_a_phone_and_ticks_have_a_legend(page):
    css = page_css()
    widths = {svg.get("class"): svg for svg in page.all("svg") if svg.get("width")}
    assert set(widths) == {None, "fluid"}  # the confusion matrix, the other charts: in boxes that scroll
    assert "max-width: 100%" not in re.search(r"^svg \{[^}]*\}", css, re.MULTILINE)[0]
    assert "min-width: 760px" in re.search(r"^\.fluid \{[^}]*\}", css, re.MULTILINE)[0]  # the width that fonts are for
    assert ".scroll { overflow: auto" in css
    assert [meta for meta in page.all("meta") if meta.get("name") == "viewport"] == [
        {"name": "viewport", "content": "width=device-width, initial-scale=1"}
    ]
    ticks = {line["class"].strip() for line in page.all("line") if line["class"].startswith("tick")}
    legend = [svg for svg in page.all("svg") if svg.get("class") == "key"]
    assert "tick" in ticks and len(legend) >= 2  # beside the word "chance": above the table, and in the card
    sizes = [float(size) for size in re.findall(r"(?:font-size|font): ?([\d.]+)px", css)]
    assert min(sizes) >= 11 and len(sizes) > 10


def page_css() -> str:
    return Path(html_page.__file__).with_name("page.css").read_text(encoding="utf-8")


def test_a_chart_leaves_room_for_wide_signs():
    vectors = torch.eye(2)
    result = evaluate_embeddings("w", vectors, torch.arange(2), ["滑雪滑雪滑雪滑雪", "run"], vectors)
    assert charts.confusion_chart(result).left >= 8 * 12


def test_each_class_has_a_colour_of_its_own():
    for count in (1, 12, 13, 101):
        colors = charts.class_colors(count)
        assert len(set(colors)) == count
        assert all(re.fullmatch(r"#[0-9a-f]{6}", color) for color in colors)
