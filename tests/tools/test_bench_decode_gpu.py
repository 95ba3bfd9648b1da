"""The benchmark of GPU decoding, with DALI's CPU backend in the GPU's place: the same contestants over VP9 files."""

import json
import sys
import time

import numpy as np
import pytest
import torch
from bench import decode_gpu as bench
from bench import gpu_contestants, material
from bench.apart import ContestantError
from bench.material import Material

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.indexing.dataset import index_folder
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.encode import write_video
from engine.errors import InputError
from tests.data.fake_nvcodec import FakeModule
from tests.data.videos import numbered_frame, write_numbered
from tests.small_run import benchmark_options

CPU = torch.device("cpu")
CLIP = ClipFormat(num_frames=4, short_side=64, crop=56)


@pytest.fixture(scope="module")
def vp9(tmp_path_factory):
    root = tmp_path_factory.mktemp("vp9")
    (root / "x").mkdir()
    for number in range(3):
        write_numbered(root / "x" / f"{number}.webm", size=(128, 96))
    index_folder(root, root / "manifest.parquet")
    return Manifest.load(root / "manifest.parquet")


def material_of(manifest, snippets):
    """Every form of the videos is the same one here."""
    return Material(manifest, manifest, manifest, snippets, CLIP)


class Here:
    """A contestant in this process, where stand-ins are seen."""

    def __init__(self, build, *arguments, limit_s):
        self.contestant = self._try(build, *arguments)

    def call(self, method, *arguments):
        return self._try(getattr(self.contestant, method), *arguments)

    def _try(self, function, *arguments):
        try:
            return function(*arguments)
        except Exception as error:
            raise ContestantError(f"{type(error).__name__}: {error}") from error

    def close(self):
        pass


@pytest.fixture
def here(dali, monkeypatch):
    """Contestants in this process; DALI decodes these videos on its CPU backend."""
    monkeypatch.setattr(bench, "Apart", Here)
    monkeypatch.setattr(gpu_contestants, "dali_problem_of", lambda *_: None)


def runners_of(material, threads=1, batch=8):
    """Name -> function of all that take part and can be built."""
    found = gpu_contestants.builders(material, CPU, threads, batch)
    return {
        name: found[name]() for name in gpu_contestants.names(material, CPU)[0] if name not in gpu_contestants.OTHERS
    }


@pytest.fixture
def recorded(monkeypatch):
    """What is written of a record."""
    fields = {}

    class Record:
        def __init__(self, name):
            fields["name"] = name

        def write(self, **more):
            fields.update(more)

    monkeypatch.setattr(bench, "GrowingRecord", Record)
    return fields


def options(*words):
    small = ["--snippets", "9", "--repeats", "2", "--batch", "4", "--threads", "2"]
    return benchmark_options("decode_gpu", *small, *words)


def test_all_that_runs_without_a_gpu(here, vp9, recorded, capsys):
    material = material_of(vp9, [(number % 3, 4 * number) for number in range(9)])
    bench.report(options("--needed", "0.5"), material, CPU)
    text = capsys.readouterr().out
    names = {"PyAV store", "DALI store", "DALI mp4", "DALI raw"}
    names |= {"hybrid 0.125", "hybrid 0.25", "hybrid 0.5"}
    assert (recorded["name"], recorded["n"], recorded["videos"]) == ("decode_gpu", 2, 3)
    assert set(recorded["results"]) == set(recorded["differences"]) == names
    assert all(0 < values["p20"] <= values["p80"] for values in recorded["results"].values())
    assert max(recorded["differences"].values()) < 0.5
    assert recorded["differences"]["DALI store"] > 0  # rounded by another library
    assert recorded["busy"]["DALI store"] == {"decoder": None, "gpu": None}
    assert set(recorded["skipped"]) == {"PyNvVideoCodec", "torchcodec mp4", "ACCV-Lab mp4"}
    assert not {"device", "time", "command", "versions", "commit", "dirty"} & set(recorded)
    assert json.dumps(recorded, allow_nan=False)
    assert "3 videos, 9 snippets 4x112x112 from short side 128 in batches of 4, 2 runs in turns, 2 threads" in text
    assert "PyNvVideoCodec does not take part: PyNvVideoCodec decodes on NVIDIA GPUs, not on cpu" in text
    assert "torchcodec mp4 does not take part: InputError: torchcodec is asked for its CUDA decoder" in text
    assert text.count("run 2: ") == len(names)
    assert "the best hybrid, hybrid " in text
    assert "times what the network eats (0.5 clips/s)" in text


