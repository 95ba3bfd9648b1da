"""What decode_gpu borrows: other libraries, called as they ask to be, and nvidia-smi."""

import os
import sys
import time
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bench import readers
from bench.busy import BusyMeter

from engine.errors import InputError


def test_other_libraries_are_called_as_they_ask_to_be(monkeypatch):
    """Their own kinds of answer; where one is not installed, or decodes on the CPU, it says so."""
    gpu, calls = torch.device("cuda", 0), []
    frames = torch.arange(3 * 4 * 4 * 3, dtype=torch.uint8).view(3, 4, 4, 3)

    class Torchcodec:
        cpu_fallback = None

        def __init__(self, path, **options):
            calls.append((path, options))

        def get_frames_in_range(self, start, stop):
            calls.append((start, stop))
            return SimpleNamespace(data=frames)

    class OnDemand:
        def Decode(self, files, numbers, as_bgr):
            self.asked = (files, numbers, as_bgr)

        def GetBuffer(self, *asked):
            assert asked == self.asked
            calls.append(asked)
            return [list(frames) for _ in asked[0]]

    for name in ("torchcodec", "torchcodec.decoders", "accvlab"):
        monkeypatch.setitem(sys.modules, name, None)
    for build in (readers.torchcodec_on_gpu, readers.accv_on_gpu):
        with pytest.raises(InputError, match="is not installed"):
            build(gpu, 3, 2)
    monkeypatch.setitem(sys.modules, "torchcodec", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", SimpleNamespace(VideoDecoder=Torchcodec))
    read = readers.torchcodec_on_gpu(gpu, 3, 2)
    assert torch.equal(read([("a.mp4", 5)])[0], frames)
    assert calls == [
        ("a.mp4", {"device": "cuda:0", "dimension_order": "NHWC", "seek_mode": "approximate"}),
        (5, 8),
    ]
    monkeypatch.setattr(Torchcodec, "cpu_fallback", "no NVDEC")
    with pytest.raises(InputError, match="decodes on the CPU instead: no NVDEC"):
        read([("a.mp4", 5)])
    library = SimpleNamespace(CreateBatchAsyncStreamReader=lambda **_: OnDemand())
    monkeypatch.setitem(sys.modules, "accvlab", SimpleNamespace(on_demand_video_decoder=library))
    monkeypatch.setattr(torch, "as_tensor", lambda frame, device: frame)
    (one, other) = readers.accv_on_gpu(gpu, 3, 2)([("a.mp4", 5), ("b.mp4", 0)])
    assert calls[-1] == (["a.mp4", "b.mp4"], [[5, 6, 7], [0, 1, 2]], False)
    assert torch.equal(one, frames)
    assert torch.equal(other, frames)


def test_how_busy_a_gpu_is(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    lines = "0, 0\\n40, 10\\n60, 30\\nN/A, 30\\n70"
    tool.write_text(
        f"#!/bin/sh\necho \"$@\" > {tmp_path}/called\nprintf '{lines}'\ntouch {tmp_path}/told\nexec sleep 60\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="12-ab"))
    with BusyMeter(torch.device("cuda", 0)) as busy:
        while not (tmp_path / "told").exists():
            time.sleep(0.02)
    assert (busy.decoder, busy.gpu) == (50, 20)
    assert (tmp_path / "called").read_text().startswith("--id=GPU-12-ab --query-gpu=utilization.decoder")
    with BusyMeter(torch.device("cpu")) as none:
        pass
    assert np.isnan(none.decoder)


def test_why_a_library_takes_no_part_is_told_though_it_says_nothing(monkeypatch):
    def failing(error: Exception):
        def build():
            raise error

        return build

    errors = {"gone": PackageNotFoundError("x"), "broken": OSError("a\nb"), "silent": OSError(), "mute": RuntimeError()}
    monkeypatch.setattr(readers, "_BUILDERS", {name: failing(error) for name, error in errors.items()})
    found, missing = readers.find_readers([], 3)
    assert list(found) == ["PyAV"]
    assert missing == {
        "gone": "not installed", "broken": "does not load: a", "silent": "does not load: OSError",
        "mute": "does not work: RuntimeError",
    }  # fmt: skip
