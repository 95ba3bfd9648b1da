"""The tables of a record of `plan`."""

from collections.abc import Mapping
from typing import Any

from bench.plan_options import GIGABIT
from bench.rows import Row, number, table
from engine.results.table import Table

PARTS = ("measured", "figures", "needs", "simulated")


def tables_of(record: Mapping[str, Any]) -> dict[str, Table]:
    """All parts that a record has, by their names."""
    return {part: _part(record, part) for part in PARTS if part != "measured" or record["results"]}


def _part(record: Mapping[str, Any], part: str) -> Table:
    """A part of a record: `figures`, `needs`, `simulated`, or `measured`, the comparison with this machine."""
    if part == "measured":
        return table([Row(**row) for row in record["results"]])
    if part == "figures":
        rows = [[each["name"], number(each["value"]), each["unit"], each["source"]] for each in record["figures"]]
        return Table(["figure", "value", "unit", "from"], rows)
    if part == "needs":
        header = ["GPUs", "nodes", "clips/s", "cores a GPU", "reading, Gbit/s a node", "gradients, Gbit/s a node",
                  "gradients, MB a step and node", "their share of the line, %", "store, Gbit/s", "hours an epoch"]  # fmt: skip
        names = ("gpus", "nodes", "clips_per_s", "cores", "read_rate", "gradient_rate", "gradient_bytes", "gradient_share",
                 "store_rate", "epoch_s")  # fmt: skip
        units = {"read_rate": GIGABIT, "gradient_rate": GIGABIT, "store_rate": GIGABIT, "gradient_bytes": 1e6,
                 "gradient_share": 0.01, "epoch_s": 3600.0}  # fmt: skip
        rows = [[number(each[name] / units.get(name, 1.0)) for name in names] for each in record["needs"]]
        return Table(header, rows)
    header = ["GPUs", "latency, ms", "saturates first", "clips/s, its limit", "clips/s, simulated", "GPUs busy, %",
              "reads in flight a GPU, needed", "twice that: busy, %", "and batches begun", "busy, %"]  # fmt: skip
    rows = [
        [each["gpus"], number(each["latency_ms"]), each["first"], number(each["limit"]), number(each["clips_per_s"]["default"]),
         number(100 * each["busy"]["default"]), number(each["needed_in_flight"]), number(100 * each["busy"]["threads"]),
         each["batches_begun"], number(100 * each["busy"]["ahead"])]
        for each in record["simulated"]
    ]  # fmt: skip
    return Table(header, rows)
