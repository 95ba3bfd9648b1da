"""Records that the benchmark program writes in the tests: into tmp_path/out."""

import json

import torch


def newest(tmp_path, name):
    return json.loads((tmp_path / "out" / "records" / f"{name}.jsonl").read_text().splitlines()[-1])


def check_record(record):
    """What every line of every benchmark must have."""
    assert record["command"].startswith("python ")
    assert set(record["device"]) == {"cpu", "cores", "gpus"} and torch.__version__.startswith(
        record["versions"]["torch"]
    )
    assert "commit" in record and record["n"] >= 1 and record["device_type"] in ("cpu", "cuda")
    results = record["results"]
    quantiles = [row["seconds"] for row in results] if isinstance(results, list) else list(results.values())
    assert quantiles and all(0 < each["p20"] <= each["p50"] <= each["p80"] and each["n"] for each in quantiles)
