"""The kernel benchmark at a small size, its formulas, and the table of peaks."""

import json
import os
import time

import pytest
import torch

from engine.errors import InputError
from engine.records import recording_into
from tests.small_run import ROOT, call_tool


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from bench import kernels

    return kernels


@pytest.fixture
def peaks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from bench import peaks

    return peaks


@pytest.fixture
def run(bench, monkeypatch, tmp_path):
    """Runs the benchmark with words, on a device with known peaks; the record that it leaves."""
    peak = bench.Peak({"fp32": 0.1, "bf16": 0.2}, 10.0, "given")
    monkeypatch.setattr(bench, "copy_gb_per_s", lambda _: 10.0)
    monkeypatch.setattr(bench, "find_peak", lambda *_: peak)
    parser = bench.argparse.ArgumentParser()
    bench.add_arguments(parser)

    def call(*words):
        with recording_into(tmp_path):
            bench.run(parser.parse_args(["--device", "cpu", "--repeats", "3", "--no-compile", *words]))

    call.record = lambda: json.loads((tmp_path / "kernels.jsonl").read_text())  # one line, however often it was written
    return call


def test_rows_rates_and_record(run, capsys):
    run("--scale", "0.02")
    out = capsys.readouterr().out
    assert "peak (given)" in out and "cosine_nn 20 x 101, k 1, prepared classes, bf16: " in out
    recorded = run.record()
    assert recorded["n"] == 3 and recorded["peak"]["tflops"] == {"fp32": 0.1, "bf16": 0.2}
    assert [(row["case"].split()[0], row["variant"]) for row in recorded["results"]] == [
        *[("cosine_nn", variant) for variant in ("kernel", "prepared classes", "unfused")] * 2,
        *[("clip_normalize", variant) for variant in ("kernel", "unfused")] * 2,
    ]
    for row in recorded["results"]:
        assert row["seconds"]["n"] == 3 and 0 < row["seconds"]["p20"] <= row["seconds"]["p80"]
        assert row["values"]["roofline_share"] > 0 and "extra_mb" not in row["values"]
    row = recorded["results"][3]  # 81 queries, 700 classes, 300-d fp32, k = 5
    seconds, values = row["seconds"]["p50"], row["values"]
    unfused = recorded["results"][5]
    assert unfused["variant"] == "unfused" and unfused["values"]["over_unfused"] == 1
    assert values["over_unfused"] == pytest.approx(unfused["seconds"]["p50"] / seconds)
    assert (row["case"], row["precision"]) == ("cosine_nn 81 x 700, k 5", "fp32")
    assert values["moved_mb"] * 1e6 == pytest.approx((81 + 700) * 300 * 4 + 81 * 5 * 12)
    assert values["gb_per_s"] * seconds * 1e9 == pytest.approx(values["moved_mb"] * 1e6)
    assert values["tflops"] * seconds * 1e12 == pytest.approx(2 * 81 * 700 * 300)
    assert values["roofline_share"] * seconds == pytest.approx(2 * 81 * 700 * 300 / 0.1e12)
    with pytest.raises(InputError, match=r"--scale is 2.0"):
        run("--scale", "2")


def fails_to_build():
    """A case that cannot be made, in its own process."""
    raise RuntimeError("out of everything")


def answers_nothing():
    """A case of which one variant ends its process."""
    from bench.kernels import Case

    return Case((), {"kernel": lambda: os._exit(3), "prepared classes": time.time}, None, 1, 1, "fp32", "fp32")


def test_a_case_that_fails_costs_only_itself(bench, run, monkeypatch, capsys):
    def with_faults(*arguments, found=bench.build_problems):
        return [bench.Problem("broken", fails_to_build), bench.Problem("deadly", answers_nothing), found(*arguments)[0]]

    monkeypatch.setattr(bench, "build_problems", with_faults)
    with pytest.raises(
        InputError, match="broken: RuntimeError: out of everything; deadly, kernel: its process ended with 3"
    ):
        run("--scale", "0.02")
    assert [row["case"] for row in run.record()["results"]] == ["cosine_nn 20 x 101, k 1"] * 3
    assert "deadly, kernel: its process ended with 3" in capsys.readouterr().out


def test_a_kernel_and_its_rival_compute_the_same(bench):
    for problem in bench.build_problems(torch.device("cpu"), 0.01, "bf16"):
        case = problem.make()
        for call in case.ours.values():
            ours, unfused = call(*case.inputs), case.unfused(*case.inputs)
            if isinstance(ours, tuple):
                ours, unfused = ours[0], unfused[0]
            tolerance = 2e-2 if case.dtype == "bf16" else 1e-5
            torch.testing.assert_close(ours.float(), unfused.float(), atol=tolerance, rtol=0)
            assert ours.float().abs().max() > 0.1


def test_what_the_compiler_makes_of_the_kernels(run, bench, monkeypatch, capsys):
    pytest.importorskip("triton", reason="Triton comes with torch on Linux only")
    few = [next(bench.compiled_rows(90))]
    monkeypatch.setattr(bench, "compiled_rows", lambda capability: few if capability == 90 else [])
    run("--compiled", "90")
    name, registers, spills, *_, share = few[0]
    assert name == "cosine_nn fp16, 128 x 64, k 1" and 32 < registers < 256 and spills == 0 and 20 < int(share) < 100
    assert name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "bf16", "fp32", "gb_per_s"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4, 66.9, 3352),
        ("NVIDIA H100 PCIe", 756, 51.2, 2039),
        ("NVIDIA H200", 989.4, 66.9, 4800),
        ("NVIDIA A100-SXM4-80GB", 312, 19.5, 2039),
        ("NVIDIA A100-PCIE-40GB", 312, 19.5, 1555),
        ("NVIDIA L4", 121, 30.3, 300),
        ("NVIDIA L40S", 362, 91.6, 864),
        ("Tesla V100-SXM2-16GB", None, 15.7, 900),
        ("Tesla T4", None, 8.1, 320),
    ],
)
def test_data_sheets(peaks, monkeypatch, name, bf16, fp32, gb_per_s):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    peak = peaks.find_peak(torch.device("cuda", 0), ["fp32"])
    assert (peak.tflops.get("bf16"), peak.tflops["fp32"], peak.gb_per_s) == (bf16, fp32, gb_per_s)
    assert peak.tflops.get("tf32") == (bf16 and bf16 / 2)
    assert peak.source == f"data sheet of {name}"


def test_what_is_in_no_data_sheet_is_measured(peaks, monkeypatch):
    monkeypatch.setattr(peaks, "copy_gb_per_s", lambda _: 12.5)
    peak = peaks.find_peak(torch.device("cpu"), ["fp32"])
    assert 0.001 < peak.tflops["fp32"] < 100 and peak.gb_per_s == 12.5
    assert peak.source.startswith("measured in this run")


def test_the_cuda_device_is_never_assumed(monkeypatch, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    assert call_tool("bench_throughput.py", "kernels", "--device", "cuda", monkeypatch=monkeypatch) == 2
    assert "torch sees no GPU" in capsys.readouterr().err
