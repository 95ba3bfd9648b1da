"""Tables of pages are what their records give: those that are committed, and each kind of record by hand."""

import json
import sys

import pytest
import remake_tables

from engine.errors import InputError
from engine.results.spread import difference
from tests.environment import ROOT
from tests.small_run import call_tool

sys.path.insert(0, str(ROOT / "tools"))


def test_every_committed_table_is_as_recorded(monkeypatch, capsys):
    assert call_tool("remake_tables.py", "--check", monkeypatch=monkeypatch) == 0
    assert "moments.md: 5 tables, as recorded" in capsys.readouterr().out


@pytest.fixture
def remake(tmp_path, monkeypatch):
    """A page whose table is made from a record; returns its rows, cells without spaces around them."""

    def call(name, record, options="", below="| stale |\n|---|\n| 1 |\n"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"time": "2026-01-02T03:04:05+00:00"} | record) + "\n")
        page = tmp_path / "page.md"
        page.write_text(f"before\n\n<!-- record: {name} 2026-01-02T03:04:05{options} -->\n{below}\nafter | it\n")
        assert call_tool("remake_tables.py", page, "--records", tmp_path, "--check", monkeypatch=monkeypatch) == 1
        assert call_tool("remake_tables.py", page, "--records", tmp_path, monkeypatch=monkeypatch) == 0
        assert call_tool("remake_tables.py", page, "--records", tmp_path, "--check", monkeypatch=monkeypatch) == 0
        first, *lines, last = page.read_text().splitlines()
        assert first == "before" and last == "after | it" and "stale" not in page.read_text()
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]

    return call


def test_a_new_table_stands_apart_from_the_text_below_it(tmp_path, monkeypatch):
    record = {"time": "2026-01-02T03:04:05+00:00", "shares": {"found": [0.5]}}
    (tmp_path / "moments_in_a_row.jsonl").write_text(json.dumps(record) + "\n")
    page = tmp_path / "page.md"
    page.write_text("<!-- record: moments_in_a_row 2026-01-02T03:04:05 -->\n\nText.\n")
    for _ in range(2):  # made again, it stays
        assert call_tool("remake_tables.py", page, "--records", tmp_path, monkeypatch=monkeypatch) == 0
        _marker, above, *table, below, text = page.read_text().splitlines()
        assert len(table) == 3 and all(line.startswith("|") for line in table)
        assert (above, below, text) == ("", "", "Text.")


def head(name, words, value):
    spread = {
        "top1_sd": 0.1,
        "mean_class_sd": 0.2,
        "difference": 0.05,
        "difference_low": -0.01,
        "difference_high": 0.11,
    }
    return {
        "head": name,
        "words": words,
        "top1": value,
        "mean_class": value + 0.1,
        "chance": 0.2,
        "largest": 0.3,
        **spread,
    }


def test_heads_stand_beside_their_controls(remake):
    rows = [head(name, words, value) for words, value in (("words", 0.5), ("random words", 0.2)) for name in ("a", "b")]
    more = {"a": (0, 0), "b": (0.04, 0.06)}  # in each split; a record's own difference is not shown
    single = [{"head": name, "split": split, "words": words, "mean_class": value + split / 10 + more[name][split]}
              for name in "ab" for words, value in (("words", 0.5), ("random words", 0.2)) for split in (0, 1)]  # fmt: skip
    table = remake("heads", {"accuracy": rows, "measured": single})
    assert table[0][:5] == ["head", "mean-class", "less a (95 %)", "random words", "less random words (95 %)"]
    assert table[2][2] == "-" and table[3] == [
        "b", "0.600 ± 0.200", "+0.050 (-0.077 to +0.177)", "0.300 ± 0.200", "+0.300 (+0.300 to +0.300)", "0.200", "0.500 ± 0.100",
        "0.300",
    ]  # fmt: skip


def test_heads_over_the_number_of_seen_classes(remake):
    """Of the kind of unseen classes that is named; a row is paired with the first number of the same head."""
    cases = [(of, name, count, words) for of in ("all", "not gym") for name in "ab" for count in (5, 10)
             for words in ("words", "random words")]  # fmt: skip
    value = {case: 0.1 * place for place, case in enumerate(cases)}
    rows = [
        head(name, words, value[of, name, count, words]) | {"of": of, "count": count}
        for of, name, count, words in cases
    ]
    single = [
        {"of": of, "head": name, "count": count, "words": words, "split": split, "mean_class": number + split}
        for (of, name, count, words), number in value.items()
        for split in (0, 1)
    ]
    table = remake("heads", {"accuracy": rows, "measured": single, "class_counts": [5, 10]}, " of=not_gym")
    assert table[0][:5] == ["head", "seen classes", "mean-class", "less a (95 %)", "less 5 seen (95 %)"]
    assert [row[:2] for row in table[2:]] == [["a", "5"], ["a", "10"], ["b", "5"], ["b", "10"]]
    assert [row[4] for row in table[2:]] == ["-", "+0.200 (+0.200 to +0.200)"] * 2
    assert {row[6] for row in table[2:]} == {"-0.100 (-0.100 to -0.100)"}
    assert table[2][3] == "-" and table[4][3] == "+0.400 (+0.400 to +0.400)" and table[5][2] == "1.500 ± 0.200"


