"""DALI's CPU backend on files as found in the wild: PyAV's pixels, or a reason; a sound snippet beside them is never lost."""

from functools import partial
from pathlib import Path

import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest, Video
from engine.data.pyav.decode import PyAVDecoder
from engine.evaluation.inference import manifest_of_files
from engine.processes.process_pool import Lost, run_isolated
from tests.data.videos import describe, pack_rows, write_numbered

CPU = torch.device("cpu")
CLIP = ClipFormat(num_frames=4, stride=1, short_side=64, crop=56)
ON_A_CPU = {"vp8", "vp9", "mjpeg"}  # what DALI decodes there


def as_indexed(path: Path) -> Video:
    """The row that indexing writes; of a file that is refused, one that claims it is sound."""
    indexed, _ = manifest_of_files([path])
    return indexed.video(0) if indexed else Video(path, 16, 0, 16, 320, 240, 0, "vp9", path.stat().st_size, (0,), (0,))


def examine(path: Path, beside: Path) -> tuple[str, dict[int, str], float]:
    """The codec, the failures at the start and the end, and the largest mean difference from PyAV where there are none."""
    from engine.data.dali.decode import DaliDecoder

    video, decoder, other = as_indexed(path), DaliDecoder(CLIP, CPU, 1, 4), PyAVDecoder(CLIP, CPU, 1)
    asked = [SnippetRequest(video, start, 0.3, 0.6, False) for start in (0, max(0, video.num_frames - 4))]
    found = decoder.decode([*asked, SnippetRequest(describe(beside), 3, 0.5, 0.5, False)])
    good = [index for index in (0, 1) if index not in found.failures]
    expected = other.decode(asked)
    decoder.close()
    other.close()
    assert not set(good) & expected.failures.keys()  # never a frame where PyAV has none
    difference = (found.frames[good].int() - expected.frames[good].int()).abs().float().mean(dim=(1, 2, 3, 4))
    return video.codec, found.failures, float(difference.max()) if good else 0.0


@pytest.mark.slow
def test_every_file_from_the_wild_agrees_with_pyav_or_is_refused(dali, shared_data, tmp_path):
    rows = dict(pack_rows(shared_data, max_frames=9_999))  # without two of six minutes each
    sound = write_numbered(tmp_path / "sound.webm", "libvpx-vp9")
    seen = {"decoded": 0, "refused": 0, "refused that must be": 0}
    for path, found in run_isolated(partial(examine, beside=sound), rows, 1, 300.0):
        assert not isinstance(found, Lost), (path.name, found)
        codec, failures, difference = found
        assert 2 not in failures, path.name
        assert all(failures.values()), path.name
        assert difference < 0.5, path.name
        must_fail = rows[path]["why"].startswith("MUST FAIL")
        seen["refused that must be"] += must_fail and len(failures) == 2
        seen["decoded"] += not failures and not must_fail
        seen["refused"] += bool(failures) and not must_fail
        if codec in ON_A_CPU and not must_fail:
            assert not failures, (path.name, failures)
    print(seen)
    assert seen["refused that must be"] == sum(row["why"].startswith("MUST FAIL") for row in rows.values())
    assert seen["decoded"] >= 9
