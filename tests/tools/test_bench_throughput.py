"""The benchmark program: every benchmark at its smallest for real, and what it makes of the records."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import bench_throughput
import pytest
import torch
from bench import charts, options, publish, roofline, suites
from bench.resources import process_tree
from bench.roofline import profile_call

import kernels.clip_normalize
from engine.errors import InputError
from engine.records import RECORDS
from kernels.clip_normalize import KINETICS_MEAN, KINETICS_STD, _normalize_in_torch, clip_normalize
from tests.bench_records import check_record, newest
from tests.environment import ROOT, environment, is_alive, wait_until
from tests.small_run import kill_when, start_tool, write_run

STEP = ["--device", "cpu", "--width", "4", "--frames", "2", "--crop", "16", "--batch", "2", "--steps", "2"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("manifest", ["--rows", "2000", "--repeats", "1"]),
        ("decode", ["--snippets", "2", "--repeats", "1", "--short-side", "64", "--crop", "56"]),
        (
            "kernels",
            ["--device", "cpu", "--scale", "0.01", "--repeats", "2", "--no-compile", "--only", "cosine_topk 10 x"],
        ),
    ],
)
def test_records_pictures_and_markdown(program, tmp_path, name, words):
    status, out = program(name, *words)
    assert status == 0, out
    record = newest(tmp_path, name)
    check_record(record)
    assert (tmp_path / "out" / "pictures" / f"{name}_cpu.png").read_bytes().startswith(b"\x89PNG")
    results = record["results"]
    if name == "kernels":
        values = results[0]["values"]
        assert values["moved_mb"] > 0 and values["warmup_s"] > 0 and values["gb_per_s"] > 0
    status, out = program("--markdown")
    assert status == 0 and f"{name}_cpu: {record['time'][:10]}, " in out
    lines = [line for line in out.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(results) and len({line.count("|") for line in lines}) == 1


def test_compute_with_a_trace_and_a_limit(program, tmp_path):
    trace = tmp_path / "trace.json"
    status, out = program("compute", *STEP, "--only", "engine", "--only", "paper recipe", "--trace", trace)
    assert status == 0 and "x paper recipe" in out
    record = newest(tmp_path, "compute")
    check_record(record)
    ours, paper = record["results"]
    assert ours["values"]["over_paper_recipe"] == pytest.approx(paper["seconds"]["p50"] / ours["seconds"]["p50"])
    assert paper["values"]["over_paper_recipe"] == 1 and "over_torchvision" not in ours["values"]
    for row, name in zip(record["results"], ("engine", "paper recipe"), strict=True):
        values, seconds = row["values"], row["seconds"]
        assert (row["variant"], row["precision"], row["note"]) == (name, "fp32", "")
        assert values["clips_per_s"] == pytest.approx(2 / seconds["p50"])
        assert values["tflops"] == pytest.approx(values["clips_per_s"] * record["flop_per_clip"] / 1e12)
        assert values["mfu"] == pytest.approx(values["tflops"] / record["peak"]["tflops"]["fp32"])
        assert values["peak_mb"] > 100 and values["warmup_s"] > 0
    assert any("conv" in str(event.get("name")) for event in json.loads(trace.read_text())["traceEvents"])
    status, out = program("compute", *STEP, "--only", "engine", "--limit", "0.01")
    assert status == 0 and newest(tmp_path, "compute")["results"][0]["note"] == "no result in 0.01 s"


def test_a_trainer_that_fails_is_named_and_the_others_are_recorded(program, tmp_path):
    # 16 pixels are too few for C3D's pools of 8 frames: it must be said, and nothing be made up.
    status, out = program("compute", *STEP, "--backbone", "c3d", "--only", "paper recipe")
    assert status == 2 and "c3d needs snippets of at least 16 frames" in out
    assert not (tmp_path / "out" / "records" / "compute.jsonl").exists()


def test_roofline_accounts_for_a_whole_step(program, tmp_path):
    status, out = program("compute", "--roofline", *STEP)
    assert status == 0, out
    record = newest(tmp_path, "roofline")
    check_record(record)
    panels = {panel["variant"]: panel for panel in record["panels"]}
    assert set(panels) == {"engine", "engine flat"}
    for name, panel in panels.items():
        shares = [row["values"]["time_share"] for row in record["results"] if row["case"] == name]
        assert sum(point["time_share"] for point in panel["points"]) == pytest.approx(1, abs=1e-6)
        assert sum(shares) == pytest.approx(1, abs=0.3)  # medians of sums against sums of medians
        convolution = [p for p in panel["points"] if p["kind"].startswith("convolution")]
        assert sum(p["time_share"] for p in convolution) > 0.1 and all(p["bytes"] > 0 for p in convolution)
    assert (tmp_path / "out" / "pictures" / f"{publish.picture_name('roofline', record)}.png").stat().st_size > 20_000


def test_operations_do_what_the_ledger_says():
    a, b, c = torch.randn(64, 32), torch.randn(32, 16), torch.randn(1000)
    found = {each.name: each for each in profile_call(lambda: (a @ b, c.add_(1)), torch.device("cpu"), 3)}
    assert (found["mm"].flop, found["mm"].bytes) == (2 * 64 * 32 * 16, 4 * (64 * 32 + 32 * 16 + 64 * 16))
    assert (found["add_"].flop, found["add_"].bytes) == (1000, 2 * 4 * 1000)
    assert found["mm"].kind == "matrix product" and found["mm"].seconds > 0 and len(found["mm"].samples) == 3


def test_the_kernel_that_makes_clips_of_frames_is_an_operation_of_the_step(monkeypatch):
    """With PyTorch's operations in place of the launch, which no ledger sees."""

    def launch(frames, dtype, scales, shifts, channels):
        with torch.utils._python_dispatch._disable_current_modes():
            return _normalize_in_torch(frames, dtype, KINETICS_MEAN, KINETICS_STD, True)

    module = SimpleNamespace(clip_normalize_triton=launch)
    monkeypatch.setattr(kernels, "clip_normalize_triton", module, raising=False)
    monkeypatch.setitem(sys.modules, "kernels.clip_normalize_triton", module)
    for user in (roofline, kernels.clip_normalize):
        monkeypatch.setattr(user, "can_use_triton", lambda device: True)
    frames = torch.randint(0, 256, (2, 4, 16, 16, 3), dtype=torch.uint8)
    (found,) = profile_call(lambda: clip_normalize(frames), torch.device("cpu"), 2)
    assert (found.name, found.calls, found.bytes) == ("clip_normalize", 1, 5 * frames.numel())
    assert found.kind == "element-wise" and found.seconds > 0
    assert module.clip_normalize_triton is launch


