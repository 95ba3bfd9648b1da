"""What is made of records: Markdown and a picture. Both from the record alone, at any time.

A record's `results` are either a list of rows (`bench.rows.Row`) or a mapping from a name to percentiles.
"""

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import charts
from bench.rows import Row, number, table
from engine.errors import InputError, misfit
from engine.files.json_lines import numbered_json_lines, read_json_lines
from engine.results.figures import save_figure
from engine.results.table import Table

Record = dict[str, Any]

# Equal in records that are joined.
_OF_ONE_TABLE = ("title", "device_type", "n", "commit", "dirty", "versions", "device")
# Records whose tables are of another form -> the module of this folder whose `tables_of` makes them.
_OWN_TABLES = {
    "ingest": "ingest", "long_video": "long_video", "plan": "plan_tables", "many_rows": "many_rows", "compiled": "absent_gpu",
}  # fmt: skip


def read_records(folder: Path) -> dict[str, list[Record]]:
    """All records of a folder by the name of their benchmark, oldest first."""
    return {path.stem: list(read_json_lines(path)) for path in sorted(folder.glob("*.jsonl"))}


def newest(records: dict[str, list[Record]]) -> dict[str, Record]:
    """The newest record of each benchmark, kind of device and setting that has results to show, `completed`, by picture name."""
    found = {
        picture_name(name, record): each[:count]
        for name, each in records.items()
        for count, record in enumerate(each, 1)
        if name in _OWN_TABLES or rows_of(record) or quantiles_of(record)
    }
    return {name: completed(each) for name, each in found.items()}


def completed(records: Sequence[Record]) -> Record:
    """The last record with the rows that it lacks of those before it (`--only`): of its setting, program and machine.

    A record without a title does not say its setting, and stays as it is.
    """
    *before, last = records
    for record in reversed(before if last.get("title") else ()):
        if all(record.get(key) == last.get(key) for key in _OF_ONE_TABLE):
            there = {(row.case, row.variant) for row in rows_of(last)}
            more = [asdict(row) for row in rows_of(record) if (row.case, row.variant) not in there]
            if more:
                commands = f"{record['command']}; {last['command']}"
                last = {**last, "results": [*more, *last["results"]], "command": commands}
    return last


def rows_of(record: Mapping[str, Any]) -> list[Row]:
    """A record's rows; none where its results have another form."""
    results = record.get("results")
    return [Row(**row) for row in results] if isinstance(results, list) else []


def quantiles_of(record: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Name -> percentiles, of a record whose results are such a mapping."""
    results = record.get("results")
    return {k: v for k, v in results.items() if "p50" in v} if isinstance(results, dict) else {}


def newest_as_markdown(folder: Path) -> Iterator[str]:
    """The newest record of each benchmark, kind of device and setting in a folder of records, as Markdown.

    Raises:
        InputError: the folder has none; or a record lacks what its table is made of, named by file and line.
    """
    found = 0
    for name, records in read_records(folder).items():
        _check(folder / f"{name}.jsonl")
        for label, record in newest({name: records}).items():
            found += 1
            yield markdown(label, name, record)
    if not found:
        raise InputError(f"'{folder}' has no records of benchmarks: name the folder that holds `records` with --out")


def _check(path: Path) -> None:
    for line, record in numbered_json_lines(path):
        try:
            for label, each in newest({path.stem: [record]}).items():
                markdown(label, path.stem, each)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            where = f"'{path}', line {line}"
            raise InputError(
                f"{where}: this is no record of {path.stem} ({misfit(error)}): take the line out"
            ) from error


def markdown(label: str, name: str, record: Record) -> str:
    """A record of a benchmark as Markdown: what was measured, where, at which commit, and its tables."""
    commit = (record["commit"] or "no commit")[:7] + (" and changes" if record["dirty"] else "")
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    where = f"{record['time'][:10]}, {where_measured(record)}, n = {record.get('n', '?')}, commit {commit}; {versions}."
    lines = [f"`{record['command']}`  ", f"{label}: {where}"]
    for part, shown in tables_of(name, record).items():
        lines += ["", *([f"{part}:", ""] if part else []), shown.markdown()]
    return "\n".join(lines)


def is_of_gpu(record: Record) -> bool:
    """Whether a GPU was measured; the machine may have one all the same. What does not say it uses cores alone."""
    return record.get("device_type") == "cuda"


def where_measured(record: Record) -> str:
    """The GPUs of what was measured on them, else the CPU with its cores."""
    device = record["device"]
    return (is_of_gpu(record) and ", ".join(device["gpus"])) or f"{device['cpu']}, {device['cores']} cores"


def tables_of(name: str, record: Mapping[str, Any]) -> dict[str, Table]:
    """The tables of a benchmark's record as they were printed, by their part; "" where there is one alone."""
    if name in _OWN_TABLES:
        return importlib.import_module(f"bench.{_OWN_TABLES[name]}").tables_of(record)
    if rows := rows_of(record):
        return {"": table(rows)}
    points = ("p20", "p50", "p80")
    shown = [[k, *(number(v[p]) for p in points)] for k, v in quantiles_of(record).items()]
    return {"": Table(["", *points], shown)}


def picture_name(name: str, record: Record) -> str:
    """One picture for each benchmark, kind of device and setting (network and batch, where the record has a title)."""
    words = [name, "cuda" if is_of_gpu(record) else "cpu", *re.findall(r"\w+", record.get("title") or "")]
    return "_".join(words)


def publish(name: str, record: Record, pictures: Path) -> Path | None:
    """Draw a record; returns the picture, None where there is nothing to draw."""
    figure = charts.draw(name, record, rows_of(record), quantiles_of(record))
    if figure is None:
        return None
    path = pictures / f"{picture_name(name, record)}.png"
    save_figure(figure, path)
    return path
