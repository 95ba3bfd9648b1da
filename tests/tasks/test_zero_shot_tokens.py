"""A zero-shot run that is shown some of the tokens: in training, in its own measuring, and by every tool afterwards."""

import json

import numpy as np
import pytest
import torch

from engine.config import Config, load_config
from engine.data.batch import SnippetRequest
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.encode import write_video
from engine.data.sets.sources import load_tests
from engine.errors import InputError
from engine.evaluation.evaluate import score
from engine.evaluation.inference import class_vectors, embed_files, embed_source, load_model, manifest_of_files
from engine.export.program import video_model
from engine.features.cache import FeatureCache
from engine.features.encoder import BackboneEncoder, build_encoder
from engine.features.extract import Work, extract
from engine.features.windows import WindowGrid
from engine.processes.distributed import Ranks
from engine.processes.preemption import Preempted, StopVote
from engine.results.record import read_results
from engine.schema.keys import with_keys
from engine.schema.parser import parse
from engine.tasks.zero_shot.trained import load_for_inference
from engine.train import train
from engine.training.build import build_run
from tests.jobs import losses, same_weights
from tests.training.test_step import StopAfter

CPU = Ranks(torch.device("cpu"))


def config(manifest, folder, by, **model) -> Config:
    """A few steps; half of 2 x 2 x 2 tokens."""
    source = {"manifest": str(manifest)}
    tree = {
        "run": {"folder": str(folder), "device": "cpu", "cpu_threads": 1},
        "data": {
            "train": [source | {"splits": ["train"]}],
            "tests": [source | {"splits": ["unseen"], "name": "new"}],
            "validation": {"video_share": 0.25},
            "decode_threads": 1,
        },
        "clip": {"num_frames": 4, "short_side": 32, "crop": 32, "motion": by == "motion"},
        "model": {"backbone": "vit_tiny", "dropout": 0.0, "tokens": {"share": 0.5, "by": by}, **model},
        "words": {"source": "random", "dim": 6},
        "train": {"epochs": 1, "batch_size": 4, "lr": 1e-3, "schedule": "constant", "optimizer": "adamw"},
        "evaluate": {"num_snippets": 3, "batch_size": 4},  # batches cut through videos
        "checkpoint": {"keep": 1},
        "log": {"every_steps": 1, "report": False},
    }
    return parse(Config, tree)


@pytest.fixture(scope="module")
def runs(videos, tmp_path_factory):
    """What selects the tokens -> the folder of a run that nothing happened to."""
    folders = {by: tmp_path_factory.mktemp(by) / "run" for by in ("motion", "random")}
    for by, folder in folders.items():
        train(config(videos, folder, by), CPU, StopVote())
    return folders


@pytest.fixture(params=["motion", "random"])
def trained(request, runs):
    """The folder of a run, and what selects its tokens."""
    return runs[request.param], request.param


def test_a_stopped_run_resumes_bit_for_bit_and_draws_as_one_that_was_not(runs, videos, tmp_path):
    with pytest.raises(Preempted):
        train(config(videos, tmp_path, "random"), CPU, StopAfter(2))
    train(config(videos, tmp_path, "random"), CPU, StopVote())
    assert losses(tmp_path) == losses(runs["random"]) and same_weights(tmp_path, runs["random"])
    assert "model: vit_tiny, 0.5 of the tokens by random" in (tmp_path / "log.txt").read_text()


def test_it_is_evaluated_as_it_was_trained(trained):
    """From the checkpoint alone, with the numbers that the run itself has recorded."""
    loaded = load_model(trained[0], CPU.device)
    assert loaded.model.tokens.kept == 4
    (test,) = load_tests(loaded.config.data.tests)
    vectors = class_vectors(loaded, test.classes)
    again = score(test, embed_source(loaded, test, CPU.device), vectors, CPU.device).to_dict()
    own = read_results(trained[0]).tests["new"].to_dict()
    for key in ("all_classes", "per_class", "confusion"):
        assert own[key] == again[key], key
    with pytest.raises(InputError, match="the model and its snippets are what they were in training"):
        load_model(trained[0], CPU.device, overrides=["model.tokens.share=1"])


