"""A function that makes clips of a video without this package, as its source: for whoever runs an exported model.

It states again, in plain PyAV and Pillow, what `engine/data/sampling/sampler.py`, `geometry.py`, `pyav/opening.py` and
`pyav/convert.py` do.
"""

from engine.config import Config

_SOURCE = """import av, numpy{imports}
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from PIL import Image

FILTER = (Interpolation.BILINEAR | Interpolation.ACCURATE_RND
          | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP)

BESIDE = Disposition.timed_thumbnails | Disposition.still_image | Disposition.dependent | Disposition.metadata

def precedence(stream):
    codec, is_default = stream.codec_context, bool(stream.disposition & Disposition.default)
    decodes = codec is not None and codec.width > 0
    is_picture = decodes and codec.codec.canonical_name in ("mjpeg", "png", "bmp", "tiff", "webp")
    is_beside = stream.disposition & BESIDE or stream.frames == 1 or (is_picture and not is_default)
    return decodes, not is_beside, is_default

def pictures(path):
    with av.open(path) as file:
        streams = [s for s in file.streams.video if not s.disposition & Disposition.attached_pic]  # a cover is none
        for packet in file.demux(max(streams, key=precedence)) if streams else ():
            try:
                yield from packet.decode()
            except av.error.InvalidDataError:  # a damaged end: what decodes is shown
                pass

def quarter_turns(picture):
    try:
        matrix = picture.side_data.get("DISPLAYMATRIX")  # as displayed, but for mirroring
    except ValueError:  # PyAV has no name for what is beside it (EXIF)
        return round(-picture.rotation / 90)
    return 0 if matrix is None else round(numpy.arctan2(*numpy.frombuffer(bytes(matrix), "i4")[[1, 4]]) / numpy.pi * 2)

def as_rgb(picture):
    layout = picture.format
    if layout.is_rgb or layout.has_palette:
        return picture.to_ndarray(format="rgb24", interpolation=FILTER)
    full = picture.color_range == ColorRange.JPEG or layout.name.startswith("yuvj")
    # A decoded frame may say that chroma lies to the left; one of our own says nothing: it lies in the middle.
    plain = av.VideoFrame(picture.width, picture.height, layout.name.replace("yuvj", "yuv"))
    for old, new in zip(picture.planes, plain.planes):
        rows, target = (numpy.frombuffer(plane, "u1").reshape(plane.height, -1) for plane in (old, new))
        width = min(rows.shape[1], target.shape[1])
        target[:, :width] = rows[:: 1 if old.line_size > 0 else -1, :width]
    return plain.to_ndarray(
        format="rgb24", src_colorspace=Colorspace.ITU601, dst_colorspace=Colorspace.ITU601,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG, interpolation=FILTER)

def square(picture, short_side, crop):
    image = Image.fromarray(as_rgb(picture))
    short = min(image.size)
    size = [(side * short_side + short // 2) // short for side in image.size]
    turned = numpy.rot90(image.resize(size, Image.BILINEAR), -quarter_turns(picture))
    top, left = (round((side - crop) / 2) for side in turned.shape[:2])
    return turned[top : top + crop, left : left + crop]

def clips_of(path, snippets={snippets}, frames={frames}, stride={stride}, short_side={short_side}, crop={crop}):
    count = sum(1 for _ in pictures(path))
    if not count:
        raise ValueError(f"{{path}}: no picture in it can be decoded")
    room = max(0, count - 1 - (frames - 1) * stride)
    starts = numpy.rint(numpy.linspace(0, room, snippets)).astype(int) if snippets > 1 else numpy.array([room // 2])
    numbers = numpy.minimum(starts[:, None] + numpy.arange(frames) * stride, count - 1)
    seen = {{n: square(each, short_side, crop) for n, each in enumerate(pictures(path)) if n in numbers}}
    clips = numpy.array([[[seen[n] for n in snippet] for snippet in numbers]])
    return {clips}
"""


def reading_code(config: Config, library: str) -> str:
    """The source of `clips_of(path)`: uint8 [1, snippets, frames, crop, crop, 3], by default as many as the run takes.

    Args:
        library: whose arrays they are, torch or numpy.
    """
    clip = config.clip
    return _SOURCE.format(
        imports=", torch" if library == "torch" else "", clips="torch.from_numpy(clips)" if library == "torch" else "clips",
        snippets=config.evaluate.num_snippets, frames=clip.num_frames, stride=clip.stride, short_side=clip.short_side,
        crop=clip.crop,
    )  # fmt: skip
