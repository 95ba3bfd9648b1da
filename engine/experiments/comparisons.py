"""Tables of the paper: the ablation (Table 3), and our numbers beside published ones (Tables 1 and 2)."""

from collections.abc import Sequence
from statistics import fmean

from engine.experiments import claims
from engine.experiments.curves import single_values, tests_of
from engine.experiments.results import Measured, Point, chance, mean_over_splits, splits_told
from engine.experiments.setup import Setup, class_pool, for_split, method_cell, whole_training
from engine.experiments.tables import Report, Table
from engine.results.plots import bars_figure

# The methods of Tables 1 and 2, and what they are called there.
_METHODS = (("frozen", "frozen features"), ("end to end", "end to end"),
            ("pretrained", "pretrained on pictures"), ("joint", "joint with pictures"))  # fmt: skip

# Published, top-1 in per cent: method, features, UCF101, HMDB51, ActivityNet (paper Table 1).
_TABLE1 = (
    ("URL [64]", "ResNet200", "42.5", "51.8", "-"),
    ("DataAug [60]", "-", "18.3", "19.7", "-"),
    ("InfDem [39]", "I3D", "17.8", "21.3", "-"),
    ("Bidirectional [55]", "IDT", "21.4", "18.9", "-"),
    ("FairZSL [40]", "-", "-", "23.1", "-"),
    ("TARN [4]", "C3D", "19", "19.5", "-"),
    ("Action2Vec [18]", "C3D", "22.1", "23.5", "-"),
    ("paper, 605 classes", "C3D", "41.5", "25.0", "24.8"),
    ("paper, 664 classes", "C3D", "43.8", "24.7", "-"),
    ("paper, 605 classes", "R(2+1)D_18", "44.1", "29.8", "26.6"),
    ("paper, 664 classes", "R(2+1)D_18", "48", "32.7", "-"),
)
# Top-1 / top-5 in per cent on all classes (paper Table 2).
_TABLE2 = (
    ("URL [64]", "ResNet200", "34.2 / -", "-", "-"),
    ("paper, 664 classes", "R(2+1)D_18", "37.6 / 62.5", "26.9 / 49.8", "-"),
    ("paper, 605 classes", "R(2+1)D_18", "35.3 / 60.6", "24.8 / 44.0", "20.0 / 42.7"),
)
_CAVEAT = (
    "Our numbers and the published ones can be compared only where training data, test classes and network are the same: among "
    "few candidates guessing alone is often right (chance), and a small network on little data is not the paper's."
)

# Rows of Table 3: name, method, several snippets. The frozen baseline stands with one snippet, as in the paper.
_ROWS = (
    ("frozen", "frozen", False),
    ("e2e", "end to end", False),
    ("e2e + augment", "pretrained", False),
    ("e2e + multi", "end to end", True),
    ("e2e + augment + multi", "pretrained", True),
    ("e2e + joint + multi", "joint", True),
)
# Published, UCF101, per cent: e2e, augment, multi, then top-1 and top-5 of 50 and of 101 classes (paper Table 3).
_TABLE3 = (
    ("", "", "", "26.8", "55.5", "19.8", "40.5"),
    ("✓", "", "", "43.0", "68.2", "35.1", "56.4"),
    ("✓", "✓", "", "45.6", "73.1", "36.8", "61.7"),
    ("✓", "", "✓", "48.0", "74.2", "37.6", "62.5"),
    ("✓", "✓", "✓", "49.2", "77.0", "39.8", "65.6"),
)
_TABLE3_HEADER = (
    "e2e",
    "augment",
    "multi",
    "50 classes top-1",
    "50 classes top-5",
    "101 classes top-1",
    "101 classes top-5",
)


def comparison_points(setup: Setup) -> list[Point]:
    """The methods on all training data."""
    points = []
    for split in setup.splits:
        for method, curve in _METHODS:
            if not setup.uses(method):
                continue
            cell = method_cell(setup, method, split)
            points.append(Point(curve, 0, split, 0, cell, whole_training(cell.config, class_pool(cell.config))))
    return points


def table1_report(setup: Setup, measured: Sequence[Measured]) -> Report:
    """Random halves of the test classes, ten of them averaged, beside the paper's Table 1."""
    return _beside_published(setup, measured, "half", "half of the test classes (paper Table 1)", _TABLE1)


def table2_report(setup: Setup, measured: Sequence[Measured]) -> Report:
    """All test classes, beside the paper's Table 2."""
    return _beside_published(setup, measured, "all", "all test classes (paper Table 2)", _TABLE2)


