"""What reports say of measured values: means, errors, verdicts, distances; and that pictures show them."""

import errno
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine.config import Config
from engine.errors import InputError
from engine.evaluation.metrics import evaluate_embeddings
from engine.experiments import comparisons, curves, leaks, methods
from engine.experiments.cells import Cell
from engine.experiments.claims import Finding
from engine.experiments.comparisons import table1_report, table2_report, table3_report
from engine.experiments.cost import _speed
from engine.experiments.curves import figure4_report, figure5_report, figure6_report, single_values
from engine.experiments.distances import (
    _ClassValue,
    _more_gained_far_away,
    _neighbours,
    cumulative_accuracy,
    figure2_report,
    figure3_report,
    project,
)
from engine.experiments.methods import methods_report, read_methods
from engine.experiments.results import (
    Measured,
    Point,
    chance,
    control,
    largest_class,
    mean_over_splits,
    read_point,
    results_path,
    split_means,
    unequal_tests,
)
from engine.experiments.setup import Method, Setup, Training
from engine.experiments.tables import Report, Table, write_report
from engine.results.figures import figure_array
from engine.results.plots import Panel
from engine.results.record import Results, replacing
from engine.schema.parser import parse
from engine.semantics.classes import build_class_embeddings
from engine.semantics.config import OverlapConfig, WordsConfig
from engine.semantics.overlap import nearest_test_classes

REPO = Path(__file__).resolve().parents[2]
CONFIG = parse(Config, {"data": {"train": [{"manifest": "a.parquet"}]}})


def measured(curve: str, split: int, mean_class: float, draw: int = 0, x: float = 0, **values: object) -> Measured:
    """Every measure has another value, so that none can stand for another."""
    training = Training([], int(values.pop("videos", 100)), 10, 100)
    point = Point(curve, x, split, draw, Cell("cell", CONFIG), training)
    accuracy = {"mean_class": mean_class, "half_mean_class": mean_class + 0.1, "top1": mean_class + 0.2}
    accuracy |= {"half_top1": mean_class + 0.3, "top5": 1.0, "half_top5": None, "largest_class": 0.25}
    defaults = {"half_classes": 2, "per_class": (), "control": None}
    return Measured(point=point, test="unseen", folder=Path("run"), num_classes=5, **{**accuracy, **defaults, **values})


def test_draws_are_averaged_within_their_split_first():
    values = [measured("a", 0, 0.2, 0), measured("a", 0, 0.4, 1), measured("a", 1, 0.5, 0), measured("a", 1, 0.5, 1)]
    assert split_means(values) == {0: pytest.approx(0.3), 1: 0.5}
    mean = mean_over_splits(values)
    assert mean.value == pytest.approx(0.4)
    assert mean.error == pytest.approx(math.sqrt(2) * 0.1 / math.sqrt(2))  # of two splits, not of four values
    assert str(mean) == "0.400 ± 0.100" and str(mean_over_splits(values[:1])) == "0.200"
    assert str(mean_over_splits(values[:2])) == "0.300 ± 0.100"  # of a single split over its draws


def test_figure4_puts_every_mean_at_its_number_of_videos():
    values = [measured("end to end, fewer videos", split, 0.2 + 0.1 * split, x=x, videos=v)
              for split in (0, 1) for x, v in ((0.5, 50), (1, 100))]  # fmt: skip
    values += [measured("end to end, fewer classes", 0, 0.25, x=2, videos=20)]
    report = figure4_report(Setup(CONFIG), values)
    axes = report.figure.axes[0]
    lines = {c.get_label(): c.lines[0].get_xydata().tolist() for c in axes.containers}
    assert lines["end to end, fewer videos"] == [[50, pytest.approx(25)], [100, pytest.approx(25)]]
    assert lines["end to end, fewer classes"] == [[20, 25]]
    assert [text.get_text() for text in axes.texts] == ["2"]
    assert axes.get_xscale() == "log"
    assert any(np.allclose(line.get_ydata(), 20) for line in axes.lines)  # chance of five classes
    assert [
        "unseen",
        "end to end, fewer videos",
        "0.5",
        "10",
        "50",
        2,
        2,
        "0.250 ± 0.050",
        0.2,
        None,
        "0.450 ± 0.050",
        0.25,
    ] in (report.tables[0].rows)
    assert len(report.values.rows) == len(values)


