"""Moment search as a task: drawn videos, real features, the engine's loop; resumed, distributed, measured beside its controls."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.config import Config, load_config
from engine.data.batch import ClipFormat
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.features.cache import FeatureCache
from engine.features.encoder import build_encoder
from engine.features.extract import extract
from engine.features.windows import WindowGrid
from engine.models.config import ModelConfig
from engine.models.embedder import build_embedder
from engine.moments.annotations import Annotations
from engine.moments.config import DrawnMomentsConfig, MomentsConfig
from engine.moments.drawn import write_drawn_moments
from engine.moments.measures import measure
from engine.moments.prior import fit_prior
from engine.moments.retrieval import high_moments, relevance
from engine.moments.search import MEASURED
from engine.moments.segments import Segments
from engine.processes.distributed import Ranks
from engine.processes.preemption import Preempted, StopVote
from engine.schema.parser import parse
from engine.tasks.moments import outcome as outcomes
from engine.tasks.moments.batches import MomentBatches, as_batch, cut_sample
from engine.tasks.moments.data import jittered
from engine.tasks.moments.outcome import (
    evaluate_split,
    find_all,
    finder,
    other_queries,
    untrained,
    why_not_others,
    why_not_untrained,
)
from engine.tasks.moments.task import Moments
from engine.tasks.moments.trained import load_finder
from engine.train import train
from engine.training.build import build_run
from engine.training.checkpoint import network_weights, read_checkpoint
from engine.training.ema import KEY as EMA_KEY
from tests import jobs
from tests.environment import ROOT
from tests.jobs import losses, same_weights
from tests.pretended_gpu import only_without_gpu, trained_there
from tests.small_run import write_run
from tests.training.test_step import StopAfter

CPU = Ranks(torch.device("cpu"))
DRAWN = {
    "things": ["ball", "star", "house"], "movements": ["falling", "circling", "growing"], "num_unseen": 3, "videos": 10,
    "tests": 4, "min_actions": 3, "max_actions": 4, "min_frames": 8, "max_frames": 14, "size": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a few drawn videos, their moments, and features of a network that nobody trained."""
    folder = tmp_path_factory.mktemp("moments")
    manifest, _ = write_drawn_moments(DrawnMomentsConfig(folder=str(folder / "videos"), **DRAWN))
    write_run(folder / "network")
    encoder = build_encoder(str(folder / "network"), CPU.device)
    extract(Manifest.load(manifest), encoder, folder / "features", WindowGrid(4, 2))
    return folder


def tree(made: Path, folder: Path, **changed: dict) -> dict:
    """A run of seconds; `changed` are single keys of its sections."""
    sections = {
        "run": {"folder": str(folder), "device": "cpu", "cpu_threads": 1},
        "moments": {
            "features": str(made / "features"), "annotations": str(made / "videos" / "manifest.moments.parquet"),
            "held_out": 0.2, "width": 16, "heads": 2,
        },
        "train": {"epochs": 4, "batch_size": 4, "lr": 1e-3, "schedule": "constant", "grad_clip": 1.0},
        "evaluate": {"every_epochs": 2},
        "checkpoint": {},
        "log": {"every_steps": 1},
    }  # fmt: skip
    return {"task": "moments", **{name: {**section, **changed.get(name, {})} for name, section in sections.items()}}


def config(made: Path, folder: Path, **changed: dict) -> Config:
    return parse(Config, tree(made, folder, **changed))


def test_a_run_is_trained_measured_and_recorded(made, tmp_path):
    outcome = train(config(made, tmp_path), CPU, StopVote())
    record = json.loads((tmp_path / "results.json").read_text())
    assert record == outcome.results.to_dict()
    test = record["tests"]["test"]
    queries = Annotations.load(made / "videos" / "manifest.moments.parquet").of_splits(["test"])
    assert test["model"]["num_queries"] == len(queries) == test["wrong_queries"]["num_queries"]
    assert test["untrained"] is None  # the features are no points of the word space
    assert 0 < test["prior"]["R@1_IoU0.3"] <= 1 and test["model"]["mAP"] is None
    assert list(losses(tmp_path)) == list(range(1, len(losses(tmp_path)) + 1))
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert len(board.Scalars("held_out/mean_IoU")) == 2
    assert board.Scalars("test/model/R@1_IoU0.5")[-1].value == pytest.approx(test["model"]["R@1_IoU0.5"])
    log = (tmp_path / "log.txt").read_text()
    assert "no training: not measured, the features cannot be held against words: they have 32 numbers" in log
    assert "chosen by held-out mean IoU" in log and "queries: words of GloVe" in log
    again = train(config(made, tmp_path), CPU, StopVote())
    assert again.results.to_dict() == record and len((tmp_path / "log.txt").read_text()) == len(log)  # nothing was done
    Moments.show(again, None)