def test_accuracy_over_throughput(program, tmp_path, videos):
    test = {"manifest": str(videos[0]), "splits": ["unseen"], "name": "combinations"}
    write_run(tmp_path / "small", tests=[test], words={"source": "random", "dim": 12})
    words = ["--clips", "1", "--clips", "3", "--precision", "fp32", "--max-videos", "5"]
    status, out = program("accuracy", tmp_path / "small", *words, "--device", "cpu")
    assert status == 0, out
    record = newest(tmp_path, "accuracy")
    check_record(record)
    one, three = record["results"]
    assert (one["variant"], three["variant"], one["case"]) == ("1 clip", "3 clips", "small (r3d_18, width 4)")
    for row, count in ((one, 1), (three, 3)):
        values = row["values"]
        assert values["videos_per_s"] == pytest.approx(5 / row["seconds"]["p50"])
        assert values["clips_per_s"] == pytest.approx(count * values["videos_per_s"])
        assert 0 <= values["top1"] <= values["top5"] <= 1 and "5 videos, 3 classes" in row["note"]
    assert (tmp_path / "out" / "pictures" / "accuracy_cpu.png").stat().st_size > 10_000
    status, out = program("accuracy", tmp_path / "small", "--precision", "fp16", "--device", "cpu")
    assert status == 2 and "fp16 needs a GPU" in out