def test_a_difference_is_paired_and_has_an_interval():
    """Two methods far apart in spread: only the paired differences tell that the one is always better."""
    first = [0.1, 0.3, 0.5]
    better = [value + 0.02 + 0.001 * place for place, value in enumerate(first)]
    mixed = [0.15, 0.2, 0.56]
    methods = {"ours": first, "better": better, "mixed": mixed}
    values = [
        measured(name, split, top1, control=0.2 if name == "ours" else None)
        for name, tops in methods.items()
        for split, top1 in enumerate(tops)
    ]
    setup = Setup(
        CONFIG, reference="ours", methods=tuple(Method(n, CONFIG, None, True) for n in ("ours", "better", "mixed"))
    )
    rows = {row[0]: row for row in methods_report(setup, values).tables[0].rows}
    assert rows["ours"][1:6] == [3, pytest.approx(0.3), pytest.approx(0.2), None, "0.200 ± 0.000"]
    reach = 4.302653 * 0.001 / math.sqrt(3)  # the table of Student's t, two degrees of freedom
    assert rows["better"][4] == f"+0.021 ({0.021 - reach:+.3f} to {0.021 + reach:+.3f})" == "+0.021 (+0.019 to +0.023)"
    assert rows["mixed"][4] == "+0.003 (-0.219 to +0.226)"
    assert rows["ours"][6:] == [pytest.approx(0.5), 0.25]
    assert rows["chance"][2] == 0.2
    some = [each for each in values if (each.point.curve, each.point.split) != ("ours", 2)]
    assert methods_report(setup, some).tables[0].rows[1][4].startswith("+0.021")  # where both were measured
    (of_one, *_) = methods_report(setup, [each for each in values if each.point.split == 0]).tables[0].rows
    assert of_one[1:4] == [1, pytest.approx(0.1), None]  # one split has no deviation


def test_tables_leave_out_what_says_nothing():
    """Top-5 of five classes is always 1."""
    names = {"frozen": 0.2, "e2e": 0.25, "e2e + multi": 0.3}
    values = [measured(name, split, top1 + 0.01 * split) for name, top1 in names.items() for split in (0, 1)]
    table = table3_report(Setup(CONFIG, (0, 1)), values).tables[0]
    measures = ["2 classes mean-class", "2 classes top-1", "5 classes mean-class", "5 classes top-1"]
    assert list(table.header) == ["e2e", "augment", "multi", *measures]
    assert table.rows[0] == ["", "", "", "0.305 ± 0.005", "0.505 ± 0.005", "0.205 ± 0.005", "0.405 ± 0.005"]
    assert table.rows[2][:3] == ["✓", "", "✓"]
    ours, published = table1_report(Setup(CONFIG), [measured("end to end", 0, 0.3)]).tables
    assert ours.rows == [["end to end", "unseen", 10, 1, 2, "0.400", 0.5, "0.600", None]]
    assert ("paper, 664 classes", "R(2+1)D_18", "48", "32.7", "-") in published.rows


def test_reports_tell_the_splits_that_were_measured():
    """Of two that were asked for; and nothing is decided where no pair was measured."""
    one, two = [measured("frozen", 0, 0.2)], [measured("e2e", split, 0.2) for split in (0, 1)]
    setup = Setup(CONFIG, (0, 1, 2), reference="frozen", methods=(Method("frozen", CONFIG, None, True),))
    assert table3_report(setup, one).tables[0].title == "unseen, 1 split"
    assert table3_report(setup, two).tables[0].title == "unseen, 2 splits"
    assert table3_report(setup, [*one, *two]).tables[0].title == "unseen, 1 to 2 splits"
    title = methods_report(setup, one).figure.get_suptitle()
    assert title.replace("\n", " ") == "Methods, 1 class split (mean ± standard error)"
    assert [table.title for table in table3_report(setup, one).shown][1:] == ["Published, UCF101, per cent"]
    pair = [*one, *two, measured("e2e + multi", 1, 0.3)]
    assert table3_report(setup, pair).shown[-1].title == "What this decides"


