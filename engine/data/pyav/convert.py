"""Decoded pictures to scaled RGB, by one stated rule that the DALI decoder follows too.

1. YCbCr becomes RGB by BT.601, whatever the file's tag says; the range (16-235 or 0-255) is as tagged,
   16-235 if untagged. DALI does so, on the CPU as on NVDEC, and cannot be told otherwise. High dynamic
   range is not tone-mapped.
2. Subsampled chroma is interpolated linearly and sits in the middle of its luma pixels (MPEG-1 siting).
3. RGB is rounded to 8 bits at the stored size, then scaled: a triangle filter, widened by the factor
   of reduction (antialiasing). Scaling the YCbCr planes themselves would be a third of the work, but
   puts up to 8 % of the values of a saturated picture more than 8 levels off.
"""

import av
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

# Without the last three flags swscale truncates (1.4 levels too dark) and skips every other chroma sample.
ACCURATE = (
    Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)
_PLANS_KEPT = 8


class _Plan:
    """What converting pictures of one format and size to another size needs, ready to be used again."""

    def __init__(self, picture: av.VideoFrame, width: int, height: int) -> None:
        layout = picture.format
        self.is_rgb = layout.is_rgb or layout.has_palette
        subsampled = not self.is_rgb and (layout.chroma_width(8) < 8 or layout.chroma_height(8) < 8)
        scaled = (picture.width, picture.height) != (width, height)
        self.to_rgb = VideoReformatter() if scaled and not self.is_rgb else None
        self.to_size = VideoReformatter()
        # A picture of our own carries no chroma position tag, which swscale takes as "in the middle"; PyAV
        # cannot change the tag of a decoded one (H.264 and MPEG-4 say "left").
        plain = layout.name.replace("yuvj", "yuv")
        self.untagged = av.VideoFrame(picture.width, picture.height, plain) if subsampled else None


class FrameConverter:
    """Converts decoded frames to RGB of a given size. Not thread-safe: one for each thread."""

    def __init__(self) -> None:
        self._plans: dict[tuple[str, int, int, int, int], _Plan] = {}

    def __call__(self, picture: av.VideoFrame, width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The red, green and blue plane, each uint8 [height, width] (swscale writes planes 2-3 times faster)."""
        plan = self._plan(picture, width, height)
        colour = {}
        if not plan.is_rgb:
            full = picture.color_range == ColorRange.JPEG or picture.format.name.startswith("yuvj")
            colour = {
                "src_colorspace": Colorspace.ITU601,
                "dst_colorspace": Colorspace.ITU601,
                "src_color_range": ColorRange.JPEG if full else ColorRange.MPEG,
            }
        if plan.untagged is not None:
            copy_planes(picture, plan.untagged)
            picture = plan.untagged
        if plan.to_rgb is not None:
            picture = plan.to_rgb.reformat(picture, format="gbrp", interpolation=ACCURATE, threads=1, **colour)
            colour = {}
        picture = plan.to_size.reformat(picture, width, height, "gbrp", interpolation=ACCURATE, threads=1, **colour)
        green, blue, red = (plane_rows(plane)[:, :width] for plane in picture.planes)
        return red, green, blue

    def _plan(self, picture: av.VideoFrame, width: int, height: int) -> _Plan:
        key = (picture.format.name, picture.width, picture.height, width, height)
        plan = self._plans.pop(key, None) or _Plan(picture, width, height)
        self._plans[key] = plan  # newest last
        if len(self._plans) > _PLANS_KEPT:
            del self._plans[next(iter(self._plans))]
        return plan


def copy_planes(source: av.VideoFrame, target: av.VideoFrame) -> None:
    """Copy the samples row by row (rows of the two may be padded differently)."""
    for old, new in zip(source.planes, target.planes, strict=True):
        width = min(abs(old.line_size), new.line_size)
        plane_rows(new)[:, :width] = plane_rows(old)[:, :width]


def plane_rows(plane: VideoPlane) -> np.ndarray:
    """The bytes of a plane, a view uint8 [rows, bytes of a row]; a negative line size means stored bottom up."""
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, abs(plane.line_size))
    return rows if plane.line_size > 0 else rows[::-1]
