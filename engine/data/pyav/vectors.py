"""How fast the blocks of a frame move, read off the motion vectors that its codec has kept.

Vectors come as the decoder of FFmpeg gives them out (`export_mvs`), with one thread: frame threads give wrong ones. They point
from a block to where its content is taken from, in another frame before it (of P and B-frames) or behind it (of B-frames).

Camera. It is the median over the area of the frame, for those that point back and those that point forward each by itself,
  and is taken off. H.264 may refer to several frames, FFmpeg does not say to which: of a pan, a block that is taken from
  three frames back has three times the camera's vector. So the camera's is the one that explains most of the frame by its
  multiples, and a vector near a multiple counts from there.
Time. Lengths are divided by the frames to the next one before or behind that is no B-frame: from there blocks are taken as
  a rule. A block with vectors both ways has the mean of them.
None. Blocks that are coded as pictures have speed 0, and so have those that the camera has just brought into view: their
  vectors point at anything that is alike. A frame without vectors has those of the next one that has some within
  16 frames, else of the last one within 16 before it. So have B-frames whose vectors are all zero, as FFmpeg gives
  those of MPEG-4 always.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import av
import numpy as np
from av.video.frame import PictureType

from engine.data.config import MOTION_BLOCK
from engine.data.motion import grid_size
from engine.data.pyav.compiled import compiled
from engine.data.pyav.side_data import side_data

EXPORT = {"flags2": "+export_mvs"}  # option of a codec context
LOOK_AHEAD = 16  # frames: x264 codes no more B-frames in a row
_CELL = 8  # pixels of the side of the smallest block that FFmpeg tells of
_REFERENCES = {"h264": 4}  # frames that are told apart by the length of vectors; other codecs take the nearest alone
_BETTER = 1.05  # times as much of the frame must be explained by a part of the median as by the median
_NEAR = 1.0  # pixels between a vector and the multiple of the camera's that it is taken for

Grid = tuple[np.ndarray, tuple[int, int]]  # float32 [rows, columns], pixels a frame; (width, height) of the frame


@dataclass(eq=False, slots=True)
class _Seen:
    """A frame with vectors: its number, and they with its size until its grid is made."""

    number: int
    vectors: np.ndarray
    size: tuple[int, int]
    speeds: np.ndarray | None = None


@compiled("UniTuple(f8, 2)(f8, f8, f8, f8, i8)")
def _length(x: float, y: float, camera_x: float, camera_y: float, references: int) -> tuple[float, float]:
    """Length of a vector against the camera's, and against the nearest multiple of it."""
    far = near = math.hypot(x - camera_x, y - camera_y)
    for multiple in range(2, references + 1):
        near = min(near, math.hypot(x - multiple * camera_x, y - multiple * camera_y))
    return far, near


class MotionTrack:
    """The grids of some frames of a video, made of the vectors of all frames that come by.

    Args:
        codec: FFmpeg's name of it.
        wanted: the numbers of those frames, ascending.
    """

    def __init__(self, codec: str, wanted: Iterable[int]) -> None:
        self._references = _REFERENCES.get(codec, 1)
        self._wanted = deque(wanted)
        self._anchors: deque[int] = deque()  # frames that are no B-frames, ascending
        self._moved: deque[_Seen] = deque()  # frames with vectors, ascending
        self._newest, self._size = -1, (1, 1)

    def see(self, number: int, frame: av.VideoFrame) -> None:
        """Take note of a frame; they come in order, from any frame on."""
        self._newest, self._size = number, (frame.width, frame.height)
        is_anchor = frame.pict_type != PictureType.B
        if is_anchor:
            self._anchors.append(number)
        vectors = side_data(frame).get("MOTION_VECTORS")
        vectors = None if vectors is None else vectors.to_ndarray()
        if vectors is not None and (is_anchor or vectors["motion_x"].any() or vectors["motion_y"].any()):
            self._moved.append(_Seen(number, vectors, self._size))
        first = self._wanted[0] if self._wanted else number
        while len(self._moved) > 1 and self._moved[1].number <= first:  # of those before it only the last is of use
            self._moved.popleft()
        while len(self._anchors) > 1 and self._anchors[1] < (self._moved[0].number if self._moved else first):
            self._anchors.popleft()

    @property
    def is_waiting(self) -> bool:
        """Whether a wanted frame has come by whose motion is not known without later ones; once `ready` is asked."""
        return bool(self._wanted) and self._wanted[0] <= self._newest

    def ready(self, *, at_end: bool = False) -> Iterator[tuple[int, Grid]]:
        """Wanted frames with their grids, in order, each once: those that no frame to come can change.

        Args:
            at_end: no frame is to come.
        """
        while self._wanted and self._wanted[0] <= self._newest and (at_end or self._is_decided(self._wanted[0])):
            yield self._wanted[0], self._grid(self._source(self._wanted[0]))
            self._wanted.popleft()

    def _is_decided(self, number: int) -> bool:
        later = next((seen.number for seen in self._moved if seen.number >= number), None)
        if later is None:
            return self._newest >= number + LOOK_AHEAD
        return any(anchor >= later for anchor in self._anchors) or self._newest >= later + LOOK_AHEAD

    def _source(self, number: int) -> _Seen | None:
        """The frame whose vectors a frame has. Those that came by before a seek may be anywhere."""
        near = [seen for seen in self._moved if abs(seen.number - number) <= LOOK_AHEAD]
        later = next((seen for seen in near if seen.number >= number), None)
        return later or (near[-1] if near else None)

    def _grid(self, seen: _Seen | None) -> Grid:
        if seen is None:
            return np.zeros(grid_size(*self._size), np.float32), self._size
        if seen.speeds is None:
            steps = [anchor - seen.number for anchor in self._anchors if 0 < abs(anchor - seen.number) <= LOOK_AHEAD]
            before, behind = (
                max((step for step in steps if step < 0), default=-1),
                min((step for step in steps if step > 0), default=1),
            )
            seen.speeds = block_speeds(seen.vectors, seen.size, (-before, behind), self._references)
        return seen.speeds, seen.size