@only_without_gpu
def test_a_training_on_a_gpu_stays_there(made, tmp_path, monkeypatch):
    on = config(made, tmp_path / "run", run={"device": "auto"}, train={"epochs": 2})
    assert trained_there(on, monkeypatch).results.tests["test"]["model"]["num_queries"] == 12


def test_a_finished_run_is_measured_again_with_other_weights(made, tmp_path):
    def reached(weights: str) -> dict:
        run = config(made, tmp_path, train={"epochs": 1, "ema_decay": 0.9}, evaluate={"weights": weights})
        return train(run, CPU, StopVote()).results.to_dict()

    first, other = reached("auto"), reached("trained")
    assert (first["weights"], other["weights"]) == ("auto", "trained")
    del other["weights"]  # as earlier versions have written it
    (tmp_path / "results.json").write_text(json.dumps(other))
    reached("auto")
    assert (tmp_path / "log.txt").read_text().count("evaluating best.pt") == 2


def test_it_learns_what_it_is_shown(made, tmp_path):
    shown = Annotations.load(made / "videos" / "manifest.moments.parquet").of_splits(["train"])
    twice = shown.select(np.tile(np.arange(len(shown)), 2))
    splits = ["train"] * len(shown) + ["again"] * len(shown)
    dataclasses.replace(twice, splits=splits).save(tmp_path / "twice.parquet")
    moments = {"annotations": str(tmp_path / "twice.parquet"), "held_out": 0.0, "dropout": 0.0, "tests": ["again"]}
    seldom = {"evaluate": {"every_epochs": 60}, "checkpoint": {"every_epochs": 60}, "log": {"every_steps": 50}}
    run = config(made, tmp_path, moments=moments, train={"epochs": 60, "lr": 5e-3}, **seldom)
    outcome = train(run, CPU, StopVote())
    result = outcome.results.tests["again"]
    assert "10 of the 10 videos of the split 'again' are trained on too" in (tmp_path / "log.txt").read_text()
    assert (
        result["model"]["R@1_IoU0.5"] > max(result["prior"]["R@1_IoU0.5"], result["wrong_queries"]["R@1_IoU0.5"]) + 0.2
    )


def test_ten_moments_are_measured_and_the_first_five_are_those_that_are_shown(made, tmp_path):
    run = build_run(config(made, tmp_path), CPU, StopVote())
    data = run.task.data
    part = data.tests[0]
    found = find_all(run, data, part, part.tokens)
    pairs = [(data.segments(video), tokens) for video, tokens in zip(part.annotations.videos, part.tokens, strict=True)]
    shown = finder(run, data).find_pairs(pairs)
    assert max(map(len, found)) == MEASURED == 10 and max(map(len, shown)) == 5
    for ten, five in zip(found, shown, strict=True):
        np.testing.assert_array_equal(ten[: len(five)], five)


def test_features_of_a_network_without_a_linear_layer_are_held_against_words_as_they_are(made, tmp_path):
    data = data_of(made, tmp_path).data
    clip = ClipFormat(num_frames=4, stride=1, short_side=32, crop=32)
    model = build_embedder(ModelConfig(backbone="r3d_18", width=4, linear=False), clip, embed_dim=32)
    data = dataclasses.replace(data, encoder=SimpleNamespace(model=model))
    assert "no network with a linear layer" in why_not_untrained(data) and untrained(data, data.tests[0]) is None
    as_long = SimpleNamespace(dim=32, sentence=lambda query: np.full(32, 32**-0.5, dtype=np.float32))
    data = dataclasses.replace(data, queries=as_long)
    without = dataclasses.replace(data, encoder=None)
    assert why_not_untrained(data) is None
    assert untrained(data, data.tests[0]).to_dict() == untrained(without, data.tests[0]).to_dict()


