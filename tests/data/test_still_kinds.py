"""Pictures of every depth and mode look as a viewer shows them, and DALI shows the same or is not given them."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.indexing.dataset import IndexSettings, index_dataset
from engine.data.indexing.probing import probe_file
from engine.data.layouts import read_layout
from engine.data.layouts.walk import VideoFolder
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.findings import ProbeError
from engine.data.stills import StillDecoder, probe_still
from tests.environment import environment

WIDTH, HEIGHT = 48, 32
CPU = torch.device("cpu")
CLIP = ClipFormat(num_frames=2, short_side=32, crop=32)
Y, X = np.mgrid[0:HEIGHT, 0:WIDTH]
LIGHT = X / (WIDTH - 1)  # grey, from black to white
COLOURS = np.stack([LIGHT * 255, Y / (HEIGHT - 1) * 255, np.full_like(LIGHT, 60)], -1).astype(np.uint8)
OPAQUE = Y < HEIGHT // 2  # the lower half is transparent
SHOWN = np.where(OPAQUE[..., None], COLOURS, 255)  # on white, as by a browser


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.rint(values)[..., None], 3, axis=-1)


def written(picture: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, kind, **options)
    return file.getvalue()


def png(color_type: int, depth: int, values: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand, for what PIL does not write. values: [H, W] or [H, W, C], of `depth` bits."""
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in values]
    else:
        bits = np.unpackbits(values.astype(np.uint8).reshape(HEIGHT, -1, 1), axis=-1)[..., 8 - depth :]
        rows = [np.packbits(row).tobytes() for row in bits.reshape(HEIGHT, -1)]
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, color_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def tiff(values: np.ndarray, photometric: int, sample_format: int) -> bytes:
    """An uncompressed grey TIFF by hand, for what PIL does not write."""
    tags = {256: WIDTH, 257: HEIGHT, 258: values.itemsize * 8, 259: 1, 262: photometric, 273: 8, 277: 1, 278: HEIGHT,
            279: values.nbytes, 339: sample_format}  # fmt: skip
    fields = b"".join(struct.pack("<HHII", tag, 4 if tag == 279 else 3, 1, value) for tag, value in tags.items())
    head = struct.pack("<2sHI", b"II", 42, 8 + values.nbytes)
    return head + values.tobytes() + struct.pack("<H", len(tags)) + fields + bytes(4)


def with_alpha(mode: str = "RGBA") -> Image.Image:
    picture = Image.fromarray(COLOURS).convert(mode[:-1])
    picture.putalpha(Image.fromarray(np.where(OPAQUE, 255, 0).astype(np.uint8)))
    return picture


def animated(kind: str) -> bytes:
    white = Image.new("RGB", (WIDTH, HEIGHT), "white")
    options = {"lossless": True} if kind == "WEBP" else {}
    return written(Image.fromarray(COLOURS), kind, save_all=True, append_images=[white, white], **options)


