"""A data set that was indexed again under a run: nothing that was trained on is ever measured as held out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.config import Config
from engine.data.config import SourceConfig
from engine.data.manifests.contents import file_identities
from engine.data.manifests.manifest import Manifest
from engine.data.sets.sources import DataSet
from engine.data.sets.trained import load_trained
from engine.errors import InputError
from engine.evaluation.seen_side import seen_videos
from engine.processes.distributed import Ranks
from engine.processes.preemption import StopVote
from engine.provenance import append_provenance
from engine.schema.parser import parse
from engine.tasks.zero_shot.known import Known
from engine.tasks.zero_shot.trained import known_footage, load_for_inference
from engine.training.build import build_run
from engine.training.checkpoint import read_checkpoint, save_checkpoint
from engine.training.run import Run, save_run
from tests import jobs
from tests.rows import row
from tests.small_run import call_tool

CPU = Ranks(torch.device("cpu"))
CLASSES = ("jump", "run", "walk")
Rows = list[dict]


def whole() -> Rows:
    """Ten videos of three classes; their groups and places in the list decide what is held out."""
    return [
        row(f"{c}/{i}.mp4", c, group="", content_hash=100 * k + i) for k, c in enumerate(CLASSES) for i in range(10)
    ]


def build(here: Path, rows: Rows, folder: str = "run", **sections: dict) -> Run:
    """A run over rows that name no real videos, at its first step or where its checkpoint is."""
    Manifest.from_rows(rows, here).save(here / "m.parquet")
    tree = {
        "run": {"folder": str(here / folder), "device": "cpu", **sections.pop("run", {})},
        "data": {"train": [{"manifest": str(here / "m.parquet")}], "validation": {"video_share": 0.3}, **sections.pop("data", {})},
        "clip": {"num_frames": 2, "short_side": 16, "crop": 16},
        "model": {"backbone": "r3d_18", "width": 4},
        "words": {"source": "random", "dim": 8},
        "train": {"epochs": 1, "batch_size": 4, **sections.pop("train", {})},
    }  # fmt: skip
    return build_run(parse(Config, tree), CPU, StopVote())


def saved(run: Run) -> Path:
    """A checkpoint of the run after one step."""
    run.step = 1
    path = run.folder / "checkpoints" / "step_00000001.pt"
    save_run(run, path)
    return path


def forgotten(path: Path) -> None:
    """Make a checkpoint one of before runs remembered their videos."""
    state = read_checkpoint(path)
    del state["videos"]
    save_checkpoint(path, state)


def hashes(data: object) -> list[int]:
    return data.manifest.table.column("content_hash").to_pylist()


def reordered(rows: Rows) -> Rows:
    return rows[::-1]


def renamed(rows: Rows) -> Rows:
    return [one | {"path": f"other/{i:02d}.mkv", "group": f"g{i % 4}"} for i, one in enumerate(rows)]


def added(rows: Rows) -> Rows:
    return [
        row(f"{c}/00{i}.mp4", c, group="", content_hash=-1 - 10 * k - i)
        for k, c in enumerate(CLASSES)
        for i in range(3)
    ] + rows


def removed(rows: Rows) -> Rows:
    return [one for i, one in enumerate(rows) if i % 4]


def swapped(rows: Rows) -> Rows:
    """In equal number, under the same names."""
    return [one | {"content_hash": 1000 + i} if i % 3 == 0 else one for i, one in enumerate(rows)]


def relabelled(rows: Rows) -> Rows:
    return [one | {"class_name": "walk"} if i == 12 else one for i, one in enumerate(rows)]


def exchanged(rows: Rows) -> Rows:
    """The contents of the first and the last video of each class, under each other's names."""
    found = [dict(one) for one in rows]
    for first in range(0, 30, 10):
        a, b = found[first], found[first + 9]
        a["content_hash"], b["content_hash"] = b["content_hash"], a["content_hash"]
    return found


