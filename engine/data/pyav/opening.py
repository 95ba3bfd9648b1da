"""How a video file is opened with FFmpeg for reading: the same for the probe, the decoder and the normaliser."""

from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

_CONTAINERS = (  # FFmpeg's demuxers of video; it has others, for lists of files, subtitles, single pictures and text
    "apng,asf,av1,avi,avs2,avs3,bink,cavsvideo,cine,dhav,dirac,dnxhd,dv,dxa,evc,film_cpk,flic,flv,gif,gxf,h261,h263,h264,hevc,"
    "ivf,live_flv,lmlm4,m4v,matroska,mjpeg,mjpeg_2000,mov,mpeg,mpegts,mpegvideo,mxf,nsv,nut,nuv,obu,ogg,rm,roq,smk,swf,ty,vc1,"
    "vvc,wtv,yuv4mpegpipe"
)
_NO_CONTAINER = "no container of videos (sound, a list of files, subtitles, a picture, text)"
_BESIDE = Disposition.timed_thumbnails | Disposition.still_image | Disposition.dependent | Disposition.metadata
_PICTURE_CODECS = ("mjpeg", "png", "bmp", "tiff", "webp")
MAX_PIXELS = 2**27  # of a frame; a larger one is a broken header or an attack on memory


def open_video(path: Path, *, time_limit_s: float, max_pixels: int = MAX_PIXELS) -> InputContainer:
    """Open a file for reading; its `video_stream` decodes with one thread, packets of all others are skipped.

    Args:
        time_limit_s: seconds after which FFmpeg gives up reading: it ends a demuxer that loops.
        max_pixels: FFmpeg allocates no larger frame. Asked again with every opening: a file may have changed.

    Raises:
        av.FFmpegError: it cannot be opened.
    """
    container = open_container(path, time_limit_s=time_limit_s)
    wanted = video_stream(container)
    for stream in container.streams:
        if stream is not wanted:
            stream.discard = Discard.all
    if wanted is not None and wanted.codec_context is not None:
        wanted.codec_context.thread_count, wanted.codec_context.thread_type = 1, "NONE"  # parallelism is over files
        # With room for the margin that FFmpeg counts.
        wanted.codec_context.options = {"max_pixels": str(2 * max_pixels + 2**16)}
    return container


def open_container(path: Path, *, time_limit_s: float) -> InputContainer:
    """Open a file for reading, with all of its streams; see `open_video`.

    Raises:
        av.FFmpegError: it cannot be opened.
    """
    try:
        return av.open(
            f"file:{path}",  # a name may hold a colon
            # FFmpeg goes by the content: a playlist called x.mp4 would be played as the files that it names, on the network too.
            container_options={"protocol_whitelist": "file", "format_whitelist": _CONTAINERS},
            metadata_errors="replace",
            timeout=time_limit_s,
        )
    except av.error.ArgumentError as error:  # how FFmpeg puts it that the format is not in the list
        raise av.error.ArgumentError(error.errno, _NO_CONTAINER, error.filename) from error


def video_stream(container: InputContainer) -> VideoStream | None:
    """The stream that the engine reads, the one that players show.

    Of the video streams that are no cover picture the first one that is marked as the default, or the first of all where none
    is. Streams that FFmpeg has no decoder for, thumbnails and single pictures stand back behind others, and so do streams
    coded as pictures, unless they are marked.
    """
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    return max(streams, key=_precedence, default=None)  # the first of equal ones


def _precedence(stream: VideoStream) -> tuple[bool, bool, bool]:
    context, is_default = stream.codec_context, bool(stream.disposition & Disposition.default)
    can_decode = context is not None and context.width > 0  # 0: announced, and then nothing came
    is_picture = can_decode and context.codec.canonical_name in _PICTURE_CODECS
    stands_back = stream.disposition & _BESIDE or stream.frames == 1 or (is_picture and not is_default)
    return can_decode, not stands_back, is_default


def reason_of(error: Exception) -> str:
    """What an error of FFmpeg or of the system says, without its number and the file's name."""
    return getattr(error, "strerror", None) or str(error)
