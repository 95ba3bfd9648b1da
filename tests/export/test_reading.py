"""What the card says of making clips, run as it stands there, shows the frames that the engine's own decoder shows."""

import struct
import wave

import av
import numpy as np
import pytest
import torch
from PIL import Image

from engine.config import Config
from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.encode import write_video
from engine.data.pyav.probe import probe
from engine.data.sampling.sampler import evaluation_starts
from engine.export.reading import reading_code
from engine.schema.parser import parse
from tests.data.odd_files import draw_several
from tests.data.pyav.test_convert import KINDS, scene, upside_down
from tests.data.pyav.test_streams import SEVERAL
from tests.data.videos import describe, remux

FILES = {  # width, height, frames, clockwise rotation, snippets, clip
    "long.mp4": (96, 64, 120, 0, 3, ClipFormat(4, 5, 35, 32)),
    "turned.mp4": (96, 64, 12, 90, 2, ClipFormat(3, 2, 40, 33)),
    "upside_down.mov": (64, 96, 12, 180, 1, ClipFormat(2, 1, 33, 32)),
    "short.avi": (66, 90, 5, 0, 2, ClipFormat(8, 2, 32, 32)),
    "odd.mkv": (75, 101, 9, 0, 2, ClipFormat(1, 1, 37, 32)),
}
SAME = 0.05  # of a level: pixels that are rounded otherwise
WRONG = [  # what a reader might do in place of what the card says: which file tells, the card's words, others
    ("long.mp4", "Image.BILINEAR", "Image.NEAREST"),
    ("long.mp4", "image.resize(size, Image.BILINEAR)", "cv2.resize(numpy.asarray(image), size)"),
    ("turned.mp4", "-quarter_turns(picture)", "0"),
    ("turned.mp4", "-quarter_turns(picture)", "quarter_turns(picture)"),
    ("upside_down.mov", "-quarter_turns(picture)", "0"),
    ("odd.mkv", "(side * short_side + short // 2) // short", "int(side * short_side / short - 0.5)"),
    ("long.mp4", "numpy.linspace(0, room, snippets)", "numpy.linspace(0, room, snippets + 2)[1:-1]"),
    ("upside_down.mov", "[room // 2]", "[0]"),
    ("short.avi", "numpy.minimum(starts[:, None] + numpy.arange(frames) * stride, count - 1)",
     "(starts[:, None] + numpy.arange(frames) * stride) % count"),
    ("turned.mp4", "round((side - crop) / 2)", "0"),
]  # fmt: skip


