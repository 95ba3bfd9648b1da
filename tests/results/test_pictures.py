"""Pictures: of a sensible size, showing what they should, for few classes and for many."""

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from engine.data.batch import ClipFormat
from engine.data.pyav.decode import PyAVDecoder
from engine.data.sets.sources import DataSet
from engine.evaluation.embedding import Inference
from engine.evaluation.evaluate import evaluate_source
from engine.evaluation.metrics import ZeroShotResult, evaluate_embeddings
from engine.models.backbone import Backbone
from engine.models.embedder import Embedder
from engine.results import figures, pictures
from engine.semantics.embeddings import ClassEmbeddings
from tests.encoded import manifest_of, write_colors
from tests.results.drawn import UGLY, apart, texts_within


def result_of(num_classes: int, num_videos: int = 200, noise: float = 1.0) -> ZeroShotResult:
    generator = torch.Generator().manual_seed(num_classes)
    vectors = torch.randn(num_classes, 20, generator=generator)
    labels = torch.randint(0, num_classes, (num_videos,), generator=generator)
    embeddings = vectors[labels] + noise * torch.randn(num_videos, 20, generator=generator)
    names = [f"$odd$ class_{c} with a rather long name" for c in range(num_classes)]  # $...$ must not become a formula
    return evaluate_embeddings("test", embeddings, labels, names, vectors)


def share_of(pixels: np.ndarray, color: tuple[int, int, int], tolerance: int = 30) -> float:
    near = np.abs(pixels.astype(int) - color).max(axis=-1) <= tolerance
    return float(near.mean())


@pytest.mark.parametrize("num_classes", [2, 5, 101, 400])
def test_confusion_shows_the_diagonal_and_has_room_for_its_labels(num_classes):
    result = result_of(num_classes, 4 * num_classes, noise=0.0)
    figure = pictures.confusion_figure(result)
    pixels = figures.figure_array(figure)
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    assert 600 <= pixels.shape[0] <= 3000
    axes = figure.axes[0]
    videos = np.maximum(result.confusion.sum(axis=1, keepdims=True), 1)
    assert np.array_equal(axes.images[0].get_array(), result.confusion / videos)
    # Every label is drawn within the picture and none touches the next.
    renderer = figure.canvas.get_renderer()
    boxes = [label.get_window_extent(renderer) for label in axes.get_yticklabels()]
    assert len(boxes) == num_classes if num_classes <= 101 else len(boxes) >= 100
    assert min(box.x0 for box in boxes) >= 0
    centres = [(box.y0 + box.y1) / 2 for box in boxes]
    assert min(np.abs(np.diff(centres))) >= 0.8 * boxes[0].height
    assert (len(axes.texts) > 0) == (num_classes <= 20)  # counts where there is room


def test_class_bars_show_accuracy_and_confusion():
    result = result_of(5, 40, noise=3.0)
    axes = pictures.class_accuracy_figure(result).axes[0]
    shown = {
        label.get_text().rsplit(" (", 1)[0]: bar.get_width()
        for label, bar in zip(axes.get_yticklabels(), axes.patches, strict=True)
    }
    for row in result.per_class:
        name = next(key for key in shown if row.name.startswith(key.rstrip("…")))
        assert shown[name] == pytest.approx(100 * row.top1)
    assert any("taken for" in text.get_text() for text in axes.texts)
    many = figures.figure_array(pictures.class_accuracy_figure(result_of(101)))
    assert many.shape[0] > 2000
    assert pictures.class_accuracy_figure(result_of(700)).get_figheight() > 700 * 0.13  # no name over the next


def test_strips_hold_the_frames_in_order():
    frames = torch.zeros(16, 10, 12, 3, dtype=torch.uint8)
    frames += torch.arange(16, dtype=torch.uint8)[:, None, None, None] * 10
    strip = pictures.clip_strip(frames.numpy(), 4)
    assert strip.shape == (10, 4 * 12 + 3 * 2, 3)
    assert [strip[0, 14 * k, 0] for k in range(4)] == [0, 50, 100, 150]
    assert (strip[:, 12:14] == 255).all()
    assert pictures.clip_strip(frames[:3].numpy(), 8).shape == (10, 3 * 12 + 2 * 2, 3)  # fewer frames than asked