def _beside_published(
    setup: Setup, measured: Sequence[Measured], which: str, title: str, published: Sequence[Sequence[str]]
) -> Report:
    header = ["ours", "test set", "training classes", "splits", "candidates", "mean-class", "chance", "top-1", "top-5"]
    rows, panels = [], []
    for test in tests_of(measured):
        bars = []
        for _, curve in _METHODS:
            group = [m for m in measured if m.test == test and m.point.curve == curve]
            if which == "half":
                group = [m for m in group if m.half_top1 is not None]
            if not group:
                continue
            counts = [m.half_classes if which == "half" else m.num_classes for m in group]
            prefix = "half_" if which == "half" else ""
            mean_class, top1 = (mean_over_splits(group, f"{prefix}{of}") for of in ("mean_class", "top1"))
            top5 = str(mean_over_splits(group, f"{prefix}top5")) if min(counts) > 5 else None
            splits, classes = len({m.point.split for m in group}), round(fmean(m.point.classes for m in group))
            accuracy = [str(mean_class), fmean(1 / count for count in counts), str(top1), top5]
            rows.append([curve, test, classes, splits, round(fmean(counts)), *accuracy])
            bars.append((curve, mean_class))
        if bars:
            guessing = {row[header.index("chance")] for row in rows if row[1] == test}
            panels.append((test, bars, guessing.pop() if len(guessing) == 1 else None))
    network = str(setup.base.model)
    theirs = ["method", "features", "UCF101", "HMDB51", "ActivityNet"]
    tables = [
        Table(header, rows, f"Ours: {network}, shares; mean ± standard error over splits"),
        Table(theirs, published, "Published, top-1 (and top-5) in per cent"),
    ]
    figure = bars_figure(panels, f"Ours, {title}")
    return Report(f"Accuracy on {title}", [_CAVEAT], tables, single_values(measured), figure)


def table3_points(setup: Setup) -> list[Point]:
    """The rows of the ablation, and joint training with pictures as one more (paper Sec. 5.5)."""
    points = []
    for split in setup.splits:
        pool = class_pool(for_split(setup, split))
        for curve, method, is_multi in _ROWS:
            if not setup.uses(method):
                continue
            cell = method_cell(setup, method, split)
            own = class_pool(cell.config) if method == "joint" else pool
            points.append(Point(curve, 0, split, 0, cell, whole_training(cell.config, own), None if is_multi else 1))
    return points


def table3_report(setup: Setup, measured: Sequence[Measured]) -> Report:
    """Mean-class, top-1 and top-5 under both protocols, a row for each part that is added."""
    tables, panels = [], []
    for test in tests_of(measured):
        of_test, rows, bars = [m for m in measured if m.test == test], [], []
        groups = {curve: [m for m in of_test if m.point.curve == curve] for curve, _, _ in _ROWS}
        shown = _shown(of_test)
        for curve, method, is_multi in _ROWS:
            if not (group := groups[curve]):
                continue
            augment = {"pretrained": "pretrained", "joint": "joint"}.get(method, "")
            marks = ["" if method == "frozen" else "✓", augment, "✓" if is_multi else ""]
            rows.append([*marks, *(str(mean_over_splits(group, of)) for _, of in shown)])
            bars.append((curve, mean_over_splits(group)))
        header = ["e2e", "augment", "multi", *(name for name, _ in shown)]
        tables.append(Table(header, rows, f"{test}, {splits_told(filter(None, groups.values()), 'split')}"))
        panels.append((test, bars, chance(measured, test)))
    many = setup.base.evaluate.num_snippets
    tables.append(Table(_TABLE3_HEADER, _TABLE3, "Published, UCF101, per cent"))
    notes = [
        "e2e: all of the network is trained (else only its linear layer, on features left as they began). augment: "
        "pretrained on moving crops of pictures; joint (not in the paper): trained on them and on videos at the same time. "
        f"multi: {many} snippets of a test video averaged, else one. Mean ± standard error over the class splits.",
        _CAVEAT,
    ]
    figure = bars_figure(panels, "Ablation")
    findings = [found for test in tests_of(measured) for found in claims.snippets(measured, test, many)]
    return Report("Ablation (paper Table 3)", notes, tables, single_values(measured), figure, findings)


def _shown(of_test: Sequence[Measured]) -> list[tuple[str, str]]:
    """Columns and their fields of `Measured`: half of the classes where all have halves, then all; candidates as a mean."""
    shown = []
    for prefix, counts in (
        ("half_", [each.half_classes or 0 for each in of_test]),
        ("", [each.num_classes for each in of_test]),
    ):
        if min(counts) > 1 or not prefix:
            measures = {"mean-class": "mean_class", "top-1": "top1"} | ({"top-5": "top5"} if min(counts) > 5 else {})
            shown += [(f"{round(fmean(counts))} classes {name}", f"{prefix}{of}") for name, of in measures.items()]
    return shown
