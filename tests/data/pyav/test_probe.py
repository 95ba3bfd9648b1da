"""What the probe says of real files: counts, facts, exact key frames, and one clear reason for each bad file."""

import gc
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from engine.data.pyav import packets
from engine.data.pyav.encode import write_video
from engine.data.pyav.probe import REASONS, ProbeError, probe
from engine.data.pyav.seeks import frame_sum
from engine.data.stills import probe_still
from tests.data.videos import hide_frames, numbered_frame, numbers, pack_rows, remux

COUNT, SIZE, GOP = 60, (96, 64), 12
OPEN_GOP = {"bf": "3", "x264-params": "open-gop=1:b-pyramid=normal:scenecut=0"}
X265 = {"x265-params": "log-level=none:pools=none:bframes=3:open-gop=1"}
INTRA_REFRESH = {"bf": "0", "x264-params": "intra-refresh=1:keyint=20:scenecut=0"}

# name -> how to write it, whether key frames besides the first are to be found
KINDS = {
    "b_frames.mp4": ({"options": {"bf": "3", "x264-params": "scenecut=0"}}, True),
    "open_gop.mp4": ({"options": OPEN_GOP}, True),
    "open_gop.mkv": ({"options": OPEN_GOP}, True),
    "hevc_open_gop.mp4": ({"codec": "libx265", "options": X265}, True),
    "variable_rate.mp4": ({"times": [round(index**1.2 / 25, 3) for index in range(COUNT)]}, True),
    "ten_bit.mp4": ({"pixel_format": "yuv420p10le"}, True),
    "vp9.webm": ({"codec": "libvpx-vp9"}, True),
    "mjpeg.avi": ({"codec": "mjpeg", "pixel_format": "yuvj420p", "options": {"qmax": "5"}}, True),
    "mpeg4.avi": ({"codec": "mpeg4"}, True),
    "mpeg4_b_frames.avi": ({"codec": "mpeg4", "options": {"bf": "2"}}, True),
    "h264.ts": ({"options": {"bf": "2"}}, False),
    "mpeg2.mpg": ({"codec": "mpeg2video"}, False),
    "h264.flv": ({}, False),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("probe")


def write(path, count=COUNT, **settings):
    write_video(path, (numbered_frame(number, *SIZE) for number in range(count)), **{"gop": GOP, **settings})
    return path


def sequential(path):
    """The frames' numbers in the order in which a decoder that begins at the start gives them."""
    with av.open(str(path)) as container:
        return numbers(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]))


