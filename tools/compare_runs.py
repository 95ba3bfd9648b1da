"""Put the results of several runs side by side, with mean and spread.

    python tools/compare_runs.py runs/ucf15/split_*
    python tools/compare_runs.py runs/quickstart_seed* --record quickstart

Reads each run folder's results.json (and its control's, where there is one), prints a table for each test set, and with
--record appends one JSON line to benchmarks/records/NAME.jsonl. Accuracies are mean-class; top-1 stands beside the share of the
largest class, which one answer for all videos would reach. Test sets are one if they have the same name and number of classes;
where their classes or videos are others all the same (as over random class splits), that is said under the table, and so is
whatever of them is not unseen. A folder that is named twice, or by a link too, counts once; folders of one name are shown with
as much of their paths as tells them apart.
"""

import re
import statistics
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import InputError, misfit, run_command
from engine.records import append_record, file_name_alone, public, summarise
from engine.results.accuracy import SetResult
from engine.results.record import Results, read_control, read_results
from engine.results.run_names import run_names
from engine.results.spread import difference
from engine.results.table import Table
from engine.schema.files import read_yaml
from engine.terminal.command_line import Parser, check_shown, each_once

COLUMNS = {
    "seen_mean_class": "seen",
    "mean_class": "unseen",
    "control_mean_class": "control",
    "chance": "chance",
    "top1": "unseen top-1",
    "largest_class": "largest class",
    "clips_per_second": "clips/s",
}


@dataclass(frozen=True)
class Tested:
    """What a run reached on one test set. control: on that very set, of as many snippets, where there is one."""

    run: str
    results: Results
    test: SetResult
    control: SetResult | None

    def numbers(self) -> dict[str, Any]:
        """Accuracies and speed; None where there is none."""
        whole, seen = self.test.all_classes, self.results.seen
        return {
            "run": self.run,
            "seen_mean_class": seen.all_classes.mean_class if seen else None,
            "seen_top1": seen.all_classes.top1 if seen else None,
            "mean_class": whole.mean_class,
            "top1": whole.top1,
            "top5": whole.top5,
            "chance": whole.chance_top1,
            "largest_class": whole.largest_class,
            "control_mean_class": self.control.all_classes.mean_class if self.control else None,
            "control_top1": self.control.all_classes.top1 if self.control else None,
            "clips_per_second": self.results.clips_per_second,
        }


def main() -> None:
    """Read the command line, print the tables, record them if asked."""
    parser = Parser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, each with a results.json")
    parser.add_argument("--record", metavar="NAME", help="append the numbers to benchmarks/records/NAME.jsonl")
    arguments = parser.parse_args()
    folders = each_once(arguments.runs)
    tables = by_test(
        [each for folder, name in zip(folders, run_names(folders), strict=True) for each in read_run(folder, name)]
    )
    path = append_record(arguments.record, **record_fields(folders, tables)) if arguments.record else None
    for title, group in tables.items():
        rows = table_rows([tested.numbers() for tested in group])
        table = Table(["run", *COLUMNS.values()], rows, title).text()
        print("\n".join([table, *above_control(group), *differences(group), *not_unseen(group), ""]))
    if path is not None:
        print(f"recorded in {path}")
    check_shown()


def read_run(folder: Path, name: str) -> list[Tested]:
    """What a run folder, called so, reached on each of its test sets.

    Raises:
        InputError: the folder is not of a finished run, its results.json is of something else, or it has no test set.
    """
    results = read_results(folder)
    if not results.tests:
        raise InputError(f"run '{folder}' has no test set of unseen classes (data.tests)")
    control = read_control(folder, results)
    return [Tested(name, results, test, control and control.tests.get(of)) for of, test in results.tests.items()]


def by_test(tested: Sequence[Tested]) -> dict[str, list[Tested]]:
    """The results of each test set under its title."""
    found: dict[str, list[Tested]] = {}
    for each in tested:
        found.setdefault(f"{each.test.name}: {each.test.all_classes.num_classes} classes", []).append(each)
    return found


def above_control(group: Sequence[Tested]) -> list[str]:
    """How far the runs are above their controls, run by run: the mean of the paired differences with its interval."""
    pairs = [(run.test.all_classes.mean_class, run.control.all_classes.mean_class) for run in group if run.control]
    return [f"unseen less control, run by run (95 %): {difference(pairs)}"] if len(pairs) > 1 else []