def test_candidates_and_training_classes_are_means_over_the_splits():
    few, many = (measured("end to end", split, 0.3, half_classes=half, top5=0.9) for split, half in ((0, 2), (1, 4)))
    training = replace(few.point.training, classes=13)
    few = replace(few, point=replace(few.point, training=training))
    many = replace(many, num_classes=10)
    whole, half = (make(Setup(CONFIG), [few, many]).tables[0].rows[0] for make in (table2_report, table1_report))
    assert whole == ["end to end", "unseen", 12, 2, 8, "0.300 ± 0.000", pytest.approx(0.15), "0.500 ± 0.000", None]
    assert half[4] == 3 and half[6] == pytest.approx(0.375)
    named = [replace(each, point=replace(each.point, curve="e2e")) for each in (few, many)]
    assert table3_report(Setup(CONFIG), named).tables[0].header[3:] == [
        "3 classes mean-class", "3 classes top-1", "8 classes mean-class", "8 classes top-1",
    ]  # fmt: skip


@pytest.fixture
def panels(monkeypatch):
    """Reports give what their pictures are drawn from in place of the pictures."""
    for module, name in ((comparisons, "bars"), (curves, "bars"), (curves, "lines"), (methods, "bars")):
        monkeypatch.setattr(module, f"{name}_figure", lambda panels, title: panels)


@pytest.mark.parametrize(("make", "names"), [
    (table1_report, ("frozen", "end to end")),
    (table2_report, ("frozen", "end to end")),
    (table3_report, ("e2e", "e2e + multi")),
    (figure4_report, ("end to end, fewer videos", "frozen, fewer videos")),
    (figure5_report, ("end to end",)),
    (figure6_report, ("from scratch", "pretrained on pictures")),
    (methods_report, ("ours", "mine")),
])  # fmt: skip
def test_what_is_told_of_a_test_set_is_of_that_one_alone(panels, make, names):
    setup = Setup(
        CONFIG, reference="ours", methods=tuple(Method(name, CONFIG, None, True) for name in ("ours", "mine"))
    )
    values = [measured(name, split, 0.3 + 0.1 * place + 0.02 * split, x=x, control=0.2)
              for place, name in enumerate(names) for split in (0, 1) for x in (0.5, 1)]  # fmt: skip
    accuracies = dict.fromkeys(("mean_class", "top1", "half_mean_class", "half_top1", "largest_class"), 0.05)
    others = [replace(each, test="other", num_classes=4, half_classes=3, control=0.9, **accuracies) for each in values]

    def told(report: Report) -> list[object]:
        whole = [table for table in report.tables if table.title.startswith("unseen")]
        rows = [table.rows for table in whole] or [row for row in report.tables[0].rows if "unseen" in row]
        return [rows, report.figure[-1], [each for each in report.findings if each.test == "unseen"]]

    alone, beside = make(setup, values), make(setup, [*others, *values])
    assert told(beside) == told(alone) and len(beside.figure) == 2
    panel = alone.figure[0]
    assert (panel.chance if isinstance(panel, Panel) else panel[2]) == (0.5 if make is table1_report else 0.2)
    assert len({each.test for each in beside.findings}) == 2 * bool(alone.findings)


def test_tables_show_top_5_where_there_are_more_candidates(panels):
    value = replace(measured("end to end", 0, 0.3, half_classes=6, half_top5=0.7, top5=0.9), num_classes=12)
    assert table1_report(Setup(CONFIG), [value]).tables[0].rows[0][4:] == [6, "0.400", 1 / 6, "0.600", "0.700"]
    assert table2_report(Setup(CONFIG), [value]).tables[0].rows[0][4:] == [12, "0.300", 1 / 12, "0.500", "0.900"]
    table = table3_report(Setup(CONFIG), [replace(value, point=replace(value.point, curve="e2e + augment"))]).tables[0]
    assert table.rows == [["✓", "pretrained", "", "0.400", "0.600", "0.700", "0.300", "0.500", "0.900"]]
    assert table.header[5] == "6 classes top-5" and table.header[8] == "12 classes top-5"
    for make, curve, bar in ((table1_report, "end to end", "0.400"), (table3_report, "e2e", "0.300")):
        ((_, bars, _),) = make(Setup(CONFIG), [replace(value, point=replace(value.point, curve=curve))]).figure
        assert [(name, str(mean)) for name, mean in bars] == [(curve, bar)]  # mean-class