def doubled(rows: Rows) -> Rows:
    """Each video of the training once more, by names that come first."""
    return [one | {"path": f"0/{i}.mp4"} for i, one in enumerate(rows)] + rows


SAME: tuple[Callable[[Rows], Rows], ...] = (list, reordered, renamed, exchanged)
OTHER: tuple[Callable[[Rows], Rows], ...] = (added, removed, swapped, relabelled, doubled)


@pytest.mark.parametrize("change", SAME)
@pytest.mark.parametrize("num_classes", [0, 1])
def test_the_same_videos_go_on_as_they_were_divided(tmp_path, change, num_classes):
    data = {"validation": {"video_share": 0.3, "num_classes": num_classes}}
    first = build(tmp_path, whole(), data=dict(data))
    saved(first)
    again = build(tmp_path, change(whole()), data=dict(data))
    assert again.step == 1
    for name in ("train", "held_out_videos", "held_out_classes"):
        then, now = getattr(first.task.sets, name), getattr(again.task.sets, name)
        assert (then is None) == (now is None)
        if then is not None:  # in this order, so that each sample of the stream is the one it would have been
            assert hashes(getattr(now, "data", now)) == hashes(getattr(then, "data", then))
    told = [note for note in again.notes if "in another order or by other names" in note]
    assert len(told) == (change is not list)
    assert saved(again) and build(tmp_path, whole(), data=dict(data)).step == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (added, "0 of its 30 are not in {}, 9 others are"),
        (removed, "8 of its 30 are not in {}, 0 others are"),
        (swapped, "10 of its 30 are not in {}, 10 others are"),
        (relabelled, "1 of its 30 are not in {}, 1 others are"),
        (doubled, "0 of its 30 are not in {}, 30 others are"),
    ],
)
def test_other_videos_are_not_gone_on_with(tmp_path, change, says):
    saved(build(tmp_path, whole()))
    with pytest.raises(InputError) as caught:
        build(tmp_path, change(whole()))
    assert f"another set of videos ({says.format(tmp_path / 'm.parquet')}): choose another run.folder" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", SAME + OTHER)
def test_a_finished_run_is_measured_on_what_it_held_out_and_refitted_on_what_it_trained_on(tmp_path, change):
    first = build(tmp_path, whole())
    trained, held = (set(hashes(data)) for data in (first.task.sets.train, first.task.sets.held_out_videos.data))
    path = saved(first)
    Manifest.from_rows(change(whole()), tmp_path).save(tmp_path / "m.parquet")
    loaded = load_for_inference(path, CPU.device)
    seen, notes = seen_videos(loaded.config.data, loaded.train_classes, known_footage(loaded))
    assert set(hashes(seen)) <= held and hashes(seen)
    again = load_trained(loaded.config.data, loaded.train_classes, known_footage(loaded))
    assert set(hashes(again.train)) <= trained
    if change in SAME:
        assert (set(hashes(seen)), set(hashes(again.train)), notes) == (held, trained, [])
    else:
        assert all("m.parquet" in note and note.endswith("left out") for note in notes) and notes


def test_a_drawn_share_of_the_videos_stays_the_one_that_was_drawn(tmp_path):
    """Which videos `video_share` draws depends on the order of the rows."""
    source = {"manifest": str(tmp_path / "m.parquet"), "video_share": 0.5}
    first = build(tmp_path, whole(), data={"train": [source]})
    trained, held = hashes(first.task.sets.train), hashes(first.task.sets.held_out_videos.data)
    assert len(trained) + len(held) == 15
    path = saved(first)
    for change in SAME[1:]:
        again = build(tmp_path, change(whole()), data={"train": [source]})
        assert (hashes(again.task.sets.train), hashes(again.task.sets.held_out_videos.data)) == (trained, held)
    Manifest.from_rows(added(reordered(whole())), tmp_path).save(tmp_path / "m.parquet")
    loaded = load_for_inference(path, CPU.device)
    seen, notes = seen_videos(loaded.config.data, loaded.train_classes, known_footage(loaded))
    assert (hashes(seen), notes) == (held, [])
    with pytest.raises(InputError, match=r"another set of videos \(\d+ of its 15 are not in "):
        build(tmp_path, swapped(whole()), data={"train": [source]})


