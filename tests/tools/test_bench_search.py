"""The benchmark of searches at a small size."""

import json
from argparse import Namespace

from bench import search

from engine.records import recording_into


def test_a_search_over_made_up_windows_is_recorded(tmp_path, capsys):
    with recording_into(tmp_path):
        search.run(Namespace(windows=40 * 600 + 7, repeats=2, no_record=False))
    record = json.loads((tmp_path / "search.jsonl").read_text())
    assert record["feature_bytes"] == 24_007 * 1000 * 2 and record["results"]["cpu_s"]["p50"] > 0
    assert "24,007 windows: wall_s" in capsys.readouterr().out
