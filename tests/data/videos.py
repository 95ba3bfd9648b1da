"""Small real videos for the tests of the decoders, in which every frame carries its number."""

import csv
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from engine.data.batch import ClipFormat, SnippetRequest, Video, VideoDecoder
from engine.data.pyav.encode import write_video
from engine.data.pyav.opening import video_stream

_BITS = 8  # the number's stripe: one block of light or dark for each bit, over the top quarter of the frame


def pack_rows(shared_data: Path, max_frames: int | None = None) -> list[tuple[Path, dict[str, str]]]:
    """The files found in the wild with their lines of MANIFEST.csv; those that do not decode have no frames."""
    pack = shared_data / "decode_pack"
    with (pack / "MANIFEST.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [(pack / row["file"], row) for row in rows if max_frames is None or float(row["frames"] or 0) <= max_frames]


def numbered_frame(number: int, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3]: `number` written as blocks on top of coloured slopes and waves."""
    y, x = np.mgrid[0:height, 0:width]
    wave = 128 + 100 * np.sin((x + y) / 20 + number / 3)
    image = np.stack([x * 255 // width, y * 255 // height, wave], axis=-1).astype(np.uint8)
    block = width // _BITS
    for bit in range(_BITS):
        image[: height // 4, bit * block : (bit + 1) * block] = 230 if number >> bit & 1 else 20
    return image


def numbers(clip: np.ndarray) -> list[int]:
    """The numbers that whole, upright frames [T, H, W, 3] carry."""
    height, block = clip.shape[1], clip.shape[2] // _BITS
    stripe = clip[:, height // 16 : height // 8]
    middle = block // 4
    blocks = [stripe[:, :, bit * block + middle : (bit + 1) * block - middle] for bit in range(_BITS)]
    bits = np.stack([part.mean(axis=(1, 2, 3)) > 128 for part in blocks], axis=-1)
    return [int(value) for value in bits @ (1 << np.arange(_BITS))]


def write_numbered(
    path: Path,
    codec: str = "libvpx-vp9",
    *,
    num_frames: int = 40,
    size: tuple[int, int] = (160, 120),
    pixel_format: str = "yuv420p",
    gop: int = 12,
    pts_ms: list[int] | None = None,
    full_range: bool = False,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode frames 0, 1, 2, ... at 25 frames a second, or at the time stamps given in milliseconds."""
    fast = {"deadline": "realtime", "cpu-used": "8"} if codec.startswith("libvpx") else {}
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=fast | (options or {}))
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        context = stream.codec_context
        context.gop_size, context.bit_rate = gop, 2_000_000
        context.time_base = Fraction(1, 1000)
        if full_range:
            context.color_range = av.video.reformatter.ColorRange.JPEG
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number, *size), format="rgb24")
            if full_range:
                frame = frame.reformat(format=pixel_format, dst_color_range="JPEG")
            frame.pts = 40 * number if pts_ms is None else pts_ms[number]
            frame.time_base = context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def offset_counts(build: Callable[[ClipFormat], VideoDecoder], video: Video) -> tuple[list[int], list[int]]:
    """How often a decoder cuts at each offset, from above and from the left, for indices spread evenly over [0, 1].

    The offsets are found again in the whole frame, a square of at least 100. There are eleven; each should come twice.
    """
    side, room, indices = video.width, 10, [(number + 0.5) / 22 for number in range(22)]
    shown = []
    for crop, asked in ((side, [(0.5, 0.5)]), (side - room, [(y, 1 - y) for y in indices])):
        decoder = build(ClipFormat(num_frames=1, short_side=side, crop=crop))
        decoded = decoder.decode([SnippetRequest(video, 0, y, x, False) for y, x in asked])
        decoder.close()
        assert not decoded.failures
        shown.append(decoded.frames[:, 0].numpy().astype(np.int16))
    (whole,), crops = shown
    parts = np.lib.stride_tricks.sliding_window_view(whole, crops.shape[1:], axis=(0, 1, 2))[:, :, 0]
    found = []
    for crop in crops:
        errors = np.abs(parts - crop).mean(axis=(2, 3, 4)).ravel()
        assert errors.min() < 0.1 and np.partition(errors, 1)[1] > 0.5  # there, and nowhere else
        found.append(divmod(int(errors.argmin()), room + 1))
    tops, lefts = np.transpose(found)
    return np.bincount(tops, minlength=room + 1).tolist(), np.bincount(lefts, minlength=room + 1).tolist()


def write_copies(root: Path, frames_of_class: dict[str, int], files_of_class: int) -> Path:
    """A folder a class, each of equal H.264 files of so many frames, 000.mp4 and on; returns the root."""
    for name, num_frames in frames_of_class.items():
        (root / name).mkdir(parents=True)
        write_video(root / name / "000.mp4", (numbered_frame(number, 160, 120) for number in range(num_frames)))
        content = (root / name / "000.mp4").read_bytes()
        for number in range(1, files_of_class):
            (root / name / f"{number:03d}.mp4").write_bytes(content)
    return root


def remux(source: Path, target: Path, *, first_pts: int = 0) -> Path:
    """Copy the packets so that the first has the time stamp `first_pts` (in frames); what lies before 0 is cut off.

    MP4 keeps the cut-off frames in the file and hides them by an edit list.
    """
    options = {"avoid_negative_ts": "disabled", "movflags": "negative_cts_offsets"}
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        shift = round(first_pts / (25 * stream.time_base))
        for packet in old.demux(stream):
            if packet.size:
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = copy
                new.mux(packet)
    return target


def hide_frames(source: Path, target: Path, every: int) -> Path:
    """Copy a VP9 file of key frames alone, each `every`-th marked as never shown (as alt-ref frames are).

    The muxer joins it with the next one to a superframe, so a packet still holds one shown frame.
    """
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for number, packet in enumerate(packet for packet in old.demux(stream) if packet.size):
            data = bytearray(bytes(packet))
            if number % every == every - 1:
                data[0] &= ~0x02  # show_frame in the header of a key frame of profile 0 (VP9 specification, 6.2)
            changed = av.Packet(bytes(data))
            changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
            changed.is_keyframe, changed.stream = True, copy
            new.mux(changed)
    return target


def describe(path: Path, **changes: object) -> Video:
    """A manifest row of the whole file: its frames counted by decoding. `changes` replace its values."""
    with av.open(str(path)) as container:
        stream = video_stream(container)
        frames = [(frame.key_frame, frame.pts) for frame in container.decode(stream)]
        keys = [(index, pts) for index, (is_key, pts) in enumerate(frames) if is_key]
        values: dict[str, object] = {
            "path": path, "num_frames": len(frames), "first_frame": 0, "file_frames": len(frames),
            "width": stream.codec_context.width, "height": stream.codec_context.height, "rotation": 0,
            "codec": stream.codec_context.codec.canonical_name, "file_bytes": path.stat().st_size,
            "key_frames": tuple(index for index, _ in keys), "key_pts": tuple(pts for _, pts in keys),
        }  # fmt: skip
    return Video(**(values | changes))