def test_features_of_a_network_are_held_against_words_through_its_linear_layer(made, tmp_path):
    """And moments that overlap by more than they may are left out, as for the model."""
    data = data_of(made, tmp_path).data
    clip = ClipFormat(num_frames=4, stride=1, short_side=32, crop=32)
    torch.manual_seed(0)
    model = build_embedder(ModelConfig(backbone="r3d_18", width=4), clip, embed_dim=data.queries.dim).eval()
    part, results = data.tests[0], []
    for most in (0.05, 0.95):
        config = dataclasses.replace(data.config, max_overlap=most)
        asked = dataclasses.replace(data, encoder=SimpleNamespace(model=model), config=config)
        assert why_not_untrained(asked) is None
        expected = []
        for video, query in zip(part.annotations.videos, part.annotations.queries, strict=True):
            segments = data.segments(video)
            with torch.no_grad():
                curve = relevance(model.linear(torch.tensor(segments.features)).numpy(), data.queries.sentence(query))
            expected.append(high_moments(curve, segments.edges, count=MEASURED, max_overlap=most))
        results.append(untrained(asked, part).to_dict())
        assert results[-1] == pytest.approx(measure(expected, part.annotations.windows).to_dict())
    assert results[0] != results[1]


def test_what_a_split_is_held_against_knows_none_of_its_queries(made, tmp_path, monkeypatch):
    """The prior is of the training queries, and the model is asked once more with the queries of other videos."""
    run, asked = build_run(config(made, tmp_path), CPU, StopVote()), []
    data, part = run.task.data, run.task.data.tests[0]

    def find(run: object, data: object, part: object, tokens: list[np.ndarray]) -> list[np.ndarray]:
        asked.append(tokens)
        return [np.array([[0.0, 1.0, 1.0]])] * len(tokens)

    monkeypatch.setattr(outcomes, "find_all", find)
    prior = evaluate_split(run, data, part).prior
    assert prior == fit_prior(data.train.annotations).recall(part.annotations)
    assert prior != fit_prior(part.annotations).recall(part.annotations)
    own, of_others = asked
    assert own is part.tokens
    rows = other_queries(part.annotations.videos)
    assert len(rows) == len(part) and all(of_others[k] is part.tokens[row] for k, row in enumerate(rows))


def test_why_queries_of_other_videos_are_not_measured_is_said(made, tmp_path):
    run = build_run(config(made, tmp_path), CPU, StopVote())
    told = "queries of other videos: not measured"
    assert not any(told in line for line in run.task.introduce(run))
    data, part = run.task.data, run.task.data.tests[0]
    of_one = dataclasses.replace(part.annotations, videos=[part.annotations.videos[0]] * len(part))
    run.task.data = dataclasses.replace(data, tests=(dataclasses.replace(part, annotations=of_one),))
    (line,) = [line for line in run.task.introduce(run) if told in line]
    assert line == f"{told} on test: {len(part)} of its {len(part)} queries are of one video, more than half"


def test_no_split_that_is_tested_is_trained_on(made, tmp_path):
    of_all, named = (data_of(made, tmp_path / name, train=split).data for name, split in (("a", []), ("b", ["train"])))
    assert of_all.learnt_digest == named.learnt_digest and of_all.notes == []
    queries = Annotations.load(made / "videos" / "manifest.moments.parquet")
    assert len(of_all.train) + len(of_all.held_out) + len(of_all.tests[0]) == len(queries)


def test_videos_of_both_sides_are_told_by_their_contents(made, tmp_path, monkeypatch):
    """The first test video is a copy of a training video."""
    found = Annotations.load(made / "videos" / "manifest.moments.parquet")
    one, other = (sorted(found.of_splits([split]).videos)[0] for split in ("test", "train"))
    monkeypatch.setattr(FeatureCache, "contents", lambda _, video: other if video == one else video)
    (note,) = data_of(made, tmp_path).data.notes
    assert f"1 of the 4 videos of the split 'test' are trained on too, by their contents: {one} = {other}" in note


