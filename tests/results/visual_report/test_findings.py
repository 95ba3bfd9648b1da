"""Best and worst videos, nearest seen classes, and the plane, on videos whose answers are known."""

import dataclasses

import numpy as np
import pytest
import torch

from engine.evaluation.metrics import evaluate_embeddings
from engine.results.visual_report.contact_sheets import NUM_FRAMES, SIDE, class_cosines
from engine.results.visual_report.embedding_map import embedding_map
from engine.results.visual_report.findings import find, nearest_seen
from engine.semantics.classes import build_class_embeddings
from engine.semantics.config import WordsConfig
from tests.results.visual_report.conftest import PLAIN, QUOTES, SCRIPT, WORDS


def test_the_best_are_right_and_the_worst_wrong_one_of_a_class(found):
    assert [sheet.true for sheet in found.best] == [sheet.predicted for sheet in found.best]
    assert sorted(sheet.true for sheet in found.best) == sorted([SCRIPT, QUOTES, PLAIN])
    assert {(sheet.true, sheet.predicted, sheet.path) for sheet in found.worst} == {
        (SCRIPT, PLAIN, "0/gone.mp4"),
        (PLAIN, QUOTES, "2/1.mp4"),
    }
    for sheet in (*found.best, *found.worst):
        assert sheet.cosine >= sheet.true_cosine
        assert (sheet.cosine == sheet.true_cosine) == sheet.is_right


def test_they_are_ordered_by_their_margin(evaluated, found):
    dataset, result = evaluated
    cosine = class_cosines(result.embeddings, build_class_embeddings(result.classes, WORDS).vectors)
    paths = dataset.manifest.strings("path").tolist()
    margins = {}
    for row, label, cosines in zip(result.rows.tolist(), result.labels.tolist(), cosine.tolist(), strict=True):
        margins[paths[row]] = cosines[label] - max(c for i, c in enumerate(cosines) if i != label)
    best, worst = ([margins[sheet.path] for sheet in sheets] for sheets in (found.best, found.worst))
    assert best == sorted(best, reverse=True)
    assert worst == sorted(worst)
    assert min(best) > 0 > max(worst)


def test_frames_are_those_of_the_video_and_a_missing_one_is_named(found):
    sheets = {sheet.path: sheet for sheet in (*found.best, *found.worst)}
    assert sheets["0/gone.mp4"].frames is None
    assert sheets["0/gone.mp4"].problem == "the file is missing"
    frames = sheets["2/1.mp4"].frames
    assert (frames.shape, frames.dtype) == ((NUM_FRAMES, SIDE, SIDE, 3), np.uint8)
    assert np.abs(frames.mean(axis=(0, 1, 2)) - (20, 230, 20)).max() < 12


def test_nearest_seen_class_and_its_distance(found):
    near = dict(zip(found.result.classes, found.nearest_seen, strict=True))
    assert (near[PLAIN].name, near[PLAIN].source, near[PLAIN].distance) == ("plain", "training", 0.0)
    vectors = build_class_embeddings([SCRIPT, "plain", "other <u>"], WORDS).vectors
    distances = (1 - vectors[0] @ vectors[1:].T).tolist()
    assert near[SCRIPT].distance == pytest.approx(min(distances), abs=1e-5)
    assert near[SCRIPT].name == ("plain", "other <u>")[int(np.argmin(distances))]
    assert nearest_seen([PLAIN], [], WORDS) == ()


def test_vectors_that_lack_the_seen_classes_cost_only_the_distances(evaluated, tmp_path):
    dataset, result = evaluated
    np.savez(tmp_path / "ready.npz", names=np.array(result.classes), vectors=np.eye(3, dtype=np.float32))
    words = WordsConfig(source="npz", path=str(tmp_path / "ready.npz"))
    classes = build_class_embeddings(result.classes, WORDS)
    (without,) = find([dataset], [result], [classes], [("training", ("unknown",))], words)
    assert without.nearest_seen == ()
    assert "unknown" in without.no_distance
    assert without.best


def test_the_plane_keeps_near_points_near_and_is_the_same_each_time():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.eye(3, 8)
    labels = torch.arange(90) % 3
    embeddings = vectors[labels] + 0.1 * torch.randn(90, 8, generator=generator)
    result = evaluate_embeddings("test", embeddings, labels, ["a", "b", "c"], vectors)
    plane = embedding_map(result, vectors)
    assert plane.videos.shape == (90, 2)
    assert plane.classes.shape == (3, 2)
    assert plane.videos.min() >= 0 and plane.videos.max() <= 1
    distances = np.linalg.norm(plane.videos[:, None] - plane.classes[None], axis=2)
    assert (distances.argmin(axis=1) == result.labels[plane.places]).mean() > 0.95
    again = embedding_map(result, vectors)
    assert np.array_equal(plane.videos, again.videos)


def test_nothing_to_spread_out_is_no_plane(evaluated):
    _, result = evaluated
    same = dataclasses.replace(result, embeddings=np.ones_like(result.embeddings))
    assert embedding_map(same, torch.ones(3, 3)) is None
