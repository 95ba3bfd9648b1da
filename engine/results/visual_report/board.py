"""The findings in TensorBoard: the same pictures as on the page, and the classes as a table of text.

TensorBoard renders the text tab as Markdown and HTML. Names go there as character references, which mean themselves
in both: no name can become a link, a picture, a cell border or a tag.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from engine.results.figures import figure_array
from engine.results.record import EVENTS
from engine.results.scripts import drawable
from engine.results.table import Table
from engine.results.visual_report.charts import distance_chart, plane_chart
from engine.results.visual_report.figures import contact_sheet_figure, distance_figure, plane_figure
from engine.results.visual_report.findings import Findings
from engine.terminal.screen import plain
from engine.training.telemetry import escaped


def board_writer(folder: Path) -> SummaryWriter:
    """Writes an event file of its own into `folder`/tensorboard, which goes when the evaluation in `folder` is replaced."""
    return SummaryWriter(str(folder / "tensorboard"), filename_suffix=EVENTS)


def show_results(
    confusions: Mapping[str, np.ndarray], findings: Sequence[Findings], writer: SummaryWriter, step: int
) -> None:
    """The confusion matrix of each test set by name, in pixels [H, W, 3], and what a closer look has found."""
    for name, pixels in confusions.items():
        writer.add_image(f"confusion/{escaped(name)}", pixels, step, dataformats="HWC")
    show_findings(findings, writer, step)


def show_settings(
    settings: Mapping[str, bool | str | float], metrics: Mapping[str, float], writer: SummaryWriter
) -> None:
    """TensorBoard's hparams; `add_hparams` would write them into a file that nobody could tell from the training's."""
    for summary in hparams(dict(settings), dict(metrics)):
        writer.file_writer.add_summary(summary)
    for name, value in metrics.items():
        writer.add_scalar(name, value)


def show_findings(findings: Sequence[Findings], writer: SummaryWriter, step: int) -> None:
    """Contact sheets, t-SNE and distances of each test set, as of `step`."""
    for found in findings:
        name = escaped(found.result.name)
        figures = {}
        if found.best:
            figures["best_videos"] = contact_sheet_figure(found.best)
        if found.worst:
            figures["worst_videos"] = contact_sheet_figure(found.worst)
        if found.plane is not None:
            figures["tsne"] = plane_figure(plane_chart(found.result, found.plane, drawable))
        distances = distance_chart(found, drawable)
        if distances is not None:
            figures["nearest_seen_class"] = distance_figure(distances)
        for kind, figure in figures.items():
            writer.add_image(f"{kind}/{name}", figure_array(figure), step, dataformats="HWC")
        writer.add_text(f"classes/{name}", class_markdown(found), step)


def class_markdown(findings: Findings) -> str:
    """A Markdown table: each class with its accuracy and, where known, its nearest seen class."""
    nearest = findings.nearest_seen or (None,) * len(findings.result.classes)
    header = ["class", "videos", "top-1", "most often taken for", "nearest seen class", "distance"]
    rows = []
    for row, near in zip(findings.result.per_class, nearest, strict=True):
        top1 = f"{row.top1:.3f}" if row.num_videos else "–"
        beside = (as_markdown(near.name), f"{near.distance:.3f}") if near else ("–", "–")
        rows.append([as_markdown(row.name), row.num_videos, top1, as_markdown(row.confused_with) or "–", *beside])
    return Table(header, rows).markdown()


def as_markdown(text: str) -> str:
    """Text that Markdown and HTML show as it is: all but letters, digits and spaces as character references."""
    return "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in plain(text).replace("\n", "\\n"))