def test_nothing_left_of_what_was_held_out_is_refused(tmp_path):
    first = build(tmp_path, whole())
    held = set(hashes(first.task.sets.held_out_videos.data))
    path = saved(first)
    Manifest.from_rows([one for one in whole() if one["content_hash"] not in held], tmp_path).save(
        tmp_path / "m.parquet"
    )
    loaded = load_for_inference(path, CPU.device)
    with pytest.raises(
        InputError, match=r"no video that the run held out can be measured: 9 of 30 videos .*m\.parquet' any more"
    ):
        seen_videos(loaded.config.data, loaded.train_classes, known_footage(loaded))


def test_new_videos_of_seen_classes_are_held_against_those_trained_on(tmp_path):
    first = build(tmp_path, whole())
    loaded = load_for_inference(saved(first), CPU.device)
    trained = hashes(first.task.sets.train)[:4]
    rows = [row(f"n{i}.mp4", "run", content_hash=found) for i, found in enumerate([*trained, 5000, 5001])]
    Manifest.from_rows(rows, tmp_path).save(tmp_path / "new.parquet")
    source = SourceConfig(str(tmp_path / "new.parquet"), name="new")
    seen, notes = seen_videos(loaded.config.data, loaded.train_classes, loaded.footage, source)
    assert hashes(seen) == [5000, 5001]
    assert notes == ["warning: 4 of 6 videos of 'new' were trained on, by their contents: left out"]
    Manifest.from_rows(rows[:4], tmp_path).save(tmp_path / "new.parquet")
    with pytest.raises(InputError, match="all 4 were trained on"):
        seen_videos(loaded.config.data, loaded.train_classes, loaded.footage, source)


def test_other_settings_of_what_is_held_out_change_nothing_afterwards(tmp_path):
    """`data.validation.seed=1` on the command line of evaluate.py would have drawn others."""
    first = build(tmp_path, whole())
    held = hashes(first.task.sets.held_out_videos.data)
    path = saved(first)
    for is_old in (False, True):
        if is_old:
            append_provenance(first.folder, first.config, CPU, 0)
            forgotten(path)
        loaded = load_for_inference(path, CPU.device)
        tree = loaded.config.data.__class__(train=loaded.config.data.train)
        seen, _ = seen_videos(tree, loaded.train_classes, known_footage(loaded))
        assert hashes(seen) == held


def test_an_old_run_counts_rows_of_the_very_manifest_it_was_trained_with(tmp_path):
    rows = whole()
    rows[3]["content_hash"] = rows[4]["content_hash"]  # two copies: versions of then drew them apart, or not
    first = build(tmp_path, rows)
    path = saved(first)
    append_provenance(first.folder, first.config, CPU, 0)
    forgotten(path)
    state = read_checkpoint(path)
    loaded = load_for_inference(path, CPU.device)
    footage = known_footage(loaded)
    trained = int((footage.part == 0).sum())
    save_checkpoint(path, state | {"num_videos": trained})
    again = build(tmp_path, rows)
    assert again.step == 1 and len(again.task.sets.train.manifest) == trained
    assert not [note for note in again.notes if "unchecked" in note]
    for change in (reordered, swapped, added):
        with pytest.raises(
            InputError, match=r"by row numbers alone, .*m\.parquet' is not the one that the run was trained with"
        ):
            build(tmp_path, change(rows))
        with pytest.raises(InputError, match=r"row numbers alone.*what was held out cannot be told"):
            known_footage(load_for_inference(path, CPU.device))


