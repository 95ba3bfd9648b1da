"""Videos damaged at random: no crash, no hang, no unbounded memory, no wrong count that nobody notices.

Each variant is a pure function of (codec, number). It is probed and decoded in a process of its own, first as
a file that was damaged before it was indexed, then as one that was whole when it was indexed.
"""

import contextlib
import random
from collections import Counter
from functools import partial
from pathlib import Path

import av
import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest, Video
from engine.data.pyav import packets
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.probe import ProbeError, probe
from engine.machine import resident_bytes
from engine.processes.process_pool import Lost, run_isolated
from tests.data.videos import describe, write_numbered

CLIP = ClipFormat(num_frames=4, stride=1, short_side=32, crop=32)
FILES = {"h264.mp4": "libx264", "mpeg4.avi": "mpeg4", "vp9.webm": "libvpx-vp9", "mjpeg.avi": "mjpeg"}
TIME_LIMIT_S = 20.0
START_LIMIT_S = 300.0  # of a process, with its imports, on a busy machine
MEMORY_LIMIT = 2**30  # bytes, of the process that reads them all


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_each_codec(tmp_path_factory.mktemp("fuzz"))


def write_each_codec(folder: Path) -> Path:
    """A small sound video of each of `FILES`; returns the folder."""
    for name, codec in FILES.items():
        pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        write_numbered(folder / name, codec, num_frames=24, size=(64, 48), gop=8, pixel_format=pixel_format)
    return folder


def damage(data: bytes, number: int) -> bytes:
    """Bits flipped, cut off, grown, or a stretch overwritten."""
    draw, changed = random.Random(number), bytearray(data)
    match number % 4:
        case 0:
            for _ in range(draw.choice((1, 3, 30, 300))):
                changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        case 1:
            del changed[draw.randrange(len(changed)) :]
        case 2:
            offset = draw.choice((0, draw.randrange(len(changed)), len(changed)))
            changed[offset:offset] = draw.randbytes(draw.choice((1, 100, 5000)))
        case 3:
            offset, length = draw.randrange(len(changed)), draw.choice((4, 64, 1000))
            changed[offset : offset + length] = draw.choice((bytes(length), draw.randbytes(length)))
    return bytes(changed)


def examine(variant: tuple[str, int], folder: Path) -> tuple[str, str, int]:
    """What comes of a variant: as indexed damaged, as damaged after indexing, and the memory used so far."""
    name, number = variant
    whole = describe(folder / name)
    path = folder / f"damaged_{name}"
    path.write_bytes(damage((folder / name).read_bytes(), number))
    # Half of them as if they were long: counted by packets where the packets look sound.
    packets.DECODE_BUDGET = 0 if number % 8 < 4 else 64e6
    try:
        found = probe(path, time_limit_s=TIME_LIMIT_S)
    except ProbeError as error:
        before = f"refused: {error.kind}"
    else:
        row = Video(
            path, found.num_frames, 0, found.num_frames, found.width, found.height, found.rotation, found.codec,
            path.stat().st_size, found.key_frames, found.key_pts,
        )  # fmt: skip
        count, failures = count_by_hand(path), decode(row)
        before = "indexed" if count == found.num_frames else f"WRONG COUNT by {found.counted_by}"
        if count < found.num_frames and found.counted_by == "packets" and failures:
            before = "indexed, the frames that are not there fail in the decoder"
    stale = Video(**{key: getattr(whole, key) for key in Video.__slots__} | {"path": path})
    failures = decode(stale)
    is_resized = path.stat().st_size != whole.file_bytes
    after = "failed" if failures else "decoded"
    if is_resized and len(failures) != 3:
        after = "ANOTHER SIZE AND NOT REFUSED"
    return before, after, peak_memory()


def peak_memory() -> int:
    """Bytes of this process."""
    return resident_bytes("VmHWM")


def count_by_hand(path: Path) -> int:
    """Frames that come out of one pass, without those of packets that fail."""
    count = 0
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        for packet in container.demux(stream):
            with contextlib.suppress(av.FFmpegError):
                count += len(packet.decode())
    return count


def decode(video: Video) -> dict[int, str]:
    decoder = PyAVDecoder(CLIP, torch.device("cpu"), 1, time_limit_s=TIME_LIMIT_S)
    try:
        starts = (0, video.num_frames // 2, max(0, video.num_frames - CLIP.span))
        return decoder.decode([SnippetRequest(video, start, 0.5, 0.5, False) for start in starts]).failures
    finally:
        decoder.close()


def fuzz(folder, count):
    variants = [(name, number) for number in range(count // len(FILES)) for name in FILES]
    outcomes: Counter[tuple[str, str]] = Counter()
    peak = 0
    for variant, result in run_isolated(partial(examine, folder=folder), variants, 1, START_LIMIT_S):
        assert not isinstance(result, Lost), (variant, result)
        before, after, memory = result
        assert "WRONG" not in before, (variant, before)
        assert "NOT REFUSED" not in after, (variant, after)
        outcomes[before, after] += 1
        peak = max(peak, memory)
    print(dict(outcomes), f"peak {peak / 2**20:.0f} MiB")
    assert peak < MEMORY_LIMIT
    assert sum(outcomes.values()) == len(variants)
    return outcomes


def test_damaged_videos_are_refused_or_counted_right(folder):
    outcomes = fuzz(folder, 160)
    assert any(before.startswith("refused") for before, _ in outcomes)  # it did damage
    assert any(before == "indexed" for before, _ in outcomes)  # and not only to nothing


@pytest.mark.slow
def test_two_thousand_damaged_videos(folder):
    fuzz(folder, 2000)


def test_files_that_change_shrink_or_vanish_after_indexing_are_named(folder, tmp_path):
    """Between indexing and decoding, and while a decoder is already at work on others."""
    whole = folder / "h264.mp4"
    path = tmp_path / "x.mp4"
    path.write_bytes(whole.read_bytes())
    video = describe(path)
    assert decode(video) == {}
    path.write_bytes(whole.read_bytes()[:-1])
    assert set(decode(video).values()) == {
        f"it has {video.file_bytes - 1} bytes, but had {video.file_bytes} when it was indexed: index it again"
    }
    path.write_bytes(whole.read_bytes() + b"!")
    assert "bytes, but had" in decode(video)[0]
    path.write_bytes((folder / "vp9.webm").read_bytes().ljust(video.file_bytes, b"\0")[: video.file_bytes])
    assert len(decode(video)) == 3  # the same size, another video
    path.unlink()
    assert set(decode(video).values()) == {"the file is missing"}
    path.mkdir()
    assert len(decode(video)) == 3
