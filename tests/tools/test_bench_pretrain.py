"""The benchmark of masked pretraining at its smallest for real."""

import pytest
import yaml

from engine.data.manifests.manifest import Manifest
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from tests.bench_records import check_record, newest

SMALL = (
    "train.batch_size=2",
    "data.decode_threads=1",
    "data.prefetch_batches=1",
    "masked.decoder_depth=1",
    "masked.ratio=0.5",
)


@pytest.fixture
def store(tmp_path, videos):
    """A store with motion of a few videos of 32 pixels, and a config whose clips have 2 x 2 tokens."""
    ingest(Manifest.load(videos[0]), tmp_path / "store", StoreSettings(short_side=32), WorkSettings(motion=True))
    tree = {
        "task": "masked",
        "run": {"folder": str(tmp_path / "run"), "cpu_threads": 1},
        "clip": {"num_frames": 2, "short_side": 32, "crop": 32, "motion": True},
        "model": {"backbone": "vit_tiny"},
    }
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(tree))
    return ("--config", config, "--manifest", tmp_path / "store" / "manifest.parquet")


def test_masks_take_turns_with_motion_and_without(program, tmp_path, store):
    words = ("--mask", "mgm", "--mask", "tube", "--steps", "1", "--rounds", "1", "--device", "cpu")
    status, out = program("pretrain", *store, *words, *SMALL)
    assert status == 0, out
    record = newest(tmp_path, "pretrain")
    check_record(record)
    rows = {(row["variant"], row["case"]): row["values"] for row in record["results"]}
    assert list(rows) == [("mgm", "with motion"), ("tube", "with motion"), ("tube", "without motion")]
    for row in record["results"]:
        values = row["values"]
        assert values["clips_per_s"] == pytest.approx(2 / row["seconds"]["p50"]) and row["seconds"]["n"] == 1
        assert values["compute_clips_per_s"] > 0 and 0 <= values["wait_share"] < 1 and values["warmup_s"] > 0
    costs = [values.get("motion_costs") for values in rows.values()]
    assert costs[0] is costs[2] is None and costs[1] > -1
    assert record["masked"]["ratio"] == 0.5 and not record["drawn"] and "motion %" in out
    assert not (tmp_path / "run").exists()  # the config's own run folder is left alone


def test_what_cannot_be_pretrained_on_is_told(program, store, videos):
    status, out = program("pretrain", "--config", "configs/quickstart.yaml", "--device", "cpu")
    assert status == 2 and "is of the task zero_shot: name a config of the task masked" in out
    status, out = program("pretrain", *store[:3], videos[1], "--mask", "mgm", "--device", "cpu", *SMALL)
    assert status == 2 and "motion" in out  # a store without
    status, out = program("pretrain", *store, "--rounds", "0", "--device", "cpu")
    assert status == 2 and "--rounds is 0: it must be at least 1" in out