def test_a_batch_split_between_two_keeps_its_order(here, vp9):
    requests = [(row, start) for row in range(3) for start in (0, 5)]
    runners = runners_of(material_of(vp9, requests))
    for name in ("hybrid 0.125", "hybrid 0.5"):
        difference = (runners[name](requests).int() - runners["PyAV store"](requests).int()).abs()
        assert difference.float().mean() < 0.5
    (alone,) = runners["hybrid 0.25"](requests[:1])
    assert (alone.int() - runners["PyAV store"](requests[:1])[0].int()).abs().float().mean() < 0.5


def test_contestants_that_fail_or_show_other_frames_cost_only_themselves(here, vp9, recorded, monkeypatch, capsys):
    material = material_of(vp9, [(0, 3), (1, 8)])
    right = runners_of(material)["PyAV store"]

    def broken(snippets):
        raise AttributeError("no such thing in this version")

    late = lambda snippets: right([(row, start + 20) for row, start in snippets])  # noqa: E731
    runners = {"PyAV store": right, "late": late, "broken": broken}
    monkeypatch.setattr(bench, "names", lambda *_: (list(runners), {}))
    monkeypatch.setattr(
        gpu_contestants, "builders", lambda *_: {name: lambda runner=runner: runner for name, runner in runners.items()}
    )
    with pytest.raises(InputError, match=r"'late' does not show the frames.*'broken' AttributeError: no such"):
        bench.report(options(), material, CPU)
    assert set(recorded["results"]) == {"PyAV store"}
    assert set(recorded["skipped"]) == {"late", "broken"}
    assert "late does not take part" in capsys.readouterr().out
    del runners["PyAV store"]
    monkeypatch.setattr(bench, "names", lambda *_: (["PyAV store"], {}))
    with pytest.raises(InputError, match="which all are held against, KeyError"):
        bench.report(options(), material, CPU)


class Told(gpu_contestants.BusyMeter):
    """Where nvidia-smi tells 40 % and 80 % in every line."""

    def __init__(self, device):
        super().__init__(device)
        self._command = ["sh", "-c", "while :; do echo 40, 80; sleep 0.05; done"]


def test_a_run_lasts_as_long_as_it_takes_to_see_how_busy_engines_are(vp9, monkeypatch):
    passes = []

    def decode(snippets):
        passes.append(snippets)
        time.sleep(0.002)

    monkeypatch.setattr(gpu_contestants, "builders", lambda *_: {"any": lambda: decode})
    contender = gpu_contestants.Contender("any", material_of(vp9, [(0, 0), (1, 2)]), CPU, 1, 2)
    passes.clear()
    assert np.isnan(contender.run().gpu_busy) and len(passes) == 1
    monkeypatch.setattr(gpu_contestants, "BusyMeter", Told)
    monkeypatch.setattr(gpu_contestants, "_LEAST_S", 0.5)
    begun = time.perf_counter()
    found = contender.run()
    assert time.perf_counter() - begun >= 0.5 and len(passes) > 10
    assert (found.decoder_busy, found.gpu_busy) == (40, 80)
    assert found.by_clock == pytest.approx(2 * (len(passes) - 1) / 0.5, rel=0.3)


def test_each_in_a_process_of_its_own(vp9, recorded, monkeypatch, capsys):
    monkeypatch.setattr(bench, "names", lambda *_: (["PyAV store"], {}))
    bench.report(options(), material_of(vp9, [(0, 3), (1, 8)]), CPU)
    assert recorded["n"] == 2 and recorded["differences"] == {"PyAV store": 0.0}
    assert "run 2: PyAV store" in capsys.readouterr().out


def test_who_takes_part(vp9, tmp_path, monkeypatch):
    assert gpu_contestants.dali_problem_of(vp9, CPU) == "DALI decodes on NVIDIA GPUs, not on cpu"
    monkeypatch.setattr(gpu_contestants, "dali_problem", lambda device: None)
    unfit = "3 of 3 videos are not for NVDEC (codec, container or odd size)"
    assert gpu_contestants.dali_problem_of(vp9, CPU) == unfit
    (tmp_path / "x").mkdir()
    write_video(tmp_path / "x" / "a.mp4", (numbered_frame(number, 64, 64) for number in range(20)))
    index_folder(tmp_path, tmp_path / "raw.parquet")
    assert gpu_contestants.dali_problem_of(Manifest.load(tmp_path / "raw.parquet"), CPU) is None


