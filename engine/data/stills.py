"""Still pictures as snippets: the Ken Burns effect (paper Sec. 3.4 and 4.1). The only file that imports PIL.

    picture ──▶ RGB ──▶ one square of it per frame, from a start square to an end square ──▶ scaled to the crop

A still is a row of the manifest with one frame and a codec that begins with "image/". It looks as a viewer shows it:
turned and mirrored as EXIF says, laid on white where it is transparent, scaled to 8 bits by the white of its depth, and of
an animation the first frame. Which squares a
snippet shows is drawn by the sampler and laid out by `engine/data/geometry.py`; pixels between pixels are
interpolated (a triangle filter, widened where the square shrinks), so that slow movements do not jump.

`RoutedDecoder` gives the stills of a batch to this decoder (or to DALI's, on a GPU) and the videos to theirs.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError

from engine.data.batch import ClipFormat, DecodedClips, SnippetRequest, Video, VideoDecoder
from engine.data.geometry import still_squares
from engine.data.loading.transfer import DeviceCopier
from engine.data.magic import picture_kind
from engine.data.manifests.identity import change_since_index
from engine.data.pyav.findings import kind_of
from engine.data.pyav.probe import ProbeError, ProbeResult, refuse_unfit
from engine.files.atomic_file import atomic_write

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # whatever the file is called
_BAD_PICTURE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # PIL raises any of them
_CLOCKWISE = {3: 180, 4: 180, 5: 270, 6: 90, 7: 90, 8: 270}  # of EXIF's orientation, after mirroring left-right ...
_MIRRORED = (2, 4, 5, 7)  # ... those that ask for it
_WHITES = (
    1,
    2**8 - 1,
    2**16 - 1,
    2**31 - 1,
    2**32 - 1,
)  # of numbers that do not say how large they get: the first above all
_TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 262, 339
# What the manifest's pixel_format adds to PIL's mode.
MIRRORED, TRANSPARENT = " mirrored", " transparent"
# Of damaged tags, which name no file: a picture whose EXIF cannot be read is taken as upright.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 [H, W, 3] RGB into a file whose suffix names the format; it appears complete or not at all."""
    with atomic_write(path) as partial:
        Image.fromarray(pixels).save(partial)


class StillDecoder(VideoDecoder):
    """Decodes snippets of still pictures on the CPU.

    Args:
        clip: the shape every snippet is brought to.
        device: where the clips are wanted; on a GPU they arrive beside the training step (engine/data/loading/transfer.py).
        num_threads: pictures decoded at the same time.
    """

    name = "stills"

    def __init__(self, clip: ClipFormat, device: torch.device, num_threads: int) -> None:
        self._clip, self._copy = clip, DeviceCopier(device)
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="stills")

    def submit(self, requests: Sequence[SnippetRequest]) -> Callable[[], DecodedClips]:
        """See `VideoDecoder`."""
        clip = self._clip
        shape = (len(requests), clip.num_frames, clip.crop, clip.crop, 3)
        host = self._copy.empty(shape, torch.uint8).zero_()
        jobs: dict[tuple[object, ...], list[int]] = {}
        for row, request in enumerate(requests):
            jobs.setdefault(request.video.file, []).append(row)
        reasons = self._pool.map(
            lambda rows: _render([requests[row] for row in rows], [host[row].numpy() for row in rows], clip),
            jobs.values(),
        )

        def wait() -> DecodedClips:
            failures = {row: why for rows, why in zip(jobs.values(), reasons, strict=True) if why for row in rows}
            return DecodedClips(self._copy(host), dict(sorted(failures.items())))

        return wait

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def probe_still(path: Path) -> ProbeResult:
    """Find out what a picture file holds, by decoding it.

    Raises:
        ProbeError: with a kind of `engine.data.pyav.probe.REASONS`, for every file that cannot be trained on.
    """
    refuse_unfit(path)
    try:
        with Image.open(path, formats=FORMATS) as picture:
            width, height = picture.size
            turn = _orientation(picture)
            codec, pixel_format = f"image/{picture.format.lower()}", picture.mode
            _to_rgb(picture)
            pixel_format += TRANSPARENT * picture.has_transparency_data + MIRRORED * (turn in _MIRRORED)
    except UnidentifiedImageError as error:
        raise ProbeError("unreadable", _why_unknown(path)) from error
    except _BAD_PICTURE as error:
        raise ProbeError(kind_of(error, "undecodable"), str(error)) from error
    return ProbeResult(
        codec=codec, pixel_format=pixel_format, width=width, height=height, fps=0.0, rotation=_CLOCKWISE.get(turn, 0),
        duration=0.0, num_frames=1, header_frames=1, key_frames=(), key_pts=(), counted_by="decoding",
    )  # fmt: skip


