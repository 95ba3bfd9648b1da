"""Videos in which one thing moves whose place is known, before a still camera or one that pans."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.data.pyav.encode import write_video

SIDE = 40  # pixels of the thing, a square
FORMS = {  # name -> encoder, its options, frames of a GOP, suffix of the file
    "h264": ("libx264", {"preset": "medium", "bf": "0"}, 16, ".mp4"),
    "h264 with B-frames": ("libx264", {"preset": "medium", "bf": "3"}, 250, ".mp4"),
    "mpeg4": ("mpeg4", {"qmax": "8"}, 16, ".mp4"),
    "mpeg4 with B-frames": ("mpeg4", {"qmax": "8", "bf": "2"}, 16, ".avi"),
    "mpeg2 with B-frames": ("mpeg2video", {"qmin": "2", "qmax": "8", "bf": "2"}, 12, ".ts"),
}


@dataclass(frozen=True)
class MovingThing:
    """frames: uint8 [T, H, W, 3]. places: (x, y) of the thing's upper left corner in each, pixels."""

    frames: list[np.ndarray]
    places: list[tuple[int, int]]


def draw_moving(
    seed: int, *, pan: float = 0.0, size: tuple[int, int] = (176, 176), num_frames: int = 32
) -> MovingThing:
    """A thing that moves 2 to 4 pixels a frame and turns round at the edges; the background moves `pan` across its way."""
    rng, (width, height) = np.random.default_rng(seed), size
    room = int(pan * num_frames) + 2
    background = _texture(rng, (height + 2 * room, width + 2 * room), 4)
    thing = _texture(rng, (SIDE, SIDE), 2)
    x, y = rng.uniform(0, width - SIDE), rng.uniform(0, height - SIDE)
    angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(2, 4)
    dx, dy = speed * np.cos(angle), speed * np.sin(angle)
    frames, places = [], []
    for number in range(num_frames):
        offset = (room - pan * number * np.sin(angle), room + pan * number * np.cos(angle))
        shift = np.float32([[1, 0, -offset[0]], [0, 1, -offset[1]]])
        frame = cv2.warpAffine(background, shift, size)
        dx, dy = (dx if 0 <= x + dx <= width - SIDE else -dx), (dy if 0 <= y + dy <= height - SIDE else -dy)
        x, y = x + dx, y + dy
        left, top = round(x), round(y)
        frame[top : top + SIDE, left : left + SIDE] = thing
        frames.append(np.clip(frame + rng.normal(0, 3, frame.shape), 0, 255).astype(np.uint8))
        places.append((left, top))
    return MovingThing(frames, places)


def _texture(rng: np.random.Generator, shape: tuple[int, int], blur: float) -> np.ndarray:
    noise = cv2.GaussianBlur(rng.normal(size=(*shape, 3)).astype(np.float32), (0, 0), blur)
    return (noise - noise.min()) / np.ptp(noise) * 255


def write_moving(folder: Path, form: str, moving: MovingThing, *, name: str = "moving", rotation: int = 0) -> Path:
    """A file of it in one of `FORMS`."""
    codec, options, gop, suffix = FORMS[form]
    path = folder / f"{name}{suffix}"
    write_video(path, moving.frames, codec=codec, options=options, gop=gop, rotation=rotation)
    return path