def after_seek(path, pts, count=3):
    """Numbers of the first frames from time stamp `pts` on, after a seek to it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        container.seek(pts, stream=stream)
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream) if frame.pts >= pts]
    return numbers(np.stack(frames))[:count]


def frames_and_threads():
    """How many frames the process holds, and threads of whatever language."""
    threads = len(list(Path("/proc/self/task").iterdir()))
    return sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects()), threads


@pytest.mark.parametrize("name", KINDS)
def test_frames_and_key_frames_are_exact(folder, name):
    settings, has_keys = KINDS[name]
    path = write(folder / name, **settings)
    found = probe(path)
    expected = sequential(path)
    assert found.num_frames == len(expected) == COUNT
    assert (found.width, found.height, found.rotation) == (*SIZE, 0)
    assert len(found.key_frames) == len(found.key_pts)
    assert (len(found.key_frames) > 1) == has_keys
    for frame, pts in zip(found.key_frames, found.key_pts, strict=True):
        assert after_seek(path, pts) == expected[frame : frame + 3]


@pytest.mark.parametrize("name", ["open_gop.mp4", "open_gop.mkv", "b_frames.mp4", "hevc_open_gop.mp4"])
def test_counting_packets_finds_the_same_as_decoding(folder, name, monkeypatch):
    path = write(folder / f"packets_{name}", **KINDS[name][0])
    decoded = probe(path)
    monkeypatch.setattr(packets, "DECODE_BUDGET", 0)
    counted = probe(path)
    assert (decoded.counted_by, counted.counted_by) == ("decoding", "packets")
    assert probe(path, full_decode=True).counted_by == "decoding"
    for name in ("num_frames", "fps", "duration", "key_frames", "key_pts", "codec", "pixel_format"):
        assert getattr(decoded, name) == getattr(counted, name)


def test_packets_that_are_not_frames_are_never_counted(folder, monkeypatch):
    """VP9 with hidden frames, MPEG-4 part 2, edit lists and streams with no header count."""
    monkeypatch.setattr(packets, "DECODE_BUDGET", 0)
    whole = write(folder / "keys_only.webm", codec="libvpx-vp9", gop=1)
    cut = remux(write(folder / "long.mp4", options={"bf": "2"}), folder / "cut.mp4", first_pts=-15)
    for path in (hide_frames(whole, folder / "hidden.webm", 5), write(folder / "x.avi", codec="mpeg4"), cut):
        found = probe(path)
        assert found.counted_by == "decoding"
        assert found.num_frames == len(sequential(path)) < COUNT + (path.name == "x.avi")


def test_an_edit_list_moves_the_numbering(folder):
    path = remux(write(folder / "whole.mp4", options={"bf": "2"}), folder / "edited.mp4", first_pts=-15)
    found, expected = probe(path), sequential(path)
    assert (found.num_frames, found.header_frames) == (COUNT - 15, COUNT)
    assert expected[0] == 15
    assert found.key_frames == tuple(key - 15 for key in (24, 36, 48))
    assert [after_seek(path, pts, 1)[0] for pts in found.key_pts] == [24, 36, 48]


def test_intra_refresh_is_no_place_to_start_from(folder, monkeypatch):
    """Its 'key frames' heal over many frames: a start there would show garbage. Found with and without a decoding."""
    path = write(folder / "refresh.mp4", options=INTRA_REFRESH)
    with av.open(str(path)) as container:
        marked = [packet.pts for packet in container.demux(video=0) if packet.is_keyframe]
    assert len(marked) > 1
    assert set(probe(path).key_frames) <= {0}
    monkeypatch.setattr(packets, "DECODE_BUDGET", 0)
    found = probe(path)
    assert set(found.key_frames) <= {0}
    assert found.num_frames == COUNT


@pytest.mark.parametrize("codec", ["mpeg4", "libx265"])
def test_packets_that_only_call_themselves_key_frames_are_found_out(folder, codec, monkeypatch):
    """A start at them would show a frame without its past: with a decoding the frame differs, else its type does."""
    options = {"libx265": {"x265-params": "log-level=none:pools=none:bframes=0:scenecut=0"}}.get(codec, {})
    source, path = (
        write(folder / f"honest_{codec}.mp4", codec=codec, gop=100, options=options),
        folder / f"lying_{codec}.mp4",
    )
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        for index, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            packet.is_keyframe = index % 7 == 0
            packet.stream = copy
            new.mux(packet)
    assert probe(source).key_frames == (0,)
    for budget in (packets.DECODE_BUDGET, 0):
        monkeypatch.setattr(packets, "DECODE_BUDGET", budget)
        found = probe(path)
        assert (found.num_frames, found.counted_by, found.key_frames) == (COUNT, "decoding", ())


def test_key_frames_that_a_seek_passes_over_are_left_out(folder):
    """MP4 seeks by decoding time: in very short groups the next key frame is decoded before this one is shown."""
    options = {"bf": "3", "x264-params": "open-gop=1:b-pyramid=normal:scenecut=0:keyint=4:min-keyint=1:b-adapt=0"}
    path = write(folder / "short_groups.mp4", gop=4, options=options)
    found, expected = probe(path), sequential(path)
    with av.open(str(path)) as container:
        assert sum(packet.is_keyframe for packet in container.demux(video=0)) > 10
    assert len(found.key_frames) > 0
    assert [after_seek(path, pts) for pts in found.key_pts] == [expected[key : key + 3] for key in found.key_frames]


def test_doubled_time_stamps_leave_no_key_frames(folder):
    """Frames are counted all the same; decoding starts from the beginning."""
    source, path = write(folder / "plain.mp4", gop=1), folder / "doubled.mkv"
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        for index, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            packet.pts = packet.dts = index // 2 * 512
            packet.stream = copy
            new.mux(packet)
    found = probe(path)
    assert found.num_frames == len(sequential(path)) == COUNT
    assert found.key_frames == found.key_pts == ()


def test_frames_are_compared_without_threads_that_a_machine_may_refuse():
    asked = {}

    class Frame:
        def to_ndarray(self, **options):
            asked.update(options)
            return np.zeros((2, 2), np.uint8)

    frame_sum(Frame())
    assert asked == {"format": "gray", "threads": 1}


def test_fragmented_mp4_has_no_header_count(folder):
    source, path = write(folder / "unfragmented.mp4"), folder / "fragmented.mp4"
    with av.open(str(source)) as old, av.open(str(path), "w", options={"movflags": "frag_keyframe+empty_moov"}) as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = copy
                new.mux(packet)
    found = probe(path)
    assert (found.header_frames, found.num_frames) == (0, COUNT)


def test_frame_rate_is_the_average_over_what_is_shown(folder):
    times = [0.1 * index if index < 20 else 2 + 0.02 * (index - 20) for index in range(COUNT)]
    found = probe(write(folder / "two_rates.mp4", times=times))
    assert found.fps == pytest.approx((COUNT - 1) / times[-1], rel=1e-3)
    assert found.duration == pytest.approx(COUNT / found.fps)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_counts_clockwise(folder, degrees):
    assert probe(write(folder / f"turned_{degrees}.mp4", count=3, rotation=degrees)).rotation == degrees


def write_audio(path, codec="aac"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=44100, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = 44100, 0, Fraction(1, 44100)
        container.mux([*stream.encode(samples), *stream.encode(None)])
    return path


def write_encrypted(path):
    source = write(path.with_name("clear.mp4"))
    keys = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "0" * 31 + "1", "encryption_kid": "0" * 31 + "2"}
    with av.open(str(source)) as old, av.open(str(path), "w", options=keys) as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = copy
                new.mux(packet)
    return path


def write_damaged(path):
    """The second half of the frames overwritten."""
    content = bytearray(write(path).read_bytes())
    start = content.index(b"mdat")
    middle = (
        start + (content.index(b"moov") - start) // 2 if content.index(b"moov") > start else (start + len(content)) // 2
    )
    content[middle : middle + 3000] = bytes(range(1, 251)) * 12
    path.write_bytes(content)
    return path


def test_bad_files_have_a_reason(tmp_path):
    good = write(tmp_path / "good.mp4").read_bytes()
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    contents = {
        "nothing.mp4": (b"", "empty"),
        "page.mp4": (b"<html>404 Not Found</html>", "unreadable"),
        "pointer.mp4": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "unreadable"),
        "no_index.mp4": (good[: len(good) // 2], "unreadable"),
        "playlist.mp4": (playlist, "unreadable"),  # must not be followed into the network
    }
    for name, (content, kind) in contents.items():
        (tmp_path / name).write_bytes(content)
        assert reason(tmp_path / name) == kind, name
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")  # opening it would wait for ever
    assert reason(tmp_path / "folder.mp4") == reason(tmp_path / "pipe.mp4") == "unreadable"
    assert reason(tmp_path / "absent.mp4") == "missing"
    assert reason(write_audio(tmp_path / "sound.mp4")) == "no-video"
    assert reason(write_encrypted(tmp_path / "locked.mp4")) == "encrypted"
    assert reason(write_damaged(tmp_path / "damaged.mp4")) == "undecodable"


def reason(path):
    with pytest.raises(ProbeError) as caught:
        probe(path)
    assert caught.value.kind in REASONS
    assert caught.value.text
    return caught.value.kind


def test_time_limit_ends_a_long_decoding(folder):
    path = write(folder / "long_enough.mp4", count=200)
    with pytest.raises(ProbeError) as caught:
        probe(path, time_limit_s=0.0001)
    assert caught.value.kind == "too-slow"


def test_odd_names_are_opened_as_files(folder):
    """FFmpeg would take them for protocols and patterns."""
    for name in ("http: %03d.mp4", "concat:a|b.mp4", "blank and ü.mp4"):
        assert probe(write(folder / name, count=3)).num_frames == 3


def test_a_file_with_foreign_metadata_is_read(folder):
    path = folder / "metadata.mp4"
    path.write_bytes(write(folder / "lavf.mp4", count=3).read_bytes().replace(b"Lavf", b"\xff\xfe\xfa\xfb"))
    assert probe(path).num_frames == 3


def test_files_from_the_wild_are_classified_as_listed(shared_data):
    """All of the decode pack: 77 files with their exact count and facts, 18 that fail with a reason."""
    good, bad, by_packets = 0, [], set()
    for path, row in pack_rows(shared_data):
        if row["why"].startswith("MUST FAIL"):
            bad.append(reason(path))
            continue
        found = probe(path)
        good += 1
        by_packets |= {path.name} if found.counted_by == "packets" else set()
        facts = (found.num_frames, found.codec, found.pixel_format, found.width, found.height, found.rotation)
        listed = (int(float(row["frames"])), row["codec"].replace("libdav1d", "av1"), row["pix"])
        listed += (int(float(row["w"])), int(float(row["h"])), int(-float(row["rotation"]) % 360))
        assert facts == listed, path.name
        assert found.key_frames == tuple(sorted(set(found.key_frames))), path.name
    assert (good, len(bad)) == (77, 18)
    counts = {kind: bad.count(kind) for kind in set(bad)}
    assert counts == {"unreadable": 5, "no-video": 7, "encrypted": 2, "zero-frames": 2, "undecodable": 2}
    assert {"androidx__media__long_1080p_av1.mp4", "androidx__media__long_180p_av1.mp4"} <= by_packets


def test_nothing_of_a_probed_file_waits_for_the_garbage_collector(folder):
    path = write(folder / "left.avi", count=5, codec="mpeg4")
    assert probe(path).counted_by == "decoding"  # by which pictures are converted and compared
    gc.collect()
    gc.disable()
    try:
        before = frames_and_threads()
        for _ in range(10):
            probe(path)
        assert frames_and_threads() == before
    finally:
        gc.enable()


@pytest.mark.parametrize("look", [probe, probe_still])
@pytest.mark.parametrize("brand", [b"heic\0\0\0\0mif1", b"mif1\0\0\0\0heic"])
def test_a_heic_photo_is_refused_with_what_to_do(tmp_path, brand, look):
    """FFmpeg gives the tiles of one as videos of one frame each."""
    path = tmp_path / "IMG_0042.HEIC"
    write_video(tmp_path / "tile.mp4", [numbered_frame(0, 64, 64)])
    data = (tmp_path / "tile.mp4").read_bytes()
    assert data[4:12] == b"ftypisom" and int.from_bytes(data[:4]) >= 20
    path.write_bytes(data[:8] + brand + data[20:])
    with pytest.raises(ProbeError, match=r"a HEIC photo, .*: save it as JPEG") as told:
        look(path)
    assert told.value.kind == "unreadable"


def test_an_avif_that_calls_itself_a_heif_is_no_heic(tmp_path):
    write_video(tmp_path / "one.mp4", [numbered_frame(0, 64, 64)])
    data = (tmp_path / "one.mp4").read_bytes()
    (tmp_path / "one.avif").write_bytes(data[:8] + b"mif1\0\0\0\0avif" + data[20:])
    assert probe(tmp_path / "one.avif").num_frames == 1
