"""Put the results of several moment runs side by side: runs that differ in nothing but seeds as mean and spread.

    python tools/compare_moments.py runs/moments_quickstart runs/moments_late_* runs/moments_span_*
    python tools/compare_moments.py runs/moments_* --record moments

Reads each run folder's results.json and config.yaml. Runs are of one kind if all is equal that decides their result (`decides` in
engine/schema/parser.py) but seeds and paths: options, training, features, and the queries that they are trained and tested on,
by their contents. What results.json or config.yaml of an older run does not tell is not compared. The spread is the
standard deviation over runs (n - 1); one run has none, nor have runs of which two are of one seed, which is said. A folder
that is named twice, or by a link too, counts once; folders of one name are told with as much of their paths as tells them apart.
With --record appends one JSON line to benchmarks/records/NAME.jsonl.
"""

import contextlib
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import InputError, misfit, run_command
from engine.experiments.cells import differences, meaning_of_run
from engine.records import append_record
from engine.results.record import FILE, read_tree
from engine.results.run_names import run_names
from engine.results.table import Table
from engine.terminal.command_line import Parser, each_once

MEASURES = ("R@1_IoU0.3", "R@1_IoU0.5", "R@1_IoU0.7", "R@5_IoU0.7", "mean_IoU")
PARTS = {"model": "model", "wrong_queries": "queries of other videos", "untrained": "no training", "prior": "no query"}
_FACTS = (
    "training_queries",
    "test_queries",
    "annotations",
    "videos",
    "features",
    "queries",
    "trained_steps",
)  # of results.json
_OPEN = ("run.seed", "moments.noise_seed", "moments.drawn.folder",
         *(f"moments.{name}" for name in ("features", "annotations", "manifest", "encoder")))  # fmt: skip


def main() -> None:
    """Read the command line, print the table, record it if asked."""
    parser = Parser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, each with a results.json")
    parser.add_argument("--record", metavar="NAME", help="append the numbers to benchmarks/records/NAME.jsonl")
    arguments = parser.parse_args()
    runs = each_once(arguments.runs)
    kinds = grouped(
        [
            read_tree(folder) | {"run": name, "config": read_config(folder)}
            for folder, name in zip(runs, run_names(runs), strict=True)
        ]
    )
    rows = [
        [kind["options"], kind["split"], PARTS[part], kind["runs"], *(_told(numbers.get(name)) for name in MEASURES)]
        for kind in kinds
        for part, numbers in kind["parts"].items()
    ]
    print(Table(["options", "split", "what", "runs", *MEASURES], rows).text())
    for runs_of_one in dict.fromkeys(", ".join(kind["of_one_seed"]) for kind in kinds if kind["of_one_seed"]):
        print(f"no spread where runs are of one seed ({runs_of_one}): name one of each seed")
    if arguments.record:
        path = append_record(arguments.record, kinds=kinds)
        print(f"\nrecorded in {path}")


def read_config(folder: Path) -> dict[str, Any]:
    """The keys of a run's config that decide its result and are not at their default, by dotted name; {} where it is not known."""
    with contextlib.suppress(InputError):  # no config, or one of another version
        return dict(_flat(differences(meaning_of_run(folder))))
    return {}


def _flat(tree: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{where}{name}.")
        else:
            yield where + name, value


def alike(run: Mapping[str, Any]) -> dict[str, Any]:
    """All that runs of one kind have in common, by name."""
    options = {name: value for name, value in run["options"].items() if name != "noise_seed"}
    of_config = {name: value for name, value in run.get("config", {}).items() if name not in _OPEN}
    of_config = {name: value for name, value in of_config.items() if name.removeprefix("moments.") not in options}
    return options | of_config | dict(_flat({name: run[name] for name in _FACTS if name in run}))


def grouped(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Runs by what they have in common, each measure as mean and standard deviation over them.

    Raises:
        InputError: a record is not of a moment run, or lacks what one has.
    """
    for run in runs:
        _check(run)
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    runs = _with_videos(runs)
    for run in runs:
        kinds.setdefault(json.dumps(alike(run), sort_keys=True), []).append(run)
    every, found = list(map(alike, runs)), []
    varied = [name for name in dict.fromkeys(name for each in every for name in each)
              if any(each.get(name) != every[0].get(name) for each in every)]  # fmt: skip
    for same in kinds.values():
        of_one = _of_one_seed(same)
        told = ", ".join(_option(name, alike(same[0]).get(name), same[0]["options"]) for name in varied)
        for split in same[0]["tests"]:
            parts = {part: _summary([run["tests"][split][part] for run in same], not of_one) for part in PARTS}
            held = {
                "options": told or "as configured",
                "all_options": same[0]["options"],
                "split": split,
                "runs": len(same),
                "of_one_seed": of_one,
            }
            found.append(held | {"parts": {part: numbers for part, numbers in parts.items() if numbers}})
    return found


def _check(run: Mapping[str, Any]) -> None:
    if run.get("task") != "moments":
        raise InputError(f"run '{run['run']}' is not one of moments: tools/compare_runs.py compares others")
    try:
        alike(run)
        for parts in run["tests"].values():
            for part in PARTS:
                _summary([parts[part]], False)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{FILE} of run '{run['run']}' is not what a moment run writes at its end ({misfit(error)}): leave it out"
        ) from error


def _with_videos(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """An older run, which does not tell its videos, has those of the first that is like it in all else."""
    rest = [json.dumps(alike({**run, "videos": {}}), sort_keys=True) for run in runs]
    told = {of: run["videos"] for of, run in reversed(list(zip(rest, runs, strict=True))) if "videos" in run}
    return [{**run, "videos": run.get("videos", told.get(of, {}))} for of, run in zip(rest, runs, strict=True)]


def _option(name: str, value: Any, options: Mapping[str, Any]) -> str:
    if name in options and isinstance(value, str):
        return value
    shown = "default" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return f"{name.removeprefix('moments.')} {shown}"


def _of_one_seed(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The runs, all else alike, that have their seeds in common with another; none of those whose config is not known."""
    of_seeds: dict[tuple[Any, ...], list[str]] = {}
    for run in runs:
        if run.get("config"):
            noise = run["options"].get("noise_seed") if run["options"].get("boundary_noise") else None
            of_seeds.setdefault((run["config"].get("run.seed", 0), noise), []).append(run["run"])
    return [name for names in of_seeds.values() if len(names) > 1 for name in names]


def _summary(results: Sequence[Mapping[str, Any] | None], has_spread: bool) -> dict[str, dict[str, float | None]]:
    """Of those runs that have them: measure -> mean and std, None of one run and where there is no spread."""
    there = [result for result in results if result is not None]
    names = [name for name in MEASURES if there and name in there[0]]
    values = {name: [result[name] for result in there] for name in names}
    return {
        name: {"mean": statistics.mean(of), "std": statistics.stdev(of) if has_spread and len(of) > 1 else None}
        for name, of in values.items()
    }


def _told(value: Mapping[str, float | None] | None) -> str | None:
    if value is None:
        return None
    mean, std = value["mean"], value["std"]
    return f"{100 * mean:.1f}" + ("" if std is None else f" +- {100 * std:.1f}")


if __name__ == "__main__":
    run_command(main)
