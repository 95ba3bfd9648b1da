"""The kernel benchmark at a small size, its formulas, and the table of peaks."""

import pytest
import torch

from engine.errors import InputError
from tests.small_run import ROOT, benchmark_options, call_tool


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


def test_rows_rates_and_record(bench, monkeypatch, capsys):
    recorded = {}

    def keep(name, **fields):
        recorded.update(fields, name=name)
        return ROOT / "benchmarks" / "records" / f"{name}.jsonl"

    monkeypatch.setattr(bench, "append_record", keep)
    monkeypatch.setattr(bench, "copy_gb_per_s", lambda _: 10.0)
    peak = bench.Peak({"fp32": 0.1, "bf16": 0.2}, 10.0, "given")
    monkeypatch.setattr(bench, "find_peak", lambda *_: peak)
    arguments = ["--device", "cpu", "--scale", "0.02", "--repeats", "3", "--no-compile"]
    bench.run(benchmark_options("kernels", *arguments))
    assert "peak (given)" in capsys.readouterr().out
    assert recorded["name"] == "kernels" and recorded["n"] == 3 and recorded["peak"]["tflops"] == peak.tflops
    assert [(row["case"].split()[0], row["variant"]) for row in recorded["results"]] == [
        (case, variant) for case in ["cosine_nn"] * 2 + ["clip_normalize"] * 2 for variant in ("kernel", "unfused")
    ]
    for row in recorded["results"]:
        assert row["seconds"]["n"] == 3 and 0 < row["seconds"]["p20"] <= row["seconds"]["p80"]
        assert row["values"]["roofline_share"] > 0 and "extra_mb" not in row["values"]
    row = recorded["results"][2]  # 81 queries, 700 classes, 300-d fp32, k = 5
    seconds, values = row["seconds"]["p50"], row["values"]
    unfused = recorded["results"][3]
    assert unfused["variant"] == "unfused" and unfused["values"]["over_unfused"] == 1
    assert values["over_unfused"] == pytest.approx(unfused["seconds"]["p50"] / seconds)
    assert (row["case"], row["precision"]) == ("cosine_nn 81 x 700, k 5", "fp32")
    assert values["moved_mb"] * 1e6 == pytest.approx((81 + 700) * 300 * 4 + 81 * 5 * 12)
    assert values["gb_per_s"] * seconds * 1e9 == pytest.approx(values["moved_mb"] * 1e6)
    assert values["tflops"] * seconds * 1e12 == pytest.approx(2 * 81 * 700 * 300)
    assert values["roofline_share"] * seconds == pytest.approx(2 * 81 * 700 * 300 / 0.1e12)
    with pytest.raises(InputError, match=r"--scale is 2.0"):
        bench.run(benchmark_options("kernels", "--scale", "2"))


def test_a_kernel_and_its_rival_compute_the_same(bench):
    for case in bench.build_cases(torch.device("cpu"), 0.01, "bf16"):
        ours, unfused = case.ours(*case.inputs), case.unfused(*case.inputs)
        if isinstance(ours, tuple):
            ours, unfused = ours[0], unfused[0]
        tolerance = 2e-2 if case.dtype == "bf16" else 1e-5
        torch.testing.assert_close(ours.float(), unfused.float(), atol=tolerance, rtol=0)
        assert ours.float().abs().max() > 0.1


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
