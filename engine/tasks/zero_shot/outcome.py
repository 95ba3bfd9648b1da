"""What a finished zero-shot run reached: the best checkpoint evaluated, results.json, tables, pictures, report.html,
closing table."""

import dataclasses
import json
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine import pictures
from engine.checkpoint import checkpoint_file
from engine.metrics import ZeroShotResult
from engine.result_tables import write_tables
from engine.run import Run
from engine.schema import to_tree
from engine.tables import format_table
from engine.tasks.zero_shot.measuring import evaluate_set, inference
from engine.tasks.zero_shot.sets import Sets
from engine.telemetry import Telemetry, escaped
from engine.visual_report.board import show_findings
from engine.visual_report.findings import find
from engine.visual_report.page import Report, write_page
from engine.visual_report.run_folder import read_run_facts


@dataclass(frozen=True)
class Outcome:
    """What a finished run reached, with its best checkpoint.

    seen: accuracy on held-out videos of the training classes, among all training classes; None if none were held out.
    tests: one result per test set of unseen classes.
    examples: some test videos with what the model says of them.
    page: what report.html will tell; None on other ranks, or if `log.report` is off.
    num_snippets: that each video was embedded by.
    clips_per_second: median over the logged steps of this process, 0 if it trained nothing (already finished).
    """

    folder: Path
    embed_dim: int
    seen: ZeroShotResult | None
    tests: dict[str, ZeroShotResult]
    examples: list[pictures.Strip]
    num_snippets: int
    clips_per_second: float
    page: Report | None = None


def conclude(run: Run, sets: Sets, prior_classes: Sequence[str], telemetry: Telemetry) -> Outcome:
    """Evaluate the best checkpoint with all snippets; write results.json, pictures and TensorBoard's hparams."""
    decoder = sets.decoding.open(run.config.evaluate.batch_size)
    how = inference(run, run.config.evaluate.num_snippets)
    try:
        seen = evaluate_set(run, sets.held_out_videos, decoder, how) if sets.held_out_videos else None
        tests = {test.data.name: evaluate_set(run, test, decoder, how) for test in sets.tests}
        examples = []
        if run.ranks.is_main and sets.tests:
            first = sets.tests[0].data
            examples = pictures.example_strips(first, tests[first.name], decoder, how.clip)
    finally:
        decoder.close()
    speed = statistics.median(telemetry.clips_per_second) if telemetry.clips_per_second else 0.0
    outcome = Outcome(run.folder, sets.classes.dim, seen, tests, examples, how.num_snippets, speed)
    if run.ranks.is_main:
        _write(run, sets, outcome, telemetry)
        if run.config.log.report and sets.tests:
            page = _look(run, sets, prior_classes, outcome, telemetry)
            outcome = dataclasses.replace(outcome, page=page)
    return outcome


def _look(run: Run, sets: Sets, prior_classes: Sequence[str], outcome: Outcome, telemetry: Telemetry) -> Report:
    """Look closer at the results, for TensorBoard now and for report.html once the control is trained."""
    overlap, results = run.config.train.exclude_overlap, list(outcome.tests.values())
    known = [("training", sets.train.classes), ("pretrained weights", prior_classes)]
    vectors = [test.classes for test in sets.tests]
    found = find([test.data for test in sets.tests], results, vectors, known, overlap.words or sets.words)
    if telemetry.writer is not None:
        show_findings(found, telemetry.writer, run.step)
    facts = [
        ("checkpoint", f"{checkpoint_file(run.folder).name}, step {run.best['step']}, chosen by {run.best['metric']}"),
        ("snippets of a video", str(run.config.evaluate.num_snippets)),
        ("class vectors", sets.classes.description),
    ]
    return Report(str(run.folder), facts, found, overlap.tau, outcome.seen)


