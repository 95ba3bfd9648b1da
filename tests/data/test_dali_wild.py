"""DALI's CPU backend on files as found in the wild: PyAV's pixels, or a reason; a sound snippet beside them is never lost."""

from pathlib import Path

import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest, Video
from engine.data.decoders import build_decoder
from engine.data.pyav.decode import PyAVDecoder
from engine.inference import manifest_of_files
from tests.data.videos import describe, pack_rows, write_numbered

CPU = torch.device("cpu")
CLIP = ClipFormat(num_frames=4, stride=1, short_side=64, crop=56)
ON_A_CPU = {"vp8", "vp9", "mjpeg"}  # what DALI decodes there


def as_indexed(path: Path) -> Video:
    """The row that indexing writes; of a file that is refused, one that claims it is sound."""
    indexed, _ = manifest_of_files([path])
    return indexed.video(0) if indexed else Video(path, 16, 0, 16, 320, 240, 0, "vp9", path.stat().st_size, (0,), (0,))


@pytest.mark.slow
def test_every_file_from_the_wild_agrees_with_pyav_or_is_refused(dali, shared_data, tmp_path):
    rows = pack_rows(shared_data, max_frames=9_999)  # without two of six minutes each
    sound = SnippetRequest(describe(write_numbered(tmp_path / "sound.webm", "libvpx-vp9")), 3, 0.5, 0.5, False)
    decoder, other = build_decoder("dali", CLIP, CPU, 1, 4).decoders["dali"], PyAVDecoder(CLIP, CPU, 1)
    seen = {"decoded": 0, "refused": 0, "refused that must be": 0}
    try:
        for path, row in rows:
            video = as_indexed(path)
            asked = [SnippetRequest(video, start, 0.3, 0.6, False) for start in (0, max(0, video.num_frames - 4))]
            found = decoder.decode([*asked, sound])
            assert 2 not in found.failures, path.name
            assert all(found.failures.values()), path.name
            must_fail = row["why"].startswith("MUST FAIL")
            seen["refused that must be"] += must_fail and len(found.failures) == 2
            seen["decoded"] += not found.failures and not must_fail
            seen["refused"] += bool(found.failures) and not must_fail
            if video.codec in ON_A_CPU and not must_fail:
                assert not found.failures, (path.name, found.failures)
            good = [place for place in (0, 1) if place not in found.failures]
            expected = other.decode(asked)
            assert not set(good) & expected.failures.keys(), path.name  # never a picture where PyAV has none
            difference = (found.frames[:2].int() - expected.frames.int()).abs().float()[good]
            assert difference.numel() == 0 or difference.mean(dim=(1, 2, 3, 4)).max() < 0.5, path.name
    finally:
        decoder.close()
        other.close()
    print({**seen, "crashes": decoder.num_crashes})
    assert seen["refused that must be"] == sum(row["why"].startswith("MUST FAIL") for _, row in rows)
    assert seen["decoded"] >= 9
