"""Decoded frames to scaled RGB, by one stated rule that the DALI decoder follows too.

1. YCbCr becomes RGB by BT.601, whatever the file's tag says; the range (16-235 or 0-255) is as tagged,
   16-235 if untagged. DALI does so, on the CPU as on NVDEC, and cannot be told otherwise. High dynamic
   range is not tone-mapped.
2. Subsampled chroma is interpolated linearly and sits in the middle of its luma pixels (MPEG-1 siting).
3. RGB is rounded to 8 bits at the stored size, then scaled: a triangle filter, widened by the factor
   of reduction (antialiasing). Scaling the YCbCr planes themselves would be a third of the work, but
   puts up to 8 % of the values of a saturated frame more than 8 levels off.

8-bit 4:2:0, which is nearly everything, is converted by `planar.py`, any other format by swscale.
"""

import av
import cv2
import numpy as np
import torch
import torch.nn.functional as F
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from engine.data.pyav.planar import convert_window, is_full_range, is_planar_420, plane_rows

# Without the last three flags swscale truncates (1.4 levels too dark) and skips every other chroma sample.
ACCURATE = (
    Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)
_PLANS_KEPT = 8
_BAND_PIXELS = 2**17  # of a large frame converted at a time, so that it stays in the processor's cache


class _Plan:
    """What swscale needs for frames of one format and size, ready to be used again."""

    def __init__(self, frame: av.VideoFrame) -> None:
        layout = frame.format
        self.is_rgb = layout.is_rgb or layout.has_palette
        self.reformatter = VideoReformatter()
        # A frame of our own carries no chroma position tag, which swscale takes as "in the middle"; PyAV
        # cannot change the tag of a decoded one (H.264 and MPEG-4 say "left").
        subsampled = not self.is_rgb and (layout.chroma_width(8) < 8 or layout.chroma_height(8) < 8)
        plain = layout.name.replace("yuvj", "yuv")
        self.untagged = av.VideoFrame(frame.width, frame.height, plain) if subsampled else None


class FrameConverter:
    """Converts decoded frames to RGB of a given size. Not thread-safe: one for each thread."""

    def __init__(self) -> None:
        self._plans: dict[tuple[str, int, int], _Plan] = {}

    def __call__(self, frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
        """The frame as uint8 [height, width, 3]."""
        rgb = _planar(frame) if is_planar_420(frame) else self._by_swscale(frame)
        return rgb if rgb.shape[:2] == (height, width) else _scaled(rgb, width, height)

    def _by_swscale(self, frame: av.VideoFrame) -> np.ndarray:
        plan, colour = self._plan(frame), {}
        if not plan.is_rgb:
            colour = {
                "src_colorspace": Colorspace.ITU601,
                "dst_colorspace": Colorspace.ITU601,
                "src_color_range": ColorRange.JPEG if is_full_range(frame) else ColorRange.MPEG,
            }
        if plan.untagged is not None:
            copy_planes(frame, plan.untagged)
            frame = plan.untagged
        # swscale writes planes 2-3 times faster than pixels
        planar = plan.reformatter.reformat(frame, format="gbrp", interpolation=ACCURATE, threads=1, **colour)
        green, blue, red = (plane_rows(plane)[:, : frame.width] for plane in planar.planes)
        return cv2.merge((red, green, blue))

    def _plan(self, frame: av.VideoFrame) -> _Plan:
        key = (frame.format.name, frame.width, frame.height)
        plan = self._plans.pop(key, None) or _Plan(frame)
        self._plans[key] = plan  # newest last
        if len(self._plans) > _PLANS_KEPT:
            del self._plans[next(iter(self._plans))]
        return plan


def _planar(frame: av.VideoFrame) -> np.ndarray:
    rgb = np.empty((frame.height, frame.width, 3), np.uint8)
    rows = max(2, _BAND_PIXELS // frame.width)
    for top in range(0, frame.height, rows):
        convert_window(frame, top, 0, rgb[top : top + rows])
    return rgb


def _scaled(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    image_1chw = torch.from_numpy(rgb).permute(2, 0, 1)[None]
    scaled = F.interpolate(image_1chw, (height, width), mode="bilinear", antialias=True)
    return scaled[0].permute(1, 2, 0).contiguous().numpy()


def copy_planes(source: av.VideoFrame, target: av.VideoFrame) -> None:
    """Copy the samples row by row (rows of the two may be padded differently)."""
    for old, new in zip(source.planes, target.planes, strict=True):
        width = min(abs(old.line_size), new.line_size)
        plane_rows(new)[:, :width] = plane_rows(old)[:, :width]