def test_a_file_has_one_point_whatever_others_stand_beside_it(trained, videos):
    loaded = load_model(trained[0], CPU.device)
    paths = sorted(videos.parent.rglob("*.mp4"))[:4]
    together = embed_files(loaded, paths, CPU.device, progress=False).embeddings
    alone = embed_files(loaded, paths[2:3], CPU.device, progress=False).embeddings
    torch.testing.assert_close(together[2:3], alone, rtol=1e-4, atol=1e-6)
    loaded.model.backbone.tokens = None
    assert (embed_files(loaded, paths, CPU.device, progress=False).embeddings - together).abs().max() > 1e-3


def test_what_has_no_motion_is_refused_by_name(trained, tmp_path):
    folder, by = trained
    write_video(tmp_path / "a.mp4", [np.full((64, 64, 3), 9 * k, np.uint8) for k in range(8)], codec="libx265")
    loaded = load_model(folder, CPU.device)
    if by == "random":
        assert len(embed_files(loaded, [tmp_path / "a.mp4"], CPU.device, progress=False).embeddings) == 1
        return
    with pytest.raises(InputError, match=r"some videos have no motion to give: 1 hevc, .*ingest.py --motion"):
        embed_files(loaded, [tmp_path / "a.mp4"], CPU.device, progress=False)
    manifest, _ = manifest_of_files([tmp_path / "a.mp4"])
    with pytest.raises(InputError, match="some videos have no motion to give: 1 hevc"):
        extract(manifest, build_encoder(str(folder), CPU.device), tmp_path / "features", WindowGrid(4, 4))


@pytest.mark.parametrize("in_processes", [False, True])
def test_features_of_windows_are_those_of_the_same_snippets(trained, videos, tmp_path, in_processes):
    folder, by = trained
    manifest, encoder = Manifest.load(videos).select(np.arange(3)), build_encoder(str(folder), CPU.device)
    assert encoder.clip.motion == (by == "motion")
    extract(manifest, encoder, tmp_path, WindowGrid(4, 4), Work(2, 2, in_processes, "float32"))
    starts, video = (0, 4, 8), manifest.video(1)  # of twelve frames
    decoder = PyAVDecoder(encoder.clip, CPU.device, 1)
    clips = decoder.decode([SnippetRequest(video, start, 0.5, 0.5, flip=False) for start in starts])
    decoder.close()
    expected = encoder(clips.frames, clips.motion)
    found = FeatureCache(tmp_path)[manifest.paths[1]].features
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    whole = load_for_inference(folder, CPU.device).model
    whole.backbone.tokens = None
    others = BackboneEncoder(whole, encoder.clip, "", "vit_tiny", CPU.device)
    assert others.digest != encoder.digest and (others(clips.frames) - expected).abs().max() > 1e-3


def test_a_program_of_the_network_alone_is_not_exported(trained):
    with pytest.raises(InputError, match=r"takes 0.5 of a clip's tokens \(model.tokens\), .*model.tokens.share=1"):
        video_model(load_for_inference(trained[0], CPU.device))


def test_where_tokens_cannot_be_selected(videos, tmp_path):
    still = with_keys(config(videos, tmp_path, "motion"), {"clip.motion": False})
    with pytest.raises(InputError, match=r"needs the motion of the clips: set clip\.motion=true"):
        build_run(still, CPU, StopVote())
    file = tmp_path / "a.yaml"
    for model, message in (
        ({"tokens": {"share": 0.5}}, r"'model\.tokens' needs model\.backbone vit_tiny or .* \(here r2plus1d_18\)"),
        (
            {"backbone": "vit_tiny", "tokens": {"by": "random"}},
            r"'model\.tokens\.by' needs model\.tokens\.share other than 1",
        ),
        (
            {"backbone": "vit_tiny", "tokens": {"share": 0}},
            r"'model\.tokens\.share' is 0\.0: it must be at least 0\.001",
        ),
        ({"backbone": "vit_tiny", "tokens": {"share": 0.5, "by": "motoin"}}, "did you mean 'motion'"),
    ):
        file.write_text(json.dumps({"model": model}))  # YAML
        with pytest.raises(InputError, match=message):
            load_config(file, [])
