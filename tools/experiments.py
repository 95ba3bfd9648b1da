"""The paper's experiments as commands: each runs its trainings and writes a table, a CSV and a picture.

    python tools/experiments.py fig4 --config configs/ucf15_small.yaml --images runs/stanford40/manifest.parquet
    python tools/experiments.py table3 --config configs/ucf15.yaml --splits 0 1 2 3 4 --workers 2
    python tools/experiments.py fig5 fig6 --config configs/kinetics_r2plus1d.yaml --images data/sun397.parquet --cluster-classes 50

Each cell of an experiment is a normal training run in a folder of its own, OUT/cells/NAME-DIGEST, and can be looked at and
used like any other (TensorBoard, tools/evaluate.py, tools/predict.py). Experiments share cells: the digest covers
everything that decides the result. A finished cell is not run again, so after an interrupt or kill -9 the same command
continues. A cell that fails is named with the end of its log, one whose results.json or config.yaml cannot be read, or whose
start is gone, with the reason; the others go on, and the exit status is 1.

--splits are seeds of data.*.class_split; in a config without one (all classes of a data set train) they are seeds of the run.
On a machine with GPUs each worker has a GPU of its own; otherwise the workers share the CPU cores. With --cluster the cells run
on the nodes of a Ray cluster, each with a GPU, or with a core where there is none (docs/cluster_ray.md).

Into OUT go NAME.md, NAME.csv (every single value, with the folder of its run) and NAME.png; with --record the values are also
appended to benchmarks/records/experiments.jsonl. docs/experiments.md has the commands behind its figures.
"""

import options

from engine.errors import read_command, run_command

if __name__ == "__main__":  # before the imports below, which take seconds
    ARGUMENTS = read_command(options.experiments, __doc__)

import argparse
import dataclasses
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from engine.cluster.programs import LocalPrograms, open_programs
from engine.config import load_config
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.experiments.catalogue import EXPERIMENTS
from engine.experiments.cells import Cell, differences, why_untold
from engine.experiments.cost import cell_costs, plan_table, told
from engine.experiments.drawn import draw_sets
from engine.experiments.methods import read_methods
from engine.experiments.planned import planned_sets, with_cells
from engine.experiments.results import Measured, Point, read_point, unequal_tests
from engine.experiments.runner import ROOT, Job, JobKey, Runner, plan_jobs, point_key
from engine.experiments.setup import Setup
from engine.experiments.tables import Report, write_report
from engine.machine import usable_cores
from engine.processes.parts import stop_on_sigterm
from engine.records import append_record, public
from engine.schema.parser import MAX_SEED
from engine.semantics.class_lists import read_classes
from engine.terminal.command_line import check_shown, output_folder


def main(arguments: argparse.Namespace) -> None:
    """Plan, run, report."""
    stop_on_sigterm()  # and the cells: each saves its state
    setup = _setup(arguments)
    if not arguments.only_plan:
        output_folder(arguments.out, "--out")
    if arguments.only_plan or arguments.only_report:
        with planned_sets(setup) as (planned, renamed):
            points = {name: EXPERIMENTS[name].points(planned) for name in arguments.names}
            if arguments.only_plan:
                _plan(arguments, points, renamed)
            else:
                _run_and_report(arguments, planned, {name: with_cells(of, renamed) for name, of in points.items()})
        return
    if setup.base.procedural is not None:
        draw_sets(setup.base, setup.splits, usable_cores())
    _run_and_report(arguments, setup, {name: EXPERIMENTS[name].points(setup) for name in arguments.names})


def _plan(arguments: argparse.Namespace, plans: Mapping[str, list[Point]], renamed: Callable[[Cell], Cell]) -> None:
    plans, untold = _readable(plans, arguments.out, renamed)
    costs = cell_costs(_all_of(plans), arguments.out, renamed)
    print(f"{plan_table(costs).text()}\n\n{told(costs, LocalPrograms(arguments.workers).slots, arguments.rate)}")
    check_shown()
    _end({"cannot be read": untold})


def _readable(
    plans: Mapping[str, list[Point]], out: Path, renamed: Callable[[Cell], Cell] = lambda cell: cell
) -> tuple[dict[str, list[Point]], list[str]]:
    """The points whose folders tell whether they hold their cells, and the names of the other cells, which are told."""
    cells = {point.cell.digest: renamed(point.cell) for point in _all_of(plans)}
    reasons = {digest: why for digest, cell in cells.items() if (why := why_untold(cell, out))}
    for digest, why in reasons.items():
        _say(f"{cells[digest].name}: {why}")
    kept = {name: [point for point in points if point.cell.digest not in reasons] for name, points in plans.items()}
    return kept, [cells[digest].name for digest in reasons]


def _end(lost: Mapping[str, list[str]]) -> None:
    """Name the cells that are missing, by what they are, and exit with 1 if there are some."""
    for what, names in lost.items():
        if names:
            _say(f"\n{len(names)} cells {what} and are missing from the above: {', '.join(names)}")
    if any(lost.values()):
        sys.exit(1)


def _all_of(plans: Mapping[str, list[Point]]) -> list[Point]:
    return [point for points in plans.values() for point in points]


def _run_and_report(arguments: argparse.Namespace, setup: Setup, plans: Mapping[str, list[Point]]) -> None:
    plans, untold = _readable(plans, arguments.out)
    jobs, missing = _run(arguments, setup, _all_of(plans))
    unread: list[Job] = []
    for name, points in plans.items():
        measured: list[Measured] = []
        for point in points:
            if (job := jobs[point_key(point)]) not in missing + unread:
                measured += _read(job, point, arguments.out, unread)
        report = _report(name, setup, measured, arguments.out)
        if report is not None and arguments.record:
            _record(name, setup, report)
    why = "are not finished" if arguments.only_report else "failed"
    _end({why: [job.name for job in missing], "cannot be read": untold + [job.name for job in unread]})


