"""The kernel benchmark at a small size, its formulas, and the table of peaks."""

import json
import os

import pytest
import torch
from bench import kernels as bench
from bench import peaks, step_kernels
from bench.cases import Case

from engine.errors import InputError
from engine.records import recording_into
from kernels.channel_sums import channel_moments
from tests.small_run import benchmark_options, call_tool


def test_rows_rates_and_record(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "copy_gb_per_s", lambda _: 10.0)
    peak = bench.Peak({"fp32": 0.1, "bf16": 0.2}, 10.0, "given")
    monkeypatch.setattr(bench, "find_peak", lambda *_: peak)
    problems = bench.build_problems(torch.device("cpu"), 0.02, "bf16")
    monkeypatch.setattr(bench, "build_problems", lambda *_: [problems[1], problems[2]])  # each starts a process
    arguments = ["--device", "cpu", "--scale", "0.02", "--repeats", "3", "--no-compile"]
    with recording_into(tmp_path):
        bench.run(benchmark_options("kernels", *arguments))
    out = capsys.readouterr().out
    recorded = json.loads((tmp_path / "kernels.jsonl").read_text())
    assert "peak (given)" in out and "cosine_topk 81 x 700, k 5, prepared classes, fp32: " in out
    assert recorded["n"] == 3 and recorded["peak"]["tflops"] == peak.tflops
    assert [(row["case"].split()[0], row["variant"]) for row in recorded["results"]] == [
        ("cosine_topk", "kernel"), ("cosine_topk", "prepared classes"), ("cosine_topk", "unfused"),
        ("clip_normalize", "kernel"), ("clip_normalize", "unfused"),
    ]  # fmt: skip
    for row in recorded["results"]:
        assert row["seconds"]["n"] == 3 and 0 < row["seconds"]["p20"] <= row["seconds"]["p80"]
        assert row["values"]["roofline_share"] > 0 and "extra_mb" not in row["values"]
    row, _, unfused, *_ = recorded["results"]  # 81 queries, 700 classes, 300-d fp32, k = 5
    seconds, values = row["seconds"]["p50"], row["values"]
    assert unfused["values"]["over_unfused"] == 1
    assert values["over_unfused"] == pytest.approx(unfused["seconds"]["p50"] / seconds)
    assert (row["case"], row["precision"]) == ("cosine_topk 81 x 700, k 5", "fp32")
    assert values["moved_mb"] * 1e6 == pytest.approx((81 + 700) * 300 * 4 + 81 * 5 * 12)
    assert values["gb_per_s"] * seconds * 1e9 == pytest.approx(values["moved_mb"] * 1e6)
    assert values["tflops"] * seconds * 1e12 == pytest.approx(2 * 81 * 700 * 300)
    assert values["roofline_share"] * seconds == pytest.approx(2 * 81 * 700 * 300 / 0.1e12)
    for words, message in (
        (["--scale", "2"], r"--scale is 2\.0"),
        (["--only", "sort"], "--only 'sort' is in no name: cosine_topk"),
    ):
        with pytest.raises(InputError, match=message):
            bench.run(benchmark_options("kernels", "--device", "cpu", *words))


FAULTS = r"^broken: RuntimeError: no room on this device; deadly, kernel: its process ended with 3$"


def broken_case():
    raise RuntimeError("no room on this device")


def deadly_case():
    return Case((), {"kernel": lambda: os._exit(3)}, None, 1, 1, "fp32", "fp32")


def test_a_case_that_fails_costs_only_itself(monkeypatch, tmp_path, capsys):
    faults = [bench.Problem("broken", broken_case), bench.Problem("deadly", deadly_case)]
    problems = bench.build_problems(torch.device("cpu"), 0.01, "bf16")
    monkeypatch.setattr(bench, "build_problems", lambda *_: [*faults, problems[2]])
    with recording_into(tmp_path), pytest.raises(InputError, match=FAULTS):
        bench.run(benchmark_options("kernels", "--device", "cpu", "--scale", "0.01", "--repeats", "1", "--no-compile"))
    recorded = json.loads((tmp_path / "kernels.jsonl").read_text())
    assert {row["case"] for row in recorded["results"]} == {"clip_normalize 1 clips"}


def first_tensors(result):
    return result if isinstance(result, tuple) else (result,)


def test_a_kernel_and_its_rival_compute_the_same():
    """Scores, clips, sums, and results with all gradients; not the places of scores that are alike."""
    names = set()
    for problem in bench.build_problems(torch.device("cpu"), 0.01, "bf16"):
        torch.manual_seed(0)
        case = problem.make()
        unfused = first_tensors(case.unfused(*case.inputs))
        is_search = problem.name.startswith("cosine_topk")
        for call in case.ours.values():
            for mine, theirs in zip(first_tensors(call(*case.inputs)), unfused, strict=True):
                if is_search and mine.dtype == torch.int64:
                    continue
                scale = theirs.float().abs().max()
                assert scale > 0.1, problem.name
                tolerance = 2e-2 if case.dtype == "bf16" else 1e-5
                assert (mine.float() - theirs.float()).abs().max() < tolerance * max(1, scale), problem.name
        names.add(problem.name.split()[0])
    assert names == {"cosine_topk", "clip_normalize", "channel_moments", "gradient_sums", "temporal_conv"}


