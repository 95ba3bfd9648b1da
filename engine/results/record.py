"""results.json: what a finished run, or a later evaluation of it, has reached. Written and read here alone.

Its fields are those of `Results`, of its sets those of `SetResult`, with chance beside each accuracy and the means of the
halves beside the halves. A file of an older version lacks some: they are None. No torch is needed.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from engine.data.config import file_name
from engine.errors import InputError, writing
from engine.results.accuracy import SetResult

FILE = "results.json"
EVENTS = ".evaluation"  # ends the name of a TensorBoard file that belongs to it
_BEGUN = ".results.json.begun"  # the record, as long as the files beside it are written

_OTHERS = {  # tasks whose record this is not, and where their numbers are
    "masked": "a pretraining: its losses stand there under held_out, and test sets only in the record of a zero-shot run",
    "moments": "a moment search: compare such runs with tools/compare_moments.py",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All that results.json says.

    checkpoint: whose weights were evaluated, in a run's own record relative to its folder. step, epoch: of that checkpoint.
    class_vectors: what gave the classes their vectors. num_snippets: of each video. decoder: by name.
    precision: the dtype that the network computed in. weights: which, as `evaluate.weights`.
    tests: by name of the test set.
    Of a run's own record alone: best: the value, step and metric by which the checkpoint was chosen. trained_steps: of
        the whole run. clips_per_second: of its training, the median of what was logged. seen: held-out videos of the
        training classes, among all training classes.
    """

    checkpoint: str
    class_vectors: str
    num_snippets: int
    tests: Mapping[str, SetResult]
    step: int | None = None
    epoch: int | None = None
    decoder: str | None = None
    precision: str | None = None
    weights: str | None = None
    best: Mapping[str, Any] | None = None
    trained_steps: int | None = None
    clips_per_second: float | None = None
    seen: SetResult | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        tree = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        tests = {name: test.to_dict() for name, test in self.tests.items()}
        return tree | {"tests": tests, "seen": self.seen.to_dict() if self.seen else None}

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> "Results":
        """From JSON, perhaps of an older version."""
        known = {each.name: tree[each.name] for each in dataclasses.fields(cls) if each.name in tree}
        tests = {name: SetResult.from_dict(test) for name, test in tree["tests"].items()}
        return cls(**known | {"tests": tests, "seen": SetResult.from_dict(tree["seen"]) if tree.get("seen") else None})


class Record(Protocol):
    """What a task's results.json says."""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        ...


def read_tree(folder: Path) -> dict[str, Any]:
    """The record of whatever task, as JSON.

    Raises:
        InputError: there is none, or it is no JSON object.
    """
    try:
        tree = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{FILE} of '{folder}' cannot be read ({error})") from error
    if not isinstance(tree, dict):
        raise InputError(f"{FILE} of '{folder}' is not what a run writes at its end")
    return tree


def read_tree_of(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of whatever task, as JSON, if there is one of these very facts.

    What an older version did not record is not asked for.
    """
    try:
        tree = read_tree(folder)
    except InputError:
        return None
    return tree if all(tree.get(name, value) == value for name, value in facts.items()) else None


def read_results(folder: Path) -> Results:
    """The record of a run or of an evaluation.

    Raises:
        InputError: there is none, or it is of something else.
    """
    if not (folder / FILE).is_file():
        raise InputError(f"no {FILE} in '{folder}': it is not the folder of a finished run")
    return _read(folder / FILE)


def read_control(folder: Path, results: Results) -> Results | None:
    """The record of a run's control, `folder`/control, of it what was measured on the same classes and videos as `results` of the
    run; None where there is none, or one of another number of snippets.

    Raises:
        InputError: the control's record cannot be read.
    """
    if not (folder / "control" / FILE).is_file():
        return None
    control = read_results(folder / "control")
    if control.num_snippets != results.num_snippets:
        return None
    tests = {
        name: control.tests[name] for name, test in results.tests.items() if test.is_same_test(control.tests.get(name))
    }
    is_seen = results.seen is not None and results.seen.is_same_test(control.seen)
    return dataclasses.replace(control, tests=tests, seen=control.seen if is_seen else None)


def _read(path: Path) -> Results:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if what := _OTHERS.get(tree.get("task")):
            raise InputError(f"{FILE} of '{path.parent}' is of {what}")
        return Results.from_dict(tree)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{FILE} of '{path.parent}' is not what a run writes at its end ({error!r})") from error


@contextmanager
def replacing(folder: Path, results: Record) -> Iterator[None]:
    """Inside, the tables, pictures and events of an evaluation are written; those of the folder's older one are gone.

    results.json comes last: where it is, all else is there. What a kill leaves inside is removed by the next one.
    """
    for record in (folder / FILE, folder / _BEGUN):
        if record.is_file():
            _remove(record)
    with writing(folder / _BEGUN):
        (folder / _BEGUN).write_text(json.dumps(results.to_dict(), indent=1) + "\n", encoding="utf-8")
    yield
    (folder / _BEGUN).replace(folder / FILE)


def _remove(record: Path) -> None:
    """Remove a record and what belongs to it; of something else that is called so, nothing but itself."""
    try:
        results = _read(record)
    except InputError:
        record.unlink()
        return
    for name in files_of(results):
        (record.parent / name).unlink(missing_ok=True)
    # Older versions gave an evaluation's files in a folder of its own no name of their own.
    for events in (record.parent / "tensorboard").glob("*tfevents*" if results.best is None else f"*{EVENTS}"):
        events.unlink()
    record.unlink()


def files_of(results: Results) -> list[str]:
    """The files that may lie beside a record and belong to it."""
    forms = ("confusion_{}.png", "classes_{}.png", "classes_{}.csv", "predictions_{}.csv")
    return [form.format(file_name(name)) for name in results.tests for form in forms] + ["result.png", "report.html"]
