"""What the probe says of a video file: its facts, or the reason why it cannot be used."""

import errno
from dataclasses import dataclass

from engine.data.pyav.times import Timeline

REASONS = {
    "missing": "listed but not there",
    "unreadable": "no video of a format that FFmpeg can open, and no picture",
    "empty": "a file of 0 bytes",
    "no-video": "no video stream, only audio or less",
    "encrypted": "encrypted",
    "zero-frames": "a video stream without frames",
    "undecodable": "the decoder fails",
    "too-large": "a picture over the limit of pixels",
    "too-long": "a file over the limit of hours",
    "too-slow": "over the time limit of a file",
    "crashed": "it crashed the decoder",
    "io-error": "the disk, the network or the machine failed while it was read, or it is damaged so that FFmpeg says so",
}
_OF_THE_MACHINE = (
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.ENOMEM, errno.EAGAIN,
)  # fmt: skip


class ProbeError(Exception):
    """A file that cannot be trained on. `kind` is one of `REASONS`, `text` says more."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind, self.text = kind, text


def kind_of(error: Exception, otherwise: str = "unreadable") -> str:
    """The reason behind an error of FFmpeg or of the system: "io-error" where the file may be sound, and is tried again."""
    return "io-error" if getattr(error, "errno", None) in _OF_THE_MACHINE else otherwise


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Facts of a video file.

    codec: FFmpeg's name of the codec, whatever the decoder (av1, not libdav1d).
    width, height: pixels of the first frame, as stored.
    fps: average, frames per second by the time stamps where they are sound; 0 where nothing tells it.
    rotation: CLOCKWISE degrees to turn the stored frame for display: 0, 90, 180 or 270.
    duration: seconds, num_frames / fps; 0 where fps is unknown.
    num_frames: frames that come out of the decoder. header_frames: what the header says, 0 if nothing.
    key_frames: presentation indices of frames that decoding can start from and be exact, ascending.
    key_pts: their time stamps in the stream's time base: a seek to one yields its frame.
    counted_by: "decoding" or "packets".
    timed_frames, frame_times: when frames are shown, see `Timeline`.
    oddity: why another decoder than FFmpeg's, or another choice of streams, may show something else, in few words; or "".
    damage: what is wrong with the beginning or the end of the file, as a sentence; or "".
    """

    codec: str
    pixel_format: str
    width: int
    height: int
    fps: float
    rotation: int
    duration: float
    num_frames: int
    header_frames: int
    key_frames: tuple[int, ...]
    key_pts: tuple[int, ...]
    counted_by: str
    timed_frames: tuple[int, ...] = ()
    frame_times: tuple[float, ...] = ()
    oddity: str = ""
    damage: str = ""

    @property
    def timeline(self) -> Timeline:
        """When the frames are shown."""
        return Timeline(self.timed_frames, self.frame_times)
