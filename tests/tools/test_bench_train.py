"""The benchmark of training end to end at its smallest for real, and its contestants one by one."""

import os

import numpy as np
import pytest
import torch
from bench import contestants
from bench.loading import RandomSnippets, endless_batches
from bench.resources import process_tree
from bench.train import config_tree, drawn_videos, entries_of, entry_config

from engine.config import load_config
from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.decode import PyAVDecoder
from tests.bench_records import check_record, newest
from tests.jobs import write_config
from tests.small_run import benchmark_options


# Each contestant is a process that imports torch: all six are for -m slow.
@pytest.mark.parametrize("only", [("engine", "paper recipe"), pytest.param((), marks=pytest.mark.slow)])
def test_train_from_a_store_beside_the_baselines(program, tmp_path, videos, only):
    raw, store = videos
    config = write_config(tmp_path / "config.yaml", raw, tmp_path / "run", words={"source": "random", "dim": 8})
    trace = tmp_path / "trace.json"
    words = ["--config", config, "--manifest", store, "--raw", raw, "--steps", "2", "--rounds", "1", "--workers", "0"]
    status, out = program(
        "train",
        "--device",
        "cpu",
        *words,
        "--trace",
        trace,
        "train.batch_size=3",
        "model.backbone=r2plus1d_18",
        *(word for name in only for word in ("--only", name)),
    )
    assert status == 0, (
        out
    )  # R3D has no flat form, and torch 2.15 computes bf16 conv3d wrongly here (docs/lab_notes.md)
    record = newest(tmp_path, "train")
    check_record(record)
    rows = {(row["case"], row["variant"]): row for row in record["results"]}
    entered = [("store", each) for each in ("engine", "engine flat", "engine flat bf16")]
    entered += [("files", each) for each in ("engine", "torchvision", "paper recipe")]
    assert list(rows) == [each for each in entered if not only or each[1] in only]
    for row in rows.values():
        values = row["values"]
        assert values["clips_per_s"] == pytest.approx(3 / row["seconds"]["p50"])
        assert values["saturation"] == pytest.approx(values["clips_per_s"] / values["compute_clips_per_s"])
        assert 0 <= values["wait_share"] < 1 and values["warmup_s"] > 0
    reduced = {("store", "engine flat bf16"), ("files", "torchvision")}  # on a CPU the careful baseline is so by itself
    assert {each for each, row in rows.items() if row["precision"] == "bf16"} == reduced.intersection(rows)
    assert rows["files", "paper recipe"]["values"]["wait_share"] > 0.02  # it decodes in the loop itself
    for rival in {"torchvision", "paper recipe"}.intersection(only or ("torchvision", "paper recipe")):
        ratio = rows["files", rival]["seconds"]["p50"] / rows["store", "engine"]["seconds"]["p50"]
        assert rows["store", "engine"]["values"][f"over_{rival.replace(' ', '_')}"] == pytest.approx(ratio)
    assert trace.stat().st_size > 1000
    assert not (tmp_path / "run").exists()  # the config's own run folder is left alone


def test_all_take_part_in_training_where_nobody_is_chosen(tmp_path, videos):
    raw, store = videos
    config = write_config(tmp_path / "config.yaml", raw, tmp_path / "run", words={"source": "random", "dim": 8})
    words = ["--device", "cpu", "--config", str(config), "--manifest", str(store), "--raw", str(raw)]
    arguments, device = benchmark_options("train", *words), torch.device("cpu")
    tree = config_tree(arguments, device)
    entries = entries_of(arguments, tree, tmp_path)
    assert [(entry.source, entry.name) for entry in entries] == [
        *(("store", each) for each in ("engine", "engine flat", "engine flat bf16")),
        *(("files", each) for each in ("engine", "torchvision", "paper recipe")),
    ]
    own = {(each.source, each.name): entry_config(tree, each, tmp_path, device) for each in entries}
    assert [each.train.precision for each in own.values()] == ["auto", "auto", "bf16", "auto", "auto", "auto"]
    assert [each.model.form for each in own.values()][:3] == ["published", "flat", "flat"]


