"""How a video file is opened with FFmpeg for reading: the same for the probe, the decoder and the normaliser."""

from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

MAX_PIXELS = 2**27  # of a picture; a larger one is a broken header or an attack on memory


def open_video(path: Path, *, time_limit_s: float, max_pixels: int = MAX_PIXELS) -> InputContainer:
    """Open a file for reading; its `video_stream` decodes with one thread, packets of all others are skipped.

    Args:
        time_limit_s: seconds after which FFmpeg gives up reading: it ends a demuxer that loops.
        max_pixels: FFmpeg allocates no larger picture. Asked again with every opening: a file may have changed.

    Raises:
        av.FFmpegError: it cannot be opened.
    """
    container = av.open(
        f"file:{path}",  # a name may hold a colon
        # Only local files: a playlist that calls itself .mp4 must not make FFmpeg reach out to the network.
        container_options={"protocol_whitelist": "file"},
        metadata_errors="replace",
        timeout=time_limit_s,
    )
    wanted = video_stream(container)
    for stream in container.streams:
        if stream is not wanted:
            stream.discard = Discard.all
    if wanted is not None and wanted.codec_context is not None:
        wanted.codec_context.thread_count, wanted.codec_context.thread_type = 1, "NONE"  # parallelism is over files
        # With room for the margin that FFmpeg counts.
        wanted.codec_context.options = {"max_pixels": str(2 * max_pixels + 2**16)}
    return container


def video_stream(container: InputContainer) -> VideoStream | None:
    """The stream that the engine reads: the first video stream that is not a cover picture."""
    streams = (s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
    return next(streams, None)


def reason_of(error: Exception) -> str:
    """What an error of FFmpeg or of the system says, without its number and the file's name."""
    return getattr(error, "strerror", None) or str(error)
