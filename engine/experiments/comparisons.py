"""Tables of the paper: the ablation (Table 3), and our numbers beside published ones (Tables 1 and 2)."""

from collections.abc import Sequence

from engine.experiments.curves import single_values, tests_of
from engine.experiments.results import Measured, Point, mean_over_splits
from engine.experiments.setup import Setup, class_pool, for_split, method_cell
from engine.experiments.tables import Report, Table
from engine.plots import bars_figure

# Rows of Table 3: e2e, augment, multi. The frozen baseline stands with one snippet, as in the paper.
_ROWS = (
    ("frozen", "frozen", False),
    ("e2e", "end to end", False),
    ("e2e + augment", "pretrained", False),
    ("e2e + multi", "end to end", True),
    ("e2e + augment + multi", "pretrained", True),
    ("e2e + joint + multi", "joint", True),
)


def table3_points(setup: Setup) -> list[Point]:
    """The rows of the ablation, and joint training with pictures as one more (paper Sec. 5.5)."""
    points = []
    for split in setup.splits:
        pool = class_pool(for_split(setup, split))
        for curve, method, is_multi in _ROWS:
            if setup.images is None and method in ("pretrained", "joint"):
                continue
            cell = method_cell(setup, method, split)
            if method == "joint":
                pool_of = class_pool(cell.config)
                videos, classes = pool_of.total, len(pool_of.names)
            else:
                videos, classes = pool.total, len(pool.names)
            points.append(Point(curve, 0, split, 0, cell, videos, classes, None if is_multi else 1))
    return points


def table3_report(setup: Setup, measured: Sequence[Measured]) -> Report:
    """Top-1 and top-5 under both protocols, a row for each part that is added."""
    tables, panels = [], []
    for test in tests_of(measured):
        rows, bars = [], []
        for curve, method, is_multi in _ROWS:
            group = [m for m in measured if m.test == test and m.point.curve == curve]
            if not group:
                continue
            augment = {"pretrained": "pretrained", "joint": "joint"}.get(method, "")
            marks = ["" if method == "frozen" else "✓", augment, "✓" if is_multi else ""]
            rows.append([*marks, *_accuracies(group)])
            bars.append((curve, mean_over_splits(group)))
        first = next(m for m in measured if m.test == test)
        tables.append(Table(f"{test}, {len(setup.splits)} splits", ["e2e", "augment", "multi", *_columns(first)], rows))
        panels.append((test, bars, 1 / first.num_classes))
    snippets = setup.base.evaluate.num_snippets
    notes = [
        "e2e: all of the network is trained (else only its linear layer, on features left as they began). augment: "
        "pretrained on moving crops of pictures; joint (not in the paper): trained on them and on videos at the same time. "
        f"multi: {snippets} snippets of a test video averaged, else one. Mean ± standard error over the class splits."
    ]
    figure = bars_figure(panels, "Ablation")
    return Report("Ablation (paper Table 3)", notes, tables, *single_values(measured), figure)


def _columns(first: Measured) -> list[str]:
    columns = []
    if first.half_classes is not None and first.half_classes > 1:
        columns += [f"{first.half_classes} classes top-1"]
        columns += [f"{first.half_classes} classes top-5"] if first.half_classes > 5 else []
    columns += [f"{first.num_classes} classes top-1"]
    return columns + ([f"{first.num_classes} classes top-5"] if first.num_classes > 5 else [])


def _accuracies(group: Sequence[Measured]) -> list[str]:
    """In the order of `_columns`."""
    first, texts = group[0], []
    if first.half_classes is not None and first.half_classes > 1:
        texts.append(str(mean_over_splits(group, "half_top1")))
        if first.half_classes > 5:
            texts.append(str(mean_over_splits(group, "half_top5")))
    texts.append(str(mean_over_splits(group)))
    if first.num_classes > 5:
        texts.append(str(mean_over_splits(group, "top5")))
    return texts
