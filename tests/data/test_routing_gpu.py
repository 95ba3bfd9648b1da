"""NVDEC and PyAV in one batch: which videos go where, and on a GPU that every clip is the one that was asked for."""

import numpy as np
import pytest
import torch

from engine.data import decoders
from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.decoders import build_decoder, choose_decoder
from engine.data.indexing.dataset import index_folder
from engine.data.loading.ahead import decode_in_order
from engine.data.manifests.manifest import Manifest, concatenate
from engine.data.nvdec import NvdecRule, refusals
from engine.data.pyav.decode import PyAVDecoder
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from tests.data.videos import numbers, write_numbered

CLIP = ClipFormat(num_frames=6, short_side=64, crop=64)


def request(video, start):
    return SnippetRequest(video, start, 0.5, 0.5, False)


@pytest.fixture(scope="module")
def for_the_gpu(tmp_path_factory):
    """Indexed videos, fit for NVDEC and not, and some of them in a store."""
    root = tmp_path_factory.mktemp("gpu")
    (root / "raw" / "x").mkdir(parents=True)
    x265 = {"x265-params": "log-level=none"}
    kinds = {
        "fit.mp4": {"codec": "libx264", "options": {"bf": "2"}},
        "fit.mkv": {"codec": "libx265", "pixel_format": "yuv420p10le", "options": x265},
        "fragments.mp4": {"codec": "libx264", "container_options": {"movflags": "frag_keyframe+empty_moov"}},
        "container.avi": {"codec": "libx264"},
        "high10.mp4": {"codec": "libx264", "pixel_format": "yuv420p10le"},
        "colour.mp4": {"codec": "libx264", "pixel_format": "yuv444p"},
        "fields.mp4": {"codec": "libx264", "options": {"x264-params": "tff=1"}},
        "vp9.webm": {},
        "rows_360.mp4": {"codec": "libx264", "size": (480, 360)},
        "rows_368.mp4": {"codec": "libx264", "size": (480, 368)},
    }
    for name, kind in kinds.items():
        write_numbered(root / "raw" / "x" / name, **({"size": (256, 256)} | kind))
    index_folder(root / "raw", root / "raw.parquet")
    raw = Manifest.load(root / "raw.parquet")
    settings = StoreSettings(short_side=128, gop=8, preset="veryfast")
    ingest(raw.select(np.arange(3)), root / "store", settings, WorkSettings())
    return concatenate([raw, Manifest.load(root / "store" / "manifest.parquet")])


def test_who_takes_what_on_a_gpu(for_the_gpu, monkeypatch):
    monkeypatch.setattr(decoders, "dali_problem", lambda device: None)
    choice = choose_decoder("auto", torch.device("cuda", 0), [for_the_gpu])
    taken = {
        str(for_the_gpu.video(row).path.name)
        for row in range(len(for_the_gpu))
        if choice.routes.takes(for_the_gpu.video(row))
    }
    plain = {name for name in taken if "#" not in name}
    assert plain == {
        "fit.mp4",
        "fit.mkv",
        "fragments.mp4",
        "fields.mp4",
        "rows_368.mp4",
    }  # fields: told by its file only
    assert len(taken) == 8
    assert "5 of 13 videos are for pyav alone (1 codec vp9, 1 container without" in choice.why


@pytest.mark.gpu
@pytest.mark.nvdec
@pytest.mark.parametrize("name", ["auto", "dali"])
def test_on_a_gpu_every_kind_of_video_is_decoded_as_pyav_does(dali, for_the_gpu, name):
    gpu = torch.device("cuda", 0)
    choice = choose_decoder(name, gpu, [for_the_gpu])
    decoder, alone = build_decoder(choice, CLIP, gpu, 8, 26), PyAVDecoder(CLIP, gpu, 4)
    for starts in ((0, 3), (11, 34), (7, 20), (1, 39)):
        asked = [request(for_the_gpu.video(row), start) for start in starts for row in range(len(for_the_gpu))]
        found, expected = decoder.decode(asked), alone.decode(asked)
        assert found.failures == expected.failures == {}
        assert found.frames.is_cuda
        difference = (found.frames.int() - expected.frames.int()).abs().flatten(1).float()
        assert difference.mean(dim=1).max() < 2
        for row, each in enumerate(asked):
            if each.video.width == each.video.height:
                last = np.minimum(each.start + np.arange(6), each.video.num_frames - 1)
                assert numbers(found.frames[row].cpu().numpy()) == last.tolist(), each.video.path.name
    assert choice.routes.clips["dali"] > 0
    failed = {path.name for path, *_ in choice.routes._failed}
    assert failed == {"fields.mp4"} if name == "dali" else failed <= {"fields.mp4"}, choice.routes.last_failure
    assert choice.routes.num_failed == 2 * len(failed)  # both of its snippets in the first batch, and never again
    decoder.close()
    alone.close()


@pytest.mark.gpu
@pytest.mark.nvdec
def test_on_a_gpu_the_choice_is_made_and_clips_may_be_used_at_once(dali, for_the_gpu):
    gpu = torch.device("cuda", 0)
    fit = for_the_gpu.select(np.equal(refusals(NvdecRule.of([for_the_gpu]), for_the_gpu), None))
    choice = choose_decoder("auto", gpu, [fit])
    decoder = build_decoder(choice, CLIP, gpu, 8, 16)
    rng = np.random.default_rng(0)
    rows = [rng.integers(len(fit), size=16).tolist() for _ in range(2000)]
    sums, asked = [], []
    batches = ([request(fit.video(row), row) for row in part] for part in rows)
    for part, found in zip(rows, decode_in_order(decoder, batches), strict=False):
        assert not found.failures
        sums.append(found.frames.float().mean(dim=(1, 2, 3, 4)))
        asked += part
        if choice.routes.share.is_settled and len(sums) > 40:
            break
    assert choice.routes.share.is_settled
    print(choice.routes.share.news[0])
    expected = PyAVDecoder(CLIP, gpu, 4).decode([request(fit.video(row), row) for row in range(len(fit))])
    means = expected.frames.float().mean(dim=(1, 2, 3, 4))
    assert (torch.cat(sums) - means[asked]).abs().max() < 2  # each row has the clip that was asked for
    assert means.std() > 0
    decoder.close()