def test_an_old_run_that_recorded_nothing_goes_on_and_says_so(tmp_path):
    path = saved(build(tmp_path, whole()))
    forgotten(path)
    again = build(tmp_path, whole())
    assert again.step == 1 and any("taken by row numbers, unchecked: " in note for note in again.notes)
    with pytest.raises(InputError, match=r"has no provenance\.jsonl, which would say what its manifests held"):
        known_footage(load_for_inference(path, CPU.device))


def test_an_old_checkpoint_of_another_folder_is_held_against_that_folder(tmp_path):
    first = build(tmp_path, whole())
    path = saved(first)
    append_provenance(first.folder, first.config, CPU, 0)
    forgotten(path)
    assert build(tmp_path, whole(), "other", run={"resume": str(path)}).step == 1
    with pytest.raises(InputError, match="is not the one that the run was trained with"):
        build(tmp_path, reordered(whole()), "third", run={"resume": str(path)})


def test_what_is_in_no_part_is_told(tmp_path):
    rows = whole() + [row(f"copy/{c}.mp4", c, group="", content_hash=-1) for c in CLASSES]
    run = build(tmp_path, rows, data={"validation": {"video_share": 0.0, "num_classes": 1}})
    held = run.task.sets.held_out_classes.data
    assert len(held.manifest) == 10 and -1 not in hashes(held) and hashes(run.task.sets.train).count(-1) == 2
    assert any(note.startswith("1 videos are neither trained on nor held out") for note in run.notes)
    assert not any("are trained on too" in note for note in run.notes)


def test_weights_remember_what_they_were_trained_on(tmp_path):
    """Over two starts: the videos of the first training are not unseen to the second."""
    first = build(tmp_path, whole())
    path = saved(first)
    measured = [one | {"path": f"test/{i}.mp4", "class_name": "dive"} for i, one in enumerate(whole()[:4])]
    Manifest.from_rows(measured, tmp_path).save(tmp_path / "test.parquet")
    others = [one | {"content_hash": 700 + i} for i, one in enumerate(whole())]
    tests = [{"manifest": str(tmp_path / "test.parquet"), "name": "test"}]
    second = build(tmp_path, others, "second", train={"init_from": str(path)}, data={"tests": tests})
    seen = set(hashes(first.task.sets.train))
    count = sum(one["content_hash"] in seen for one in measured)
    assert count > 0
    assert any(f"the weights were trained on {count} of the 4 videos of 'test'" in note for note in second.notes)
    loaded = load_for_inference(saved(second), CPU.device)
    assert seen < set(loaded.footage.trained_files.tolist())
    third = build(tmp_path, others, "second", data={"tests": tests})  # resumed
    assert np.array_equal(third.task.files_before, second.task.files_before)


def test_videos_of_unknown_contents_are_not_passed_off_as_new(tmp_path):
    loaded = load_for_inference(saved(build(tmp_path, whole())), CPU.device)
    known = Known.of(loaded, loaded.footage)
    old = DataSet("old", Manifest.from_rows([row("x.mp4", "dive"), row("y.mp4", "fly", content_hash=-5)], tmp_path))
    (line,) = known.look(old).warnings()
    assert line.startswith("'old': the manifest does not tell the contents of 1 videos")
    assert Known.of(loaded, None).look(old).warnings() == []


@pytest.fixture
def folder(tmp_path, videos):
    """Real videos of their own and a run over them as it stands before its first step."""
    from engine.config import load_config
    from engine.training.run import save_best

    shutil.copytree(videos.parent, tmp_path / "videos")
    manifest = tmp_path / "videos" / videos.name
    config = load_config(jobs.write_config(tmp_path / "config.yaml", manifest, tmp_path / "run"), [])
    save_best(build_run(config, CPU, StopVote()))
    return tmp_path