def test_untrained_a_spread_only_where_there_is_one(remake):
    row = {"part": "all", "method": "names", "top1": 0.4, "top1_sd": 1e-17, "mean_class": 0.5, "mean_class_sd": 0.1}
    table = remake("untrained", {"accuracy": [row | {"chance_top1": 0.1, "largest_class": 0.2}]}, " part=all")
    assert table[2] == ["names", "0.500 ± 0.100", "0.100", "0.400", "0.200"]
    row |= {"method": "random words", "top1_sd": 0.0, "mean_class_sd": None}  # of several draws, and of one
    table = remake("untrained", {"accuracy": [row | {"chance_top1": 0.1, "largest_class": 0.2}]}, " part=all")
    assert table[2] == ["random words", "0.500", "0.100", "0.400 ± 0.000", "0.200"]


HEADER = ("test_set", "curve", "x", "split", "draw", "training_classes", "training_videos", "snippets", "mean_class", "top1",
          "half_mean_class", "half_top1", "num_classes", "control_mean_class", "run")  # fmt: skip


def place(curve, split, draw, value, control=None):
    return ["t", curve, "0.5", split, draw, 10, 100, 5, value, value + 0.1, value + 0.2, value + 0.3, 4, control, "r"]


def test_curves_average_the_draws_of_a_split_first(remake):
    rows = [place("a", 0, 0, 0.2), place("a", 0, 1, 0.4), place("a", 1, 0, 0.5)]
    record = {"experiment": "fig4", "header": HEADER, "rows": rows}
    table = remake("experiments", record, " experiment=fig4")
    assert table[2] == ["t", "a", "0.5", "10", "100", "2", "3", "0.400 ± 0.100", "0.500 ± 0.100", "0.250"]
    assert remake("experiments", record, " experiment=fig4 half=yes")[2][-3:] == [
        "0.600 ± 0.100",
        "0.700 ± 0.100",
        "0.500",
    ]


def test_methods_are_paired_with_the_first(remake):
    rows = [place("a", s, 0, v, 0.25) for s, v in ((0, 0.2), (3, 0.4))] + [
        place("b", s, 0, v) for s, v in ((0, 0.3), (3, 0.6))
    ]
    table = remake("experiments", {"experiment": "methods", "header": HEADER, "rows": rows})
    assert table[0] == ["method", "0", "3", "mean-class (sd)", "less a (95 %)", "control"]
    assert table[2] == ["a", "0.200", "0.400", "0.300 ± 0.141", "-", "0.250 ± 0.000"]
    assert table[3][4:] == [str(difference([(0.3, 0.2), (0.6, 0.4)])), "-"]


def test_runs_of_today_and_of_before_mean_class(remake):
    one = {
        "run": "one",
        "seen_mean_class": 0.5,
        "mean_class": 0.4,
        "top1": 0.6,
        "chance": 0.2,
        "control_mean_class": None,
    }
    table = remake("mine", {"runs": [one, one | {"run": "two", "mean_class": 0.2, "clips_per_second": 10.4}]})
    assert table[0] == ["run", "seen", "unseen", "unseen top-1", "chance", "clips/s"]
    assert table[2] == ["one", "0.500", "0.400", "0.600", "0.200", "-"]
    assert table[4][:3] == ["mean", "0.500", "0.300"] and table[5][2] == "0.141"
    old = {"run": "past", "seen": 0.5, "unseen": 0.4, "chance": 0.2, "control": 0.3, "clips_per_second": 10.4}
    table = remake("mine", {"tests": {"t: 5 classes": {"runs": [old]}}}, " test=t:_5_classes")
    assert table[0] == ["run", "seen top-1", "unseen top-1", "control top-1", "chance", "clips/s"]
    assert table[2:] == [["past", "0.500", "0.400", "0.300", "0.200", "10"]]


def test_moments_and_moments_in_a_row(remake):
    numbers = {"R@1_IoU0.5": {"mean": 0.5, "std": 0.01}}
    parts = {"model": numbers, "wrong_queries": numbers, "untrained": {}, "prior": numbers}
    table = remake("moments", {"kinds": [{"options": "full", "runs": 3, "parts": parts}]})
    assert table[2] == ["full", "3", "50.0 ± 1.0"] and table[4] == ["no training", "3", "-"] and len(table) == 6
    assert remake("moments_in_a_row", {"shares": {"found": [0.4, 0.6]}})[2] == [
        "found",
        "0.500 ± 0.141",
        "0.400",
        "0.600",
    ]


@pytest.mark.parametrize(("marker", "told"), [
    ("nothing 2026-01-02", "there is no"),
    ("mine 2027", "has 0 of that time"),
    ("mine 2026", "has 2 of that time"),
    ("mine 2026-01-02", "'runs'"),
])  # fmt: skip
def test_a_record_that_is_not_there_is_named_with_its_page(marker, told, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.jsonl").write_text('{"time": "2026-01-02"}\n{"time": "2026-01-03"}\n')
    page = tmp_path / "page.md"
    page.write_text(f"<!-- record: {marker} -->\n| a |\n")
    assert call_tool("remake_tables.py", page, "--records", tmp_path, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {page}: table of record '{marker}") and told in error
    assert page.read_text().endswith("| a |\n")


def test_of_two_records_of_one_second_the_model_tells_which(tmp_path, monkeypatch):
    rows = [
        {"time": "2026-01-02", "model": name, "shares": {"found": [value]}}
        for name, value in (("a", 0.25), ("a:b", 0.75))
    ]
    (tmp_path / "moments_in_a_row.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = tmp_path / "page.md"
    for name, value in (("a", "0.25"), ("a:b", "0.75")):
        page.write_text(f"<!-- record: moments_in_a_row 2026-01-02 model={name} -->\n")
        assert call_tool("remake_tables.py", page, "--records", tmp_path, monkeypatch=monkeypatch) == 0
        assert f"| found | {value}" in page.read_text()


def test_what_an_experiment_decided_is_judged_anew(remake):
    findings = [{"claim": "more is better", "test": "unseen", "gain": {"1": 0.1, "2": 0.12, "3": 0.11}},
                {"claim": "less is better", "test": "unseen", "gain": {"1": -0.1, "2": 0.12, "3": 0.1}}]  # fmt: skip
    record = {"experiment": "fig4", "header": [], "rows": [], "findings": findings}
    _, _, first, second = remake("experiments", record, " experiment=fig4 part=claims")
    assert first == ["more is better", "unseen", "3", "+0.110 (+0.085 to +0.135)", "holds"]
    assert second[-1].startswith("cannot be told; ") and second[-1].endswith(" splits would tell")


def test_splits_of_two_records_are_joined():
    def record(splits, gain, header=("test_set", "curve", "x", "split"), more=()):
        rows = [["unseen", "more", "1", split] for split in splits] + [["unseen", "fewer", "1", each] for each in more]
        findings = [{"claim": "more", "test": "unseen", "gain": {str(split): gain for split in splits}}]
        findings += [{"claim": "fewer", "test": "unseen", "gain": {str(split): gain for split in more}}] * bool(more)
        return {"splits": list(splits), "header": list(header), "rows": rows, "findings": findings}

    both = remake_tables.joined(record([1, 2], 0.1, more=[1, 2]), record([3], 0.2))
    assert both["findings"] == [{"claim": "more", "test": "unseen", "gain": {"1": 0.1, "2": 0.1, "3": 0.2}}]
    assert [row[3] for row in both["rows"]] == [1, 2, 3] and {row[1] for row in both["rows"]} == {"more"}
    for other in (record([2, 3], 0.1), record([3], 0.1, ["else"])):
        with pytest.raises(InputError, match="only records of other splits"):
            remake_tables.joined(record([1, 2], 0.1), other)


def test_benchmarks_and_few_labels_are_shown_as_they_were_printed(remake):
    timed = {"load, s": {"p20": 1, "p50": 2.5, "p80": 3}}
    assert remake("manifest", {"results": timed})[2] == ["load, s", "1", "2.5", "3"]
    assert remake("cluster", {"results": timed})[2] == ["load, s", "1", "2.5", "3"]
    rows = {f"held out {share}, cold: ready_s": {"p50": share, "p80": 2} for share in (0.5, 1)}
    assert remake("many_rows", {"results": rows, "limits": {"ready_s": 5}})[2][1:] == ["< 5", "0.5 (2)", "1 (2)"]
    row = {"use": "probe", "share": 1.0, "encoder": "none", "seeds": 2, "labels": 5, "less_none": None,
           "less_mgm": [0.1, 0.05, 0.15],
           **{name: value for name in ("top1", "mean_class", "chance", "largest", "seen", "control")
              for name, value in ((name, 0.25), (f"{name}_sd", 0.5))}}  # fmt: skip
    shown = remake("pretraining_worth", {"accuracy": [row]})[2]
    spread = "0.250 ± 0.500"
    assert shown == ["probe", "5", "none", "2", spread, spread, "-", "+0.100 (+0.050 to +0.150)", spread, spread]