def test_moments_beyond_the_end_of_their_video_are_cut_or_left_out(made, tmp_path):
    """Of a table that was made without a manifest: no one knew where the videos end."""
    found = Annotations.load(made / "videos" / "manifest.moments.parquet")
    windows, ends = list(found.windows), found.durations
    cut, gone, half = (found.splits.index("test") + row for row in range(3))
    windows[cut] = np.array([[0.5, ends[cut] + 9]])
    windows[gone] = np.array([[ends[gone] + 1, ends[gone] + 9]])
    windows[half] = np.array([[ends[half] + 1, ends[half] + 9], [0.5, 1.0]])

    def run_of(windows: list) -> Moments:
        table = dataclasses.replace(found, windows=windows, durations=np.full(len(found), np.nan))
        table.save(tmp_path / "late.parquet")
        return data_of(made, tmp_path, annotations=str(tmp_path / "late.parquet"))

    task = run_of(windows)
    test = task.data.tests[0].annotations
    assert len(test) == found.splits.count("test") - 1
    assert test.windows[0].tolist() == [[0.5, pytest.approx(ends[cut], abs=1e-5)]]
    assert test.windows[1].tolist() == [[0.5, 1.0]]
    (note,) = task.notes
    assert f"'{found.videos[cut]}', 0.5 to {ends[cut] + 9:g} s of {ends[cut]:g} s" in note
    assert "2 starts after the video's end: left out, 1 cut at the video's end" in note
    with pytest.raises(InputError, match=r"every moment starts after the end of its video.*the first: 'train/"):
        run_of([each + 1000 for each in windows])


def test_queries_that_the_runs_words_cannot_read_are_left_out(made, tmp_path):
    found = Annotations.load(made / "videos" / "manifest.moments.parquet")
    file = tmp_path / "odd.parquet"

    def run_of(odd: dict[int, str]) -> Moments:
        queries = [odd.get(row, query) for row, query in enumerate(found.queries)]
        dataclasses.replace(found, queries=queries).save(file)
        return data_of(made, tmp_path, annotations=str(file))

    data = run_of({0: "ball " * 129, 1: "xqzwv"}).data
    assert len(data.train) + len(data.held_out) + len(data.tests[0]) == len(found) - 2
    (note,) = data.notes
    assert "left out: 2 queries that cannot be read (the first: query 'ball ball" in note and "at most 128" in note
    with pytest.raises(InputError, match=r"moments.annotations: no query can be read by words of GloVe.*'xqzwv'"):
        run_of(dict.fromkeys(range(len(found)), "xqzwv"))


def test_a_stopped_run_resumes_bit_for_bit(made, tmp_path):
    train(config(made, tmp_path / "whole"), CPU, StopVote())
    with pytest.raises(Preempted):
        train(config(made, tmp_path / "cut"), CPU, StopAfter(11))
    train(config(made, tmp_path / "cut"), CPU, StopVote())
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert same_weights(tmp_path / "cut", tmp_path / "whole")


def test_two_ranks_train_what_one_does(made, tmp_path):
    for ranks in (1, 2):
        changed = {"moments": {"dropout": 0.0}, "train": {"epochs": 2, "precision": "fp64"}}
        path = tmp_path / f"{ranks}.yaml"
        path.write_text(yaml.safe_dump(tree(made, tmp_path / str(ranks), **changed)))
        jobs.run(path, ranks=ranks)
    one, two = losses(tmp_path / "1"), losses(tmp_path / "2")
    assert one.keys() == two.keys() and one == pytest.approx(two, rel=1e-6)
    records = [json.loads((tmp_path / name / "results.json").read_text())["tests"] for name in ("1", "2")]
    assert records[0] == records[1]  # each rank has found its share of the queries


