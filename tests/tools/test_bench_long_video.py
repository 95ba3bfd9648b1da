"""The benchmark of a long video at a small size, before a program that stands in for tools/find_moments.py."""

import itertools
import json
from argparse import Namespace

import numpy as np
import pytest
from bench import long_video as bench

from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.records import recording_into
from tests.encoded import manifest_of, write_colors

COLORS = {"JumpRope": (250, 0, 0), "Diving": (0, 250, 0), "surfing": (0, 0, 250)}
FINDER = """
import json, sys
from pathlib import Path
words = sys.argv[1:]
assert Path(words[0]).stat().st_size and words[-3:] == ["--json", "--top", "5"]
index = Path(words[words.index("--index") + 1])
index.mkdir()
(index / "features-1.npy").write_bytes(bytes(1000))
queries = [words[place + 1] for place, word in enumerate(words) if word == "--query"]
assert queries == ["diving", "jump rope", "surfing"], queries
print(json.dumps([{"query": query, "start_s": s, "end_s": s + 0.4} for query in queries for s in (SECONDS)]))
"""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """A clip of 10 frames of each class, each of one colour."""
    root = tmp_path_factory.mktemp("clips")
    for name, color in COLORS.items():
        write_colors(root / name / "a.mp4", [color] * 10)
    manifest_of(root, [(f"{name}/a.mp4", name, 10) for name in COLORS]).save(root / "clips.parquet")
    return root / "clips.parquet"


def run(manifest, finder, monkeypatch, tmp_path, **changes):
    (tmp_path / "finder.py").write_text(FINDER.replace("SECONDS", finder))
    monkeypatch.setattr(bench, "_TOOL", tmp_path / "finder.py")
    values = {"manifest": manifest, "minutes": [0.03, 0.02], "width": 48, "height": 32, "seed": 0, "no_record": False}
    with recording_into(tmp_path):
        bench.run(Namespace(**values | changes))


def test_clips_follow_each_other_and_their_times_are_known(manifest):
    order, clips = bench.clips_in_a_row(Manifest.load(manifest), np.random.default_rng(0)), []
    pictures = bench.shown(order, (24, 16), clips)
    shown = [next(pictures) for _ in range(95)]
    assert np.allclose([clip[1:] for clip in clips[:9]], [(0.4 * k, 0.4 * (k + 1)) for k in range(9)])
    names = [name for name, *_ in clips]
    rounds = [names[k : k + 3] for k in (0, 3, 6)]
    assert all(sorted(each) == sorted(COLORS) for each in rounds) and not rounds[0] == rounds[1] == rounds[2]
    assert all(a != b for a, b in itertools.pairwise(names))
    for number, picture in enumerate(shown):
        assert picture.shape == (16, 24, 3)
        assert np.abs(picture.mean(axis=(0, 1)) - COLORS[names[number // 10]]).max() < 20


def test_what_was_measured_is_recorded(manifest, tmp_path, monkeypatch, capsys):
    run(manifest, "0.0, 1.2", monkeypatch, tmp_path)
    record = json.loads((tmp_path / "long_video.jsonl").read_text())
    short, long = record["lengths"]
    assert (short["frames"], long["frames"], short["clips"], long["clips"], short["queries"]) == (30, 45, 3, 5, 3)
    # For each class the first clip is told: right for its own, and what the two others got is right for it.
    assert short["first"] == pytest.approx(1 / 3) and short["control"] == pytest.approx(2 / 6)
    assert min(long["peak_bytes"], long["cpu_s"], long["wall_s"]) > 0 and long["index_bytes"] == 1000
    assert "right" in capsys.readouterr().out


def test_moments_are_held_against_their_class_and_the_others():
    true = [np.array([[0.0, 4], [10, 14]]), np.array([[4.0, 10]])]
    moments = [np.array([[9.5, 14.0], [0, 1]]), np.array([[0.0, 3]])]
    assert bench.judge(moments, true) == (0.5, pytest.approx(1 / 3), 0.5)


def test_what_cannot_be_measured_is_told(manifest, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="--minutes is 0: it must be more"):
        run(manifest, "0.0,", monkeypatch, tmp_path, minutes=[1, 0])
    for minutes in (1e-4, float("nan")):
        with pytest.raises(InputError, match=f"--minutes is {minutes:g}: it must be more than 0, and a frame at least"):
            run(manifest, "0.0,", monkeypatch, tmp_path, minutes=[minutes, 1])
    with pytest.raises(InputError, match=r"finder\.py ended with 1"):
        run(manifest, "1 / 0,", monkeypatch, tmp_path, minutes=[0.02])
    one = Manifest.load(manifest).select(np.array([0]))
    one.save(tmp_path / "one.parquet")
    with pytest.raises(InputError, match="has 1 class: name a --manifest of at least 2"):
        run(tmp_path / "one.parquet", "0.0,", monkeypatch, tmp_path)
