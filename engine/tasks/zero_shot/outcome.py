"""What a finished zero-shot run reached: the best checkpoint evaluated, results.json, tables, pictures, report.html,
closing table."""

import dataclasses
import shlex
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.data.manifests.contents import digest
from engine.errors import InputError
from engine.processes.distributed import broadcast_from_main
from engine.results import pictures
from engine.results.accuracy import BESIDE_CONTROL, beside_control, percent
from engine.results.figures import NEUTRAL, OTHER, Bar, save_figure
from engine.results.labels import short
from engine.results.record import FILE, Results, read_results, replacing
from engine.results.table import Table
from engine.results.tables import write_set
from engine.results.visual_report.board import board_writer, show_results, show_settings
from engine.results.visual_report.page import Report, look, write_page
from engine.results.visual_report.run_folder import read_run_facts
from engine.schema.parser import to_tree
from engine.tasks.zero_shot.known import Known, not_unseen
from engine.tasks.zero_shot.measuring import NEWEST, evaluate_set, inference
from engine.tasks.zero_shot.rehearsal import NO_TEST, NOTHING_HELD_OUT
from engine.tasks.zero_shot.sets import Sets
from engine.terminal.called import as_called
from engine.training.checkpoint import checkpoint_file
from engine.training.run import Run
from engine.training.step import warmup_steps
from engine.training.telemetry import Telemetry, duration, escaped


@dataclass(frozen=True)
class Outcome:
    """What a finished run reached, with its best checkpoint.

    results: as results.json has it. is_recorded: it was there already, with all that belongs to it.
    examples: some test videos with what the model says of them.
    page: what report.html will tell; None on other ranks, or if `log.report` is off.
    control_s: seconds that the training of its control will take; None if there is none, or it is not known.
    is_short: its training has too few steps for its speed to be measured.
    """

    folder: Path
    embed_dim: int
    results: Results
    is_recorded: bool = False
    examples: list[pictures.Strip] = field(default_factory=list)
    page: Report | None = None
    control_s: float | None = None
    is_short: bool = False


def recorded(run: Run, sets: Sets) -> Outcome | None:
    """What an earlier start has concluded of this very evaluation, if all of it is there. Collective.

    The record says what it is of (`_facts`), and its test sets which classes and how many videos they have.
    """
    found = None
    if run.ranks.is_main:
        config, older = run.config, _older(run)
        wanted = ["report.html"] if config.log.report and sets.tests else []
        wanted += [f"control/{FILE}"] if config.run.control else []
        is_whole = all((run.folder / name).is_file() for name in wanted)
        if older is not None and is_whole and _is_of(older, run, sets):
            found = Outcome(run.folder, sets.classes.dim, older, is_recorded=True, is_short=_is_short(run))
    return broadcast_from_main(found)


def _older(run: Run) -> Results | None:
    try:
        return read_results(run.folder)
    except InputError:
        return None


def _is_of(older: Results, run: Run, sets: Sets) -> bool:
    """Whether a record is of what would be evaluated now; what an older version did not record is not asked for."""
    alike = all(getattr(older, name) in (value, None) for name, value in _facts(run, sets).items())
    ours = [(test.data.name, len(test.data.manifest), tuple(test.classes.names)) for test in sets.tests]
    theirs = [
        (name, test.all_classes.num_videos + len(test.failures), tuple(row.name for row in test.per_class))
        for name, test in older.tests.items()
    ]
    contents = [
        (test.contents, digest(each.data.manifest))
        for test, each in zip(older.tests.values(), sets.tests, strict=False)
    ]
    return alike and ours == theirs and all(then in (now, None) for then, now in contents)


def _facts(run: Run, sets: Sets) -> dict[str, Any]:
    """What is evaluated, and how: these fields of `Results`."""
    samples = run.best["step"] * run.config.train.batch_size
    return {
        "checkpoint": str(checkpoint_file(run.folder).relative_to(run.folder)),
        "step": run.best["step"],
        "epoch": samples // run.epoch_size,
        "best": run.best,
        "trained_steps": run.step,
        "num_snippets": run.config.evaluate.num_snippets,
        "class_vectors": sets.classes.description,
        "decoder": sets.decoding.choice.name,
        "precision": str(run.precision.compute).removeprefix("torch."),
        "weights": run.config.evaluate.weights,
    }


