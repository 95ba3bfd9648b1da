"""tools/pretraining_worth.py at its smallest for real: it pretrains, probes and fine-tunes, and goes on where it was."""

import json

import pytest
import yaml
from bench.publish import read_records

from engine.data.config import ProceduralConfig
from engine.data.drawn.procedural import write_procedural_dataset
from engine.records import recording_into
from engine.schema.parser import parse
from tests.small_run import call_tool

PRETRAINING = {
    "task": "masked",
    "run": {"cpu_threads": 1},
    "procedural": {
        "folder": "videos", "things": ["ball", "star", "moon"], "movements": ["falling", "circling", "growing"],
        "num_unseen": 3, "videos_per_class": 4, "frames": 8, "size": 32,
    },
    "data": {
        "train": [{"manifest": "videos/manifest.parquet", "splits": ["train"], "groups": ["000", "001"]}],
        "validation": {"video_share": 0}, "decode_threads": 1,
    },
    "clip": {"num_frames": 2, "short_side": 32, "crop": 32},
    "model": {"backbone": "vit_tiny"},
    "masked": {"ratio": 0.5, "decoder_depth": 1},
    "train": {"epochs": 1, "batch_size": 6, "optimizer": "adamw", "schedule": "constant"},
    "evaluate": {"num_snippets": 1},
    "checkpoint": {"keep": 1},
    "log": {"sample_clips": 0, "report": False},
}  # fmt: skip
LABELLED = {
    "base": "pretraining.yaml",
    "task": "zero_shot",
    "train": {"epochs": 1},
    "data": {"tests": [{"manifest": "videos/manifest.parquet", "splits": ["unseen"], "name": "new"}]},
}