def _write(run: Run, sets: Sets, outcome: Outcome, telemetry: Telemetry) -> None:
    content = {
        "checkpoint": str(checkpoint_file(run.folder).relative_to(run.folder)),
        "best": run.best,
        "clips_per_second": outcome.clips_per_second,
        "num_snippets": run.config.evaluate.num_snippets,
        "class_vectors": sets.classes.description,
        "seen": outcome.seen.to_dict() if outcome.seen else None,
        "tests": {name: result.to_dict() for name, result in outcome.tests.items()},
    }
    (run.folder / "results.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for test, (name, result) in zip(sets.tests, outcome.tests.items(), strict=True):
        write_tables(run.folder, result, test.data)
        figure = pictures.confusion_figure(result)
        pictures.save_figure(figure, run.folder / f"confusion_{pictures.file_name(name)}.png")
        if telemetry.writer is not None:
            telemetry.writer.add_image(
                f"confusion/{escaped(name)}", pictures.figure_array(figure), run.step, dataformats="HWC"
            )
    if telemetry.writer is not None:
        metrics = {f"final/{escaped(name)}_top1": result.all_classes.top1 for name, result in outcome.tests.items()}
        if outcome.seen is not None:
            metrics["final/seen_top1"] = outcome.seen.all_classes.top1
        telemetry.writer.add_hparams(_flat(to_tree(run.config)), metrics, run_name=".")


def _flat(tree: dict[str, dict[str, object]]) -> dict[str, bool | str | float]:
    """Single values of the sections that are hyper-parameters, by dotted name."""
    flat: dict[str, bool | str | float] = {}
    for section in ("run", "clip", "model", "words", "loss", "train"):
        for key, value in tree[section].items():
            flat[f"{section}.{key}"] = value if isinstance(value, bool | int | float) else escaped(str(value))
    return flat


def show(outcome: Outcome, control: Outcome | None) -> None:
    """The closing table: seen and unseen accuracy beside chance and control, speed, and where things lie."""
    rows = []
    if outcome.seen is not None:
        rows.append(["seen classes, new videos", *_numbers(outcome.seen, control.seen if control else None)])
    for name, result in outcome.tests.items():
        rows.append([f"UNSEEN classes ({name})", *_numbers(result, control.tests[name] if control else None)])
    print("\n" + format_table(["top-1 accuracy", "classes", "videos", "model", "chance", "control"], rows))
    if control is not None:
        print("control: the same network trained towards random class vectors, which say nothing of an unseen class")
    picture = outcome.folder / "result.png"
    pictures.save_figure(pictures.result_page(_title(outcome), outcome.examples, _bars(outcome, control)), picture)
    if outcome.page is not None:
        facts = read_run_facts(checkpoint_file(outcome.folder), list(outcome.tests.values()), outcome.num_snippets)
        write_page(dataclasses.replace(outcome.page, run=facts), outcome.folder / "report.html")
    folder = shlex.quote(str(outcome.folder))  # these two are to be copied to a command line
    places = [
        ["training speed", f"{outcome.clips_per_second:.1f} clips/s" if outcome.clips_per_second else "trained before"],
        ["checkpoint", checkpoint_file(outcome.folder)],
        ["TensorBoard", f"tensorboard --logdir {folder}"],
        ["results", outcome.folder / "results.json"],
        ["picture", picture],
        *([["report", outcome.folder / "report.html"]] if outcome.page else []),
        ["your own video", f'python tools/predict.py VIDEO --model {folder} --classes "one, another"'],
    ]
    print("\n" + format_table(["what", "where"], places), flush=True)


def _numbers(result: ZeroShotResult, control: ZeroShotResult | None) -> list[object]:
    accuracy = result.all_classes
    beside = f"{control.all_classes.top1:.3f}" if control else "-"
    return [accuracy.num_classes, accuracy.num_videos, accuracy.top1, accuracy.chance_top1, beside]


def _title(outcome: Outcome) -> str:
    if not outcome.tests:
        return "No test set was named (data.tests)"
    accuracy = next(iter(outcome.tests.values())).all_classes
    return f"{accuracy.num_classes} classes the network never saw: top-1 {accuracy.top1:.0%} (chance {accuracy.chance_top1:.0%})"


def _bars(outcome: Outcome, control: Outcome | None) -> list[pictures.Bar]:
    bars = []
    for name, result in outcome.tests.items():
        bars.append(pictures.Bar(f"{name}", result.all_classes.top1))
        if control is not None:
            bars.append(pictures.Bar("control", control.tests[name].all_classes.top1, color=pictures.OTHER))
        bars.append(pictures.Bar("chance", result.all_classes.chance_top1, color=pictures.NEUTRAL))
    if outcome.seen is not None:
        bars.append(pictures.Bar("seen classes", outcome.seen.all_classes.top1))
    return bars