def conclude(run: Run, sets: Sets, known: Known, telemetry: Telemetry) -> Outcome:
    """Evaluate the best checkpoint with all snippets; write results.json, tables, pictures and what TensorBoard shows."""
    decoder = sets.decoding.open(run.config.evaluate.batch_size)
    how = inference(run, run.config.evaluate.num_snippets)
    try:
        seen = evaluate_set(run, sets.held_out_videos, decoder, how) if sets.held_out_videos else None
        tests = {
            test.data.name: known.look(test.data).mark(evaluate_set(run, test, decoder, how)) for test in sets.tests
        }
        examples = []
        if run.ranks.is_main and sets.tests:
            first = sets.tests[0].data
            examples = pictures.example_strips(first, tests[first.name], decoder, how.clip)
    finally:
        decoder.close()
    speed = statistics.median(telemetry.clips_per_second) if telemetry.clips_per_second else _speed_before(run)
    results = Results(**_facts(run, sets), clips_per_second=speed, seen=seen, tests=tests)
    page = _write(run, sets, known, results) if run.ranks.is_main else None
    samples = run.total_steps * run.config.train.batch_size
    control_s = samples / speed if speed and run.config.run.control else None
    return Outcome(
        run.folder,
        sets.classes.dim,
        results,
        examples=examples,
        page=page,
        control_s=control_s,
        is_short=_is_short(run),
    )


def _is_short(run: Run) -> bool:
    return run.total_steps <= warmup_steps(run.config, run.ranks.device)


def _speed_before(run: Run) -> float:
    """Of the training that an earlier start has done and recorded; 0 where that is not known."""
    older = _older(run)
    is_same = older is not None and older.best == run.best and older.trained_steps in (run.step, None)
    return older.clips_per_second or 0.0 if is_same else 0.0


def _write(run: Run, sets: Sets, known: Known, results: Results) -> Report | None:
    """The record and what lies beside it. Returns what report.html will tell once the control is trained."""
    with replacing(run.folder, results):
        confusions = {
            name: write_set(run.folder, result, test.data)
            for test, (name, result) in zip(sets.tests, results.tests.items(), strict=True)
        }
        page = _look(run, sets, known, results) if run.config.log.report and sets.tests else None
        found = [(escaped(name), test.all_classes) for name, test in results.tests.items()]
        found += [("seen", results.seen.all_classes)] if results.seen is not None else []
        metrics = {f"final/{name}_{of}": getattr(whole, of) for of in ("mean_class", "top1") for name, whole in found}
        with board_writer(run.folder) as writer:
            show_results(confusions, page.findings if page else (), writer, run.step)
            show_settings(_flat(to_tree(run.config)), metrics, writer)
    return page


def _look(run: Run, sets: Sets, known: Known, results: Results) -> Report:
    datasets, classes = [test.data for test in sets.tests], [test.classes for test in sets.tests]
    return look(str(run.folder), results, datasets, classes, known.classes, known.overlap, known.words)


def _flat(tree: dict[str, dict[str, object]]) -> dict[str, bool | str | float]:
    """Single values of the sections that are hyper-parameters, by dotted name."""
    flat: dict[str, bool | str | float] = {}
    for section in ("run", "clip", "model", "words", "loss", "train"):
        for key, value in tree[section].items():
            flat[f"{section}.{key}"] = value if isinstance(value, bool | int | float) else escaped(str(value))
    return flat


def show_before_control(outcome: Outcome) -> None:
    """All that `show` says, and that the control follows; nothing of a run that was finished before."""
    if outcome.is_recorded:
        return
    show(outcome, None)
    needs = f", about {duration(outcome.control_s)} more" if outcome.control_s else ""
    print(
        f"\nthen the control{needs}: the same training towards random class vectors. Ctrl-C loses nothing of the above",
        flush=True,
    )