def test_sample_sheet_shows_every_clip(tmp_path):
    frames = torch.zeros(3, 4, 20, 20, 3, dtype=torch.uint8)
    frames[0, ..., 0], frames[1, ..., 1], frames[2, ..., 2] = 250, 250, 250
    figure = pictures.sample_sheet(frames, ["red", "green", "blue"], num_shown=4)
    pixels = figures.figure_array(figure)
    for color in ((250, 0, 0), (0, 250, 0), (0, 0, 250)):
        assert share_of(pixels, color) > 0.1
    figures.save_figure(figure, tmp_path / "new" / "sheet.png")
    assert (tmp_path / "new" / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_result_page_has_strips_and_bars():
    clip = np.full((4, 20, 20, 3), (250, 0, 250), dtype=np.uint8)
    strips = [pictures.Strip(clip, "kayaking", "kayaking", 0.61), pictures.Strip(clip, "kayaking", "surfing", 0.42)]
    bars = [
        figures.Bar("unseen", 0.62, 0.05),
        figures.Bar("control", 0.21, color=figures.OTHER),
        figures.Bar("chance", 0.2, color=figures.NEUTRAL),
    ]
    figure = pictures.result_page("five classes", strips, bars)
    pixels = figures.figure_array(figure)
    assert pixels.shape[1] == 1300
    assert share_of(pixels, (250, 0, 250)) > 0.05
    right, wrong = figure.subfigs[0].axes
    assert right.get_title(loc="left") == "kayaking  (cosine 0.61), right"
    assert wrong.get_title(loc="left") == "surfing  (cosine 0.42), wrong: it is kayaking"
    chart = figure.subfigs[1].axes[0]
    assert [bar.get_height() for bar in chart.patches] == pytest.approx([62, 21, 20])
    assert {"62.0 %", "21.0 %", "20.0 %"} <= {text.get_text() for text in chart.texts}
    assert figures.figure_array(pictures.result_page("no videos", [], bars)).std() > 0


@pytest.mark.parametrize("num_bars", [1, 12])
@pytest.mark.parametrize("num_strips", [0, 3])
def test_result_page_of_ugly_names_has_all_texts_within_and_apart(num_bars, num_strips):
    clip = np.random.default_rng(0).integers(0, 255, (6, 40, 40, 3), dtype=np.uint8)
    strips = [pictures.Strip(clip, UGLY[i], UGLY[i + 3], 0.5) for i in range(num_strips)]
    bars = [figures.Bar(f"{UGLY[i % 8]} {i}", (i + 1) / 12, 0.03) for i in range(num_bars)]
    figure = pictures.result_page("a title that is too long for one line, " * 6, strips, bars)
    texts_within(figure)
    chart = (figure.subfigs[1] if strips else figure).axes[0]
    apart(chart.get_xticklabels(), figure)
    apart(chart.texts, figure)
    assert chart.get_ylim()[0] == 0


def test_nothing_to_show_is_said():
    assert "nothing was measured" in {text.get_text() for text in pictures.result_page("none", [], []).findobj(Text)}
    figure = pictures.overlap_figure([], 0.05)
    assert "no training class was compared with a test class" in {text.get_text() for text in figure.findobj(Text)}


@pytest.mark.parametrize("num_classes", [1, 2, 16])
def test_confusion_and_class_bars_of_ugly_names(num_classes):
    names = [UGLY[i % 8] + f" {i}" * (i > 7) for i in range(num_classes)]
    vectors = torch.eye(num_classes)
    labels = torch.arange(4 * num_classes) % num_classes
    embeddings = vectors[(labels + (torch.arange(len(labels)) % 3 == 0)) % num_classes]
    result = evaluate_embeddings("滑雪 " * 30, embeddings, labels, names, vectors)
    texts_within(pictures.confusion_figure(result))
    bars = pictures.class_accuracy_figure(result)
    texts_within(bars)
    apart(bars.axes[0].texts or bars.axes[0].get_yticklabels(), bars)
    assert bars.axes[0].get_xlim()[0] == 0


class Colour(Backbone):
    feature_dim = 3

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return clips.mean(dim=(2, 3, 4))


def test_examples_take_each_class_in_turn_and_say_what_was_predicted(tmp_path):
    colors = {"a": (230, 20, 20), "b": (20, 230, 20), "c": (20, 20, 230)}
    videos = [("a/0.mp4", "a"), ("a/1.mp4", "a"), ("a/2.mp4", "a"), ("b/0.mp4", "b"), ("c/0.mp4", "c")]
    for path, name in videos:
        write_colors(tmp_path / path, [colors[name]] * 6)
    manifest = manifest_of(tmp_path, [(path, name, 6) for path, name in videos])
    clip = ClipFormat(num_frames=4, short_side=32, crop=32)
    decoder = PyAVDecoder(clip, torch.device("cpu"), 1)
    model = Embedder(Colour(), embed_dim=3)
    with torch.no_grad():
        model.linear.weight.copy_(torch.eye(3))
        model.linear.bias.zero_()
    classes = ClassEmbeddings(("a", "b", "c"), torch.eye(3), "axes", ())
    how = Inference(clip, num_snippets=2, batch_size=4, device=torch.device("cpu"), progress=False)
    result = evaluate_source(model, DataSet("colours", manifest), classes, decoder, how)
    strips = pictures.example_strips(DataSet("colours", manifest), result, decoder, clip, count=4)
    decoder.close()
    assert [strip.true for strip in strips] == ["a", "b", "c", "a"]
    assert [strip.predicted for strip in strips] == ["a", "b", "c", "a"]
    for strip in strips:
        assert strip.frames.shape == (4, 32, 32, 3)
        assert strip.frames.mean(axis=(0, 1, 2)).argmax() == "abc".index(strip.true)
        assert 0.5 < strip.cosine <= 1.0001
