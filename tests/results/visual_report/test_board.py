"""The findings in TensorBoard: all pictures are there, and its text tab shows names as they are."""

import html.parser

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html

from engine.results.figures import figure_array
from engine.results.pictures import confusion_figure
from engine.results.visual_report.board import as_markdown, board_writer, class_markdown, show_results
from tests.results.visual_report.conftest import PLAIN, QUOTES, SCRIPT


def test_all_pictures_and_the_table_are_shown(found, tmp_path):
    confusion = figure_array(confusion_figure(found.result))
    with board_writer(tmp_path) as writer:
        show_results({found.result.name: confusion}, [found], writer, step=7)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    name = "test &lt;i&gt;set&lt;/i&gt;"
    kinds = ("confusion", "best_videos", "worst_videos", "tsne", "nearest_seen_class")
    assert set(board.Tags()["images"]) == {f"{kind}/{name}" for kind in kinds}
    for tag in board.Tags()["images"]:
        (image,) = board.Images(tag)
        assert image.step == 7
        assert image.width > 300 and image.height > 150
    (tag,) = board.Tags()["tensors"]
    (text,) = board.Tensors(tag)
    assert class_markdown(found).encode() in text.tensor_proto.string_val


class Rendered(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, attrs))

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize(
    "name",
    [
        SCRIPT, QUOTES, "![](http://example.org/x.png)", "[a](http://example.org)", "<http://example.org>", "`code` *b* _i_",
        "# title", "- item", "a | b", "1. one", "&lt;b&gt;", "http://example.org", "two\nlines", "ünïcode 名前",
    ],
)  # fmt: skip
def test_a_name_is_shown_as_it_is_and_makes_no_element(name):
    shown = Rendered(markdown_to_safe_html(f"| class |\n|---|\n| {as_markdown(name)} |"))
    assert {tag for tag, _ in shown.tags} == {"table", "thead", "tbody", "tr", "th", "td"}
    assert name.replace("\n", "\\n") in shown.text
    assert len([tag for tag, _ in shown.tags if tag == "td"]) == 1


def test_the_table_has_a_row_for_each_class(found):
    shown = Rendered(markdown_to_safe_html(class_markdown(found)))
    assert len([tag for tag, _ in shown.tags if tag == "tr"]) == 1 + len(found.result.classes)
    assert len([tag for tag, _ in shown.tags if tag == "td"]) == 6 * len(found.result.classes)
    for name in (SCRIPT, QUOTES, PLAIN, "other <u>"):
        assert name in shown.text
