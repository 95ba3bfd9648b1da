"""Put the results of several runs side by side, with mean and spread.

    python tools/compare_runs.py runs/ucf15/split_*
    python tools/compare_runs.py runs/quickstart_seed* --record quickstart

Reads each run folder's results.json (and its control's, where there is one), prints a table, and with
--record appends one JSON line to benchmarks/records/NAME.jsonl. Test sets are told apart by name.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from engine.command_line import Parser, check_shown
from engine.errors import InputError, run_command
from engine.records import append_record, summarise
from engine.results.record import FILE, read_results
from engine.results.table import Table
from engine.schema import read_yaml


def main() -> None:
    """Read the command line, print the table, record it if asked."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, each with a results.json")
    parser.add_argument("--record", metavar="NAME", help="append the numbers to benchmarks/records/NAME.jsonl")
    arguments = parser.parse_args()
    runs = [read_run(folder) for folder in arguments.runs]
    path = append_record(arguments.record, **record_fields(arguments.runs, runs)) if arguments.record else None
    print(Table(["run", "seen", "unseen", "chance", "control", "clips/s"], table_rows(runs)).text())
    if path is not None:
        print(f"\nrecorded in {path}")
    check_shown()


def read_run(folder: Path) -> dict[str, Any]:
    """What a run folder reached: name, seen, unseen, chance, control (None where absent), clips per second.

    Raises:
        InputError: the folder is not of a finished run, or its results.json is of something else.
    """
    results = read_results(folder)
    accuracies = [test.all_classes for test in results.tests.values()]
    if not accuracies:
        raise InputError(f"run '{folder}' has no test set of unseen classes (data.tests)")
    control = None
    if (folder / "control" / FILE).is_file():
        tests = read_results(folder / "control").tests.values()
        control = statistics.mean(test.all_classes.top1 for test in tests)
    return {
        "run": folder.name,
        "seen": results.seen.all_classes.top1 if results.seen else None,
        "unseen": statistics.mean(accuracy.top1 for accuracy in accuracies),
        "chance": statistics.mean(accuracy.chance_top1 for accuracy in accuracies),
        "control": control,
        "clips_per_second": results.clips_per_second,
    }


def table_rows(runs: list[dict[str, Any]]) -> list[list[object]]:
    """One row per run, then mean and sample standard deviation."""
    columns = ("seen", "unseen", "chance", "control", "clips_per_second")
    rows = [[run["run"], *(run[name] for name in columns)] for run in runs]
    if len(runs) > 1:
        for label, fold in (("mean", statistics.mean), ("std", statistics.stdev)):
            values = [[run[name] for run in runs] for name in columns]
            rows.append([label, *(None if None in column else fold(column) for column in values)])
    return rows


def record_fields(folders: list[Path], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The numbers of a record: every run, mean, spread and quantiles, and the config of the first."""
    config = folders[0] / "config.yaml"
    fields: dict[str, Any] = {"runs": runs}
    if config.is_file():
        tree = read_yaml(config)
        fields["config"] = {name: tree[name] for name in ("clip", "model", "words", "loss", "train", "evaluate")}
        fields["config"]["words"]["path"] = Path(tree["words"]["path"]).name if tree["words"]["path"] else None
        fields["config"]["words"]["definitions"] = [Path(file).name for file in tree["words"].get("definitions", [])]
    for name in ("unseen", "control", "seen"):
        values = [run[name] for run in runs if run[name] is not None]
        if values:
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            fields[name] = {"mean": statistics.mean(values), "std": spread, **summarise(values)}
    return fields


if __name__ == "__main__":
    run_command(main)
