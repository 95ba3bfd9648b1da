"""Files written by `write_video` are what they claim to be when FFmpeg reads them back."""

import av
import numpy as np
import pytest

from engine.data.pyav.encode import write_video
from engine.errors import InputError
from tests.data.videos import numbered_frame, numbers

LOSSLESS = {"crf": "0", "preset": "ultrafast"}


def frames(count=12, width=64, height=64):
    return [numbered_frame(number, width, height) for number in range(count)]


def read(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream, list(container.decode(stream))


@pytest.mark.parametrize(
    ("codec", "suffix", "pixel_format"),
    [
        ("libx264", ".mp4", "yuv420p"),
        ("libx264", ".mkv", "yuv444p10le"),
        ("libx264", ".ts", "yuv422p"),
        ("libx265", ".mp4", "yuv420p10le"),
        ("libvpx-vp9", ".webm", "yuv420p"),
        ("libvpx-vp9", ".mp4", "yuv444p"),
        ("libvpx", ".webm", "yuv420p"),
        ("mpeg4", ".avi", "yuv420p"),
        ("mpeg4", ".mp4", "yuv420p"),
        ("mjpeg", ".avi", "yuvj420p"),
        ("mjpeg", ".mkv", "yuv420p"),
        ("mjpeg", ".mp4", "yuvj444p"),
    ],
)
def test_every_codec_gives_back_the_frames(tmp_path, codec, suffix, pixel_format):
    path = tmp_path / f"v{suffix}"
    assert write_video(path, iter(frames()), codec=codec, pixel_format=pixel_format, gop=5) == 12
    _, decoded = read(path)
    assert numbers(np.stack([frame.to_ndarray(format="rgb24") for frame in decoded])) == list(range(12))
    wanted = (
        pixel_format.replace("yuv420p", "yuvj420p") if codec == "mjpeg" and "j" not in pixel_format else pixel_format
    )
    assert decoded[0].format.name == wanted
    keys = [index for index, frame in enumerate(decoded) if frame.key_frame]
    assert keys == (list(range(12)) if codec == "mjpeg" else [0, 5, 10])


def test_frame_rate_and_own_times(tmp_path):
    write_video(tmp_path / "constant.mp4", frames(), fps=29.97)
    stream, decoded = read(tmp_path / "constant.mp4")
    assert float(stream.average_rate) == pytest.approx(29.97, abs=0.01)
    assert [frame.time for frame in decoded] == pytest.approx([index / 29.97 for index in range(12)], abs=1e-3)

    times = [0, 0.04, 0.05, 0.3, 0.31, 0.35, 1, 1.2, 1.25, 2, 2.01, 3.5]
    write_video(tmp_path / "variable.mp4", frames(), times=times)
    assert [frame.time for frame in read(tmp_path / "variable.mp4")[1]] == pytest.approx(times, abs=1e-4)


def test_colour_tags_are_written_and_true(tmp_path):
    """A flat colour in each tagged form gives the YCbCr values that the standard's formula gives."""
    color = np.array([200, 60, 30], np.uint8)
    flat = [np.broadcast_to(color, (32, 32, 3))] * 2
    weights = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
    tags = {"bt601": 6, "bt709": 1, "bt2020": 9, None: 2}
    for colorspace in (None, "bt601", "bt709", "bt2020"):
        for full in (False, True):
            path = tmp_path / "v.mp4"
            write_video(path, flat, pixel_format="yuv444p", colorspace=colorspace, full_range=full, options=LOSSLESS)
            frame = read(path)[1][0]
            assert frame.colorspace == tags[colorspace]
            assert frame.color_range == (2 if full else 1 if colorspace else 0)
            kr, kb = weights[colorspace or "bt601"]
            r, g, b = color.astype(float)
            luma = kr * r + (1 - kr - kb) * g + kb * b
            scale, offset = ((1, 1), 0) if full else ((219 / 255, 224 / 255), 16)
            blue, red = (b - luma) / (2 - 2 * kb), (r - luma) / (2 - 2 * kr)
            expected = [luma * scale[0] + offset, blue * scale[1] + 128, red * scale[1] + 128]
            found = [np.frombuffer(plane, np.uint8).reshape(32, -1)[8, 8] for plane in frame.planes]
            assert np.abs(np.subtract(found, expected)).max() < 1, (colorspace, full)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_is_clockwise_and_changes_no_frame(tmp_path, suffix, rotation):
    write_video(tmp_path / f"plain{suffix}", frames(3))
    write_video(tmp_path / f"turned{suffix}", frames(3), rotation=rotation)
    _, plain = read(tmp_path / f"plain{suffix}")
    _, turned = read(tmp_path / f"turned{suffix}")
    assert -turned[0].rotation % 360 == rotation  # FFmpeg counts counter-clockwise
    for one, other in zip(plain, turned, strict=True):
        assert np.array_equal(one.to_ndarray(format="rgb24"), other.to_ndarray(format="rgb24"))


def test_equal_frames_give_equal_bytes_and_nothing_else_is_left(tmp_path):
    """By x264's own defaults, frames of 64 pixels give a dozen different files in 40 writes."""
    random, written = np.random.default_rng(0), set()
    for _ in range(40):
        write_video(tmp_path / "v.mp4", frames(3))
        written.add((tmp_path / "v.mp4").read_bytes())
        dirty = [random.integers(0, 255, size, np.uint8) for size in random.integers(1000, 400_000, 30)]
        del dirty  # memory that the next encoder will find used
    assert len(written) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("v.mp4", {"codec": "nosuch"}, "nosuch"),
        ("v.webm", {"codec": "libx264"}, "webm"),
        ("v.nosuch", {}, "output format"),
        ("v.mp4", {"pixel_format": "yuv410p"}, "yuv410p"),
        ("v.mp4", {"pixel_format": "nosuch"}, "nosuch"),
        ("v.mkv", {"rotation": 90}, "rotation 90"),
        ("v.mp4", {"rotation": 45}, "rotation 45"),
        ("v.mp4", {"colorspace": "bt1"}, "bt601, bt709, bt2020"),
        ("v.mp4", {"times": [0.0, 0.1]}, "2 times"),
        ("nowhere/v.mp4", {}, "No such file"),
    ],
)
def test_what_cannot_be_written_is_an_input_error(tmp_path, name, settings, reason):
    with pytest.raises(InputError, match=reason):
        write_video(tmp_path / name, frames(3), **settings)
    assert not list(tmp_path.iterdir())


def test_unfit_frames_are_input_errors(tmp_path):
    path = tmp_path / "v.mp4"
    with pytest.raises(InputError, match="no frames"):
        write_video(path, [])
    with pytest.raises(InputError, match=r"frame 1 has shape \(32, 64, 3\)"):
        write_video(path, [numbered_frame(0, 64, 64), numbered_frame(1, 64, 32)])
    with pytest.raises(InputError, match="65x64"):
        write_video(path, frames(2, width=65))  # x264 cannot halve 65
    assert not list(tmp_path.iterdir())


def test_an_existing_file_survives_a_failed_write(tmp_path):
    path = tmp_path / "v.mp4"
    write_video(path, frames(3))
    before = path.read_bytes()
    with pytest.raises(InputError):
        write_video(path, [numbered_frame(0, 64, 64), numbered_frame(1, 64, 32)])
    assert path.read_bytes() == before
