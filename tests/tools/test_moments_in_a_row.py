"""tools/moments_in_a_row.py on clips whose features are made up: each shows one object of ImageNet."""

import numpy as np
import pytest
from bench.publish import read_records
from moments_in_a_row import draw_indexes

from engine.features.cache import CachedVideo, Stamp, VideoFeatures, write_index
from engine.features.windows import WindowGrid
from engine.models.image_weights import imagenet_classes
from engine.records import recording_into
from tests.small_run import call_tool

SHOWN = range(0, 1000, 48)  # 21 classes, of all kinds


def name_of(place):
    return imagenet_classes()[place].split(",")[0]


ALL_BUT_TEN = [name_of(place) for place in SHOWN][10:]


def write_clips(folder, model="objects"):
    """Two clips a class, of 6 and of 4 seconds, in windows of a quarter of a second."""
    videos, features, spans = [], [], []
    for place in SHOWN:
        name = name_of(place)
        for count in (24, 16):
            scores = np.random.default_rng((place, count)).uniform(0, 1, (count, 1000)) ** 8
            scores /= 3 * scores.sum(axis=1, keepdims=True)
            scores[:, place] += 1 - scores.sum(axis=1)
            videos.append(CachedVideo(f"{name}/{count}.mp4", sum(map(len, features)), count, count / 4, 1, 1, 1, count))
            features.append(np.sqrt(scores).astype(np.float16))
            spans.append(np.stack([np.arange(count) / 4, np.arange(1, count + 1) / 4], axis=1))
    folder.mkdir()
    np.save(folder / "features-1.npy", np.concatenate(features))
    np.save(folder / "spans-1.npy", np.concatenate(spans))
    stamp = Stamp(model, f"{len(model):032}", 1000, True, WindowGrid(0.25, 0.25, "seconds"), "float16")
    write_index(
        folder / "videos.parquet", stamp, videos, {}, {"root": "/", "videos_digest": "", "generation": 1, "version": 1}
    )
    return folder


def test_objects_that_are_seen_are_found_and_random_words_find_nothing(tmp_path, monkeypatch, capsys):
    clips = write_clips(tmp_path / "clips")
    with recording_into(tmp_path):
        assert call_tool(
            "moments_in_a_row.py", clips, "--halvings", 2, "--videos", 3, "--record", monkeypatch=monkeypatch
        ) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "21 classes, 2 halvings" in out
    (record,) = read_records(tmp_path)["moments_in_a_row"]
    numbers = record["shares"]["random tenth"]
    told = [np.mean(numbers), np.std(numbers, ddof=1), min(numbers), max(numbers)]
    assert " ".join(["random tenth", *(f"{value:.3f}" for value in told)]) in " ".join(out.split())
    assert told[1] > 0.001
    shares = {name: np.mean(each) for name, each in record["shares"].items()}
    right = ("found", "as it is", "video by video", "words alone", "true shots")
    assert min(shares[name] for name in right) > 0.85
    assert max(shares["random words"], shares["random tenth"]) < 0.35
    assert (
        record["model"] == "objects"
        and record["queries"] == [30, 30]
        and record["clips"] == 42
        and len(record["settings"]) == 2
    )


def test_of_few_classes_videos_have_all_and_a_half_is_asked_for(tmp_path, monkeypatch, capsys):
    clips = write_clips(tmp_path / "clips")
    with recording_into(tmp_path):
        assert call_tool(
            "moments_in_a_row.py", clips, clips, "--leave-out", *ALL_BUT_TEN[3:], ALL_BUT_TEN[3], "--halvings", 1,
            "--videos", 3, "--record", monkeypatch=monkeypatch,
        ) == 0  # fmt: skip
    (record,) = read_records(tmp_path)["moments_in_a_row"]
    assert (
        len(record["classes"]) == 13 and 3 * 4 <= record["queries"][0] <= 3 * 7
    )  # of 7 asked for, 3 of 13 are not shown
    assert record["clips"] == 26  # though folder and class were named twice
    assert record["shares"]["found"][0] > 0.7
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("found  ")]
    assert line.split()[2] == "-"  # of one halving there is no deviation


def test_an_index_has_no_clip_twice():
    clips = {f"class {k}": [of_clip(100 * k + number) for number in range(5)] for k in range(12)}
    indexes = draw_indexes(clips, sorted(clips), sorted(clips)[:7], 14, np.random.default_rng(0))
    assert sum(map(len, indexes)) == 14 and len(indexes) == 3
    for index in indexes:
        shown = [number for video in index for number in np.unique(video.features).tolist()]
        assert len(shown) == len(set(shown)) == 10 * len(index)
        assert all(len(video.ends) == 10 and set(video.classes) <= set(sorted(clips)[:7]) for video in index)


def of_clip(number):
    """Two seconds whose features tell the clip."""
    starts = np.arange(8) / 4
    return VideoFeatures(np.full((8, 4), number, np.float16), starts, starts + 0.25, 2.0)


@pytest.mark.parametrize(
    ("model", "options", "told"),
    [
        ("installed", (), "has features of installed: extract them with --model objects"),
        ("objects", ("--leave-out", "rowing"), "--leave-out: no clip is of rowing"),
        ("objects", ("--leave-out", *ALL_BUT_TEN), "10 classes: a video has 10, and there must be more to choose from"),
        ("objects", ("--halvings", 0), "--halvings is 0: it must be at least 1"),
    ],
)
def test_what_cannot_be_measured_is_one_line(tmp_path, model, options, told, monkeypatch, capsys):
    clips = write_clips(tmp_path / "clips", model)
    assert call_tool("moments_in_a_row.py", clips, *options, monkeypatch=monkeypatch) == 2
    assert told in capsys.readouterr().err


def test_clips_of_two_networks_are_not_mixed(tmp_path, monkeypatch, capsys):
    folders = write_clips(tmp_path / "a"), write_clips(tmp_path / "b", "objects:lite2")
    assert call_tool("moments_in_a_row.py", *folders, "--halvings", 2, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert "of the model objects, digest" in error and "now objects:lite2" in error and "with one model" in error