def differences(group: Sequence[Tested]) -> list[str]:
    """In what the tests of one table are not the same, with the runs that go together."""
    lines = []
    is_known = all(each.test.contents for each in group)  # older runs did not say
    if classes := _apart(group, lambda each: tuple(sorted(row.name for row in each.test.per_class))):
        lines.append(f"not the same classes, so these are different tests: {classes}")
    elif videos := _apart(group, lambda each: (each.test.all_classes.num_videos, is_known and each.test.contents)):
        lines.append(f"not the same videos, so these are different tests: {videos}")
    if together := [each.run for each in group if each.test.is_named_together]:
        lines.append(f"TRANSDUCTIVE, videos named together, which is not the paper's protocol: {', '.join(together)}")
    if own := [each.run for each in group if each.test.own_unlabelled]:
        lines.append(
            f"TRANSDUCTIVE, standardised over the test's own videos, not the paper's protocol: {', '.join(own)}"
        )
    if vectors := _apart(group, lambda each: _kind_of_vectors(each.results.class_vectors)):
        lines.append(f"not the same class vectors: {vectors}")
    if weights := _apart(group, lambda each: each.results.weights == "trained"):
        lines.append(f"some of averaged weights and some not (evaluate.weights): {weights}")
    if snippets := _apart(group, lambda each: each.results.num_snippets):
        lines.append(f"not the same number of snippets of a video: {snippets}")
    if seen := _apart(group, lambda each: each.results.seen and each.results.seen.all_classes.num_classes):
        lines.append(f"seen: not the same number of training classes: {seen}")
    return lines


def _kind_of_vectors(description: str) -> str:
    """Without what differs from run to run where nothing else does: the seed of random vectors."""
    return re.sub(r"\bseed \d+", "", description)


def _apart(group: Sequence[Tested], what: Callable[[Tested], Hashable]) -> str:
    """The runs of each value, if there are several values."""
    found: dict[Hashable, list[str]] = {}
    for each in group:
        found.setdefault(what(each), []).append(each.run)
    return " | ".join(", ".join(runs) for runs in found.values()) if len(found) > 1 else ""


def not_unseen(group: Sequence[Tested]) -> list[str]:
    """A line for each run that was trained on some of its test."""
    lines = []
    for each in group:
        for what, of in (("classes", each.test.seen_classes), ("videos", each.test.trained_videos)):
            if of:
                lines.append(
                    f"{each.run}: not unseen, trained on {len(of)} of the {what}: {', '.join(of[:3])}{', ...' * (len(of) > 3)}"
                )
    return lines


def table_rows(runs: Sequence[dict[str, Any]]) -> list[list[object]]:
    """One row per run, then mean and sample standard deviation."""
    rows = [[run["run"], *(run[name] for name in COLUMNS)] for run in runs]
    if len(runs) > 1:
        for label, fold in (("mean", statistics.mean), ("std", statistics.stdev)):
            values = [[run[name] for run in runs] for name in COLUMNS]
            rows.append([label, *(None if None in column else fold(column) for column in values)])
    return rows


def record_fields(folders: Sequence[Path], tables: dict[str, list[Tested]]) -> dict[str, Any]:
    """The numbers of a record: the config of the first run, and of each test set every run, mean, spread and quantiles."""
    config = folders[0] / "config.yaml"
    fields: dict[str, Any] = {"config": _recorded(config)} if config.is_file() else {}
    tests = {title: _summaries(group) for title, group in tables.items()}
    return fields | (next(iter(tests.values())) if len(tests) == 1 else {"tests": tests})


def _recorded(config: Path) -> dict[str, Any]:
    """The sections of a run's config that a record keeps, without the paths of this machine."""
    tree = read_yaml(config)
    try:
        kept = {name: tree[name] for name in ("clip", "model", "words", "loss", "train", "evaluate")}
        words = kept["words"]
        path, files = words["path"], words.get("definitions", [])
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"'{config}' is no config that a run wrote ({misfit(error)}): take it away to record the numbers without a config"
        ) from error
    kept["words"] = {**words, "path": Path(path).name if path else None, "definitions": [Path(f).name for f in files]}
    return public(kept, file_name_alone)


def _summaries(group: Sequence[Tested]) -> dict[str, Any]:
    runs = [tested.numbers() for tested in group]
    fields: dict[str, Any] = {"runs": runs, "notes": [*differences(group), *not_unseen(group)]}
    for name in ("mean_class", "top1", "control_mean_class", "seen_mean_class"):
        values = [run[name] for run in runs if run[name] is not None]
        if values:
            spread = statistics.stdev(values) if len(values) > 1 else None
            fields[name] = {"mean": statistics.mean(values), "std": spread, **summarise(values)}
    return fields


if __name__ == "__main__":
    run_command(main)