def test_a_test_set_without_halves_is_in_the_table_of_all_classes_alone(panels):
    halves = dict.fromkeys(("half_mean_class", "half_top1", "half_top5", "half_classes"))
    value = replace(measured("end to end", 0, 0.3), **halves)
    assert table1_report(Setup(CONFIG), [value]).tables[0].rows == []
    assert [row[0] for row in table2_report(Setup(CONFIG), [value]).tables[0].rows] == ["end to end"]


def test_figures_5_and_6_draw_what_was_measured(panels):
    """Bars from few clusters to many; lines over the mean number of videos, with errors over the splits."""
    values = [
        measured("end to end", split, value + 0.1 * split, x=x) for x, value in ((2, 0.3), (1, 0.5)) for split in (0, 1)
    ]
    ((name, bars, guessing),) = figure5_report(Setup(CONFIG), values).figure
    assert (name, guessing) == ("unseen", 0.2)
    assert [(label, str(mean)) for label, mean in bars] == [
        ("1 cluster", "0.550 ± 0.050"),
        ("2 clusters", "0.350 ± 0.050"),
    ]
    (finding,) = figure5_report(Setup(CONFIG), values).findings
    assert finding.claim == "classes of one of 1 clusters above classes of one of 2"
    values = [measured(curve, split, value + 0.1 * split, x=x, videos=100 * x + 2 * split)
              for curve, value in (("from scratch", 0.2), ("pretrained on pictures", 0.4))
              for x in (1, 0.5) for split in (0, 1)]  # fmt: skip
    report = figure6_report(Setup(CONFIG), values)
    (panel,) = report.figure
    assert [(line.label, line.x, line.y) for line in panel.lines] == [
        (curve, [51, 101], pytest.approx([mean, mean]))
        for curve, mean in (("from scratch", 0.25), ("pretrained on pictures", 0.45))
    ]
    assert panel.lines[0].error == pytest.approx([0.05, 0.05]) and panel.chance == 0.2
    assert report.findings[0].claim == "pretrained on pictures above from scratch, 0.5 of the videos"


def test_bars_of_methods_are_their_means(panels):
    values = [
        measured(name, split, value + 0.1 * split) for name, value in (("ours", 0.3), ("mine", 0.5)) for split in (0, 1)
    ]
    setup = Setup(
        CONFIG, reference="ours", methods=tuple(Method(name, CONFIG, None, True) for name in ("ours", "mine"))
    )
    ((name, bars, guessing),) = methods_report(setup, values).figure
    assert (name, guessing) == ("unseen", 0.2)
    assert [(label, str(mean)) for label, mean in bars] == [("ours", "0.350 ± 0.050"), ("mine", "0.550 ± 0.050")]


def test_what_is_not_known_of_all_is_told_of_none():
    """Chance of unequal candidates; a control, or the largest class, that some runs have not recorded."""
    value = measured("a", 0, 0.5, control=0.2)
    for change in ({"num_classes": 6}, {"control": None}, {"largest_class": None}):
        both = [value, replace(value, **change)]
        told = {"num_classes": chance(both, "unseen"), "control": control(both), "largest_class": largest_class(both)}
        assert {name for name, found in told.items() if found is None} == set(change)


def test_what_pretraining_adds_far_away_is_held_against_what_it_adds_near_by():
    """Split by split; by distance, in whatever order classes come."""
    accuracies = {
        "pretrained on pictures": (0.9, 0.5, 0.6, 0.4),
        "end to end": (0.2, 0.4, 0.1, 0.4),
        "frozen": (0, 0, 0, 0),
    }
    distances = (0.9, 0.1, 0.8, 0.2)
    values = [_ClassValue(curve, split, str(place), distance, 1, of[place] * (1 if split else 0.5))
              for split in (0, 1) for curve, of in accuracies.items() for place, distance in enumerate(distances)]  # fmt: skip
    assert _more_gained_far_away(values) == pytest.approx({0: 0.275, 1: 0.55})  # (0.7 + 0.5) / 2 - (0.1 + 0) / 2
    assert _more_gained_far_away([each for each in values if each.curve != "end to end"]) == {}