def block_speeds(vectors: np.ndarray, size: tuple[int, int], distances: tuple[int, int], references: int) -> np.ndarray:
    """The grid of a frame, float32 [rows, columns], pixels a frame.

    Args:
        vectors: FFmpeg's AVMotionVector.
        size: (width, height) of the frame.
        distances: frames that vectors point back and forward.
        references: multiples of the camera's vector that are taken for it.
    """
    rows, columns = (blocks * MOTION_BLOCK // _CELL for blocks in grid_size(*size))
    total, count = np.zeros((rows, columns)), np.zeros((rows, columns))
    for is_forward, distance in enumerate(distances):
        some = vectors[(vectors["source"] > 0) == is_forward]
        if len(some):
            blocks = np.stack([some[name] for name in ("dst_x", "dst_y", "w", "h")], axis=1, dtype=np.int64)
            moved = np.stack([some["motion_x"], some["motion_y"]], axis=1) / some["motion_scale"][:, None]
            _add_speeds(blocks, moved, float(distance), references, total, count)
    cells = (total / np.maximum(count, 1)).reshape(rows // 2, 2, columns // 2, 2)
    return cells.mean((1, 3), dtype=np.float32)


@compiled("(i8[:,::1], f8[:,::1], f8, i8, f8[:,::1], f8[:,::1])")
def _add_speeds(
    blocks: np.ndarray, moved: np.ndarray, distance: float, references: int, total: np.ndarray, count: np.ndarray
) -> None:
    """Add the speeds of blocks [n, (centre x, y, width, height)] to the cells they cover, and how many did."""
    areas = np.maximum(blocks[:, 2] // _CELL, 1) * np.maximum(blocks[:, 3] // _CELL, 1)
    camera_x, camera_y = np.median(np.repeat(moved[:, 0], areas)), np.median(np.repeat(moved[:, 1], areas))
    most, part = 0.0, 1
    for multiple in range(1, references + 1):
        explained = 0.0
        for n in range(len(blocks)):
            x, y = camera_x / multiple, camera_y / multiple
            explained += areas[n] * (_length(moved[n, 0], moved[n, 1], x, y, references)[1] <= _NEAR)
        if explained > most * (_BETTER if part == 1 else 1.0):
            most, part = explained, multiple
    camera_x, camera_y = camera_x / part, camera_y / part
    rows, columns = total.shape
    for n in range(len(blocks)):
        across, down = max(blocks[n, 2] // _CELL, 1), max(blocks[n, 3] // _CELL, 1)
        left, top = blocks[n, 0] - blocks[n, 2] // 2, blocks[n, 1] - blocks[n, 3] // 2
        x, y = left + camera_x, top + camera_y
        far, near = _length(moved[n, 0], moved[n, 1], camera_x, camera_y, references)
        speed = (near if near <= _NEAR else far) / distance
        if min(x, y) < -_NEAR or x + blocks[n, 2] > columns * _CELL + _NEAR or y + blocks[n, 3] > rows * _CELL + _NEAR:
            speed = 0.0
        for row in range(max(top // _CELL, 0), min(top // _CELL + down, rows)):
            for column in range(max(left // _CELL, 0), min(left // _CELL + across, columns)):
                total[row, column] += speed
                count[row, column] += 1
