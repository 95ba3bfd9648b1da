"""Matroska in memory: FFmpeg reads back the frames that went in, and takes their start codes for what they are."""

import io

import av
import pytest

from engine.data.dali.matroska import to_matroska
from tests.data.dali.test_parameter_sets import encode


def packets(data):
    with av.open(io.BytesIO(data.tobytes())) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        filtered = av.BitStreamFilterContext("hevc_mp4toannexb", stream)
        read = [packet for packet in container.demux(stream) if packet.size]
        facts = [(bytes(packet), packet.pts, packet.is_keyframe) for packet in read]
        after = [bytes(each) for packet in [*read, None] for each in filtered.filter(packet)]
        return context.codec.canonical_name, (context.width, context.height), facts, after


def test_frames_come_back_as_they_are_each_at_its_time():
    frames = encode(168, 96, codec="hevc")
    codec, size, facts, after = packets(to_matroska(frames, 168, 96, codec_id="V_MPEGH/ISO/HEVC"))
    assert (codec, size) == ("hevc", (168, 96))
    assert facts == [(frame, index, index == 0) for index, frame in enumerate(frames)]
    assert after == frames  # the filter that DALI puts Matroska through adds nothing


def test_more_frames_than_a_cluster_has_times_for():
    assert len(to_matroska([b"x"] * 2**15, 16, 16, codec_id="V_MPEGH/ISO/HEVC")) > 2**15
    with pytest.raises(ValueError, match="32769 frames for one snippet"):
        to_matroska([b"x"] * (2**15 + 1), 16, 16, codec_id="V_MPEGH/ISO/HEVC")
