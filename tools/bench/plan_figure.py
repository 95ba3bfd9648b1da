"""The picture of a record of `plan`: the simulation beside what was measured, and what it says of clusters."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.results.figures import new_figure, open_frame, series_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plan_figure(record: Mapping[str, Any]) -> "Figure":
    """Left, where it was measured: clips/s over reads in flight, simulated (lines) and measured (points, with their 20th and
    80th percentile). Right: how busy the GPUs are over the latency, with a read a core, with enough
    reads in flight, and with enough batches begun as well."""
    has_measured = bool(record["results"])
    figure = new_figure(12 if has_measured else 6, 5)
    panels = figure.subplots(1, 1 + has_measured, squeeze=False)[0]
    if has_measured:
        _draw_measured(panels[0], record["results"])
    _draw_busy(panels[-1], record["simulated"])
    return figure


def _draw_measured(axes: "Axes", rows: Sequence[Mapping[str, Any]]) -> None:
    cases = list(dict.fromkeys(row["case"] for row in rows))
    for colour, case in zip(series_colors(len(cases)), cases, strict=True):
        mine = [row for row in rows if row["case"] == case]
        counts = [int(row["variant"].split()[0]) for row in mine]
        rates = [row["values"]["clips_per_s"] for row in mine]
        scale = [rate * row["seconds"]["p50"] for rate, row in zip(rates, mine, strict=True)]
        low, high = ([of / row["seconds"][p] for of, row in zip(scale, mine, strict=True)] for p in ("p80", "p20"))
        reach = [
            [max(0.0, r - x) for r, x in zip(rates, low, strict=True)],
            [max(0.0, x - r) for r, x in zip(rates, high, strict=True)],
        ]
        axes.plot(
            counts, [row["values"]["simulated_clips_per_s"] for row in mine], color=colour, label=f"{case}, simulated"
        )
        axes.errorbar(counts, rates, reach, fmt="o", color=colour, capsize=3, label=f"{case}, measured")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    _finish(axes, "reads in flight", "clips/s", "One rank of the engine, by median latency of a read")


def _draw_busy(axes: "Axes", rows: Sequence[Mapping[str, Any]]) -> None:
    counts = list(dict.fromkeys(row["gpus"] for row in rows))
    for colour, gpus in zip(series_colors(len(counts)), counts, strict=True):
        mine = [row for row in rows if row["gpus"] == gpus]
        latencies = [row["latency_ms"] for row in mine]
        for name, style, how in (
            ("default", "o-", "a read a core"),
            ("threads", "s--", "twice the needed"),
            ("ahead", "^:", "and batches begun for them"),
        ):
            shares = [100 * row["busy"][name] for row in mine]
            axes.plot(latencies, shares, style, color=colour, markersize=5, label=f"{gpus} GPUs, {how}")
    axes.set_xscale("log")
    axes.set_ylim(0, 104)
    _finish(axes, "median latency of a read, ms", "GPUs busy, %", "Clusters, simulated")


def _finish(axes: "Axes", across: str, upwards: str, title: str) -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(upwards)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    open_frame(axes)