SIXTEEN, LEVELS4 = np.rint(LIGHT * 65535), X * 16 // WIDTH
DEEP = np.stack([SIXTEEN, SIXTEEN[::-1, ::-1], SIXTEEN // 2], -1)
ALPHA16 = np.where(OPAQUE, 65535, 0)[..., None]
GREY8 = np.asarray(Image.fromarray(COLOURS).convert("L"))
PALETTE4 = (b"PLTE", bytes(value for level in range(16) for value in (level * 17,) * 3))
BEHIND_KEY = np.where(LEVELS4 == 3, 255, LEVELS4 * 17)
CMYK = np.stack([255 - COLOURS[..., 0], 255 - COLOURS[..., 1], 255 - COLOURS[..., 2], X * 0 + 80], -1).astype(np.uint8)

# name: (content, what is seen [H, W, 3], largest difference, whether DALI may decode it)
KINDS = {
    "grey_16.png": (lambda: png(0, 16, SIXTEEN), grey(LIGHT * 255), 1, False),
    "grey_16_dark.png": (lambda: png(0, 16, X), grey(X / 257), 1, False),
    "grey_16_one_value_clear.png": (
        lambda: png(0, 16, LEVELS4 * 4369, (b"tRNS", struct.pack(">H", 3 * 4369))), grey(BEHIND_KEY), 1, False,
    ),
    "colour_16.png": (lambda: png(2, 16, DEEP), DEEP / 257, 1, True),
    "grey_16_alpha.png": (
        lambda: png(4, 16, np.concatenate([SIXTEEN[..., None], ALPHA16], -1)),
        np.where(OPAQUE[..., None], grey(LIGHT * 255), 255), 1, False,
    ),
    "colour_16_alpha.png": (
        lambda: png(6, 16, np.concatenate([DEEP, ALPHA16], -1)), np.where(OPAQUE[..., None], DEEP / 257, 255), 1, False,
    ),
    "grey_4.png": (lambda: png(0, 4, LEVELS4), grey(LEVELS4 * 17), 0, True),
    "grey_1.png": (lambda: png(0, 1, X % 2), grey(X % 2 * 255), 0, True),
    "palette_4.png": (lambda: png(3, 4, LEVELS4, PALETTE4), grey(LEVELS4 * 17), 0, False),
    "palette_4_one_entry_clear.png": (
        lambda: png(3, 4, LEVELS4, PALETTE4, (b"tRNS", b"\xff\xff\xff\0")), grey(BEHIND_KEY), 0, False,
    ),
    "colour_one_colour_clear.png": (
        lambda: png(2, 8, COLOURS, (b"tRNS", struct.pack(">HHH", *COLOURS[9, 30].tolist()))),
        np.where((COLOURS[9, 30] == COLOURS).all(-1)[..., None], 255, COLOURS), 0, False,
    ),
    "alpha.png": (lambda: written(with_alpha(), "PNG"), SHOWN, 0, False),
    "half_alpha.png": (
        lambda: png(6, 8, np.concatenate([COLOURS, np.full((HEIGHT, WIDTH, 1), 153)], -1)), COLOURS * 0.6 + 102, 1, False,
    ),
    "grey_alpha.png": (
        lambda: written(with_alpha("LA"), "PNG"), np.where(OPAQUE[..., None], grey(GREY8), 255), 0, False,
    ),
    "alpha.webp": (lambda: written(with_alpha(), "WEBP", lossless=True), SHOWN, 0, False),
    "alpha.tif": (lambda: written(with_alpha(), "TIFF"), SHOWN, 0, False),
    "cmyk.jpg": (
        lambda: written(Image.fromarray(CMYK, "CMYK"), "JPEG", quality=100, subsampling=0), COLOURS * (175 / 255), 4, True,
    ),
    "cmyk.tif": (lambda: written(Image.fromarray(CMYK, "CMYK"), "TIFF"), COLOURS * (175 / 255), 1, False),
    "float.tif": (lambda: written(LIGHT.astype(np.float32), "TIFF"), grey(LIGHT * 255), 1, False),
    "float_to_255.tif": (lambda: written((LIGHT * 255).astype(np.float32), "TIFF"), grey(LIGHT * 255), 1, False),
    "integer_32.tif": (lambda: written((LIGHT * (2**31 - 1)).astype(np.int32), "TIFF"), grey(LIGHT * 255), 1, False),
    "integer_32_to_255.tif": (lambda: written((LIGHT * 255).astype(np.int32), "TIFF"), grey(LIGHT * 255), 1, False),
    "grey_16.tif": (lambda: written(SIXTEEN.astype(np.uint16), "TIFF"), grey(LIGHT * 255), 1, False),
    "integer_32_unsigned.tif": (
        lambda: tiff(np.rint(LIGHT * (2**32 - 1)).astype("<u4"), 1, 1), grey(LIGHT * 255), 1, False,
    ),
    "grey_16_white_is_zero.tif": (lambda: tiff(SIXTEEN.astype("<u2"), 0, 1), grey(255 - LIGHT * 255), 1, False),
    "interlaced.jpg": (lambda: written(COLOURS, "JPEG", quality=100, subsampling=0, progressive=True), COLOURS, 4, True),
    "one_bit.bmp": (lambda: written(Image.fromarray(COLOURS).convert("1"), "BMP"),
                    grey(np.asarray(Image.fromarray(COLOURS).convert("1")) * 255), 0, True),
    "animated.png": (lambda: animated("PNG"), COLOURS, 0, True),
    "animated.webp": (lambda: animated("WEBP"), COLOURS, 0, True),
    "gif_called.jpg": (lambda: animated("GIF"), COLOURS, 40, False),  # of 256 colours
    "clear_gif_called.jpg": (
        lambda: written(Image.fromarray(LEVELS4.astype(np.uint8)), "GIF", transparency=3),
        np.where(LEVELS4[..., None] == 3, 255, LEVELS4[..., None].repeat(3, -1)), 0, False,
    ),
    "png_called.jpg": (lambda: written(COLOURS, "PNG"), COLOURS, 0, True),
}  # fmt: skip


def request(path: Path) -> SnippetRequest:
    """The largest square in the middle of the only picture of a class."""
    index_dataset(
        read_layout("images", path.parent.parent), path.parent.parent, path.with_suffix(".parquet"), IndexSettings()
    )
    manifest = Manifest.load(path.with_suffix(".parquet"))
    assert len(manifest) == 1
    return SnippetRequest(manifest.video(0), 0, 0.5, 0.5, flip=False)


def middle(seen: np.ndarray) -> np.ndarray:
    top, left = (seen.shape[0] - 32) // 2, (seen.shape[1] - 32) // 2
    return seen[top : top + 32, left : left + 32].astype(np.float64)


@pytest.fixture(scope="module")
def through_dali(dali):
    from engine.data.dali.stills import DaliStillDecoder

    decoder = DaliStillDecoder(CLIP, CPU, 1, 8)
    yield decoder
    decoder.close()


def save(folder: Path, name: str, content: bytes) -> Path:
    path = folder / "class" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", KINDS)
def test_a_picture_looks_as_a_viewer_shows_it(tmp_path, name):
    make, seen, bound, _ = KINDS[name]
    decoded = StillDecoder(CLIP, CPU, 1).decode([request(save(tmp_path, name, make()))])
    assert not decoded.failures
    assert np.ptp(middle(seen)) > 100 or name == "grey_16_dark.png"  # there is something to see
    assert np.abs(decoded.frames[0].numpy() - middle(seen)).max() <= bound


@pytest.mark.parametrize("name", KINDS)
def test_dali_shows_the_same_or_is_not_given_the_picture(through_dali, tmp_path, name):
    make, seen, bound, fits = KINDS[name]
    decoded = through_dali.decode([request(save(tmp_path, name, make()))])
    if not fits:
        assert "DALI is given no image/" in decoded.failures[0]
    else:
        assert not decoded.failures
        assert np.abs(decoded.frames[0].numpy() - middle(seen))[:, 1:-1, 1:-1].max() <= bound + 1


TURNS = {  # EXIF's orientation: how the stored picture is shown
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", TURNS)
def test_exif_turns_and_mirrors(through_dali, tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    seen, bound = TURNS[orientation](COLOURS), 4 if kind == "JPEG" else 0
    asked = request(save(tmp_path, f"x.{kind.lower()}", written(COLOURS, kind, exif=exif, **options)))
    assert asked.video.displayed_size == seen.shape[1::-1]
    decoded, by_dali = StillDecoder(CLIP, CPU, 1).decode([asked]), through_dali.decode([asked])
    assert np.abs(decoded.frames[0].numpy() - middle(seen)).max() <= bound
    if kind == "TIFF" or orientation in (2, 4, 5, 7):
        assert "DALI is given no image/" in by_dali.failures[0]
    else:
        assert np.abs(by_dali.frames[0].numpy() - middle(seen))[:, 1:-1, 1:-1].max() <= bound + 1


def test_a_damaged_exif_block_costs_no_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = written(COLOURS, "JPEG", exif=exif)
    where = content.index(b"Exif\0\0") + 6
    result = probe_still(save(tmp_path, "x.jpg", content[:where] + b"\xff" * 8 + content[where + 8 :]))
    assert (result.width, result.height, result.rotation) == (WIDTH, HEIGHT, 0)


def test_a_damaged_exif_block_gives_no_warning_that_names_no_file(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = written(COLOURS, "JPEG", exif=exif)
    where = content.index(b"Exif\0\0") + 6
    path = save(tmp_path, "x.jpg", content[: where + 4] + b"\xff\xff\xff\xff" + content[where + 8 :])
    with pytest.warns(UserWarning, match="Corrupt EXIF"), Image.open(path) as picture:
        picture.getexif()
    code = f"from pathlib import Path\nfrom engine.data.stills import probe_still\nprint(probe_still(Path({str(path)!r})).rotation)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (tiff(np.zeros((HEIGHT, WIDTH), "<f8"), 1, 9), "a TIFF that is damaged, or of a kind that PIL cannot read"),
        (b"BMjunk", "a BMP that is damaged, or of a kind that PIL cannot read"),
        (b"<html>not found</html>", "no picture of the kinds JPEG, PNG, WEBP, BMP, GIF, TIFF"),
    ],
)
def test_why_a_file_is_no_picture(tmp_path, content, told):
    with pytest.raises(ProbeError) as error:
        probe_still(save(tmp_path, "x.jpg", content))
    assert (error.value.kind, error.value.text) == ("unreadable", told)


@pytest.mark.parametrize(
    ("kind", "suffix"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("BMP", "bmp"), ("TIFF", "tif")]
)
def test_a_picture_under_another_name_is_told_with_the_mend(tmp_path, kind, suffix):
    told = f"a picture by its contents ({kind}): give it a name that ends in .{suffix} to use it as one"
    for name in ("run/x.mp4", "run/x.THM", "run/x"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(written(COLOURS, kind))
        with pytest.raises(ProbeError) as caught:
            probe_file(path)
        assert (caught.value.kind, caught.value.text) == ("unreadable", told)
    assert {each.path: each.text for each in VideoFolder(tmp_path).others} == {"run/x.THM": told, "run/x": told}


def test_a_gif_of_one_frame_is_a_picture_and_an_animated_one_a_video(tmp_path):
    contents = {
        "still.gif": written(COLOURS, "GIF"),
        "moving.gif": animated("GIF"),
        "text.gif": b"GIF89a, or not",
        "x.png": b"",
    }
    files = {name: save(tmp_path, name, content) for name, content in contents.items()}
    folder = VideoFolder(tmp_path)
    assert folder.pictures == ["class/still.gif", "class/x.png"]
    assert folder.paths == ["class/moving.gif", "class/text.gif"]
    assert "2 other files left out (each is in the report): 1 .gif, 1 .png" in read_layout("folder", tmp_path).notes
    assert probe_file(files["still.gif"]).codec == "image/gif" and probe_file(files["moving.gif"]).codec == "gif"
    with pytest.raises(ProbeError):
        probe_file(files["text.gif"])
