"""Which decoder is taken where, what the log says of it, and that nothing changes silently."""

import ctypes
import sys
from pathlib import Path

import pytest
import torch

from engine.data import decoders
from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.decoders import build_decoder, choose_decoder, default_threads
from engine.data.isolated import IsolatedDecoder
from engine.data.manifest import Manifest, concatenate
from engine.data.pyav.decode import PyAVDecoder
from engine.errors import InputError
from tests.rows import row

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
CLIP = ClipFormat()


@pytest.fixture
def no_dali(monkeypatch):
    monkeypatch.delitem(sys.modules, "engine.data.dali", raising=False)
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)


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
    assert choose_decoder("auto", CPU) == ("pyav", "data.decoder is auto and the device is cpu")
    assert "engine.data.dali" not in sys.modules


def test_auto_on_a_gpu_is_dali(dali, nvdec):
    nvdec(True)
    assert choose_decoder("auto", CUDA) == ("dali", "data.decoder is auto and cuda:0 has NVDEC")


def test_auto_on_a_gpu_without_nvdec_is_pyav_and_says_why(dali, nvdec):
    nvdec(False)
    name, why = choose_decoder("auto", CUDA)
    assert name == "pyav"
    assert "NVDEC cannot be used (libnvcuvid.so.1" in why
    assert "\n" not in why


def test_auto_on_a_gpu_without_dali_is_pyav_and_says_why(no_dali, nvdec):
    nvdec(True)
    name, why = choose_decoder("auto", CUDA)
    assert name == "pyav"
    assert "DALI cannot be imported" in why
    assert "pip install -e '.[cuda13]'" in why


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_dali_by_name_without_dali_names_the_extra(no_dali, nvdec, device):
    nvdec(True)
    with pytest.raises(InputError, match=r"data.decoder is dali, but .*pip install -e '\.\[cuda13\]'.*cuda12"):
        choose_decoder("dali", device)


def test_dali_by_name_without_nvdec_names_the_library(dali, nvdec):
    nvdec(False)
    with pytest.raises(InputError, match=r"libnvcuvid.*or set data.decoder=pyav"):
        choose_decoder("dali", CUDA)


def test_dali_decodes_for_no_other_device():
    with pytest.raises(InputError, match="not for mps"):
        choose_decoder("dali", torch.device("mps"))


def test_names_are_taken_at_their_word(dali):
    assert choose_decoder("pyav", CUDA)[0] == "pyav"
    name, why = choose_decoder("dali", CPU)
    assert name == "dali"
    assert "VP8, VP9 and MJPEG only" in why


def test_building_them(dali):
    for name, kind in (("auto", PyAVDecoder), ("pyav", PyAVDecoder), ("dali", IsolatedDecoder)):
        decoder = build_decoder(name, CLIP, CPU, 1, 2)
        assert type(decoder.videos) is kind
        assert decoder.decode([]).frames.shape == (0, 16, 112, 112, 3)
        decoder.close()


def test_threads_are_the_cores_shared_among_the_ranks(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(12)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert default_threads() == 12
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert default_threads() == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    decoder = build_decoder("pyav", CLIP, CPU, 0, 2)
    assert decoder.videos._num_threads == 3
    decoder.close()


def test_auto_on_a_gpu_takes_pyav_for_videos_that_nvdec_would_count_wrongly(monkeypatch):
    monkeypatch.setattr(decoders, "dali_problem", lambda device: None)
    good = Manifest.from_rows([row("a.mp4", "x"), row("b.mkv", "x", codec="hevc")], Path("/v"))
    mixed = Manifest.from_rows(
        [row("a.avi", "x"), row("b.mp4", "x", codec="mpeg4"), row("c.mp4", "x", width=63), row("d.mp4", "x")],
        Path("/v"),
    )
    assert decoders.choose_decoder("auto", CUDA, [good])[0] == "dali"
    chosen, why = decoders.choose_decoder("auto", CUDA, [good, mixed])
    assert chosen == "pyav"
    assert "cannot decode 3 of 6 videos" in why
    assert decoders.choose_decoder("dali", CUDA, [mixed])[0] == "dali"  # asked for by name: never changed


def test_a_snippet_store_is_read_by_pyav_and_refused_for_dali(monkeypatch):
    monkeypatch.setattr(decoders, "dali_problem", lambda device: None)
    plain = Manifest.from_rows([row("a.mp4", "x")], Path("/v"))
    store = Manifest.from_rows([row("store.index/a.mp4#0", "x")], Path("/s/k700"))
    for manifests in ([plain, store], [concatenate([plain, store])]):
        chosen, why = decoders.choose_decoder("auto", CUDA, manifests)
        assert chosen == "pyav"
        assert "'/s/k700' is a snippet store" in why
        with pytest.raises(InputError, match=r"'/s/k700' is a snippet store.*or set data.decoder=pyav"):
            decoders.choose_decoder("dali", CUDA, manifests)


def test_dali_says_why_it_fails_a_stored_video(dali):
    decoder = build_decoder("dali", CLIP, CPU, 1, 2)
    video = Manifest.from_rows([row("store.index/a.webm#0", "x", codec="vp9")], Path("/s")).video(0)
    assert "lies in a snippet store" in decoder.decode([SnippetRequest(video, 0, 0, 0, False)]).failures[0]
    decoder.close()