def _why_unknown(path: Path) -> str:
    """Why PIL knows no picture in a file."""
    kind, _ = picture_kind(path)
    return (
        f"a {kind} that is damaged, or of a kind that PIL cannot read"
        if kind
        else f"no picture of the kinds {', '.join(FORMATS)}"
    )


def has_one_frame(path: Path) -> bool:
    """Whether a file is a GIF that is not animated. One that PIL cannot read is none."""
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return False
        with Image.open(path, formats=("GIF",)) as picture:
            return not picture.is_animated
    except Exception:  # of a damaged file PIL raises what comes
        return False


def _render(requests: Sequence[SnippetRequest], clips: Sequence[np.ndarray], clip: ClipFormat) -> str | None:
    """All snippets of one picture into their places, uint8 [T, H, W, C]; returns why that is not possible."""
    video = requests[0].video
    squares = [still_squares(request, clip) for request in requests]
    try:
        if reason := change_since_index(video.path, video):
            return reason
        picture, scale = _open(video, clip, min(side for part in squares for _, _, side in part))
    except FileNotFoundError:
        return "the file is missing"
    except _BAD_PICTURE as error:
        return f"PIL: {error}"
    for request, part, frames in zip(requests, squares, clips, strict=True):
        for index, (top, left, side) in enumerate(part):
            box = (left * scale[0], top * scale[1], (left + side) * scale[0], (top + side) * scale[1])
            square = np.asarray(picture.resize((clip.crop, clip.crop), Image.Resampling.BILINEAR, box=box))
            frames[index] = square[:, ::-1] if request.flip else square
    return None


def _open(video: Video, clip: ClipFormat, smallest: float) -> tuple[Image.Image, tuple[float, float]]:
    """The displayed picture, RGB, and its pixels per pixel of the displayed original (x, y).

    A JPEG that is much larger than needed is decoded at 1/2, 1/4 or 1/8 of its size, which is several times
    faster; the smallest square that is asked for (its side in pixels) still has `clip.crop` pixels then.
    """
    with Image.open(video.path, formats=FORMATS) as file:
        if file.size != (video.width, video.height):
            size = f"{file.size[0]}x{file.size[1]}"
            raise ValueError(f"it is {size} where the manifest says {video.width}x{video.height}: index it again")
        needed = min(1.0, clip.crop / smallest)
        file.draft("RGB", (math.ceil(file.size[0] * needed), math.ceil(file.size[1] * needed)))
        picture = _to_rgb(file)
    if video.pixel_format and video.pixel_format.endswith(MIRRORED):
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turn = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}
    if video.rotation:  # PIL counts the other way
        picture = picture.transpose(turn[video.rotation])
    width, height = video.displayed_size
    return picture, (picture.width / width, picture.height / height)


def _orientation(picture: Image.Image) -> int:
    """EXIF's; 1 (upright) where it cannot be read, and for TIFF, which PIL itself turns."""
    if picture.format == "TIFF":
        return 1
    try:
        return picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # of a damaged block PIL raises what comes; the picture is none the worse
        return 1


def _to_rgb(picture: Image.Image) -> Image.Image:
    """What a viewer shows of an open picture, in RGB."""
    picture.load()  # of GIF only then it is known whether it is transparent
    if picture.mode[0] in "IF":
        picture = _to_eight_bits(picture)
    if picture.has_transparency_data:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    return picture.convert("RGB")


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits as "L", or "LA" where one value is transparent."""
    values, transparent = np.nan_to_num(np.asarray(picture)), picture.info.get("transparency")
    tags = getattr(picture, "tag_v2", {})
    if picture.mode == "I" and tags.get(_TIFF_SAMPLE_FORMAT) == (1,):  # PIL reads them as signed
        values = values.view(np.uint32)
    largest = 2**16 - 1 if picture.mode.startswith("I;16") else values.max()
    white = next((white for white in _WHITES if largest <= white), largest)
    shown = np.rint(np.clip(values / white, 0, 1) * 255).astype(np.uint8)
    grey = Image.fromarray(255 - shown if tags.get(_TIFF_PHOTOMETRIC) == 0 else shown)  # 0: white is zero
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey
