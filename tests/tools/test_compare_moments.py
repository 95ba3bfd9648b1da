"""tools/compare_moments.py: runs that differ in their seeds alone become one row with mean and spread."""

import json

import pytest
import yaml
from compare_moments import grouped

from engine.results.record import read_tree
from tests.small_run import call_tool


def write(folder, recall, **options):
    part = {"R@1_IoU0.3": 0.5, "R@1_IoU0.5": 0.4, "R@1_IoU0.7": recall, "R@5_IoU0.7": 0.6, "mean_IoU": 0.3, "mAP": None}
    split = {"model": part, "wrong_queries": None, "untrained": None, "prior": {"R@1_IoU0.7": 0.1}}
    tree = {
        "task": "moments",
        "options": options,
        "test_queries": {"test": 9},
        "features": {"digest": "a"},
        "tests": {"test": split},
    }
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(tree))
    return folder


def test_runs_of_one_kind_are_a_row(tmp_path, monkeypatch, capsys):
    runs = [write(tmp_path / f"a{k}", 0.2 * k, fusion="cross", noise_seed=k) for k in (1, 2, 3)]
    runs.append(write(tmp_path / "b", 0.7, fusion="late", noise_seed=0))
    assert call_tool("compare_moments.py", *runs, monkeypatch=monkeypatch) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "cross test model 3 50.0 +- 0.0 40.0 +- 0.0 40.0 +- 20.0 60.0 +- 0.0 30.0 +- 0.0" in lines
    assert "late test model 1 50.0 40.0 70.0 60.0 30.0" in lines  # one run has no spread
    assert "cross test no query 3 - - 10.0 +- 0.0 - -" in lines


def test_a_run_that_is_named_twice_counts_once_and_one_run_has_no_spread(tmp_path, monkeypatch, capsys):
    run = write(tmp_path / "a", 0.2, fusion="cross", noise_seed=1)
    (tmp_path / "link").symlink_to(run)
    named = (run, tmp_path / "link", f"{run}/../a")
    assert call_tool("compare_moments.py", *named, monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr().out
    assert f"named more than once, counted once: {tmp_path / 'link'}, {run}/../a\n" in printed
    assert "+-" not in printed
    (kind,) = grouped([read_tree(run) | {"run": "a"}])
    assert kind["parts"]["model"]["R@1_IoU0.5"] == {"mean": 0.4, "std": None}


def test_runs_of_other_training_are_no_seeds_of_each_other(tmp_path, monkeypatch, capsys):
    def written(name, config, **facts):
        folder = write(tmp_path / name, 0.2, fusion="cross", noise_seed=0)
        record = json.loads((folder / "results.json").read_text()) | facts
        (folder / "results.json").write_text(json.dumps(record))
        config = {"task": "moments", "run": {"folder": str(folder)}, **config}
        config["moments"] = {"features": name, "annotations": f"{name}.parquet"} | config.get("moments", {})
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder

    known = {"training_queries": 40, "annotations": {"training": "a", "test": "b"}}
    first = written("first", {}, **known)
    seed = written("seed", {"run": {"folder": "x", "seed": 5}, "log": {"every_steps": 3}}, **known)
    others = {
        "width 64": written("wide", {"moments": {"width": 64}}, **known),
        "train.lr 0.01": written("fast", {"train": {"lr": 0.01}}, **known),
        "training_queries 52": written("more", {}, **known | {"training_queries": 52}),
        "annotations.test c": written("edited", {}, **known | {"annotations": {"training": "a", "test": "c"}}),
    }
    for told, other in others.items():
        assert call_tool("compare_moments.py", first, seed, other, monkeypatch=monkeypatch) == 0
        lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        counts = [line.split(" test model ")[1].split()[0] for line in lines if " test model " in line]
        assert counts == ["2", "1"] and any(line.startswith(told) for line in lines), told


def test_runs_of_other_videos_are_no_seeds_of_each_other_and_older_ones_told_none(tmp_path, monkeypatch, capsys):
    runs = [write(tmp_path / name, 0.2, fusion="cross", noise_seed=k) for k, name in enumerate("abcd")]
    for run, videos in zip(runs[1:], ("x", "x", "y"), strict=True):
        record = json.loads((run / "results.json").read_text()) | {"videos": {"test": videos}}
        (run / "results.json").write_text(json.dumps(record))
    assert call_tool("compare_moments.py", *runs, monkeypatch=monkeypatch) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    told = [line.split(" 50.0")[0] for line in lines if " test model " in line]
    assert told == ["videos.test x test model 3", "videos.test y test model 1"]


def test_runs_of_one_seed_have_no_spread_and_are_told(tmp_path, monkeypatch, capsys):
    def seeded(name, recall, seed, **options):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        folder = write(tmp_path / name, recall, fusion="cross", **options)
        (folder / "config.yaml").write_text(yaml.safe_dump({"task": "moments", "run": {"folder": name, "seed": seed}}))
        return folder

    def compared(*runs):
        assert call_tool("compare_moments.py", *runs, monkeypatch=monkeypatch) == 0
        return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]

    a, b, c = seeded("a", 0.2, 0, noise_seed=1), seeded("b", 0.2, 0, noise_seed=2), seeded("c", 0.4, 1, noise_seed=1)
    *table, note = compared(a, b, c)
    assert any("test model 3 50.0 40.0 26.7 60.0 30.0" in line for line in table) and "+-" not in "".join(table)
    assert note == "no spread where runs are of one seed (a, b): name one of each seed"
    of_one_name = [seeded(f"{place}/run", 0.2, 0) for place in "xy"]
    assert compared(*of_one_name)[-1] == "no spread where runs are of one seed (x/run, y/run): name one of each seed"
    other = "\n".join(compared(a, c))
    assert "test model 2 50.0 +- 0.0 40.0 +- 0.0 30.0 +- 14.1" in other and "one seed" not in other
    noisy = [seeded(f"n{k}", 0.2 * k, 0, boundary_noise=0.25, noise_seed=k) for k in (1, 2)]
    assert any("30.0 +- 14.1" in line for line in compared(*noisy))  # each had its own labels


def test_another_run_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "results.json").write_text('{"checkpoint": "best.pt"}')
    assert call_tool("compare_moments.py", tmp_path, monkeypatch=monkeypatch) == 2
    assert "is not one of moments" in capsys.readouterr().err
    assert call_tool("compare_moments.py", tmp_path / "none", monkeypatch=monkeypatch) == 2


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"options": [1]}, "has no attribute"), ({"tests": None}, "has no attribute"),
        ({"tests": {"test": {}}}, "it lacks 'model'"), ({"tests": {"test": {"model": {"mean_IoU": "0.3"}}}}, "'str'"),
    ],
)  # fmt: skip
def test_a_damaged_record_is_told_by_its_run(tmp_path, monkeypatch, capsys, changed, told):
    runs = [write(tmp_path / name, 0.2, fusion="cross") for name in ("whole", "damaged")]
    file = runs[1] / "results.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    assert call_tool("compare_moments.py", *runs, monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    assert "results.json of run 'damaged' is not what a moment run writes at its end" in said and told in said
    assert said.count("\n") == 1