def test_annotations_that_were_edited_are_others_though_there_are_as_many(made, tmp_path):
    """Of a test split they are measured again; of the training they make another run."""
    found = Annotations.load(made / "videos" / "manifest.moments.parquet")

    def edited(split: str) -> dict:
        windows = [w / 2 if of == split else w for w, of in zip(found.windows, found.splits, strict=True)]
        path = tmp_path / f"{split}.moments.parquet"
        dataclasses.replace(found, windows=windows).save(path)
        return {"train": {"epochs": 1}, "moments": {"annotations": str(path)}}

    run = tmp_path / "run"
    before = train(config(made, run, train={"epochs": 1}), CPU, StopVote()).results.to_dict()
    after = train(config(made, run, **edited("test")), CPU, StopVote()).results.to_dict()
    assert after["annotations"]["training"] == before["annotations"]["training"]
    assert after["annotations"]["test"] != before["annotations"]["test"] and after["tests"] != before["tests"]
    with pytest.raises(InputError, match="holds a run with another set of training queries, or of their moments"):
        build_run(config(made, run, **edited("train")), CPU, StopVote())


def test_queries_that_are_of_other_videos_now_are_others(made, tmp_path, monkeypatch):
    """By the contents of the videos: of a test split they are measured again, of the training they make another run."""
    found = Annotations.load(made / "videos" / "manifest.moments.parquet")
    contents = FeatureCache.contents

    def exchanged(split: str) -> dict[str, str]:
        """The split's videos, each as its neighbour."""
        videos = sorted({video for video, of in zip(found.videos, found.splits, strict=True) if of == split})
        return dict(zip(videos, videos[1:] + videos[:1], strict=True))

    def now(other: dict[str, str]) -> Config:
        monkeypatch.setattr(FeatureCache, "contents", lambda cache, video: contents(cache, other.get(video, video)))
        return config(made, run, train={"epochs": 1})

    run = tmp_path / "run"
    before = train(now({}), CPU, StopVote()).results.to_dict()
    after = train(now(exchanged("test")), CPU, StopVote()).results.to_dict()
    assert after["videos"]["training"] == before["videos"]["training"]
    assert after["videos"]["test"] != before["videos"]["test"] and after["annotations"] == before["annotations"]
    assert (run / "log.txt").read_text().count("evaluating best.pt") == 2
    with pytest.raises(
        InputError, match="holds a run with another set of videos of the training queries, by their cont"
    ):
        build_run(now(exchanged("train")), CPU, StopVote())


def test_a_run_of_a_version_that_did_not_note_its_videos_is_taken_as_it_is(made, tmp_path, monkeypatch):
    """Finished, it is shown as it was recorded; stopped, it goes on."""
    whole = config(made, tmp_path)
    record = train(whole, CPU, StopVote()).results.to_dict()
    del record["videos"]
    (tmp_path / "results.json").write_text(json.dumps(record))
    train(whole, CPU, StopVote())
    assert (tmp_path / "log.txt").read_text().count("evaluating best.pt") == 1
    task = build_run(whole, CPU, StopVote()).task
    state = task.state()
    del state["videos_digest"]
    monkeypatch.setattr(FeatureCache, "contents", lambda cache, video: 7)
    del vars(task.data)["learnt_videos_digest"]  # which is kept
    assert task.changes(state) == [] != task.changes(state | {"videos_digest": "0"})
    # Features of others tell no contents: their paths say nothing of whether the videos are the same.
    monkeypatch.setattr(FeatureCache, "contents", lambda cache, video: video)
    task = build_run(whole, CPU, StopVote()).task
    assert task.changes(state | {"videos_digest": "0"}) == [] and task.state()["videos_digest"] == ""
    assert task.changes(state | {"videos_digest": ""}) == [] and "videos" not in outcomes.facts(
        build_run(whole, CPU, StopVote()), task.data
    )


