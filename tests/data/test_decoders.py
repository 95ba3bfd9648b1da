"""Which decoder is taken where, what the log says of it, and that nothing changes silently."""

import contextlib
import ctypes
import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from engine.data import decoders
from engine.data.batch import ClipFormat
from engine.data.decoders import build_decoder, choose_decoder
from engine.data.indexing.dataset import index_folder
from engine.data.manifests.manifest import Manifest, concatenate
from engine.data.nvdec import NvdecRule, refusals, unfit_videos
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.encode import write_video
from engine.data.shares import MeasuredShare, Share
from engine.data.stills import StillDecoder
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from engine.errors import InputError
from engine.machine import rank_cores
from tests.data.videos import numbered_frame
from tests.rows import row

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
CLIP = ClipFormat()


@pytest.fixture
def no_dali(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("engine.data.dali.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("nvidia.dali", *(name for name in sys.modules if name.startswith("nvidia.dali."))):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def nvdec(monkeypatch):
    """A machine whose driver has NVDEC's library or, given False, has not."""

    def install(present):
        def load(name):
            assert name == "libnvcuvid.so.1"
            if not present:
                raise OSError(f"{name}: cannot open shared object file")

        monkeypatch.setattr(ctypes, "CDLL", load)

    return install


def test_auto_on_the_cpu_is_pyav_and_does_not_import_dali(no_dali):
    choice = choose_decoder("auto", CPU)
    assert (choice.name, choice.why) == ("pyav", "data.decoder is auto and the device is cpu")
    assert choice.routes is None
    assert "engine.data.dali.decode" not in sys.modules


def test_auto_on_a_gpu_measures_dali_against_pyav(dali, nvdec):
    nvdec(True)
    choice = choose_decoder("auto", CUDA)
    assert choice.name == "dali"
    assert choice.why == "data.decoder is auto, cuda:0 has NVDEC: dali, pyav or both, by the rates of the first seconds"
    assert isinstance(choice.routes.share, MeasuredShare)
    assert choice.routes.remember


def test_a_deterministic_run_chooses_by_no_timing(dali, nvdec):
    nvdec(True)
    choice = choose_decoder("auto", CUDA, by_rule=True)
    assert choice.name == "dali"
    assert "run.deterministic forbids a choice by timing" in choice.why
    assert (type(choice.routes.share), choice.routes.share.value, choice.routes.remember) == (Share, 1.0, False)
    assert choose_decoder("dali", CUDA).routes.share.value == 1.0  # by name: nothing is measured either


def test_auto_on_a_gpu_without_nvdec_is_pyav_and_says_why(dali, nvdec):
    nvdec(False)
    choice = choose_decoder("auto", CUDA)
    name, why = choice.name, choice.why
    assert name == "pyav"
    assert "NVDEC cannot be used (libnvcuvid.so.1" in why
    assert "\n" not in why


def test_auto_on_a_gpu_without_dali_is_pyav_and_says_why(no_dali, nvdec):
    nvdec(True)
    choice = choose_decoder("auto", CUDA)
    name, why = choice.name, choice.why
    assert name == "pyav"
    assert "DALI cannot be imported" in why
    assert "pip install -e '.[cuda13]'" in why


def test_dali_by_name_without_dali_names_the_extra(no_dali, nvdec):
    nvdec(True)
    with pytest.raises(InputError, match=r"data.decoder is dali, but .*pip install -e '\.\[cuda13\]'.*cuda12"):
        choose_decoder("dali", CUDA)


def test_dali_by_name_without_nvdec_names_the_library(dali, nvdec):
    nvdec(False)
    with pytest.raises(InputError, match=r"libnvcuvid.*or set data.decoder=pyav"):
        choose_decoder("dali", CUDA)


def test_dali_decodes_for_no_other_device():
    """Nor for the CPU, as older configs and checkpoints may ask: they are told what to set."""
    with pytest.raises(InputError, match=r"DALI decodes on NVIDIA GPUs, not on cpu; or set data\.decoder=pyav"):
        choose_decoder("dali", CPU)


def test_names_are_taken_at_their_word(dali, nvdec):
    nvdec(True)
    assert choose_decoder("pyav", CUDA).name == "pyav"
    choice = choose_decoder("dali", CUDA)
    assert (choice.name, choice.why) == ("dali", "data.decoder is dali")


@pytest.mark.parametrize("name", ["auto", "pyav"])
def test_building_them(name):
    with contextlib.closing(build_decoder(name, CLIP, CPU, 1, 2)) as decoder:
        assert {each: type(one) for each, one in decoder.decoders.items()} == {
            "pyav": PyAVDecoder, "stills": StillDecoder,
        }  # fmt: skip
        assert decoder.decode([]).frames.shape == (0, 16, 112, 112, 3)


def test_threads_are_the_cores_shared_among_the_ranks(monkeypatch):
    monkeypatch.setattr("engine.machine.usable_cores", lambda: 12)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert rank_cores() == 12
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert rank_cores() == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    decoder = build_decoder("pyav", CLIP, CPU, 0, 2)
    assert decoder.decoders["pyav"]._num_threads == 3
    decoder.close()


def reasons(*rows):
    """Why each of these rows, all of one run, is not for NVDEC, by way of the log's counts and of the rule itself."""
    manifests = [Manifest.from_rows([each], Path("/v")) for each in rows]
    rule = NvdecRule.of(manifests)
    found = [rule(manifest.video(0)) for manifest in manifests]
    whole = concatenate(manifests)
    assert refusals(rule, whole).tolist() == found
    assert refusals(NvdecRule.of([whole]), whole).tolist() == found
    assert unfit_videos(whole).tolist() == [reason is not None for reason in found]
    return found


def test_each_video_that_nvdec_would_count_wrongly_is_for_pyav_and_the_log_counts_them(monkeypatch):
    monkeypatch.setattr(decoders, "dali_problem", lambda device: None)
    rows = [
        row("a.mp4", "x"),
        row("b.MKV", "x", codec="hevc", width=160, height=144, pixel_format="yuv420p10le"),
        row("a.avi", "x"),
        row("without_suffix", "x"),
        row("b.mp4", "x", codec="mpeg4"),
        row("c.mp4", "x", width=63),
        row("d.mp4", "x", pixel_format="yuv420p10le"),
        row("e.mp4", "x", pixel_format="yuv444p"),
        row("f.mp4", "x", codec="hevc", pixel_format="yuv420p12le"),
        row("g.mov", "x", pixel_format="yuvj420p"),
        row("h.mp4", "x", codec="hevc"),
        row("i.mp4", "x", width=4098, height=2304),
    ]
    assert reasons(*rows) == [
        None, None, *["container without time stamps"] * 2, "codec mpeg4", "odd size", "pixel format yuv420p10le",
        "pixel format yuv444p", "pixel format yuv420p12le", None,
        *["size that NVDEC has not"] * 2,
    ]  # fmt: skip
    mixed, unfit = (Manifest.from_rows(part, Path("/v")) for part in (rows, rows[2:6]))
    for name in ("auto", "dali"):
        choice = choose_decoder(name, CUDA, [mixed, unfit])
        assert choice.name == "dali"
        assert (
            "13 of 16 videos are for pyav alone (2 codec mpeg4, 4 container without time stamps, 2 odd size, "
            "1 pixel format yuv420p10le, 1 pixel format yuv420p12le, 1 pixel format yuv444p, 2 size that NVDEC has not)"
        ) in choice.why
    choice = choose_decoder("auto", CUDA, [unfit])
    assert choice.name == "pyav"
    assert "4 of 4 videos are for pyav alone" in choice.why


def test_a_row_of_unknown_pixel_format_is_left_to_what_its_file_says():
    video = dataclasses.replace(Manifest.from_rows([row("a.mp4", "x")], Path("/v")).video(0), pixel_format=None)
    assert NvdecRule()(video) is None


def test_videos_that_would_get_the_sessions_of_others_are_for_pyav():
    def of(*videos):
        return reasons(*(
            row(f"{number}.{suffix}", "x", codec=codec, width=width, height=height)
            for number, (codec, width, height, suffix) in enumerate(videos)
        ))  # fmt: skip

    mixed_up = "height that DALI may mix up with another"
    assert of(("h264", 640, 360, "mp4"), ("h264", 480, 360, "mp4"), ("h264", 320, 240, "mp4")) == [None] * 3
    found = of(*(("h264", *size, "mp4") for size in ((640, 360), (480, 362), (640, 368), (630, 368))))
    assert found == [mixed_up, None, None, None]  # nothing is coded as 480x368, and a width alone does no harm
    assert of(("h264", 640, 360, "mp4"), ("hevc", 640, 368, "mp4")) == [None, None]
    assert of(("hevc", 640, 356, "mp4"), ("hevc", 640, 360, "mp4")) == [mixed_up, None]
    opened_by_none = of(("h264", 640, 360, "mp4"), ("h264", 640, 368, "avi"))  # what PyAV decodes has no session
    assert opened_by_none == [None, "container without time stamps"]


def test_stored_videos_open_sessions_and_take_none_of_others(store):
    good = store("good", 0)
    assert good.video(0).displayed_size == (64, 64)
    tall, low = (Manifest.from_rows([row("b.mp4", "x", width=64, height=side)], Path("/v")) for side in (80, 54))
    assert NvdecRule.of([good, tall])(tall.video(0)) is None
    assert "mix up" in NvdecRule.of([good, low])(low.video(0))  # it would get a session of the store
    assert NvdecRule.of([good, low])(good.video(0)) is None


@pytest.fixture
def store(tmp_path):
    """A function that makes a store of one video with so many B-frames, under that name."""

    def make(name, b_frames):
        write_video(tmp_path / "raw" / "x" / "a.mp4", (numbered_frame(number, 64, 64) for number in range(20)))
        index_folder(tmp_path / "raw", tmp_path / "raw.parquet")
        settings = StoreSettings(short_side=64, gop=8, preset="veryfast", b_frames=b_frames)
        ingest(Manifest.load(tmp_path / "raw.parquet"), tmp_path / name, settings, WorkSettings())
        return Manifest.load(tmp_path / name / "manifest.parquet")

    (tmp_path / "raw" / "x").mkdir(parents=True)
    return make


def test_a_snippet_store_goes_to_nvdec_unless_it_has_b_frames(monkeypatch, store):
    monkeypatch.setattr(decoders, "dali_problem", lambda device: None)
    plain = Manifest.from_rows([row("a.mp4", "x")], Path("/v"))
    good, ordered_otherwise = store("good", 0), store("with-b", 2)
    assert not unfit_videos(good).any()
    assert unfit_videos(ordered_otherwise).all()
    for manifests in ([plain, good], [concatenate([plain, good])]):
        for name in ("auto", "dali"):
            choice = choose_decoder(name, CUDA, manifests)
            assert (choice.name, "pyav alone" in choice.why) == ("dali", False)
    whole = concatenate([plain, good, ordered_otherwise])
    choice = choose_decoder("auto", CUDA, [whole])
    assert "1 of 3 videos are for pyav alone (1 store with B-frames)" in choice.why
    assert [choice.routes.takes(whole.video(index)) for index in range(3)] == [True, True, False]
    assert choose_decoder("auto", CUDA, [ordered_otherwise]).name == "pyav"
    gone = Manifest.from_rows([row("store.index/a.mp4#0", "x")], Path("/s/k700"))
    with pytest.raises(InputError, match="no snippet store at '/s/k700'"):
        choose_decoder("auto", CUDA, [gone])
