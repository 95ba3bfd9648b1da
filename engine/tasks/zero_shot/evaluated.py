"""What tools/evaluate.py tells and writes of the test sets that it has measured."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from engine.data.config import file_name
from engine.data.sets.sources import DataSet
from engine.evaluation.generalised import GeneralisedResult, generalised_table
from engine.evaluation.metrics import ZeroShotResult
from engine.results import pictures
from engine.results.figures import save_figure
from engine.results.record import Results
from engine.results.table import Table
from engine.results.tables import accuracy_table, class_table, write_set
from engine.results.visual_report.board import board_writer, show_results
from engine.results.visual_report.page import look, write_page
from engine.results.visual_report.run_folder import read_run_facts
from engine.semantics.embeddings import ClassEmbeddings
from engine.tasks.zero_shot.known import Known
from engine.tasks.zero_shot.trained import LoadedModel
from engine.terminal.screen import plain

_SHOWN_CLASSES = 25  # longer per-class tables are only written, not printed


def tell(results: Sequence[ZeroShotResult], general: Sequence[GeneralisedResult], before: str | None) -> None:
    """The tables, for people. before: of a model that was not trained, the classes that its weights had seen."""
    if before is not None:
        print("\nWITHOUT TRAINING, not the paper's protocol:")
    if any(result.is_named_together for result in results):
        print("\nTRANSDUCTIVE, the videos of a test named together, not the paper's protocol:")
    if own := [result.name for result in results if result.own_unlabelled]:
        print(
            f"\nTRANSDUCTIVE, scores standardised over videos of the test itself, not the paper's protocol: {', '.join(own)}"
        )
    tables = [accuracy_table(results), *([generalised_table(general)] if general else [])]
    tables += [class_table(result) for result in results if len(result.classes) <= _SHOWN_CLASSES]
    for table in tables:
        print("\n" + table.text(), flush=True)
    if before is not None:
        print("\n" + before, flush=True)


def warn_of_failures(result: ZeroShotResult) -> None:
    """Say on stderr which videos were left out."""
    if result.failures:
        total = result.all_classes.num_videos + len(result.failures)
        print(f"warning: '{result.name}': {len(result.failures)} of {total} videos could not be decoded and are in no "
              "number:", file=sys.stderr)  # fmt: skip
        for failure in result.failures[:10]:
            print(plain(f"  {failure.path}: {failure.reason}"), file=sys.stderr)
        if len(result.failures) > 10:
            print(f"  and {len(result.failures) - 10} more, all in results.json", file=sys.stderr)


def write(out: Path, results: Sequence[ZeroShotResult], datasets: Sequence[DataSet]) -> dict[str, np.ndarray]:
    """For each test set two pictures and two tables, in the folder `out`; returns its confusion matrix, as `write_set` does."""
    confusions = {}
    for result, dataset in zip(results, datasets, strict=True):
        confusions[result.name] = write_set(out, result, dataset)
        save_figure(pictures.class_accuracy_figure(result), out / f"classes_{file_name(result.name)}.png")
    return confusions


def write_report(
    out: Path,
    loaded: LoadedModel,
    reached: Results,
    general: Sequence[GeneralisedResult],
    datasets: Sequence[DataSet],
    classes: Sequence[ClassEmbeddings],
    known: Known,
    before: Table | None,
    confusions: Mapping[str, np.ndarray],
) -> None:
    """report.html, and an event file for TensorBoard; looks closer at the results, which takes a while."""
    about = (known.classes, known.overlap, known.words)
    report = look(loaded.config.run.folder, reached, datasets, classes, *about, general, before)
    write_page(dataclasses.replace(report, run=read_run_facts(loaded.path, reached)), out / "report.html")
    with board_writer(out) as writer:
        show_results(confusions, report.findings, writer, loaded.step)