def test_accuracy_without_a_run_says_what_to_do(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out = program("accuracy", "--device", "cpu")
    assert status == 2 and "torchrun engine/train.py configs/quickstart.yaml" in out


def test_a_suite_goes_on_after_a_failure_and_tells_it(tmp_path, monkeypatch, capsys):
    parts = (("accuracy", "--clips", "few"), ("manifest", "--rows", "2000", "--repeats", "1"))
    monkeypatch.setitem(suites.SUITES, "cpu", parts)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench_throughput.py", "--suite", "cpu", "--out", "out"])
    with pytest.raises(InputError, match=r"1 of 2 parts failed, as told above:\naccuracy --clips few: exit status 2"):
        bench_throughput.main(options.read(bench_throughput.__doc__))
    record = newest(tmp_path, "manifest")
    assert record["n"] == 1 and record["command"].endswith("manifest --rows 2000 --repeats 1")
    assert "suite cpu:" in capsys.readouterr().out


def test_what_was_measured_stays_when_the_program_is_killed(tmp_path):
    records = tmp_path / "out" / "records" / "compute.jsonl"
    words = ["--out", tmp_path / "out", "compute", *STEP, "--only", "engine", "--only", "paper recipe"]
    out = kill_when(records, 1, start_tool("bench_throughput.py", *words))
    (row,) = json.loads(records.read_text())["results"]
    assert row["variant"] == "engine" and row["seconds"]["p50"] > 0
    assert "engine, fp32: " in out and "paper recipe" not in out


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_nothing_of_a_suite_goes_on_when_it_is_stopped(tmp_path, number):
    command = [
        sys.executable,
        ROOT / "tools" / "bench_throughput.py",
        "--out",
        tmp_path,
        "--suite",
        "cpu",
        "--part",
        "manifest",
    ]
    suite = subprocess.Popen(
        command, env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while (
        len(processes := process_tree(suite.pid)) < 4 and suite.poll() is None
    ):  # the suite, what ties its part to it, the part, what that started
        time.sleep(0.05)
    suite.send_signal(number)
    suite.wait(60)
    wait_until(lambda: not any(map(is_alive, processes)), 8)  # the part itself takes longer
    out, _ = suite.communicate()
    assert suite.returncode == (130 if number == signal.SIGTERM else -number), out
    assert "Traceback" not in out


def test_parts_of_a_suite(tmp_path, monkeypatch, capsys):
    parts = (("compute", "--roofline"), ("manifest", "--rows", "2000", "--repeats", "1"))
    monkeypatch.setitem(suites.SUITES, "cpu", parts)
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["bench_throughput.py", "--out", "out", *words])
        bench_throughput.main(options.read(bench_throughput.__doc__))
        return capsys.readouterr().out

    begun = []
    monkeypatch.setattr(bench_throughput, "_run_part", lambda command: begun.append(command) or 0)
    for choice in (["--part", "manifest"], ["--skip", "roofline"]):
        out = run("--suite", "cpu", *choice)
        assert "== manifest" in out and "== compute" not in out
        assert begun.pop()[-5:] == ["manifest", "--rows", "2000", "--repeats", "1"] and not begun
    with pytest.raises(InputError, match="name the suite with --suite"):
        run("--part", "manifest")
    with pytest.raises(InputError, match="nothing is left of suite cpu, which has roofline, manifest"):
        run("--suite", "cpu", "--part", "train")


def test_what_cores_did_is_not_said_to_be_of_the_gpu_beside_them():
    machine = {"cpu": "EPYC", "cores": 16, "gpus": ["H200, 570"]}
    found = {
        device: (publish.where_measured(record), publish.picture_name("train", record))
        for device in ("cuda", "cpu", None)
        for record in [{"device": machine} | ({"device_type": device} if device else {})]
    }
    on_cores = ("EPYC, 16 cores", "train_cpu")
    assert found == {"cuda": ("H200, 570", "train_cuda"), "cpu": on_cores, None: on_cores}
    assert publish.where_measured({"device": machine | {"gpus": []}, "device_type": "cuda"}) == on_cores[0]


def test_calls_of_one_setting_are_one_table_and_other_settings_are_others(tmp_path):
    def record(time, batch, *variants, **more):
        rows = [
            {"case": "", "variant": each, "precision": "bf16", "seconds": None, "values": {}, "note": time}
            for each in variants
        ]
        machine = {"cpu": "EPYC", "cores": 16, "gpus": ["H200"]}
        kept = {"title": f"r3d_18, {batch} clips", "device_type": "cuda", "n": 20, "commit": "abc", "dirty": False}
        told = {"versions": {}, "time": time, "command": f"run {time}", "device": machine, "results": rows}
        return kept | told | more

    records = [
        record("old", 64, "engine flat fp16", commit="of before"),
        record("first", 64, "engine", "torchvision"),
        record("second", 64, "engine flat", "torchvision"),
        record("third", 128, "engine"),
    ]
    found = publish.newest({"compute": records})
    assert list(found) == ["compute_cuda_r3d_18_64_clips", "compute_cuda_r3d_18_128_clips"]
    rows = {name: [(row.variant, row.note) for row in publish.rows_of(each)] for name, each in found.items()}
    assert rows["compute_cuda_r3d_18_64_clips"] == [
        ("engine", "first"),
        ("engine flat", "second"),
        ("torchvision", "second"),
    ]
    assert rows["compute_cuda_r3d_18_128_clips"] == [("engine", "third")]
    assert publish.markdown("x", "compute", found["compute_cuda_r3d_18_64_clips"]).startswith("`run first; run second`")
    # without a title nothing tells whether two records are of one network
    tokens = [record(time, 64, variant, title=None) for time, variant in (("one", "a share"), ("two", "another"))]
    assert [row.note for row in publish.rows_of(publish.newest({"tokens": tokens})["tokens_cuda"])] == ["two"]


def test_every_benchmark_that_has_a_record_is_in_the_tables_and_no_other(tmp_path, program):
    status, out = program("--markdown")
    refused = f"error: '{tmp_path / 'out' / 'records'}' has no records of benchmarks: name the folder that holds `records` with"
    assert status == 2 and out.startswith(refused) and out.count("\n") == 1
    names = {path.stem for path in RECORDS.glob("*.jsonl")}
    (tmp_path / "out").mkdir()
    shutil.copytree(RECORDS, tmp_path / "out" / "records")
    status, out = program("--markdown")
    shown = {name for name in names if re.search(rf"^{name}_(cpu|cuda)\w*: ", out, re.M)}
    of_others = {
        "domain_shift", "experiments", "heads", "moments", "moments_in_a_row", "pretraining_worth", "quickstart", "soak",
        "untrained", "memory",  # a benchmark that there is no more
    }  # fmt: skip
    assert status == 0 and names - shown == of_others | {name for name in names if name.startswith("ucf15")}
    for line in (
        "| ingest / plain transcode |",
        "| video | 10 min, ",
        "figures:",
        "needs:",
        "simulated:",
        "| engine fused |",
    ):
        assert line in out


def test_a_line_that_is_no_record_is_named(tmp_path, program):
    path = tmp_path / "out" / "records" / "long_video.jsonl"
    path.parent.mkdir(parents=True)
    whole = (RECORDS / "long_video.jsonl").read_text().splitlines(keepends=True)[-1]
    for broken, why in (
        ({"commit": "abc"}, "it lacks 'dirty'"),
        (json.loads(whole) | {"lengths": [{}]}, "Searched.__init__() missing 11 required"),
        (json.loads(whole) | {"device": "EPYC"}, "string indices must be integers"),
    ):
        path.write_text(whole + '{"torn\n' + json.dumps(broken) + "\n" + whole)
        status, out = program("--markdown")
        assert status == 2 and f"error: '{path}', line 3: this is no record of long_video ({why}" in out
        assert out.count("error") == 1 and "Traceback" not in out


def test_suites_name_what_there_is():
    parser = options.build_parser("")
    named = {parser.parse_args(words).benchmark for suite in suites.SUITES.values() for words in suite}
    assert {"manifest", "decode", "compute", "train", "kernels", "accuracy"} <= named


def test_what_has_other_units_has_another_axis():
    middle = {"p20": 1.0, "p50": 2.0, "p80": 4.0}
    names = ("cold: ready_s", "cold: own_mb", "warm: ready_s", "one / other: own_mb", "first_ms", "anything")
    figure = charts.draw("many_rows", {"command": "x"}, [], dict.fromkeys(names, middle))
    panels = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes]
    assert panels == [
        ["cold: ready_s", "warm: ready_s"],
        ["cold: own_mb"],
        ["one / other: own_mb"],
        ["first_ms"],
        ["anything"],
    ]
    units = ["s, median", "MB, median", "ratio, median", "ms, median", "median"]
    assert [axes.get_xlabel() for axes in figure.axes] == [f"{unit} (20th to 80th percentile)" for unit in units]
    for axes in figure.axes:
        low, high = sorted(axes.get_ylim())
        assert (
            all(low < tick < high for tick in axes.get_yticks()) and axes.get_ylim()[0] > axes.get_ylim()[1]
        )  # first at the top


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["decode", "--crop", "200"], "--crop is 200: it must be at most --short-side, 128"),
        (["ingest", "--crop", "200"], "--crop is 200: it must be at most --short-side, 128"),
        (["windows", "--crop", "300"], "--crop is 300: it must be at most --short-side, 128"),
        (["windows", "--crop", "0"], "--crop is 0: it must be at least 1"),
        (["decode", "--short-side", "127"], "--short-side is 127: 4:2:0 pictures need an even number"),
        (["long_video", "--manifest", "none", "--width", "321"], "--width is 321: 4:2:0 pictures need an even number"),
        (
            ["long_video", "--manifest", "none", "--height", "241"],
            "--height is 241: 4:2:0 pictures need an even number",
        ),
    ],
)
def test_sizes_that_there_are_not_are_told_before_anything_is_drawn(program, monkeypatch, words, told):
    monkeypatch.setattr("bench.material.draw_videos", None)
    status, out = program(*words)
    assert status == 2 and out.splitlines()[-1] == f"error: {told}"
