"""The decoding benchmark at a small size: that all contestants decode the same snippets, and that it records."""

import json

import numpy as np
import pytest
import torch
from bench import decode as bench
from bench import material

from engine.data.batch import SnippetRequest
from engine.data.pyav.decode import PyAVDecoder
from engine.errors import InputError
from engine.records import recording_into
from tests.small_run import benchmark_options


@pytest.fixture(autouse=True)
def few_videos(monkeypatch):
    monkeypatch.setattr(material, "_DRAWN", (3, 50, (160, 120)))


def options(*words):
    small = ["--snippets", "6", "--repeats", "2", "--short-side", "64", "--crop", "56"]
    return benchmark_options("decode", *small, *words)


def test_all_decode_the_same_snippets(tmp_path):
    prepared = material.prepare(options(), tmp_path)
    decoder, clips = PyAVDecoder(prepared.clip, torch.device("cpu"), 1), []
    for manifest in (prepared.store, prepared.mp4, prepared.raw):
        requests = [SnippetRequest(manifest.video(row), start, 0.5, 0.5, False) for row, start in prepared.snippets]
        found = decoder.decode(requests)
        assert not found.failures
        clips.append(found.frames.numpy().astype(int))
    decoder.close()
    assert np.array_equal(clips[0], clips[1])  # the very same coded frames
    assert np.abs(clips[0] - clips[2]).mean() < 8  # coded twice
    readers, missing = bench.find_readers([prepared.mp4.video(0).path], 4)
    assert set(readers) | set(missing) == {"PyAV", "decord2", "torchcodec", "video_reader-rs"}
    assert all(missing.values())
    for reader in readers.values():
        for index, (row, start) in enumerate(prepared.snippets):
            found = bench.read_clip(reader, prepared, prepared.mp4, row, start)
            # Another conversion and a centre that may be a pixel off; the neighbouring frame is further away.
            assert np.abs(found - clips[1][index]).mean() < 12


def test_results_are_printed_recorded_and_drawn(capsys, tmp_path):
    with recording_into(tmp_path / "records"):
        bench.run(options("--cold"))
    recorded = json.loads((tmp_path / "records" / "decode.jsonl").read_text())
    text = capsys.readouterr().out
    assert "3 videos, 6 snippets 16x56x56 from short side 64, 2 runs in turns, 1 core(s), cold cache" in text
    assert (tmp_path / "pictures" / "decode_cold.png").read_bytes().startswith(b"\x89PNG")
    assert (recorded["n"], recorded["videos"], recorded["drawn"]) == (2, 3, True)
    names = {"store", "engine mp4", "engine raw", "PyAV mp4", "PyAV raw", "limit"}
    assert names <= set(recorded["results"]) == set(recorded["computing"])
    ratios = recorded["ratios"]
    best = max(
        values["p50"] for name, values in recorded["results"].items() if name.endswith("mp4") and "engine" not in name
    )
    assert ratios["store / best peer on MP4 files of its frames"] == recorded["results"]["store"]["p50"] / best
    assert f"{ratios['store / raw files']:.2f}  store / raw files" in text
    assert all(values["n"] == 2 and 0 < values["p20"] <= values["p80"] for values in recorded["results"].values())
    assert recorded["computing"]["limit"]["p50"] > recorded["computing"]["store"]["p50"]
    with pytest.raises(InputError, match="--repeats is 0"):
        bench.run(options("--repeats", "0"))
    with pytest.raises(InputError, match="--threads is 9999"):
        bench.run(options("--threads", "9999"))


def test_parameter_sets_are_found_also_where_the_search_ends_at_a_start_code():
    sets = b"\x00\x00\x00\x01\x67abc" + b"\x00\x00\x00\x01\x68de"
    frame = b"\x00\x00\x01\x65" + bytes([9]) * (4096 - len(sets) - 7)
    data = sets + frame + b"\x00\x00\x01\x41more"
    assert data[4093:4096] == b"\x00\x00\x01"
    assert material._parameter_sets(data, "h264") == sets
