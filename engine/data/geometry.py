"""Which pixels of the stored picture a snippet shows: the one rule that all decoders follow.

The *displayed* picture (after rotation) is scaled so that its shorter side is `short_side`, the longer
side rounded; a `crop` x `crop` square is cut at whole pixels of the scaled picture; then it is mirrored
if asked. Scaling is bilinear with antialiasing (a triangle filter widened by the reduction factor).

Decoders work on the picture as stored, so the square is given in stored coordinates, and what is left
to do is a turn by quarter circles and the mirroring of an already small square.
"""

from dataclasses import dataclass

import numpy as np

from engine.data.batch import ClipFormat, SnippetRequest, Video


@dataclass(frozen=True, slots=True)
class CropWindow:
    """Scale the stored picture to `height` x `width`, cut `crop` pixels at (top, left), turn, mirror."""

    height: int
    width: int
    top: int
    left: int
    quarter_turns: int  # clockwise, 0..3
    flip: bool


def scaled_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """(width, height) after scaling the shorter side to `short_side`."""
    short = min(width, height)
    return (
        max(short_side, (width * short_side + short // 2) // short),
        max(short_side, (height * short_side + short // 2) // short),
    )


def crop_window(request: SnippetRequest, clip: ClipFormat) -> CropWindow:
    """The window of a snippet, in the coordinates of the scaled *stored* picture."""
    video, crop = request.video, clip.crop
    stored_width, stored_height = scaled_size(video.width, video.height, clip.short_side)
    turns = video.rotation // 90 % 4
    width, height = (stored_height, stored_width) if turns % 2 else (stored_width, stored_height)
    top, left = _offset(request.crop_y, height - crop), _offset(request.crop_x, width - crop)
    top, left = stored_corner(top, left, crop, turns, stored_width, stored_height)
    return CropWindow(stored_height, stored_width, top, left, turns, request.flip)


def _offset(place: float, room: int) -> int:
    """Whole pixels before a crop at a place in [0, 1]: 0 to `room`, each of an equal share of the places; 0.5 is the middle."""
    return min(round(place * (room + 1) - 0.5), room)


def stored_corner(
    top: float, left: float, side: float, turns: int, stored_width: float, stored_height: float
) -> tuple[float, float]:
    """(top, left) in the stored picture of a square of the displayed one, `turns` quarter circles clockwise from it."""
    return (
        (top, left),
        (stored_height - left - side, top),
        (stored_height - top - side, stored_width - left - side),
        (left, stored_width - top - side),
    )[turns]


def still_squares(request: SnippetRequest, clip: ClipFormat) -> list[tuple[float, float, float]]:
    """(top, left, side) of the square that each frame of a still's snippet shows, in pixels of the displayed picture.

    Start and end square lie within the picture; those between are linear between them (paper Sec. 4.1), and so lie
    within it too. Without a motion it is the largest square, at `crop_y`, `crop_x`, all the time.
    """
    width, height = request.video.displayed_size
    short, motion = min(width, height), request.motion

    def square(size: float, y: float, x: float) -> np.ndarray:
        side = short * (clip.min_still_crop + size * (1 - clip.min_still_crop))
        return np.array([y * (height - side), x * (width - side), side])

    if motion is None:
        start = end = square(1.0, request.crop_y, request.crop_x)
    else:
        start = square(motion.start_size, motion.start_y, motion.start_x)
        end = square(motion.end_size, motion.end_y, motion.end_x)
    return [tuple(row) for row in np.linspace(start, end, clip.num_frames).tolist()]


def snippet_frames(video: Video, start: int, clip: ClipFormat) -> list[int]:
    """Frame indices in the file of a snippet; past the row's end its last frame is repeated."""
    last = video.first_frame + video.num_frames - 1
    return [min(video.first_frame + start + index * clip.stride, last) for index in range(clip.num_frames)]