@pytest.mark.parametrize("backward", [False, True])
def test_the_fused_convolution_pays_for_the_statistics_as_its_rival_does(monkeypatch, backward):
    taken = []
    monkeypatch.setattr(step_kernels, "channel_moments", lambda x: taken.append(x.shape) or channel_moments(x))
    case = step_kernels._conv_case((2, 4, 9), 48, "fp32", torch.device("cpu"), backward=backward)
    assert taken == []
    case.ours["kernel"]()
    assert taken == [(2 * 4 * 9, 48)]
    x, z = 4 * 72 * 48, 4 * 72 * 64
    assert case.bytes == (1 + backward) * (2 * x + z)


def test_what_the_compiler_makes_of_the_kernels(monkeypatch, capsys):
    pytest.importorskip("triton", reason="Triton comes with torch on Linux only")
    few = [next(bench.compiled_rows(90))]
    monkeypatch.setattr(bench, "compiled_rows", lambda capability: few if capability == 90 else [])
    bench.run(benchmark_options("kernels", "--compiled", "90"))
    name, registers, spills, *_, share = few[0]
    assert name == "cosine_topk fp16, 128 x 64, k 1" and 32 < registers < 256 and spills == 0 and 20 < int(share) < 100
    assert name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "bf16", "fp32", "gb_per_s"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4, 66.9, 3352),
        ("NVIDIA H100 PCIe", 756, 51.2, 2039),
        ("NVIDIA H200", 989.4, 66.9, 4800),
        ("NVIDIA B200", 2250, 75, 7700),
        ("NVIDIA A100-SXM4-80GB", 312, 19.5, 2039),
        ("NVIDIA A100-PCIE-40GB", 312, 19.5, 1555),
        ("NVIDIA L4", 121, 30.3, 300),
        ("NVIDIA L40S", 362, 91.6, 864),
        ("Tesla V100-SXM2-16GB", None, 15.7, 900),
        ("Tesla T4", None, 8.1, 320),
    ],
)
def test_data_sheets(monkeypatch, name, bf16, fp32, gb_per_s):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    peak = peaks.find_peak(torch.device("cuda", 0), ["fp32"])
    assert (peak.tflops.get("bf16"), peak.tflops["fp32"], peak.gb_per_s) == (bf16, fp32, gb_per_s)
    assert peak.tflops.get("tf32") == (bf16 and bf16 / 2)
    assert peak.source == f"data sheet of {name}"


def test_what_is_in_no_data_sheet_is_measured(monkeypatch):
    monkeypatch.setattr(peaks, "copy_gb_per_s", lambda _: 12.5)
    peak = peaks.find_peak(torch.device("cpu"), ["fp32"])
    assert 0.001 < peak.tflops["fp32"] < 100 and peak.gb_per_s == 12.5
    assert peak.source.startswith("measured in this run")


def test_the_cuda_device_is_never_assumed(monkeypatch, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert call_tool("bench_throughput.py", "kernels", "--device", "cuda", monkeypatch=monkeypatch) == 2
    assert "torch sees no GPU" in capsys.readouterr().err


class SlowHost:
    """A GPU and its host by a clock of their own, in microseconds: an erasure takes the GPU 60, its launch the host 5."""

    def __init__(self):
        self.host = self.gpu = 0.0

    def launch(self, host_us, gpu_us):
        self.host += host_us
        self.gpu = max(self.gpu, self.host) + gpu_us

    def zero_(self):
        self.launch(5, 60)

    def synchronize(self, device):
        self.host = max(self.host, self.gpu)

    def event(self, *, enable_timing):
        machine = self

        class Event:
            def record(self):
                self.at = max(machine.gpu, machine.host)

            def elapsed_time(self, end):
                return (end.at - self.at) / 1e3

        return Event()


@pytest.mark.parametrize(("launches", "host_us"), [(1, 10), (10, 40), (3, 500)])
def test_the_hosts_launches_are_not_among_the_time_of_a_gpu(monkeypatch, launches, host_us):
    machine = SlowHost()
    monkeypatch.setattr(torch, "empty", lambda *size, **options: machine)
    monkeypatch.setattr(torch.cuda, "Event", machine.event)
    monkeypatch.setattr(torch.cuda, "synchronize", machine.synchronize)
    monkeypatch.setattr(peaks, "perf_counter", lambda: machine.host / 1e6)

    def call():
        for _ in range(launches):
            machine.launch(host_us, 2)

    found = peaks.time_calls(call, torch.device("cuda", 0), warmup=3, repeats=5, cold=True)
    assert found == pytest.approx([launches * 2e-6] * 5)