def _read(job: Job, point: Point, out: Path, unread: list[Job]) -> list[Measured]:
    """What a finished cell says; one whose record cannot be read is told, and joins those."""
    try:
        return read_point(point, point.cell.folder(out))
    except InputError as error:
        unread.append(job)
        _say(f"{job.name}: {error}")
        return []


def _run(arguments: argparse.Namespace, setup: Setup, points: list[Point]) -> tuple[dict[JobKey, Job], list[Job]]:
    """Run the cells of all points, or with --only-report none: the jobs, and those that are not finished."""
    if arguments.only_report:
        jobs = plan_jobs(points, arguments.out, LocalPrograms(arguments.workers))
        return jobs, [job for job in jobs.values() if not job.is_done()]
    configs = [method.config for method in setup.methods] or [setup.base]
    device = "cpu" if all(config.run.device == "cpu" for config in configs) else "auto"
    needed = [arguments.out, ROOT, Path(sys.executable)]
    with open_programs(arguments.cluster, arguments.workers, needed, device) as programs:
        jobs = plan_jobs(points, arguments.out, programs)
        _say(told(cell_costs(points, arguments.out), programs.slots, arguments.rate))
        runner = Runner(list(jobs.values()), programs, _say)
        runner.run()
    return jobs, runner.failed


def _report(name: str, setup: Setup, measured: list[Measured], out: Path) -> Report | None:
    if EXPERIMENTS[name].trains and not measured:
        _say(f"{name}: nothing to show, no cell is finished")
        return None
    report = EXPERIMENTS[name].report(setup, measured)
    report = dataclasses.replace(report, notes=[*unequal_tests(measured), *report.notes])
    written = write_report(report, out, name)
    print("\n".join(["", report.title, *unequal_tests(measured)]))
    for table in report.shown:
        print("\n" + table.text())
    print(f"\nwritten: {', '.join(map(str, written))}", flush=True)
    return report


def _record(name: str, setup: Setup, report: Report) -> None:
    """Keep every single value, what was found, and in which keys the configs differ from the defaults."""
    configs = {method.name: method.config for method in setup.methods} if name == "methods" else {"": setup.base}
    changed = {method: public(differences(config)) for method, config in configs.items()}
    path = append_record(
        "experiments", experiment=name, splits=list(setup.splits), n=len(report.values.rows), configs=changed,
        header=list(report.values.header), rows=[list(row) for row in report.values.rows],
        findings=[dataclasses.asdict(finding) for finding in report.findings],
    )  # fmt: skip
    print(f"recorded in {Path(os.path.relpath(path))}")


def _setup(arguments: argparse.Namespace) -> Setup:
    reference, methods = read_methods(arguments.methods, arguments.set) if arguments.methods else ("", ())
    varies = set(arguments.names) != {"methods"}  # the base config
    if arguments.config is not None:
        base = load_config(arguments.config, arguments.set)
    elif methods and not varies:
        base = next(method.config for method in methods if method.name == reference)
    else:
        raise InputError("name the training that is varied with --config FILE")
    compared = [method.config for method in methods if method.is_shown]
    for config in [*compared, base] if varies else compared:
        if any(EXPERIMENTS[name].trains for name in arguments.names) and not config.data.tests:
            raise InputError(
                f"{arguments.config or arguments.methods}: a training of it names no test set (data.tests): there would be "
                "nothing to compare"
            )
    for method in methods:
        if method.config.procedural is not None:
            raise InputError(
                f"{arguments.methods}: method '{method.name}' draws its own videos: methods are compared on manifests, name one"
            )
    defaults = {name: value for name in ("shares", "class_counts", "clusters", "cluster_classes", "draws")
                if (value := getattr(arguments, name)) is not None}  # fmt: skip
    lists = {
        name: tuple(dict.fromkeys(value)) if isinstance(value, list) else value for name, value in defaults.items()
    }
    for name in ("train_classes", "test_classes"):
        lists[name] = tuple(read_classes(text) for text in getattr(arguments, name))
    lists |= {name: getattr(arguments, name) for name in ("frozen_weights", "cluster_images")}
    lists["without"] = tuple(arguments.without)
    setup = Setup(
        base, tuple(dict.fromkeys(arguments.splits)), arguments.images, reference=reference, methods=methods, **lists
    )
    if setup.images is not None:
        Manifest.load(Path(setup.images))  # a wrong one would fail every cell that pretrains
    for split in setup.splits:
        if not 0 <= split <= MAX_SEED:
            raise InputError(f"--splits has {split}: they are seeds, from 0 to {MAX_SEED:,}")
    if setup.cluster_images and not setup.has_images:
        raise InputError("--cluster-images needs pictures: name their manifest with --images")
    if arguments.rate is not None and not 0 < arguments.rate < math.inf:
        raise InputError(f"--rate is {arguments.rate:g}: snippets a second are more than 0")
    if arguments.workers < 0:
        raise InputError(f"--workers is {arguments.workers}: it must be at least 1, or 0 for the default")
    if not all(0 < share <= 1 for share in setup.shares):
        raise InputError("--shares are of the training videos: above 0, at most 1")
    if min([setup.draws, setup.cluster_classes, *setup.class_counts, *setup.clusters]) < 1:
        raise InputError("--draws, --class-counts, --clusters and --cluster-classes are at least 1")
    return setup


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
