"""A decoder that crashes or hangs in a process of its own, and the one that is built so: DALI on the CPU."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from engine.data.batch import ClipFormat, DecodedClips, SnippetRequest
from engine.data.decoders import build_decoder
from engine.data.isolated import IsolatedDecoder
from tests.data.videos import describe, write_numbered

CLIP = ClipFormat(num_frames=2, short_side=16, crop=16)
CRASH, HANG, BAD = 13, 66, 99


class Delicate:
    """Fills each clip with its first frame's number; some numbers it does not survive."""

    name = "delicate"

    def decode(self, requests):
        starts = [request.start for request in requests]
        if CRASH in starts:
            os.kill(os.getpid(), signal.SIGSEGV)
        if HANG in starts:
            time.sleep(3600)
        frames = torch.tensor(starts, dtype=torch.uint8)[:, None, None, None, None].expand(-1, 2, 16, 16, 3)
        return DecodedClips(frames.contiguous(), {place: "bad" for place, start in enumerate(starts) if start == BAD})

    def close(self):
        raise AssertionError("its process is ended, nobody asks")


def requests_of(video, starts):
    return [SnippetRequest(video, start, 0.5, 0.5, False) for start in starts]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return describe(write_numbered(tmp_path_factory.mktemp("videos") / "x.webm", num_frames=12, size=(64, 48)))


def test_what_kills_the_decoder_is_found_and_the_others_are_decoded(video):
    decoder = IsolatedDecoder("delicate", Delicate, CLIP, max_batch_size=4, time_limit_s=1.5)
    starts = [1, 2, CRASH, 4, 5, BAD, 7, HANG, 9]
    try:
        found = decoder.decode(requests_of(video, starts))
        assert found.failures.keys() == {2, 5, 7}
        assert found.failures[2] == (
            "delicate cannot decode it (the process that read it died (signal SIGSEGV)); data.decoder=pyav may"
        )
        assert (found.failures[5], "stopped after 1.5 s" in found.failures[7]) == ("bad", True)
        good = [place for place in range(len(starts)) if place not in found.failures]
        assert [int(found.frames[place].unique()) for place in good] == [starts[place] for place in good]
        assert decoder.num_crashes == 6  # 4 -> 2 -> 1, twice
        pid = decoder._worker.process.pid
    finally:
        decoder.close()
    assert not Path(f"/proc/{pid}").exists()


def test_dali_on_the_cpu_is_one_and_gives_the_same_frames(dali, video):
    direct = dali.DaliDecoder(CLIP, torch.device("cpu"), 1, 2)
    isolated = build_decoder("dali", CLIP, torch.device("cpu"), 1, 2)
    requests = requests_of(video, [0, 3, 5])
    expected, found = direct.decode(requests), isolated.decode(requests)
    for decoder in (direct, isolated):
        decoder.close()
    assert isolated.name == "dali"
    assert isinstance(isolated.decoders["dali"], IsolatedDecoder)
    assert found.failures == expected.failures == {}
    assert torch.equal(found.frames, expected.frames)
