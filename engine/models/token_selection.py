"""Which tokens of a clip a transformer is shown (`model.tokens`): those that move most, or as many at random.

All clips of a run show the same number of tokens, so shapes are static. Nothing waits for the device.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from engine.data.batch import ClipFormat
from engine.errors import InputError
from engine.models.config import TokensConfig

Grid = tuple[int, int, int]  # tokens of a clip in time, rows and columns


@dataclass(frozen=True)
class TokenSelection:
    """A rule that is the same in training and in evaluation.

    by: motion, or random. kept: tokens that are shown of the L of a clip. grid: what L is the product of.
    """

    by: str
    kept: int
    grid: Grid

    @classmethod
    def of(cls, config: TokensConfig, clip: ClipFormat, grid: Grid) -> Self | None:
        """What a config asks for; None: clips are shown whole.

        Raises:
            InputError: it selects by a motion that the clips come without.
        """
        if config.share == 1:
            return None
        if config.by == "motion" and not clip.motion:
            raise InputError(
                "model.tokens.by motion needs the motion of the clips: set clip.motion=true, or take model.tokens.by=random"
            )
        return cls(config.by, max(round(config.share * math.prod(grid)), 1), grid)

    def draw(self, seed: int, count: int, device: torch.device) -> Tensor:
        """The random numbers of so many clips, float32 [count, L] in [0, 1), by a generator on the device."""
        generator = torch.Generator(device).manual_seed(seed)
        return torch.rand(count, math.prod(self.grid), generator=generator, device=device)

    def __call__(self, numbers: Tensor, motion: Tensor | None) -> Tensor:
        """The tokens that are shown, int64 [N, kept], ascending.

        Args:
            numbers: as `draw` gives them, of these clips.
            motion: uint8 [N, T, h, w] of the clips' frames. Of tokens that move alike those are taken that random would take
                first; so a clip without any motion, a still among them, shows what random would show of it.
        """
        scores = numbers
        if self.by == "motion":
            assert motion is not None, "tokens by motion need the motion of the clips"
            moves = token_motion(motion, self.grid[0]).flatten(1)
            scores = moves.double() + numbers  # motion is whole, numbers are below 1
        order = scores.argsort(dim=1, descending=True, stable=True)
        return order[:, : self.kept].sort(dim=1).values

    def evaluated(
        self, first: int, count: int, num_snippets: int, motion: Tensor | None, device: torch.device
    ) -> Tensor:
        """The same in evaluation, where every video has the same numbers, wherever it stands: the k-th of its snippets those of
        the k-th draw.

        Args:
            first, count: these snippets, of all that are embedded; `num_snippets` of each video follow each other.
        """
        numbers = self.draw(0, num_snippets, torch.device("cpu"))  # on a GPU other ones would be drawn
        of_each = torch.arange(first, first + count) % num_snippets
        return self(numbers[of_each].to(device), None if motion is None else motion.to(device))


def token_motion(motion: Tensor, time: int) -> Tensor:
    """uint8 [N, T, h, w] of frames -> how much the tokens move, that of their frames together: float32 [N, time, h, w], whole."""
    return motion.unflatten(1, (time, -1)).float().sum(dim=2)
