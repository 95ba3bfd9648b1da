"""Video files as cameras, old tools and broken copies leave them, drawn anew: every frame carries its number."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from tests.data.videos import numbered_frame

SIZE = (160, 120)
B_FRAMES = {"bf": "3", "x264-params": "b-adapt=0"}
_SAMPLES = {"flt": np.float32, "s32": np.int32, "s16": np.int16}


def draw(
    path: Path,
    times: Sequence[float],
    codec: str = "libx264",
    *,
    rate: float = 25,
    tick: Fraction | None = None,
    sound: str | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    form: str | None = None,
    pixel_format: str = "yuv420p",
) -> Path:
    """Frames 0, 1, 2, ... at these seconds, and silence by the codec `sound` from 0 to a second behind the last."""
    with av.open(str(path), "w", format=form, options=container_options or {}) as container:
        rate = Fraction(rate).limit_denominator(1001)
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *SIZE, pixel_format
        context = stream.codec_context
        context.gop_size, context.time_base = 12, tick or 1 / rate
        audio = container.add_stream(sound, rate=48_000) if sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number, *SIZE), format="rgb24").reformat(
                format=pixel_format
            )
            frame.pts, frame.time_base = round(time / context.time_base), context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio:
            _add_silence(container, audio, times[-1] + 1)
    return path


def _add_silence(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    context = stream.codec_context
    size, form = context.frame_size or 1024, context.format.name
    for place in range(int(seconds * 48_000 / size)):
        samples = np.zeros((1, size), _SAMPLES[form.removesuffix("p")])
        frame = av.AudioFrame.from_ndarray(samples, format=form, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, place * size, Fraction(1, 48_000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def change_packets(
    source: Path, target: Path, change: Callable[[av.Packet], None], options: dict[str, str] | None = None
) -> Path:
    """Copy a file, each packet changed."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options or {}) as new:
        copies = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.size:
                change(packet)
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
    return target


def draw_several(path: Path, streams: Sequence[tuple[str, int, int, Disposition | None]]) -> Path:
    """A file with several video streams: codec, number of frames, number of the first frame, disposition."""
    with av.open(str(path), "w") as container:
        made = []
        for codec, _, _, disposition in streams:
            made.append(container.add_stream(codec, rate=25))
            made[-1].width, made[-1].height = SIZE
            made[-1].pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            if disposition is not None:
                made[-1].disposition = disposition
        for stream, (_, count, first, _) in zip(made, streams, strict=True):
            for number in range(count):
                drawn = av.VideoFrame.from_ndarray(numbered_frame(first + number, *SIZE), format="rgb24")
                frame = drawn.reformat(format=stream.pix_fmt)
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path