def test_a_resumed_run_must_have_the_same_features_and_options(made, tmp_path):
    train(config(made, tmp_path, train={"epochs": 1}), CPU, StopVote())
    with pytest.raises(InputError, match=r"another moments\.fusion \(cross there, late here\)"):
        build_run(config(made, tmp_path, moments={"fusion": "late"}), CPU, StopVote())
    with pytest.raises(InputError, match=r"another moments\.held_out"):
        build_run(config(made, tmp_path, moments={"held_out": 0.5}), CPU, StopVote())
    torch.manual_seed(1)
    write_run(made / "another", words={"source": "random", "dim": 9}, embed_dim=9)
    manifest = Manifest.load(made / "videos" / "manifest.parquet")
    model = build_encoder(str(made / "another"), CPU.device)
    model.digest = "0" * 32
    extract(manifest, model, tmp_path / "others", WindowGrid(4, 2))
    with pytest.raises(InputError, match="another model of the features"):
        build_run(config(made, tmp_path, moments={"features": str(tmp_path / "others")}), CPU, StopVote())
    found = load_finder(tmp_path, CPU.device)
    with pytest.raises(InputError, match="features of another model"):
        found.check(dataclasses.replace(found.stamp, digest="0" * 32))


def test_a_trained_model_finds_moments_in_a_video_of_any_length(made, tmp_path):
    train(config(made, tmp_path, moments={"segments": 16}, train={"epochs": 1, "ema_decay": 0.5}), CPU, StopVote())
    found = load_finder(tmp_path, CPU.device)
    average = network_weights(read_checkpoint(found.path)[EMA_KEY])  # what was measured
    assert all(torch.equal(average[name], value) for name, value in found.finder.network.state_dict().items())
    cache = FeatureCache(made / "features")
    found.check(cache.stamp)
    for changed, told in (
        ({"grid": WindowGrid(4, 4)}, "of windows 4 frames every 2; these are of 4 frames every 4"),
        ({"digest": "f" * 16}, "another model, .* ffffffffffff: extract them with that one"),
        ({"width": 7}, "another model"),
    ):
        with pytest.raises(InputError, match=told):
            found.check(dataclasses.replace(cache.stamp, **changed))
    for video in (cache[cache.videos[0]], repeated(cache[cache.videos[0]], 9)):
        for moments in found.finder.find(video, ["ball falling", "the star circles after the house grows"], 3):
            assert 1 <= len(moments) <= 3 and (np.diff(moments[:, 2]) <= 0).all()
            assert (moments[:, 0] >= 0).all() and (moments[:, 0] < moments[:, 1]).all()
            assert (moments[:, 1] <= video.duration_s + 1e-9).all()
    for query, told in (("", "has no words"), ("qzxw vvkjq", "none of its words"), ("ball " * 129, "129 words")):
        with pytest.raises(InputError, match=told):
            found.finder.find(cache[cache.videos[0]], [query])


def repeated(video, times):
    starts = np.concatenate([video.start_s + k * video.duration_s for k in range(times)])
    ends = np.concatenate([video.end_s + k * video.duration_s for k in range(times)])
    return SimpleNamespace(
        features=np.tile(video.features, (times, 1)), start_s=starts, end_s=ends, duration_s=video.duration_s * times
    )


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"annotations": "none.parquet"}, "no moments at"),
        ({"features": "nowhere"}, "no features in"),
        ({"tests": ["tset"]}, "no query of the split tset: there are test, train"),
        ({"train": ["x"]}, "no query of the split x: there are test, train"),
        ({"train": ["train", "valid"]}, "no query of the split valid: there are test, train"),
        ({"train": [], "tests": ["train", "test"]}, "no query of the split that is not tested: there are test, train"),
        ({"train": ["train", "test"]}, "moments.train and moments.tests both name the split test: its queries would"),
    ],
)
def test_what_is_missing_is_told(made, tmp_path, changed, told):
    with pytest.raises(InputError, match=told):
        build_run(config(made, tmp_path, moments=changed), CPU, StopVote())


def test_a_share_that_holds_all_videos_out_is_told(made, tmp_path):
    known = Annotations.load(made / "videos" / "manifest.moments.parquet")
    two = {*list(dict.fromkeys(known.of_splits(["train"]).videos))[:2], *known.of_splits(["test"]).videos}
    table = tmp_path / "few.moments.parquet"
    known.select(np.array([video in two for video in known.videos])).save(table)
    changed = {"annotations": str(table), "held_out": 0.9}
    with pytest.raises(InputError, match=r"moments\.held_out 0\.9 is all of the 2 training videos, and leaves none"):
        build_run(config(made, tmp_path / "run", moments=changed), CPU, StopVote())