@pytest.fixture
def configs(tmp_path):
    """Two configs: a pretraining of two steps, and a training with labels of as many."""
    for name, tree in (("pretraining", PRETRAINING), ("labelled", LABELLED)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "pretraining.yaml", tmp_path / "labelled.yaml"


def states(folder):
    """What was made in a folder, and when."""
    return {str(path): path.stat().st_mtime_ns for name in ("*.pt", "probe/*.json") for path in folder.rglob(name)}


def test_encoders_are_pretrained_probed_and_fine_tuned_once_and_anew_where_they_were_trained_on(
    tmp_path, configs, monkeypatch, capsys
):
    out = tmp_path / "out"
    words = (*configs, "--out", out, "--masks", "tube", "--shares", 0.5, "--seeds", 3, "--record")
    with recording_into(tmp_path):
        assert call_tool("pretraining_worth.py", *words, monkeypatch=monkeypatch) == 0
        made = states(out)
        assert call_tool("pretraining_worth.py", *words, "--markdown", monkeypatch=monkeypatch) == 0
    assert states(out) == made and len([path for path in made if path.endswith("best.pt")]) == 1 + 2 + 1  # one control
    assert "unseen classes: chance 0.333, largest class 0.333" in capsys.readouterr().out
    first, again = read_records(tmp_path)["pretraining_worth"]
    assert first["measured"] == again["measured"] and first["pretraining"]["task"] == "masked"
    rows = [(row["use"], row["encoder"], row["labels"], row["seeds"]) for row in first["accuracy"]]
    assert rows == [(use, encoder, 1, 1) for use in ("probe", "fine-tuned") for encoder in ("none", "tube")]
    for row in first["measured"]:
        assert 0 <= row["mean_class"] <= 1 and row["chance"] == row["largest"] == pytest.approx(1 / 3)
        assert (row["seen"] is not None) == (row["use"] == "probe")
        assert (row["control"] is not None) == (row["use"] == "probe" or row["encoder"] == "tube")

    seed = out / "seed_3"
    before = states(seed)
    configs[0].write_text(yaml.safe_dump({**PRETRAINING, "train": {**PRETRAINING["train"], "epochs": 3}}))
    with recording_into(tmp_path):
        assert call_tool("pretraining_worth.py", *words, monkeypatch=monkeypatch) == 0
    after = states(seed)
    changed = {name for name, when in before.items() if after.get(name) != when}
    assert str(seed / "probe" / "tube.json") in changed and str(seed / "probe" / "none.json") not in changed
    assert len(list((seed / "fine_tuned").glob("tube-0.5-*"))) == 2
    assert [path.name for path in (seed / "fine_tuned").glob("none*")] == ["none-0.5"]


def test_what_was_probed_with_other_videos_or_is_damaged_is_probed_anew(tmp_path, configs, monkeypatch, capsys):
    out = tmp_path / "out"
    words = (*configs, "--out", out, "--masks", "tube", "--shares", 0.5, "--seeds", 3, "--uses", "probe")
    assert call_tool("pretraining_worth.py", *words, monkeypatch=monkeypatch) == 0
    none, tube = (out / "seed_3" / "probe" / f"{name}.json" for name in ("none", "tube"))
    before = none.read_text()
    for damaged in (before[:100], "[]", before.replace('"measured": [', '"measured": [null, ')):
        none.write_text(damaged)
        made = tube.stat().st_mtime_ns
        capsys.readouterr()
        assert call_tool("pretraining_worth.py", *words, monkeypatch=monkeypatch) == 0
        assert none.read_text() == before and tube.stat().st_mtime_ns == made
        assert f"'{none}' is damaged: probing anew" in capsys.readouterr().out

    drawn = {**PRETRAINING["procedural"], "things": ["fish", "moon", "ladder"]}
    configs[0].write_text(yaml.safe_dump({**PRETRAINING, "procedural": drawn}))
    assert call_tool("pretraining_worth.py", *words, monkeypatch=monkeypatch) == 2
    assert f"'{out / 'seed_3' / 'tube'}' holds a run with another procedural.things" in capsys.readouterr().err
    drawn_anew, alone = (json.loads(text)["made_with"] for text in (none.read_text(), before))
    assert drawn_anew["procedural"]["things"] == ["fish", "moon", "ladder"]
    assert not set(drawn_anew["videos"]) & set(alone["videos"])


def test_what_was_probed_with_other_contents_of_the_manifests_is_probed_anew(tmp_path, configs, monkeypatch):
    """Of videos that are not drawn, under the same name."""
    manifest = tmp_path / "videos" / "manifest.parquet"
    for name, tree in (("pretraining", PRETRAINING), ("labelled", LABELLED)):
        tree = {key: value for key, value in tree.items() if key != "procedural"}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(tree).replace("videos/manifest.parquet", str(manifest)))
    words = (*configs, "--out", tmp_path / "out", "--masks", "tube", "--shares", 0.5, "--seeds", 3, "--uses", "probe")
    made_with = []
    for seed, status in ((1, 0), (2, 2)):
        drawn = {**PRETRAINING["procedural"], "folder": str(manifest.parent), "seed": seed}
        write_procedural_dataset(parse(ProceduralConfig, drawn))
        assert (
            call_tool("pretraining_worth.py", *words, monkeypatch=monkeypatch) == status
        )  # 2: the encoder is of the old
        made_with.append(json.loads((tmp_path / "out" / "seed_3" / "probe" / "none.json").read_text())["made_with"])
    videos = [made.pop("videos") for made in made_with]
    assert made_with[0] == made_with[1] and not set(videos[0]) & set(videos[1])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"task": "masked"}, "name a config of the task masked, then one of zero_shot"),
        ({"procedural": {"size": 48}}, "draws other videos"),
        ({"data": {"tests": []}}, "needs one set in data.train, whose labels are drawn, and one in data.tests"),
    ],
)
def test_configs_that_do_not_belong_together_are_refused(tmp_path, configs, monkeypatch, capsys, change, told):
    configs[1].write_text(yaml.safe_dump({**LABELLED, **change}))
    assert call_tool("pretraining_worth.py", *configs, "--out", tmp_path / "out", monkeypatch=monkeypatch) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_options_out_of_range_are_refused(tmp_path, configs, monkeypatch, capsys):
    for words, told in ((("--shares", 0), "--shares has 0.0"), (("--seeds", -1), "--seeds has -1")):
        assert call_tool("pretraining_worth.py", *configs, "--out", tmp_path, *words, monkeypatch=monkeypatch) == 2
        assert told in capsys.readouterr().err
