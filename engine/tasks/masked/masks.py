"""Which tokens of a clip are hidden: five kinds of masks, all of the same number of tokens in every frame of every clip.

    mgm     a box at the highest motion of each frame, followed through time (Fan et al., ICCV 2023)
    smm     a box that starts anywhere and moves smoothly at random; its control without motion
    box     a box that stays where it is drawn
    tube    tokens at random, the same in all frames (VideoMAE)
    random  tokens at random, anew in each frame

A token is two frames of 16x16 pixels (`engine/models/video_transformer.py`), a frame of tokens the h x w tokens of one moment.
Everything is computed on the device, without waiting for it, with shapes that are known beforehand.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engine.models.token_selection import Grid, token_motion

_TURN = math.pi / 2  # widest change of direction of smm's box from one frame of tokens to the next


@dataclass(frozen=True)
class Masker:
    """Masks of one kind over clips of one size.

    kind: one of the above. ratio: share of the tokens to hide, kept as near as whole tokens of a frame allow (at least one is
    hidden, and one visible). grid: tokens of a clip in time, rows and columns.
    """

    kind: str
    ratio: float
    grid: Grid

    @property
    def hidden(self) -> int:
        """Tokens hidden in each frame of tokens."""
        cells = self.grid[1] * self.grid[2]
        return min(max(round(self.ratio * cells), 1), cells - 1)

    @property
    def box(self) -> tuple[int, int]:
        """Rows and columns of a box of `hidden` tokens, of about the frame's proportions; its last column may lack some."""
        return box_of(self.hidden, self.grid[1], self.grid[2])

    def draw(self, seed: int, count: int, device: torch.device) -> Tensor:
        """The random numbers of so many clips, float32 [count, numbers of a clip], by a generator on the device."""
        time, height, width = self.grid
        sizes = {"random": time * height * width, "tube": height * width, "box": 2}
        generator = torch.Generator(device).manual_seed(seed)
        return torch.rand(count, sizes.get(self.kind, 3 + time), generator=generator, device=device)

    def __call__(self, numbers: Tensor, motion: Tensor | None = None) -> Tensor:
        """The masks of clips: bool [N, *grid], true where a token is hidden.

        Args:
            numbers: as `draw` gives them, of these clips.
            motion: uint8 [N, T, h, w] of the clips' frames; only mgm looks at it. A clip without any motion gets the box of
                smm. In a frame without any the box stays where it was last, or will be first.
        """
        if self.kind in ("random", "tube"):
            scores = numbers.unflatten(1, (-1, self.grid[1] * self.grid[2]))
            mask = scores.argsort(dim=2).argsort(dim=2) < self.hidden  # the rank of each token in its frame
            return mask.expand(-1, self.grid[0], -1).unflatten(2, self.grid[1:])
        if self.kind == "box":
            return self._boxes(self._corner(numbers.unsqueeze(1).expand(-1, self.grid[0], -1)))
        corner = self._wandering(numbers)
        if self.kind == "mgm":
            assert motion is not None, "mgm needs the motion of the clips"
            followed, moves = self._followed(motion)
            corner = torch.where(moves[:, None, None], followed, corner)
        return self._boxes(corner)

    @property
    def _room(self) -> tuple[int, int]:
        return self.grid[1] - self.box[0], self.grid[2] - self.box[1]

    def _corner(self, place: Tensor) -> Tensor:
        """Places in [0, 1] -> upper left tokens of boxes, int64 [N, T', 2] (row, column)."""
        room = _constant(self._room, place.device)
        return (place * (room + 1)).floor().long().minimum(room)

    def _wandering(self, numbers: Tensor) -> Tensor:
        """smm: from a random place in a random direction, which turns a little from frame to frame; by at most a token each
        time, and back from the borders."""
        start, speed, turns = numbers[:, None, :2], numbers[:, 2, None, None], numbers[:, 3:]
        first = torch.arange(turns.shape[1], device=turns.device) == 0
        angle = torch.where(first, 2 * math.pi * turns, _TURN * (turns - 0.5)).cumsum(dim=1)
        way = speed * torch.stack([angle.sin(), angle.cos()], dim=2)
        size = _constant(self._room, turns.device) + 1
        place = start * size + way.cumsum(dim=1) - way[:, :1]
        return self._corner(1 - (1 - (place / size) % 2).abs())

    def _followed(self, motion: Tensor) -> tuple[Tensor, Tensor]:
        """mgm: the corners of the boxes [N, T', 2], and which clips move at all, bool [N].

        The box with the most motion is found first, and then moved so that the centre of the motion within it is its own. Motion
        counts squared: the many small vectors of a background that is not quite still weigh less than an object.
        """
        time, height, width = self.grid
        (rows, columns), energy = self.box, token_motion(motion, time).square()
        sums = functional.avg_pool2d(energy, (rows, columns), stride=1)
        best = sums.flatten(2).argmax(dim=2)
        corner = torch.stack([best // sums.shape[3], best % sums.shape[3]], dim=2)
        inside = energy * self._rectangles(corner)
        total = inside.sum(dim=(2, 3)).clamp_min(1)
        row = (inside.sum(dim=3) * torch.arange(height, device=motion.device)).sum(dim=2) / total
        column = (inside.sum(dim=2) * torch.arange(width, device=motion.device)).sum(dim=2) / total
        centre = torch.stack([row - (rows - 1) / 2, column - (columns - 1) / 2], dim=2)
        room = _constant(self._room, motion.device)
        corner = (centre + 0.5).floor().long().clamp_min(0).minimum(room)
        moves = energy.flatten(2).amax(dim=2) > 0
        index = torch.arange(time, device=motion.device)
        last = torch.where(moves, index, -1).cummax(dim=1).values
        first = moves.byte().argmax(dim=1, keepdim=True)
        frame = torch.where(last < 0, first, last)
        return corner.gather(1, frame.unsqueeze(2).expand(-1, -1, 2)), moves.any(dim=1)

    def _offsets(self, corner: Tensor) -> tuple[Tensor, Tensor]:
        """Of each token from the corner of its frame's box: rows [N, T', h, 1] and columns [N, T', 1, w]."""
        rows, columns = (torch.arange(size, device=corner.device) for size in self.grid[1:])
        return (rows - corner[..., :1]).unsqueeze(3), (columns - corner[..., 1:]).unsqueeze(2)

    def _rectangles(self, corner: Tensor) -> Tensor:
        """The whole boxes at these corners, bool [N, T', h, w]."""
        down, right = self._offsets(corner)
        return (down >= 0) & (down < self.box[0]) & (right >= 0) & (right < self.box[1])

    def _boxes(self, corner: Tensor) -> Tensor:
        """The boxes at these corners without what their last column has too many."""
        down, right = self._offsets(corner)
        return self._rectangles(corner) & (right * self.box[0] + down < self.hidden)


def box_of(cells: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the box that holds so many cells of a frame: with few to spare, and of about its proportions."""

    def unfit(rows: int) -> float:
        columns = -(-cells // rows)
        return (rows * columns / cells - 1) + abs(math.log(rows * width / (columns * height))) / 2

    rows = min(range(-(-cells // width), min(height, cells) + 1), key=unfit)
    return rows, -(-cells // rows)


def split_tokens(mask: Tensor, num_hidden: int) -> tuple[Tensor, Tensor]:
    """Masks [N, T', h, w] of `num_hidden` tokens each -> the tokens that are visible and those that are hidden, in order.

    Returns:
        int64 [N, L - num_hidden] and [N, num_hidden].
    """
    order = mask.flatten(1).byte().argsort(dim=1, stable=True)
    return order[:, :-num_hidden], order[:, -num_hidden:]


@functools.cache
def _constant(values: tuple[int, ...], device: torch.device) -> Tensor:
    """Made once: numbers that come from the host would have it wait for all that a GPU has still to do."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device)