def drawn(width, height, count):
    """Frames of grey detail that moves by, tinted, with a lamp that grows brighter."""
    generator = np.random.default_rng(0)
    wide = generator.integers(40, 216, (height, width + 2 * count, 1)) * np.array([1, 0.9, 0.8])
    wide = (wide + np.roll(wide, 1, 0) + np.roll(wide, 1, 1) + np.roll(wide, (1, 1), (0, 1))) / 4
    for number in range(count):
        frame = wide[:, 2 * number : 2 * number + width].astype(np.uint8).copy()
        frame[height // 3 : height // 2, width // 3 : width // 2] = 20 + 200 * number // count
        yield frame


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    for name, (width, height, count, rotation, *_) in FILES.items():
        plain = {"pixel_format": "yuv444p"} if width % 2 else {}
        write_video(folder / name, drawn(width, height, count), rotation=rotation, **plain)
    return folder


def config_of(clip, snippets):
    section = {"num_frames": clip.num_frames, "stride": clip.stride, "short_side": clip.short_side, "crop": clip.crop}
    return parse(Config, {"clip": section, "evaluate": {"num_snippets": snippets}})


def read(code, path):
    """uint8 [snippets, frames, crop, crop, 3] of a file by the card's source."""
    names = {}
    exec(code, names)
    return np.asarray(names["clips_of"](str(path)))[0]


def own(path, rotation, snippets, clip, **changes):
    """The same by the engine; `changes` of what it knows of the file."""
    video = describe(path, rotation=rotation, **changes)
    starts = evaluation_starts(video.num_frames, snippets, clip.span)
    decoder = PyAVDecoder(clip, torch.device("cpu"), 1)
    requests = [SnippetRequest(video, int(start), 0.5, 0.5, False) for start in starts]
    decoded = decoder.decode(requests)
    decoder.close()
    assert not decoded.failures
    return decoded.frames.numpy()


def difference(one, other):
    """Mean of what the pixels differ by; endless where they are not as many."""
    return np.abs(one.astype(int) - other).mean() if one.shape == other.shape else np.inf


@pytest.mark.parametrize("name", FILES)
def test_the_clips_are_the_engines_own(name, files):
    *_, rotation, snippets, clip = FILES[name]
    found = read(reading_code(config_of(clip, snippets), "torch"), files / name)
    assert found.dtype == np.uint8 and found.shape == (snippets, clip.num_frames, clip.crop, clip.crop, 3)
    assert difference(found, own(files / name, rotation, snippets, clip)) < SAME


@pytest.mark.parametrize(("name", "said", "other"), WRONG)
def test_nothing_that_is_said_may_be_done_otherwise(name, said, other, files):
    *_, rotation, snippets, clip = FILES[name]
    code = reading_code(config_of(clip, snippets), "numpy")
    assert code.count(said) == 1
    found = read("import cv2\n" + code.replace(said, other), files / name)
    assert difference(found, own(files / name, rotation, snippets, clip)) > 5


@pytest.mark.parametrize("name", [*KINDS, "odd.webm", "rgb.mkv", "grey.mp4", "palette.gif"])
def test_colours_are_the_engines_own(name, tmp_path):
    others = {
        "odd.webm": {"codec": "libvpx-vp9"},
        "rgb.mkv": {"codec": "ffv1", "pixel_format": "bgr0"},
        "grey.mp4": {"pixel_format": "gray", "full_range": True},
        "palette.gif": {"codec": "gif", "pixel_format": "rgb8"},
    }
    shown = scene()[:101, :163] if name == "odd.webm" else scene()
    write_video(tmp_path / name, [shown] * 3, **(KINDS | others)[name])
    clip = ClipFormat(2, 1, min(shown.shape[:2]), 96)
    found, expected = read(reading_code(config_of(clip, 1), "numpy"), tmp_path / name), own(tmp_path / name, 0, 1, clip)
    assert difference(found, expected) < SAME and np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("name", SEVERAL)
def test_of_several_streams_the_engines_own_is_read(name, tmp_path):
    clip, path = ClipFormat(2, 3, 64, 56), draw_several(tmp_path / name, SEVERAL[name][0])
    assert difference(read(reading_code(config_of(clip, 2), "numpy"), path), own(path, 0, 2, clip)) < SAME


def test_frames_stored_bottom_up(tmp_path):
    write_video(tmp_path / "v.mp4", [scene()])
    names = {}
    exec(reading_code(config_of(ClipFormat(1, 1, 32, 32), 1), "numpy"), names)
    (frame,) = names["pictures"](str(tmp_path / "v.mp4"))
    flipped = upside_down(frame)
    assert flipped.planes[0].line_size < 0
    assert np.array_equal(names["as_rgb"](flipped), names["as_rgb"](frame)[::-1])


@pytest.mark.parametrize(("a", "d", "rotation"), [(-1, 1, 0), (1, -1, 180), (-1, -1, 180)])
def test_mirroring_is_not_followed(files, tmp_path, a, d, rotation):
    """As a front camera writes it, or a filter that stands a video on its head."""
    data = bytearray((files / "long.mp4").read_bytes())
    place = data.index(b"tkhd") + 44  # the matrix of version 0 of the box
    assert struct.unpack_from(">9i", data, place) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", data, place, a << 16, 0, 0, 0, d << 16, 0, 0, 0, 1 << 30)
    (tmp_path / "mirrored.mp4").write_bytes(data)
    *_, snippets, clip = FILES["long.mp4"]
    assert probe(tmp_path / "mirrored.mp4").rotation == rotation
    found = read(reading_code(config_of(clip, snippets), "numpy"), tmp_path / "mirrored.mp4")
    assert difference(found, own(tmp_path / "mirrored.mp4", rotation, snippets, clip)) < SAME


def test_frames_with_exif_are_turned_by_it(tmp_path):
    """PyAV has no name for that kind of side data."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    picture = Image.fromarray(next(drawn(96, 64, 1)))
    picture.save(tmp_path / "plain.jpg")
    picture.save(tmp_path / "turned.jpg", exif=exif)
    code = reading_code(config_of(ClipFormat(1, 1, 36, 32), 1), "numpy")
    plain, turned = (read(code, tmp_path / f"{name}.jpg")[0, 0] for name in ("plain", "turned"))
    assert difference(turned, np.rot90(plain, -1)) < SAME
    assert difference(turned, plain) > 5


def test_what_decodes_of_a_damaged_video_is_read_and_a_file_without_pictures_is_named(files, tmp_path):
    *_, snippets, clip = FILES["long.mp4"]
    code = reading_code(config_of(clip, snippets), "numpy")
    remux(files / "long.mp4", tmp_path / "whole.flv")
    whole = (tmp_path / "whole.flv").read_bytes()
    (tmp_path / "cut.flv").write_bytes(whole[: -len(whole) // 20])
    left = probe(tmp_path / "cut.flv")
    assert left.damage and left.num_frames < 120
    with pytest.raises(av.error.InvalidDataError):
        describe(tmp_path / "cut.flv")
    expected = own(tmp_path / "whole.flv", 0, snippets, clip, num_frames=left.num_frames)
    assert difference(read(code, tmp_path / "cut.flv"), expected) < SAME
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(8000))
    with pytest.raises(ValueError, match=r"sound\.wav: no picture in it can be decoded"):
        read(code, tmp_path / "sound.wav")
