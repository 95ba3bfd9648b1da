"""What is made of records: Markdown, a picture and TensorBoard curves. All of it from the record alone, at any time.

A record's `results` are either a list of rows (`bench.rows.Row`) or a mapping from a name to percentiles.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from bench import charts
from bench.rows import Row, number, table
from engine.results.figures import figure_array, save_figure
from engine.results.table import Table

Record = dict[str, Any]


def read_records(folder: Path) -> dict[str, list[Record]]:
    """All records of a folder by the name of their benchmark, oldest first."""
    return {
        path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in sorted(folder.glob("*.jsonl"))
    }


def newest(records: dict[str, list[Record]]) -> dict[str, Record]:
    """The newest record of each benchmark on each kind of device that has results to show, by picture name."""
    shown = [
        (name, record) for name, each in records.items() for record in each if rows_of(record) or quantiles_of(record)
    ]
    return {picture_name(name, record): record for name, record in shown}


def rows_of(record: Record) -> list[Row]:
    """A record's rows; none where its results have another form."""
    results = record.get("results")
    return [Row(**row) for row in results] if isinstance(results, list) else []


def quantiles_of(record: Record) -> dict[str, dict[str, float]]:
    """Name -> percentiles, of a record whose results are such a mapping."""
    results = record.get("results")
    return {k: v for k, v in results.items() if "p50" in v} if isinstance(results, dict) else {}


def markdown(name: str, record: Record) -> str:
    """A record as Markdown: what was measured, where, at which commit, and the table."""
    commit = (record["commit"] or "no commit")[:7] + (" and changes" if record["dirty"] else "")
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    where = f"{record['time'][:10]}, {where_measured(record)}, n = {record.get('n', '?')}, commit {commit}; {versions}."
    return "\n".join([f"`{record['command']}`  ", f"{name}: {where}", "", _table(record).markdown()])


def where_measured(record: Record) -> str:
    """The GPUs, or the CPU with its cores."""
    device = record["device"]
    return ", ".join(device["gpus"]) or f"{device['cpu']}, {device['cores']} cores"


def _table(record: Record) -> Table:
    if rows := rows_of(record):
        return table(rows)
    points = ("p20", "p50", "p80")
    return Table(["", *points], [[k, *(number(v[p]) for p in points)] for k, v in quantiles_of(record).items()])


def picture_name(name: str, record: Record) -> str:
    """One picture for each benchmark and kind of device."""
    on_gpu = bool(record["device"]["gpus"]) and record.get("device_type") != "cpu"
    return f"{name}_{'cuda' if on_gpu else 'cpu'}"


def publish(name: str, record: Record, place: int, pictures: Path, tensorboard: Path) -> Path | None:
    """Draw a record and write its numbers to TensorBoard; returns the picture, None where there is nothing to draw.

    Args:
        place: number of the record in its file: the step of the curves, so that they show a machine's history.
    """
    from torch.utils.tensorboard import SummaryWriter

    label = picture_name(name, record)
    when = datetime.fromisoformat(record["time"]).timestamp()
    with SummaryWriter(str(tensorboard / label)) as writer:
        for tag, value in numbers(record):
            writer.add_scalar(f"{name}/{tag}", value, place, walltime=when)
        writer.add_text(name, markdown(name, record), place, walltime=when)
        figure = charts.draw(name, record, rows_of(record), quantiles_of(record))
        if figure is None:
            return None
        path = pictures / f"{label}.png"
        save_figure(figure, path)
        writer.add_image(name, figure_array(figure), place, dataformats="HWC", walltime=when)
    return path


def numbers(record: Record) -> Iterator[tuple[str, float]]:
    """Every number of a record with its tag."""
    for row in rows_of(record):
        tag = "/".join(part for part in (row.case, row.variant, row.precision) if part)
        if row.seconds is not None:
            yield f"{tag}/p50_s", row.seconds["p50"]
        for key, value in row.values.items():
            yield f"{tag}/{key}", value
    for key, quantiles in quantiles_of(record).items():
        yield f"{key}/p50", quantiles["p50"]