def show(outcome: Outcome, control: Outcome | None) -> None:
    """Picture and report; then the closing table: seen and unseen accuracy beside chance and control, and where things lie."""
    beside = control.results if control else None
    try:
        _draw(outcome, beside)
    finally:  # what was reached is told whatever cannot be written
        _tell(outcome, beside)


def _draw(outcome: Outcome, beside: Results | None) -> None:
    """result.png and report.html, unless they are there."""
    picture = outcome.folder / "result.png"
    if not (outcome.is_recorded and picture.is_file()):
        bars = _bars(outcome.results, beside)
        save_figure(pictures.result_page(_title(outcome.results), outcome.examples, bars), picture)
    if outcome.page is not None:
        facts = read_run_facts(checkpoint_file(outcome.folder), outcome.results)
        write_page(dataclasses.replace(outcome.page, run=facts), outcome.folder / "report.html")


def _tell(outcome: Outcome, beside: Results | None) -> None:
    results, page = outcome.results, outcome.folder / "report.html"
    rows = []
    if results.seen is not None:
        rows.append(["seen classes, new videos", *beside_control(results.seen, beside.seen if beside else None)])
    for name, result in results.tests.items():
        what = f"{name}: {told}" if (told := not_unseen(result)) else f"UNSEEN classes ({name})"
        rows.append([what, *beside_control(result, beside.tests.get(name) if beside else None)])
    print("\n" + Table(["accuracy", *BESIDE_CONTROL], rows).text())
    if beside is not None:
        print("control: the same network trained towards random class vectors, which say nothing of an unseen class")
    for result in filter(None, (results.seen, *results.tests.values())):
        for doubt in result.doubts:
            print(f"{result.name}: {doubt} (docs/tutorial.md: what to do)")
    if not results.tests:
        print(NO_TEST)
    if results.best["metric"] == NEWEST:
        print(NOTHING_HELD_OUT)
    unknown = "not measured (too few steps)" if outcome.is_short else "trained before"
    folder = shlex.quote(str(outcome.folder))  # these two are to be copied to a command line
    rows = [
        ["training speed", f"{results.clips_per_second:.1f} clips/s" if results.clips_per_second else unknown],
        ["checkpoint", checkpoint_file(outcome.folder)],
        ["TensorBoard", f"tensorboard --logdir {folder}"],
        ["results", outcome.folder / FILE],
        ["picture", outcome.folder / "result.png"],
        *([["report", page]] if page.is_file() else []),
        ["your own video", as_called(f'python tools/predict.py VIDEO --model {folder} --classes "one, another"')],
    ]
    print("\n" + Table(["what", "where"], rows).text(), flush=True)


def _title(results: Results) -> str:
    if not results.tests:
        return "No test set was named (data.tests)"
    name, result = next(iter(results.tests.items()))
    accuracy, told = result.all_classes, not_unseen(result)
    what = f"{short(name)} ({told})" if told else f"{short(name)}, {accuracy.num_classes} classes the network never saw"
    return f"{what}: {percent(accuracy.mean_class)} %, mean over classes (chance {percent(accuracy.chance_top1)} %)"


def _bars(results: Results, control: Results | None) -> list[Bar]:
    """The mean-class accuracy of each set with its own control and chance beside it."""
    sets = [(name, test, control and control.tests.get(name)) for name, test in results.tests.items()]
    if results.seen is not None:
        sets.append(("seen classes", results.seen, control and control.seen))
    bars = []
    for name, result, beside in sets:
        accuracy = result.all_classes
        bars.append(Bar(name, accuracy.mean_class))
        if beside is not None:
            bars.append(Bar("control", beside.all_classes.mean_class, color=OTHER))
        bars.append(Bar(f"chance, {accuracy.num_classes} classes", accuracy.chance_top1, color=NEUTRAL))
    return bars
