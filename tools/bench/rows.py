"""One line of a benchmark's table, whichever benchmark it is, and the table that is made of such lines."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from engine.results.table import Table

COLUMNS: dict[str, tuple[str, float]] = {  # value's name -> heading, factor
    "clips_per_s": ("clips/s", 1),
    "simulated_clips_per_s": ("simulated clips/s", 1),
    "over_simulated": ("x simulated", 1),
    "videos_per_s": ("videos/s", 1),
    "mean_class": ("mean-class %", 100),
    "top1": ("top-1 %", 100),
    "top5": ("top-5 %", 100),
    "over_torchvision": ("x torchvision", 1),
    "over_paper_recipe": ("x paper recipe", 1),
    "of_local": ("x local", 1),
    "client_cpu_s": ("client CPU ms a snippet", 1000),
    "of_local_cpu": ("x local, by client CPU", 1),
    "server_cpu_s": ("server CPU ms a snippet", 1000),
    "over_unfused": ("x unfused", 1),
    "compute_clips_per_s": ("clips/s same batch", 1),
    "saturation": ("saturation %", 100),
    "wait_share": ("waiting %", 100),
    "motion_costs": ("motion %", 100),
    "time_share": ("% of the step", 100),
    "moved_mb": ("MB moved", 1),
    "gb_per_s": ("GB/s", 1),
    "tflops": ("TFLOP/s", 1),
    "mfu": ("MFU %", 100),
    "roofline_share": ("% of roofline", 100),
    "extra_mb": ("extra MB", 1),
    "peak_mb": ("memory MB", 1),
    "warmup_s": ("warm-up s", 1),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One measured line.

    case: what was computed. variant: by whom: the engine or a rival. precision: of the arithmetic.
    seconds: of one call (a step, a kernel, a pass over the videos), as `summarise` gives it; None where there is no
        result, and then `note` says why.
    values: what follows from it, by the names of `COLUMNS`; shares are from 0 to 1, MB are 1e6 bytes.
    """

    case: str
    variant: str
    precision: str
    seconds: dict[str, float | int] | None
    values: dict[str, float] = field(default_factory=dict)
    note: str = ""


def with_ratios(rows: Sequence[Row], rival: str, column: str, *, within_case: bool = False) -> list[Row]:
    """Each row with how many times as fast as the rival it is, by the medians, wherever both have a result.

    Args:
        within_case: the rival is the one of the same case and precision.
    """
    found = {}
    for row in rows:
        if row.variant == rival and row.seconds is not None:
            found[(row.case, row.precision) if within_case else None] = row.seconds["p50"]
    result = []
    for row in rows:
        reference = found.get((row.case, row.precision) if within_case else None)
        if reference is not None and row.seconds is not None:
            row = replace(row, values=row.values | {column: reference / row.seconds["p50"]})
        result.append(row)
    return result


def table(rows: Sequence[Row]) -> Table:
    """As a table; a column is there if any row has something in it."""
    names = [name for name in COLUMNS if any(name in row.values for row in rows)]
    headings = ["", "", "", *(f"{p} ms" for p in ("p20", "p50", "p80")), *(COLUMNS[name][0] for name in names), ""]
    lines = []
    for row in rows:
        times = [""] * 3 if row.seconds is None else [number(1e3 * row.seconds[p]) for p in ("p20", "p50", "p80")]
        values = [number(COLUMNS[name][1] * row.values[name]) if name in row.values else "" for name in names]
        lines.append([row.case, row.variant, row.precision, *times, *values, row.note])
    used = [index for index in range(len(headings)) if headings[index] or any(line[index] for line in lines)]
    return Table([headings[index] for index in used], [[line[index] for index in used] for line in lines])


def line(row: Row) -> str:
    """A row alone, as it comes, before there is a table."""
    name = ", ".join(part for part in (row.case, row.variant, row.precision) if part)
    if row.seconds is None:
        return f"{name}: {row.note}"
    values = [
        f"{number(factor * row.values[key])} {heading}"
        for key, (heading, factor) in COLUMNS.items()
        if key in row.values
    ]
    return "; ".join([f"{name}: {number(1e3 * row.seconds['p50'])} ms", *values, *filter(None, [row.note])])


def number(value: float) -> str:
    """Three digits that count; thousands in full."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def print_as_they_come(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """The name of each row as soon as there is one, and at the end the table."""
    found = []
    for row in rows:
        found.append(row)
        print(row[0], flush=True)
    print(Table(headings, found).text())
