"""Opening a video file with FFmpeg: the one place that says what an unknown file may make it do."""

from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

MAX_PIXELS = 2**27  # of a picture; a larger one is a broken header or an attack on memory


def open_video(path: Path, timeout_s: float, max_pixels: int = MAX_PIXELS) -> InputContainer:
    """Open a file to read its `video_stream` with one thread (parallelism is over files); the others are skipped.

    Args:
        timeout_s: ends a demuxer that loops: FFmpeg fails when a read goes on for longer.
        max_pixels: of a picture; FFmpeg allocates no larger one, whatever the header said.

    Raises:
        av.FFmpegError: it cannot be opened.
    """
    container = av.open(
        f"file:{path}",  # a name may hold a colon
        metadata_errors="replace",
        # Only local files: a playlist that calls itself .mp4 must not make FFmpeg reach out to the network.
        container_options={"protocol_whitelist": "file"},
        timeout=timeout_s,
    )
    wanted = video_stream(container)
    for stream in container.streams:
        if stream is not wanted:
            stream.discard = Discard.all
    if wanted is not None and wanted.codec_context is not None:
        wanted.codec_context.thread_count, wanted.codec_context.thread_type = 1, "NONE"
        # With room for the margin that FFmpeg counts.
        wanted.codec_context.options = {"max_pixels": str(2 * max_pixels + 2**16)}
    return container


def video_stream(container: InputContainer) -> VideoStream | None:
    """The stream that the engine reads: the first video stream that is not a cover picture."""
    streams = (s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
    return next(streams, None)