def test_train_draws_videos_where_none_are_named(tmp_path):
    tree = {
        "procedural": {"things": ["ball", "star"], "movements": ["falling", "circling"], "num_unseen": 1, "frames": 8},
        "clip": {"short_side": 32, "crop": 32},
    }
    for number, given in enumerate((tree, {"clip": tree["clip"]})):
        store, raw = (Manifest.load(path) for path in drawn_videos(given, tmp_path / str(number)))
        assert len(store) == len(raw) > 1 and store.video(0).height == 32


def test_the_engines_loop_is_timed_where_it_asks_for_data(tmp_path, videos):
    config = load_config(write_config(tmp_path / "c.yaml", videos[0], tmp_path / "run"), ["words.source=random"])
    engine = contestants.EngineContestant(config, torch.device("cpu"))
    window = engine.window(3, same_batch=False)
    assert (window.steps, engine.engine_run.step) == (3, 3 + 2 + config.data.prefetch_batches)
    before = [parameter.clone() for parameter in engine.engine_run.model.parameters()]
    same = engine.window(2, same_batch=True)
    assert engine.engine_run.step == 3 + 2 + config.data.prefetch_batches + 4
    assert same.waited_s < 0.05 * same.seconds
    after = engine.engine_run.model.parameters()
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))  # it does train
    engine.close()


@pytest.mark.parametrize("how", ["opencv", "pyav"])
def test_baselines_read_the_frames_they_should(videos, how):
    manifest, clip = Manifest.load(videos[0]), ClipFormat(4, 2, 32, 32)
    snippets = RandomSnippets(manifest, clip, how)
    decoder = PyAVDecoder(clip, torch.device("cpu"), 1)
    for row, start in ((0, 0), (5, 3)):
        found = np.stack(snippets.read(snippets.paths[row], start, clip)).astype(int)
        expected = decoder.decode([SnippetRequest(manifest.video(row), start, 0.5, 0.5, False)]).frames[0].numpy()
        assert found.shape == expected.shape and np.abs(found - expected).mean() < 3  # other colour conversions
    decoder.close()
    frames, labels = next(endless_batches(snippets, 5, 0, torch.device("cpu")))
    assert frames.shape == (5, 4, 32, 32, 3) and frames.dtype == torch.uint8 and labels.shape == (5,)
    assert len(next(endless_batches(snippets, 2 * len(manifest), 0, torch.device("cpu")))[0]) == 2 * len(manifest)


class Readers(RandomSnippets):
    """Says of each snippet who read it, and which it is."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return np.full(1, os.getpid()), index


def test_the_baselines_workers_read_on_past_the_end_of_an_epoch(videos):
    """Each reads a batch of its own also where a batch is a whole epoch, so that they read side by side."""
    snippets = Readers(Manifest.load(videos[0]), ClipFormat(4, 2, 32, 32), "pyav")
    batches = endless_batches(snippets, 2 * len(snippets), 2, torch.device("cpu"))
    readers, labels = zip(*(next(batches) for _ in range(3)), strict=True)
    batches.close()
    assert len({int(each) for batch in readers for each in batch.unique()}) == 2
    assert all(batch.bincount().tolist() == [2] * len(snippets) for batch in labels)  # whole epochs


def test_nothing_of_a_baseline_goes_on_after_its_window(tmp_path, videos):
    config = load_config(
        write_config(tmp_path / "c.yaml", videos[0], tmp_path / "run"), ["words.source=random", "train.batch_size=3"]
    )
    rival = contestants.BaselineContestant("paper recipe", config, torch.device("cpu"), workers=1, is_compiled=False)
    before = process_tree(os.getpid())
    fed = rival.window(2, same_batch=False)
    assert process_tree(os.getpid()) == before
    same = rival.window(2, same_batch=True)
    assert (fed.steps, same.steps) == (2, 2) and same.waited_s < 0.05 * same.seconds
    rival.close()
