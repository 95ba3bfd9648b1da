"""Put the results of several moment runs side by side: runs that differ in nothing but seeds as mean and spread.

    python tools/compare_moments.py runs/moments_quickstart runs/moments_late_* runs/moments_span_*
    python tools/compare_moments.py runs/moments_* --record moments

Reads each run folder's results.json. Runs are of one kind if their options are equal (fusion, weight of the second task, boundary
noise and the like) and their test queries and features are. The spread is the standard deviation over runs (n - 1).
With --record appends one JSON line to benchmarks/records/NAME.jsonl.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.command_line import Parser
from engine.errors import InputError, run_command
from engine.records import append_record
from engine.results.record import read_tree
from engine.results.table import Table

MEASURES = ("R@1_IoU0.3", "R@1_IoU0.5", "R@1_IoU0.7", "R@5_IoU0.7", "mean_IoU")
PARTS = {"model": "model", "wrong_queries": "queries of other videos", "untrained": "no training", "prior": "no query"}


def main() -> None:
    """Read the command line, print the table, record it if asked."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, each with a results.json")
    parser.add_argument("--record", metavar="NAME", help="append the numbers to benchmarks/records/NAME.jsonl")
    arguments = parser.parse_args()
    kinds = grouped([read_tree(folder) | {"run": folder.name} for folder in arguments.runs])
    rows = [
        [kind["options"], kind["split"], PARTS[part], kind["runs"], *(_told(numbers.get(name)) for name in MEASURES)]
        for kind in kinds
        for part, numbers in kind["parts"].items()
    ]
    print(Table(["options", "split", "what", "runs", *MEASURES], rows).text())
    if arguments.record:
        path = append_record(arguments.record, kinds=kinds)
        print(f"\nrecorded in {path}")


def grouped(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Runs by what they have in common, each measure as mean and standard deviation over them.

    Raises:
        InputError: a record is not of a moment run.
    """
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        if run.get("task") != "moments":
            raise InputError(f"run '{run['run']}' is not one of moments: tools/compare_runs.py compares others")
        options = {name: value for name, value in run["options"].items() if name != "noise_seed"}
        kinds.setdefault(json.dumps([options, run["test_queries"], run["features"]], sort_keys=True), []).append(run)
    common = {
        name for name, value in runs[0]["options"].items() if all(run["options"][name] == value for run in runs)
    } | {"noise_seed"}
    found = []
    for same in kinds.values():
        told = ", ".join(f"{name} {value:g}" if isinstance(value, float) else str(value)
                         for name, value in same[0]["options"].items() if name not in common)  # fmt: skip
        for split in same[0]["tests"]:
            parts = {part: _summary([run["tests"][split][part] for run in same]) for part in PARTS}
            held = {
                "options": told or "as configured",
                "all_options": same[0]["options"],
                "split": split,
                "runs": len(same),
            }
            found.append(held | {"parts": {part: numbers for part, numbers in parts.items() if numbers}})
    return found


def _summary(results: Sequence[Mapping[str, Any] | None]) -> dict[str, dict[str, float]]:
    """Of those runs that have them: measure -> mean and std."""
    there = [result for result in results if result is not None]
    names = [name for name in MEASURES if there and name in there[0]]
    values = {name: [result[name] for result in there] for name in names}
    return {
        name: {"mean": statistics.mean(of), "std": statistics.stdev(of) if len(of) > 1 else 0.0}
        for name, of in values.items()
    }


def _told(value: Mapping[str, float] | None) -> str | None:
    return None if value is None else f"{100 * value['mean']:.1f} +- {100 * value['std']:.1f}"


if __name__ == "__main__":
    run_command(main)