def test_what_follows():
    medians = {"PyAV store": 100.0, "DALI store": 1000.0, "hybrid 0.25": 1100.0, "hybrid 0.5": 700.0}
    assert bench.conclusions(medians | {"PyNvVideoCodec": 1250.0, "DALI hevc": 1900.0}, 400.0) == [
        "DALI hevc is 1.90 times as fast as DALI store",
        "PyNvVideoCodec is 1.25 times as fast as DALI store",
        "the best hybrid, hybrid 0.25, is 1.10 times as fast as DALI store alone",
        "DALI store decodes 2.50 times what the network eats (400 clips/s)",
    ]
    assert bench.conclusions({"PyAV store": 100.0}, 400.0) == []


def test_one_clear_error_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"decode_gpu needs an NVIDIA GPU.*`decode` measures CPU cores"):
        bench.run(options())
    with pytest.raises(InputError, match="--batch is 0"):
        bench.run(options("--batch", "0"))


def test_pynvvideocodec_takes_part_with_the_store_hybrids_and_hevc(tmp_path, monkeypatch, capsys):
    """With the stand-in for the library; DALI has no H.264 here."""
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", FakeModule())
    monkeypatch.setattr(gpu_contestants, "nvcodec_problem", lambda *_: None)
    monkeypatch.setattr(material, "_DRAWN", (2, 30, (160, 120)))
    chosen = options("--short-side", "64", "--crop", "56", "--hevc", "24", "--repeats", "1", "--no-record")
    assert (options("--hevc").hevc, options().hevc) == (21, None)
    prepared = material.add_hevc(material.prepare(chosen, tmp_path), tmp_path, 24, 1)
    assert set(prepared.hevc.table.column("codec").to_pylist()) == {"hevc"}
    runners, skipped = runners_of(prepared, 2, 4), gpu_contestants.names(prepared, CPU)[1]
    hybrids = {f"hybrid nv {share}" for share in (0.125, 0.25, 0.5)}
    assert set(runners) == {"PyAV store", "PyAV hevc", "PyNvVideoCodec", "PyNvVideoCodec hevc"} | hybrids
    assert set(skipped) == {"DALI store", "DALI mp4", "DALI raw", "DALI hevc"}
    monkeypatch.setattr(bench, "Apart", Here)
    clips = {name: runner(prepared.snippets) for name, runner in runners.items()}
    assert torch.equal(clips["PyNvVideoCodec"], clips["PyAV store"])
    assert torch.equal(clips["hybrid nv 0.25"], clips["PyAV store"])
    assert torch.equal(clips["PyNvVideoCodec hevc"], clips["PyAV hevc"])
    assert 0 < (clips["PyAV hevc"].float() - clips["PyAV store"].float()).abs().mean() < 4
    bench.report(chosen, prepared, CPU)
    assert "PyNvVideoCodec hevc is " in capsys.readouterr().out


def test_no_round_begins_after_the_limit(here, vp9, recorded, monkeypatch, capsys):
    monkeypatch.setattr(bench, "names", lambda *_: (["PyAV store"], {}))
    bench.report(options("--limit", "0", "--repeats", "5"), material_of(vp9, [(0, 0)] * 3), CPU)
    assert recorded["n"] == 1 and "1 of 5 rounds are done" in capsys.readouterr().out


def test_whole_frames_of_other_libraries_are_cut_and_not_scaled(vp9):
    manifest, clip = vp9, ClipFormat(num_frames=2, short_side=96, crop=56)
    whole = torch.arange(2 * 96 * 128 * 3).view(2, 96, 128, 3)
    decode = gpu_contestants.cropped(
        lambda snippets: [whole for path, start in snippets if path.is_file() and start == 4], clip
    )
    asked = SnippetRequest(manifest.video(0), 4, 0.5, 0.5, False)
    assert torch.equal(decode([asked])[0], whole[:, 20:76, 36:92])
    with pytest.raises(InputError, match="would have to be scaled"):
        gpu_contestants.cropped(lambda snippets: [whole], CLIP)([asked])


@pytest.mark.gpu
@pytest.mark.nvdec
def test_the_whole_benchmark_on_a_gpu(dali, monkeypatch, capsys):
    monkeypatch.setattr(material, "_DRAWN", (3, 50, (160, 120)))
    bench.run(options("--no-record", "--short-side", "64", "--crop", "56"))
    assert "DALI store" in capsys.readouterr().out
