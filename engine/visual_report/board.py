"""The findings in TensorBoard: the same pictures as on the page, and the classes as a table of text.

TensorBoard renders the text tab as Markdown and HTML. Names go there as character references, which mean themselves
in both: no name can become a link, a picture, a cell border or a tag.
"""

from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from engine.results.figures import figure_array
from engine.results.pictures import confusion_figure
from engine.results.table import Table
from engine.telemetry import escaped, plain
from engine.visual_report.charts import distance_chart, plane_chart
from engine.visual_report.figures import contact_sheet_figure, distance_figure, plane_figure
from engine.visual_report.findings import Findings


def write_board(findings: Sequence[Findings], folder: Path, step: int) -> None:
    """Write an event file into `folder`: the findings, and the confusion matrices, which training shows in any case."""
    writer = SummaryWriter(str(folder))
    try:
        for found in findings:
            pixels = figure_array(confusion_figure(found.result))
            writer.add_image(f"confusion/{escaped(found.result.name)}", pixels, step, dataformats="HWC")
        show_findings(findings, writer, step)
    finally:
        writer.close()


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
            figures["tsne"] = plane_figure(plane_chart(found.result, found.plane))
        distances = distance_chart(found)
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
