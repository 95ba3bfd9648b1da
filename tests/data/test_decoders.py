"""Which decoder is taken where, what the log says of it, and that nothing changes silently."""

import ctypes
import sys
from pathlib import Path

import pytest
import torch

from engine.data import decoders
from engine.data.batch import ClipFormat
from engine.data.decoders import build_decoder, choose_decoder, default_threads
from engine.data.indexing import index_folder
from engine.data.isolated import IsolatedDecoder
from engine.data.manifest import Manifest, concatenate
from engine.data.nvdec import mixed_up_videos, unfit_videos
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.encode import write_video
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from engine.errors import InputError
from tests.data.videos import picture
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
    assert choose_decoder("auto", CPU) == ("pyav", "data.decoder is auto and the device is cpu")
    assert "engine.data.dali.decode" not in sys.modules


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


def test_auto_on_a_gpu_takes_pyav_where_videos_would_get_the_sessions_of_others(monkeypatch):
    monkeypatch.setattr(decoders, "dali_problem", lambda device: None)

    def chosen(*videos):
        rows = [
            row(f"{number}.mp4", "x", codec=codec, width=width, height=height)
            for number, (codec, width, height) in enumerate(videos)
        ]
        manifests = [Manifest.from_rows([each], Path("/v")) for each in rows]
        assert mixed_up_videos([concatenate(manifests)]) == mixed_up_videos(manifests)
        return choose_decoder("auto", CUDA, manifests)

    assert chosen(("h264", 640, 360), ("h264", 480, 360), ("h264", 320, 240))[0] == "dali"
    name, why = chosen(("h264", 640, 360), ("h264", 480, 362), ("h264", 640, 368), ("h264", 630, 368))
    assert name == "pyav"  # the first only: nothing is coded as 480x368, and a width alone does no harm
    assert "may decode 1 videos as if they had the height of others" in why
    rows = [row("a.mp4", "x", width=640, height=360), row("b.mp4", "x", width=640, height=368)]
    name, why = choose_decoder("dali", CUDA, [Manifest.from_rows(rows, Path("/v"))])  # asked for by name: never changed
    assert (name, "BEWARE: DALI on the GPU may decode 1 videos" in why) == ("dali", True)
    assert chosen(("h264", 640, 360), ("hevc", 640, 368))[0] == "dali"
    assert chosen(("hevc", 640, 356), ("hevc", 640, 360))[0] == "pyav"
    stored = Manifest.from_rows([row("store.index/a.mp4#0", "x", width=128, height=228)], Path("/s"))
    tall, low = (Manifest.from_rows([row("b.mp4", "x", width=128, height=side)], Path("/v")) for side in (240, 230))
    assert mixed_up_videos([stored, tall]) == 0
    assert mixed_up_videos([stored, low]) == 1  # the plain one gets a session of the store


@pytest.fixture
def store(tmp_path):
    """A function that makes a store of one video with so many B-frames, under that name."""

    def make(name, b_frames):
        write_video(tmp_path / "raw" / "x" / "a.mp4", (picture(number, 64, 64) for number in range(20)))
        index_folder(tmp_path / "raw", tmp_path / "raw.parquet")
        settings = StoreSettings(short_side=64, gop=8, preset="veryfast", b_frames=b_frames)
        ingest(Manifest.load(tmp_path / "raw.parquet"), tmp_path / name, settings, WorkSettings())
        return Manifest.load(tmp_path / name / "manifest.parquet")

    (tmp_path / "raw" / "x").mkdir(parents=True)
    return make


def test_a_snippet_store_goes_to_nvdec(monkeypatch, store):
    monkeypatch.setattr(decoders, "dali_problem", lambda device: None)
    plain = Manifest.from_rows([row("a.mp4", "x")], Path("/v"))
    good, ordered_otherwise = store("good", 0), store("with-b", 2)
    assert not unfit_videos(good).any()
    for manifests in ([plain, good], [concatenate([plain, good])]):
        assert choose_decoder("auto", CUDA, manifests) == ("dali", "data.decoder is auto and cuda:0 has NVDEC")
        assert choose_decoder("dali", CUDA, manifests)[0] == "dali"
        with pytest.raises(InputError, match=r"good' is a snippet store of H.264.*GPU only; or set data.decoder=pyav"):
            choose_decoder("dali", CPU, manifests)
    chosen, why = choose_decoder("auto", CUDA, [concatenate([plain, good, ordered_otherwise])])
    assert chosen == "pyav"
    assert "with-b' was made with B-frames" in why
    with pytest.raises(InputError, match="with-b' was made with B-frames"):
        choose_decoder("dali", CUDA, [ordered_otherwise])
    gone = Manifest.from_rows([row("store.index/a.mp4#0", "x")], Path("/s/k700"))
    with pytest.raises(InputError, match="no snippet store at '/s/k700'"):
        choose_decoder("auto", CUDA, [gone])
