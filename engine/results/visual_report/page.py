"""The report as one HTML file, see `html_page`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.sets.sources import DataSet
from engine.evaluation.generalised import GeneralisedResult
from engine.results.accuracy import SetResult, percent
from engine.results.html_page import render_page, write_html
from engine.results.record import Results
from engine.results.table import Table
from engine.results.visual_report import charts
from engine.results.visual_report.findings import Findings, find
from engine.results.visual_report.run_folder import RunFacts
from engine.semantics.class_lists import NamedClasses
from engine.semantics.config import OverlapConfig
from engine.semantics.embeddings import ClassEmbeddings
from engine.semantics.overlap import Words

_TEMPLATE = Path(__file__).parent / "page.html"
_MANY = 30  # classes from which on the table is folded
_CONFUSIONS = 20  # that are listed, where the matrix has no names


@dataclass(frozen=True, slots=True)
class Report:
    """What the page tells.

    title: of the run. facts: (what, value) of the evaluated checkpoint, under the title.
    seen: accuracy on held-out videos of the training classes, where it was measured.
    tau: distance up to which two class names are one class. run: what the run's folder tells.
    warnings: what a reader must know before the numbers. pretrained: of a model that was not trained here: the classes that its
    weights had seen.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    findings: Sequence[Findings]
    tau: float
    seen: SetResult | None = None
    generalised: Sequence[GeneralisedResult] = ()
    run: RunFacts = field(default_factory=RunFacts)
    warnings: Sequence[str] = ()
    pretrained: Table | None = None


def look(
    title: str,
    results: Results,
    datasets: Sequence[DataSet],
    classes: Sequence[ClassEmbeddings],
    known: Sequence[NamedClasses],
    overlap: OverlapConfig,
    words: Words,
    generalised: Sequence[GeneralisedResult] = (),
    pretrained: Table | None = None,
) -> Report:
    """Look closer at results, which takes a while (see `find`); what their run's folder tells is not in it yet.

    Args:
        results: with the single videos (`ZeroShotResult`).
        datasets, classes: the test sets of `results` and their class vectors, in that order.
        known: sets of classes that the model was trained or pretrained on. words: the run's.
        pretrained: as `find` takes it.
    """
    best = results.best
    checkpoint, more = results.checkpoint, f"epoch {results.epoch}"
    if best is not None:
        checkpoint, more = Path(checkpoint).name, f"chosen by {best['metric']}"
    facts = [
        ("checkpoint", f"{checkpoint}, step {results.step}, {more}"),
        ("snippets of a video", str(results.num_snippets)),
        ("class vectors", results.class_vectors),
    ]
    tests = list(results.tests.values())
    found = find(datasets, tests, classes, known, overlap.words or words, pretrained)
    warnings = _warnings(found, pretrained is not None)
    return Report(title, facts, found, overlap.tau, results.seen, generalised, warnings=warnings, pretrained=pretrained)


def _warnings(found: Sequence[Findings], is_untrained: bool) -> list[str]:
    lines = ["Without training, not the paper's protocol."] if is_untrained else []
    for each in found:
        name, videos, own = each.result.name, each.result.trained_videos, each.result.own_unlabelled
        if each.result.seen_classes:
            lines.append(f"Not unseen in {name}, {each.seen_told}: {', '.join(each.result.seen_classes)}.")
        if videos:
            some = ", ".join(videos[:3]) + ", ..." * (len(videos) > 3)
            lines.append(f"{len(videos)} videos of {name} were trained on, by their contents: {some}.")
        if own:
            lines.append(
                f"Transductive, not the paper's protocol: scores are standardised over {own} videos of {name} itself."
            )
    return lines


def write_page(report: Report, path: Path) -> None:
    """Write the page to `path`, complete or not at all."""
    write_html(render(report), path)


def render(report: Report) -> str:
    """The page as text."""
    filters = {
        "percent": lambda share: f"{percent(share)} %",
        "sorted_classes": _sorted_classes,
        "confusions": _confusions,
    }
    return render_page(_TEMPLATE, filters, report=report, charts=charts, many=_MANY, shown=_CONFUSIONS)


def _sorted_classes(findings: Findings) -> list[dict[str, Any]]:
    """A row of the table of classes for each class, best first, those without videos last."""
    nearest = findings.nearest_seen or (None,) * len(findings.result.classes)
    rows = [{"row": row, "near": near} for row, near in zip(findings.result.per_class, nearest, strict=True)]
    return sorted(rows, key=lambda r: (r["row"].num_videos == 0, -r["row"].top1 if r["row"].num_videos else 0))


def _confusions(result: SetResult) -> list[dict[str, Any]]:
    """Each pair of a true class and another that some of its videos were taken for: most videos first, then most of its own."""
    counts, names = result.confusion, [row.name for row in result.per_class]
    videos = counts.sum(axis=1)
    pairs = [(true, other) for true, other in np.argwhere(counts).tolist() if true != other]
    pairs.sort(key=lambda pair: (-counts[pair], -counts[pair] / videos[pair[0]]))
    return [
        {"true": names[true], "predicted": names[other], "count": counts[true, other], "videos": videos[true]}
        for true, other in pairs
    ]