def test_accuracy_of_the_classes_that_are_at_least_so_far_away():
    values = [_ClassValue("a", 0, name, distance, videos, accuracy)
              for name, distance, videos, accuracy in (("x", 0.2, 10, 0.9), ("y", 0.5, 30, 0.1), ("z", 0.4, 10, 0.5))]  # fmt: skip
    thresholds, accuracy = cumulative_accuracy(values)
    assert thresholds == [0.2, 0.4, 0.5]
    assert accuracy == pytest.approx([(0.9 + 0.5 + 0.1) / 3, (0.5 + 0.1) / 2, 0.1])


def test_figures_2_and_3_of_named_lists():
    setup = Setup(CONFIG, train_classes=(("mine", ("playing violin", "cooking soup", "archery", "running")),),
                  test_classes=(("theirs", ("Archery", "PlayingCello")),))  # fmt: skip
    report = figure2_report(setup, [])
    assert report.tables[0].rows == [["mine: training", 2], ["mine: removed", 2], ["theirs: test", 2]]
    assert [row[:3] for row in report.values.rows if row[2] == "removed"] == [
        ["mine", "playing violin", "removed"], ["mine", "archery", "removed"],
    ]  # fmt: skip
    texts = {text.get_text() for text in report.figure.axes[0].texts}
    assert texts == {"playing violin", "cooking soup", "archery", "running", "Archery", "PlayingCello"}
    three = figure3_report(setup, [])
    assert three.values.rows[0][:4] == ["archery", "mine", "Archery", "theirs"] and three.values.rows[0][4] == 0.0
    assert "2 of 4 training classes are left" in three.notes[0]
    of_three = replace(setup, train_classes=(("mine", ("cooking soup", "archery", "running")),))
    assert "2 of 3 training classes are left" in figure3_report(of_three, []).notes[0]
    assert figure_array(report.figure).std() > 0
    of_one = Setup(CONFIG, train_classes=setup.train_classes, test_classes=(("mine", setup.test_classes[0][1]),))
    assert figure2_report(of_one, []).tables[0].rows == [["mine: training", 2], ["mine: removed", 2], ["mine: test", 2]]
    with pytest.raises(InputError, match="name both"):
        figure2_report(Setup(CONFIG, train_classes=setup.train_classes), [])


def test_overlap_is_measured_by_the_words_that_are_named_for_it():
    training, tests = [("mine", ("playing violin",))], [("theirs", ("PlayingCello",))]
    config = replace(CONFIG, words=WordsConfig(source="random"))
    glove = WordsConfig(source="glove")
    named = replace(config, train=replace(config.train, exclude_overlap=OverlapConfig(words=glove)))
    for each, words in ((config, config.words), (named, glove)):
        assert _neighbours(Setup(each), training, tests) == nearest_test_classes(training, tests, words)


