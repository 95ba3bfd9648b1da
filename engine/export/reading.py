"""A function that makes clips of a video without this package, as its source: for whoever runs an exported model.

It states again, in plain PyAV and Pillow, what `engine/data/sampler.py`, `geometry.py` and `pyav/convert.py` do.
"""

from engine.config import Config

_SOURCE = """import av, numpy{imports}
from av.video.reformatter import Colorspace, Interpolation
from PIL import Image

FILTER = (Interpolation.BILINEAR | Interpolation.ACCURATE_RND
          | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP)

def pictures(path):
    with av.open(path) as file:
        for packet in file.demux(video=0) if file.streams.video else ():
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

def square(picture, short_side, crop):
    image = picture.to_ndarray(
        format="rgb24", src_colorspace=Colorspace.ITU601, dst_colorspace=Colorspace.ITU601, interpolation=FILTER)
    image = Image.fromarray(numpy.ascontiguousarray(numpy.rot90(image, -quarter_turns(picture))))
    short = min(image.size)
    width, height = ((side * short_side + short // 2) // short for side in image.size)
    left, top = round((width - crop) / 2), round((height - crop) / 2)
    return numpy.asarray(image.resize((width, height), Image.BILINEAR))[top : top + crop, left : left + crop]

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
