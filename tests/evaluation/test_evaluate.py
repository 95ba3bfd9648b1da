"""Embedding real videos: which snippets, in which order averaged, and every good video exactly once."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.data.batch import ClipFormat, VideoDecoder
from engine.data.pyav.decode import PyAVDecoder
from engine.data.sampling.sampler import evaluation_starts
from engine.data.sets.sources import DataSet
from engine.errors import InputError
from engine.evaluation.embedding import Inference, embed_features, embed_videos
from engine.evaluation.evaluate import choose_rows, evaluate_source, score
from engine.evaluation.snippets import middle_snippets
from engine.evaluation.transductive import WithFeatures
from engine.models.backbone import Backbone
from engine.models.embedder import Embedder
from engine.semantics.embeddings import ClassEmbeddings
from kernels.clip_normalize import clip_normalize
from tests import jobs
from tests.encoded import fade, manifest_of, write_colors

CLIP = ClipFormat(num_frames=4, stride=1, short_side=32, crop=24)
HOW = Inference(clip=CLIP, num_snippets=5, batch_size=4, device=torch.device("cpu"), progress=False)
RED, GREEN, BLUE = (220, 30, 30), (30, 220, 30), (30, 30, 220)


class Colour(Backbone):
    """A stand-in for a 3-D CNN that knows the colour of a snippet: [N, 3, T, H, W] -> [N, 6], not linear in it."""

    feature_dim = 6

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        color = clips.mean(dim=(2, 3, 4))
        return torch.cat([color.relu(), color**2], dim=1)


class Recorder(VideoDecoder):
    """A decoder that remembers what it was asked."""

    name = "recorder"

    def __init__(self, inner: PyAVDecoder) -> None:
        self.inner, self.batches = inner, []

    def decode(self, requests):
        self.batches.append(list(requests))
        return self.inner.decode(requests)


@pytest.fixture(scope="module")
def decoder():
    decoder = PyAVDecoder(CLIP, torch.device("cpu"), 1)
    yield decoder
    decoder.close()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Embedder(Colour(), embed_dim=5, dropout=0.5, unit_norm=True)


VIDEOS = [
    ("r.mp4", "red", fade(RED, (120, 90, 10), 20)),
    ("g.mp4", "green", fade(GREEN, BLUE, 31)),
    ("b.mp4", "blue", fade(BLUE, (0, 0, 60), 9)),
    ("short.mp4", "blue", fade(BLUE, RED, 2)),  # fewer frames than a snippet
]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for name, _, colors in VIDEOS:
        write_colors(root / name, colors)
    return manifest_of(root, [(name, label, len(colors)) for name, label, colors in VIDEOS])


def test_a_model_with_features_gives_them_beside_the_same_points(model, manifest, decoder):
    plain, features = embed_videos(model, manifest, decoder, HOW), embed_features(model, manifest, decoder, HOW)
    both = embed_videos(WithFeatures(model), manifest, decoder, HOW)
    assert torch.equal(both.embeddings, plain.embeddings) and plain.features is None
    assert torch.equal(both.features, features.embeddings) and both.features.shape == (4, 6)
    assert model.training  # as it was before


def test_features_are_averaged_before_the_linear_layer(model, manifest, decoder):
    recorder = Recorder(decoder)
    embedded = embed_videos(model, manifest, recorder, HOW)
    assert embedded.embeddings.dtype == torch.float32
    assert embedded.failures == []
    assert embedded.rows.tolist() == [0, 1, 2, 3]
    assert [manifest.classes[c] for c in embedded.class_index] == ["red", "green", "blue", "blue"]

    requests = [request for batch in recorder.batches for request in batch]
    model.eval()
    right, wrong = [], []
    with torch.no_grad():
        for place in range(len(VIDEOS)):
            features = torch.cat(
                [
                    model.features(clip_normalize(decoder.decode([request]).frames))
                    for request in requests[5 * place : 5 * place + 5]
                ]
            )
            right.append(model.project(features.mean(dim=0, keepdim=True)))
            wrong.append(model.project(features).mean(dim=0, keepdim=True))
    torch.testing.assert_close(embedded.embeddings, torch.cat(right), atol=1e-6, rtol=0)
    assert (embedded.embeddings - torch.cat(wrong)).abs().max() > 0.01  # the order matters for this model


def test_snippets_are_evenly_spaced_centred_and_together(model, manifest, decoder):
    recorder = Recorder(decoder)
    embed_videos(model, manifest, recorder, HOW)
    assert [len(batch) for batch in recorder.batches] == [4, 4, 4, 4, 4]
    requests = [request for batch in recorder.batches for request in batch]
    assert {(r.crop_y, r.crop_x, r.flip) for r in requests} == {(0.5, 0.5, False)}
    assert [r.video.path.name for r in requests] == [name for name, _, _ in VIDEOS for _ in range(5)]
    assert [r.start for r in requests] == [
        *(0, 4, 8, 12, 16),
        *(0, 7, 14, 20, 27),
        *(0, 1, 2, 4, 5),
        *(0, 0, 0, 0, 0),
    ]
    assert [r.start for r in requests[5:10]] == evaluation_starts(31, 5, CLIP.span).tolist()


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_batches_may_cut_through_videos(model, manifest, decoder, batch_size):
    whole = embed_videos(model, manifest, decoder, replace(HOW, batch_size=20)).embeddings
    cut = embed_videos(model, manifest, decoder, replace(HOW, batch_size=batch_size)).embeddings
    torch.testing.assert_close(cut, whole, atol=1e-6, rtol=0)
    assert (whole[0] - whole[1]).abs().max() > 0.05


def test_training_mode_comes_back(model, manifest, decoder):
    model.train()
    first = embed_videos(model, manifest, decoder, HOW).embeddings
    assert model.training
    assert torch.equal(first, embed_videos(model, manifest, decoder, HOW).embeddings)  # no dropout meanwhile
    model.eval()
    embed_videos(model, manifest, decoder, HOW)
    assert not model.training


def test_bf16_is_near_fp32(model, manifest, decoder):
    exact = embed_videos(model, manifest, decoder, HOW).embeddings
    rough = embed_videos(model, manifest, decoder, replace(HOW, dtype=torch.bfloat16)).embeddings
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.02


@pytest.fixture
def broken_manifest(manifest, tmp_path):
    """Six videos, three of them no good: cut off, missing, and text."""
    for name in ("r.mp4", "g.mp4", "b.mp4"):
        (tmp_path / name).write_bytes((manifest.root / name).read_bytes())
    whole = (manifest.root / "g.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "text.mp4").write_text("not a video")
    names = [("r.mp4", "red", 20), ("cut.mp4", "green", 31), ("g.mp4", "green", 31),
             ("gone.mp4", "blue", 9), ("text.mp4", "red", 20), ("b.mp4", "blue", 9)]  # fmt: skip
    return manifest_of(tmp_path, names)


def classes_of(names, dim=5):
    vectors = torch.nn.functional.normalize(
        torch.randn(len(names), dim, generator=torch.Generator().manual_seed(1)), dim=1
    )
    return ClassEmbeddings(tuple(names), vectors, "random", tuple((name,) for name in names))


def test_bad_videos_are_left_out_counted_and_named(model, manifest, broken_manifest, decoder):
    embedded = embed_videos(model, broken_manifest, decoder, replace(HOW, batch_size=7))
    assert embedded.rows.tolist() == [0, 2, 5]
    assert [f.path.name for f in embedded.failures] == ["cut.mp4", "gone.mp4", "text.mp4"]
    assert all(failure.reason for failure in embedded.failures)
    good = embed_videos(model, manifest, decoder, HOW).embeddings[:3]
    torch.testing.assert_close(embedded.embeddings, good, atol=1e-6, rtol=0)

    result = evaluate_source(model, DataSet("six", broken_manifest), classes_of(["red", "green", "blue"]), decoder, HOW)
    assert result.all_classes.num_videos == 3
    assert len(result.failures) == 3
    assert result.confusion.sum() == 3


def test_candidates_may_be_more_than_the_classes_of_the_set(model, manifest, decoder):
    """Seen-class accuracy: videos of some classes, all training classes as candidates, in their own order."""
    dataset = DataSet("few", manifest)
    names = ["yellow", "red", "blue", "black", "green"]
    embedded = embed_videos(model, manifest, decoder, HOW)
    own = dict(zip(("red", "green", "blue"), embedded.embeddings[:3], strict=True))
    vectors = torch.stack([own.get(name, -embedded.embeddings.mean(dim=0)) for name in names])
    result = score(dataset, embedded, ClassEmbeddings(tuple(names), vectors, "own", ()), HOW.device)
    assert [names[label] for label in result.labels] == ["red", "green", "blue", "blue"]
    assert [names[near] for near in result.predicted[:3, 0]] == ["red", "green", "blue"]
    assert result.all_classes.num_classes == 5


def test_class_without_vector_and_wrong_dimension_are_named_before_decoding(model, manifest):
    dataset = DataSet("colours", manifest)
    with pytest.raises(InputError, match="no class vector for 'blue', 'green'"):
        evaluate_source(model, dataset, classes_of(["red"]), None, HOW)
    with pytest.raises(InputError, match="embeds into 5 dimensions, but the class vectors have 9"):
        evaluate_source(model, dataset, classes_of(["red", "green", "blue"], dim=9), None, HOW)


def test_a_part_of_the_videos_is_always_the_same_part(model, manifest, decoder):
    assert choose_rows(4, None).tolist() == choose_rows(4, 9).tolist() == [0, 1, 2, 3]
    part = choose_rows(1000, 100)
    assert len(set(part.tolist())) == 100
    assert part.tolist() == sorted(part.tolist()) == choose_rows(1000, 100).tolist()
    assert part.max() > 800  # spread, not the first hundred
    result = evaluate_source(
        model, DataSet("part", manifest), classes_of(["red", "green", "blue"]), decoder, HOW, max_videos=2
    )
    assert result.rows.tolist() == choose_rows(4, 2).tolist()
    assert result.all_classes.num_classes == 3


def test_decoder_that_breaks_stops_the_evaluation(model, manifest):
    class Broken(VideoDecoder):
        name = "broken"

        def decode(self, requests):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        embed_videos(model, manifest, Broken(), HOW)
    assert model.training


def test_middle_snippets_leave_out_what_cannot_be_decoded(broken_manifest, decoder):
    frames, rows = middle_snippets(broken_manifest, [5, 3, 0], decoder, CLIP)
    assert rows == [5, 0]
    assert frames.shape == (2, 4, 24, 24, 3)
    assert frames[0, ..., 2].float().mean() > frames[0, ..., 0].float().mean() + 50  # blue
    assert frames[1, ..., 0].float().mean() > frames[1, ..., 2].float().mean() + 50  # red


WORKER = """
import sys
from pathlib import Path
import torch
from engine.config import RunConfig
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.decode import PyAVDecoder
from engine.processes.distributed import session
from engine.evaluation.embedding import embed_videos
from tests.evaluation.test_evaluate import CLIP, HOW, Colour, Embedder
folder = Path(sys.argv[1])
with session(RunConfig(device="cpu", cpu_threads=1)) as ranks:
    torch.manual_seed(0)
    model = Embedder(Colour(), embed_dim=5, dropout=0.5, unit_norm=True)
    decoder = PyAVDecoder(CLIP, ranks.device, 1)
    manifest = Manifest.load(folder / "manifest.parquet")
    for name, rows in (("all", None), ("one", torch.tensor([2]).numpy()), ("bad", torch.tensor([1]).numpy())):
        e = embed_videos(model, manifest, decoder, HOW, rows)
        content = {"embeddings": e.embeddings, "rows": e.rows, "failures": [f.path.name for f in e.failures]}
        torch.save(content, folder / f"{name}_{ranks.rank}.pt")
    decoder.close()
"""


@pytest.mark.distributed
def test_two_ranks_see_every_video_once(model, broken_manifest, decoder, tmp_path):
    """Six videos of which three fail; then fewer videos than ranks; then none that decodes."""
    broken_manifest.save(tmp_path / "manifest.parquet")
    jobs.run_script(WORKER, tmp_path, ranks=2, timeout_s=180)
    for name, rows in (("all", None), ("one", np.array([2])), ("bad", np.array([1]))):
        alone = embed_videos(model, broken_manifest, decoder, HOW, rows)
        for rank in range(2):
            seen = torch.load(tmp_path / f"{name}_{rank}.pt", weights_only=True)
            assert seen["rows"].tolist() == alone.rows.tolist()
            assert seen["failures"] == [failure.path.name for failure in alone.failures]
            torch.testing.assert_close(seen["embeddings"], alone.embeddings, atol=1e-6, rtol=0)
    assert alone.embeddings.shape[0] == 0