def test_tsne_keeps_neighbours_together_and_is_always_the_same():
    names = [
        f"{verb} {thing}" for verb in ("playing", "eating") for thing in ("violin", "piano", "guitar", "flute", "cello")
    ]
    vectors = build_class_embeddings(names, CONFIG.words).vectors.numpy()
    vectors = vectors + np.repeat([[0.0], [3.0]], 5, axis=0) * vectors[5:].mean(axis=0)
    places = project(vectors)
    assert np.array_equal(places, project(vectors))
    distance = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e9 * np.eye(10)
    assert (distance.argmin(axis=1) // 5 == np.arange(10) // 5).all()


def test_a_control_stands_beside_results_of_as_many_snippets_alone(tmp_path):
    for name, snippets in (("run", 25), ("run/control", 25), ("run/snippets_1", 1)):
        (tmp_path / name).mkdir()
        result = evaluate_embeddings("unseen", torch.eye(2), torch.arange(2), ["a", "b"], torch.eye(2))
        written = Results(checkpoint="", class_vectors="", num_snippets=snippets, tests={"unseen": result})
        with replacing(tmp_path / name, written):
            pass
    points = [replace(measured("e2e", 0, 0.5).point, snippets=snippets) for snippets in (None, 1)]
    assert [read_point(point, tmp_path / "run")[0].control for point in points] == [1.0, None]


def test_a_record_that_the_disk_refuses_is_not_to_be_removed(tmp_path, monkeypatch):
    def refuses(path: Path, *_: object, **__: object) -> str:
        raise OSError(errno.EIO, "Input/output error", str(path))

    (tmp_path / "results.json").touch()
    monkeypatch.setattr(Path, "read_text", refuses)
    with pytest.raises(InputError, match=r"cannot be read \(Input/output error: .*\): look at that disk$"):
        read_point(measured("e2e", 0, 0.5).point, tmp_path)
    assert _speed(tmp_path) is None


def test_a_test_set_is_read_as_its_run_recorded_it(tmp_path):
    """Halves beside the whole; classes without a video have no accuracy."""
    torch.manual_seed(0)
    label = torch.arange(12).repeat_interleave(torch.arange(12).flip(0))  # none of the last class
    points, names = torch.eye(12)[label] + 0.7 * torch.randn(66, 12), [f"class {index:02}" for index in range(12)]
    result = replace(evaluate_embeddings("unseen", points, label, names, torch.eye(12)), contents="12ab")
    point = replace(measured("e2e", 0, 0.5).point, snippets=3)
    folder = results_path(tmp_path, 3).parent
    folder.mkdir()
    with replacing(folder, Results(checkpoint="", class_vectors="", num_snippets=3, tests={"unseen": result})):
        pass
    (found,) = read_point(point, tmp_path)
    whole, half = result.all_classes, result.half_classes
    measures = [(found.mean_class, found.top1, found.top5), (found.half_mean_class, found.half_top1, found.half_top5)]
    expected = [tuple(getattr(whole, of) for of in ("mean_class", "top1", "top5"))]
    expected += [tuple(half.mean(of) for of in ("mean_class", "top1", "top5"))]
    assert measures == expected and len({*measures[0], *measures[1]}) == 6
    assert (found.num_classes, found.half_classes, found.largest_class) == (12, 6, pytest.approx(1 / 6))
    assert found.contents == "12ab"
    assert [(name, count) for name, count, _ in found.per_class] == [*zip(names[:11], range(11, 0, -1), strict=True)]
    assert np.mean([accuracy for *_, accuracy in found.per_class]) == pytest.approx(whole.mean_class)


def test_runs_that_were_tested_on_other_videos_or_classes_are_named():
    """Of one split and one test set; runs of before contents were noted are held against the others by classes alone."""
    one = replace(measured("a", 0, 0.5), per_class=(("x", 3, 0.5),), contents="12")
    other = replace(one, folder=Path("other"))
    assert unequal_tests([one, other]) == []
    elsewhere = replace(other, contents="34")
    assert unequal_tests([one, elsewhere]) == [
        "NOT ONE TEST: 'unseen' of split 0 has other classes or videos in run than in other"
    ]
    for change in ({"per_class": (("x", 4, 0.5),)}, {"per_class": (("y", 3, 0.5),)}, {"num_classes": 6}):
        assert len(unequal_tests([one, replace(other, **change)])) == 1
    of_split_1 = replace(elsewhere, point=replace(one.point, split=1))
    assert unequal_tests([one, of_split_1, replace(elsewhere, test="another")]) == []
    before = replace(other, contents=None)
    assert unequal_tests([one, before]) == unequal_tests([one, elsewhere, before]) == []


def test_single_values_stand_under_their_names():
    value = measured("a", 2, 0.1, 3, x=0.5, videos=77, half_top5=0.6, control=0.05)
    table = single_values([value, replace(value, point=replace(value.point, snippets=1))])
    first, second = (dict(zip(table.header, line, strict=True)) for line in table.rows)
    accuracies = {name: getattr(value, name) for name in ("mean_class", "top1", "top5", "half_mean_class", "half_top1")}
    assert len(set(accuracies.values())) == 5
    assert first == accuracies | {
        "test_set": "unseen", "curve": "a", "x": "0.5", "split": 2, "draw": 3, "training_classes": 10, "training_videos": 77,
        "snippets": CONFIG.evaluate.num_snippets, "half_top5": 0.6, "num_classes": 5, "largest_class": 0.25,
        "control_mean_class": 0.05, "run": "run",
    }  # fmt: skip
    assert second == first | {"snippets": 1}


def test_a_report_is_three_files(tmp_path):
    report = Report(
        "Title", ["a note"], [Table(["a", "b"], [["x", 0.25], ["y", None]], "Table")], Table(["v"], [[0.125], ["w"]])
    )
    written = write_report(report, tmp_path, "name")
    assert [path.name for path in written] == ["name.md", "name.csv"]
    assert (
        written[0].read_text() == "# Title\n\n**Table**\n\n| a | b |\n|---|---|\n| x | 0.250 |\n| y | - |\n\na note\n"
    )
    assert written[1].read_text() == "v\n0.125000\nw\n"
    decided = replace(report, findings=[Finding("one above another", "unseen", {0: 0.1, 1: 0.2})])
    assert "\n| one above another | unseen | 2 | +0.150 (" in write_report(decided, tmp_path, "name")[0].read_text()


@pytest.mark.parametrize(("text", "message"), [
    ("reference: a\nmethods: {a: {config: X, start: b}}", "starts from 'b', which is not in the list"),
    ("reference: a\nmethods: {a: {config: X, start: b}, b: {config: X, start: a}}", "in a circle: a <- b <- a"),
    ("reference: c\nmethods: {a: {config: X}}", "the reference 'c' is not a shown method"),
    ("reference: a\nmethods: {a: {config: X, shown: false}}", "the reference 'a' is not a shown method"),
    ("reference: a\nmethods: {a: {confg: X}}", "methods.yaml: unknown key 'methods.a.confg'"),
    ("reference: a\nmethods: {a: [}", "^[^ ]*methods.yaml is not valid YAML: line 2"),
])  # fmt: skip
def test_mistakes_in_a_list_of_methods(tmp_path, text, message):
    (tmp_path / "config.yaml").write_text("train: {epochs: 1}\n")
    (tmp_path / "methods.yaml").write_text(text.replace("X", str(tmp_path / "config.yaml")))
    with pytest.raises(InputError, match=message):
        read_methods(tmp_path / "methods.yaml", [])


def test_what_a_method_sets_itself_goes_before_what_is_set_for_all(tmp_path):
    (tmp_path / "config.yaml").write_text("train: {epochs: 1}\n")
    text = "reference: a\nmethods: {a: {config: X, control: true}, b: {config: X, set: [train.epochs=3], start: a, shown: false}}"
    (tmp_path / "methods.yaml").write_text(text.replace("X", str(tmp_path / "config.yaml")))
    _, methods = read_methods(tmp_path / "methods.yaml", ["train.epochs=2", "run.seed=5", "run.control=false"])
    assert [(m.config.train.epochs, m.config.run.seed) for m in methods] == [(2, 5), (3, 5)]
    assert [(m.config.run.control, m.start, m.is_shown) for m in methods] == [(True, None, True), (False, "a", False)]


def test_every_shipped_list_of_methods_is_valid(monkeypatch):
    monkeypatch.chdir(REPO)  # configs are named relative to the checkout
    for path in (REPO / "configs" / "methods").glob("*.yaml"):
        reference, methods = read_methods(path, ["run.seed=3"])
        assert reference in [method.name for method in methods]
        assert all(method.config.run.seed == 3 and len(method.config.data.tests) == 1 for method in methods)


def test_a_test_class_overlaps_though_another_is_as_near_the_same_training_class(monkeypatch):
    """Of another test set, or of the same: none of them counts among the others, which would gain by it."""
    training = [SimpleNamespace(name="k", classes=("playing violin", "archery"))]
    tests = [
        SimpleNamespace(name="ucf", classes=("PlayingViolin", "Archery", "Surfing")),
        SimpleNamespace(name="activitynet", classes=("Playing violin", "Doing archery", "Sailing")),
    ]
    config = replace(CONFIG, train=replace(CONFIG.train, exclude_overlap=OverlapConfig(tau=0.05)))
    monkeypatch.setattr(leaks, "for_split", lambda setup, split: config)
    monkeypatch.setattr(leaks, "load_training_sets", lambda data: training)
    monkeypatch.setattr(leaks, "load_tests", lambda sources: tests)
    found = leaks._overlapped(None, 0)
    assert {"PlayingViolin", "Archery", "Playing violin"} <= found and not found & {"Surfing", "Sailing"}