def test_keys_that_do_not_fit_are_told(made, tmp_path):
    for changed, told in (
        ({"width": 10, "heads": 4}, "does not divide over 4 heads"),
        ({"annotations": None}, "annotations are missing"),
        ({"encoder": "x.yaml"}, "encoder needs the manifest"),
        ({"encoder": "x.yaml", "manifest": "m", "window": "long"}, "section 'moments': window is 'long': give a whole"),
        ({"encoder": "x.yaml", "manifest": "m", "window": "2s", "hop": "8"}, "window is in seconds and hop in frames"),
    ):
        with pytest.raises(InputError, match=told):
            config(made, tmp_path, moments=changed)
    (tmp_path / "encoder.yaml").write_text(yaml.safe_dump({"run": {"folder": str(tmp_path / "none")}}))
    untrained_yet = {"encoder": str(tmp_path / "encoder.yaml"), "manifest": str(made / "videos" / "manifest.parquet")}
    with pytest.raises(InputError, match=r"^moments\.encoder is '.*none': there is no run folder"):
        build_run(config(made, tmp_path / "run", moments=untrained_yet), CPU, StopVote())
    with pytest.raises(InputError, match="needs a section moments"):
        build_run(
            parse(Config, {"task": "moments", "run": {"folder": str(tmp_path), "device": "cpu"}}), CPU, StopVote()
        )


def data_of(made: Path, folder: Path, **changed: object) -> Moments:
    return build_run(config(made, folder, moments=changed), CPU, StopVote()).task


def test_batches_are_a_function_of_seed_epoch_and_position(made, tmp_path):
    task = data_of(made, tmp_path)

    def rows(rank, world_size, start, count):
        stream = MomentBatches(task.data, 5, 4, rank, world_size, CPU.device, torch.float32, start)
        return [next(stream).video.tolist() for _ in range(count)]

    size = task.epoch_size
    whole = [row for batch in rows(0, 1, (0, 0), size) for row in batch]
    assert all(sorted(whole[k * size : (k + 1) * size]) == list(range(size)) for k in range(4))
    assert [row for batch in rows(0, 1, (1, 2), 3) for row in batch] == whole[size + 2 : size + 14]
    shares = zip(rows(0, 2, (0, 0), 5), rows(1, 2, (0, 0), 5), strict=True)
    assert [row for mine, theirs in shares for pair in zip(mine, theirs, strict=True) for row in pair] == whole[:20]
    with pytest.raises(InputError, match="does not divide over 3 ranks"):
        rows(0, 3, (0, 0), 1)


def test_parts_of_long_videos_hold_the_moment_where_they_should(made, tmp_path):
    task = data_of(made, tmp_path, segments=16)
    data, count = task.data, 100
    edges = np.arange(count + 1.0)
    object.__setattr__(
        data, "segments", lambda video: Segments(np.arange(count)[:, None] * np.ones((1, 3), np.float32), edges)
    )
    generator = np.random.default_rng(0)
    for window in ([3.0, 9.0], [0.0, 1.0], [95.0, 100.0], [20.0, 70.0], [0.0, 100.0]):
        data.labels[0] = np.array([window, [40.0, 45.0]])
        for draw in generator.random((60, 3)):
            sample = cut_sample(data, 0, draw)
            offset = int(sample.segments.features[0, 0])
            assert len(sample.segments) == 16 == len(sample.inside) and sample.segments.edges[0] == offset
            start, end = window if draw[0] < 0.5 else (40.0, 45.0)
            assert sample.has_moment == (start >= offset and end <= offset + 16)
            cells = offset + np.arange(16)
            expected = [(window[0] <= cell < window[1]) or (40 <= cell < 45) for cell in cells]
            assert sample.inside.tolist() == expected
            if sample.has_moment:
                assert (sample.first + offset, sample.last + offset) == (start, end - 1)
            if draw[2] >= 0.2:
                shared = min(end, offset + 16) - max(start, offset)
                assert sample.has_moment == (end - start <= 16) and shared == min(end - start, 16)
    batch = as_batch([cut_sample(data, 0, draw) for draw in generator.random((5, 3))], CPU.device, torch.float32)
    parts = batch.chunk(2)
    assert [len(part) for part in parts] == [3, 2] and torch.equal(parts[1].inside, batch.inside[3:])


