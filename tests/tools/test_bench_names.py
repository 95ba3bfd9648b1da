"""The benchmark of names at a small size: every part is measured for real, with a small run in the installed network's place."""

import json
import sys
from argparse import Namespace

import pytest
from bench import names as bench

from engine.errors import InputError
from engine.records import recording_into
from tests.features.small_set import write_set
from tests.small_run import write_run


@pytest.fixture
def measure(tmp_path, monkeypatch):
    manifest = write_set(tmp_path / "videos", {"a.mp4": 9, "b.mp4": 16, "c.mp4": 41})
    write_run(tmp_path / "run")
    model = str(tmp_path / "run")
    program = tmp_path / "predict.py"
    monkeypatch.setattr(bench, "_PREDICT", program)

    def run(text, **changes):
        program.write_text(text)
        with recording_into(tmp_path / "records"):
            bench.run(
                Namespace(
                    **{"manifest": manifest, "num_videos": 2, "repeats": 2, "model": model} | changes, no_record=False
                )
            )
        return json.loads((tmp_path / "records" / "names.jsonl").read_text())

    return run


def test_every_part_is_measured_and_recorded(measure, capsys):
    record = measure(
        "import sys, time; assert sys.argv[1].endswith('.mp4'); held = bytearray(90_000_000); time.sleep(0.3)"
    )
    assert (record["videos"], record["n"], record["model"].endswith("run")) == (2, 2, True) and set(
        record["results"]
    ) == {
        bench.NAMING,
        bench.READING,
        bench.FEATURES,
    }
    for each in record["results"].values():
        assert each["n"] == 2 and 0 < each["p20"] <= each["p80"]
    start = record["start"]
    assert start["clock_s"]["p50"] > 0.3 and 0 < start["computing_s"]["p50"] < start["clock_s"]["p50"]
    assert 90 < start["memory_mb"]["p50"] < 150  # its own, not that of this larger process
    shares = record["decoding_share"]
    assert shares[bench.NAMING] == record["results"][bench.NAMING]["p50"] / record["results"][bench.READING]["p50"]
    assert all(0 < share < 1 for share in shares.values())
    assert "share of decoding: naming " in capsys.readouterr().out


def test_a_program_that_fails_is_told_with_its_reason(measure):
    with pytest.raises(InputError, match=r"predict.py' ended with 1:(.|\n)*no weights"):
        measure("raise SystemExit('no weights')")


def test_a_video_that_cannot_be_used_is_no_measurement(measure, tmp_path):
    (tmp_path / "videos" / "set" / "shown" / "a.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"videos that cannot be used, the first '.*a\.mp4': [^{}\[\]]*: name another"):
        measure("", num_videos=3)


def test_time_and_memory_of_a_program():
    found = bench.from_start([sys.executable, "-c", "sum(range(10**7))"])
    assert 0.05 < found["computing_s"] <= found["clock_s"] + 0.1