def test_the_tools_over_a_manifest_that_was_indexed_again(folder, monkeypatch, capsys):
    manifest = Manifest.load(folder / "videos" / "manifest.parquet")
    footage = load_for_inference(folder / "run", CPU.device).footage
    order = np.random.default_rng(0).permutation(len(manifest))[3:]
    manifest.select(order).save(folder / "videos" / "manifest.parquet")
    gone = np.isin(footage.files, file_identities(manifest)[np.setdiff1d(np.arange(len(manifest)), order)])
    held, trained = (int(((footage.part == part) & ~gone).sum()) for part in (1, 0))
    assert (
        call_tool("evaluate.py", folder / "run", "--generalised", "held-out", "--snippets", 1, monkeypatch=monkeypatch)
        == 0
    )
    said = capsys.readouterr().err
    content = json.loads((folder / "run" / "evaluation" / "results.json").read_text())["tests"]["combinations"]
    assert content["generalised"]["seen"]["num_videos"] == held
    assert content["generalised"]["calibrated"] is None and "held out no whole classes" in said
    assert content["trained_videos"] == []
    assert ("not in" in said) == bool(gone.any())
    assert call_tool("refit_head.py", folder / "run", "--snippets", 1, monkeypatch=monkeypatch) == 0
    assert f"{trained} videos of 6 training classes" in capsys.readouterr().out
    again = load_for_inference(folder / "run" / "ridge", CPU.device).footage
    assert np.array_equal(again.rows, footage.rows) and np.array_equal(again.part, footage.part)


def test_classes_that_the_run_held_out_choose_a_bias(folder, monkeypatch, capsys):
    from engine.config import load_config
    from engine.training.run import save_best

    path = jobs.write_config(folder / "c.yaml", folder / "videos" / "manifest.parquet", folder / "held")
    save_best(build_run(load_config(path, ["data.validation.num_classes=2"]), CPU, StopVote()))
    assert not call_tool(
        "evaluate.py", folder / "held", "--generalised", "held-out", "--snippets", 1, monkeypatch=monkeypatch
    )
    captured = capsys.readouterr()
    content = json.loads((folder / "held" / "evaluation" / "results.json").read_text())["tests"]["combinations"]
    calibrated = content["generalised"]["calibrated"]
    assert len(calibrated["classes"]) == 2 and calibrated["num_videos"] > content["generalised"]["seen"]["num_videos"]
    assert 0 <= content["generalised"]["area"] <= 1 and "AUSUC" in captured.out and "no bias" not in captured.err


def test_test_videos_that_were_trained_on_are_named_under_any_name(folder, monkeypatch, capsys):
    manifest = Manifest.load(folder / "videos" / "manifest.parquet")
    footage = load_for_inference(folder / "run", CPU.device).footage
    trained = np.flatnonzero(np.isin(file_identities(manifest), footage.files[footage.part == 0]))[:2]
    unseen = np.flatnonzero(manifest.strings("split") == "unseen")
    rows = [manifest.table.slice(int(i), 1).to_pylist()[0] for i in (*unseen, *trained)]
    for number, at in enumerate(trained):
        path = f"other/copy{number}.mp4"
        (folder / "videos" / "other").mkdir(exist_ok=True)
        shutil.copy2(folder / "videos" / manifest.strings("path")[at], folder / "videos" / path)
        rows[len(unseen) + number] |= {"path": path, "class_name": rows[0]["class_name"]}
    Manifest.from_rows(rows, folder / "videos").save(folder / "other.parquet")
    arguments = ("evaluate.py", folder / "run", "--data", folder / "other.parquet", "--snippets", 1)
    assert call_tool(*arguments, monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().err
    assert "the model was trained on 2 of these videos, by their contents under any name" in said
    assert "other/copy0.mp4; other/copy1.mp4" in said
    content = json.loads((folder / "run" / "evaluation" / "results.json").read_text())["tests"]["other"]
    assert content["trained_videos"] == ["other/copy0.mp4", "other/copy1.mp4"]