def test_start_and_end_are_learnt_of_every_sample_whose_video_is_seen_whole(made, tmp_path):
    data = data_of(made, tmp_path).data
    for row, draw in enumerate(np.random.default_rng(0).random((len(data.train), 3))):
        whole = data.segments(data.train.annotations.videos[row])
        sample = cut_sample(data, row, draw)
        (window,) = data.labels[row].tolist()
        assert sample.has_moment and (sample.first, sample.last) == whole.nearest(*window)
        assert np.array_equal(sample.segments.features, whole.features)


def test_nothing_is_learnt_of_start_and_end_where_a_part_cuts_the_moment(made, tmp_path):
    task = data_of(made, tmp_path, segments=16, frame_weight=0.0)
    segments = Segments(np.ones((100, task.data.features.stamp.width), np.float32), np.arange(101.0))
    object.__setattr__(task.data, "segments", lambda video: segments)
    network = task.build_model()
    for window, is_learnt in (([30.0, 40.0], True), ([20.0, 70.0], False)):
        task.data.labels[0] = np.array([window])
        batch = as_batch([cut_sample(task.data, 0, (0.0, 0.5, 0.9))], CPU.device, torch.float32)
        assert (task.loss(network, batch) > 0).item() == is_learnt


def test_boundary_noise_is_drawn_once_and_stays_in_the_video():
    windows = [np.array([[10.0, 20.0], [0.0, 4.0]])] * 400
    table = Annotations(["v"] * 400, ["q"] * 400, ["train"] * 400, np.full(400, 25.0), windows)
    assert all(a is b for a, b in zip(jittered(table, 0.0, 0), windows, strict=True))
    moved, again, other = jittered(table, 0.25, 0), jittered(table, 0.25, 0), jittered(table, 0.25, 1)
    assert all(np.array_equal(a, b) for a, b in zip(moved, again, strict=True))
    stacked = np.stack(moved)
    assert not np.array_equal(stacked, np.stack(other))
    assert (stacked >= 0).all() and (stacked <= 25).all()
    length = stacked[..., 1] - stacked[..., 0]
    assert (length[:, 0] >= 1 - 1e-9).all() and (length[:, 1] >= 0.2 - 1e-9).all()
    assert stacked[:, 0].mean(axis=0) == pytest.approx([10, 20], abs=0.5) and stacked[:, 0, 0].std() == pytest.approx(
        2.5, rel=0.1
    )


def test_wrong_queries_are_of_other_videos_and_each_is_used_once():
    rng = np.random.default_rng(0)
    for counts in ([3, 3], [1, 1, 1], [1], [3, 1, 1], [5, 2, 4, 1, 3], rng.integers(1, 9, 40).tolist()):
        videos = [f"v{k}" for k, count in enumerate(counts) for _ in range(count)]
        videos = [videos[i] for i in rng.permutation(len(videos))]
        other = other_queries(videos)
        if 2 * max(counts) > len(videos):
            assert len(other) == 0
            assert (
                why_not_others(videos) == f"{max(counts)} of its {len(videos)} queries are of one video, more than half"
            )
            continue
        assert why_not_others(videos) is None
        assert sorted(other.tolist()) == list(range(len(videos)))
        assert all(videos[row] != videos[k] for k, row in enumerate(other))


def test_published_configs_parse():
    for name in ("charades", "activitynet", "tacos", "qvhighlights"):
        found = load_config(ROOT / "configs" / f"moments_{name}.yaml", [])
        assert found.task == "moments" and isinstance(found.moments, MomentsConfig) and found.train.lr == 1e-4
    assert Moments.before(found) is None
    before = Moments.before(
        load_config(ROOT / "configs" / "moments_quickstart.yaml", ["run.device=cpu", "run.cpu_threads=1"])
    )
    assert (before.task, before.run.device, before.run.cpu_threads) == ("zero_shot", "cpu", 1)
