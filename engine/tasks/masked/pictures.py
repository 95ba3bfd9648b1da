"""Pictures of masked pretraining: what is hidden of clips, and what the model puts there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.data.batch import ClipBatch
from engine.models.token_selection import Grid
from engine.models.video_transformer import from_patches, to_patches
from engine.results.figures import new_figure
from engine.results.pictures import draw_strip
from engine.tasks.masked.config import KINDS
from engine.tasks.masked.masks import Masker

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GREY, _SHOWN = 128, 8  # a hidden pixel; frames of a strip


@dataclass(frozen=True)
class Example:
    """A clip. frames, seen, filled: uint8 [T, H, W, 3], as it is, with what is hidden in grey, and with what was put there."""

    frames: np.ndarray
    seen: np.ndarray
    filled: np.ndarray


def example_of(frames: torch.Tensor, hidden: torch.Tensor, pixels: torch.Tensor, grid: Grid) -> Example:
    """Of a clip uint8 [T, H, W, 3], its hidden tokens int64 [M], and what was put there, uint8 [M, 1536]."""
    patches = to_patches(frames.unsqueeze(0))
    seen, filled = patches.clone(), patches.clone()
    seen[0, hidden], filled[0, hidden] = _GREY, pixels
    return Example(frames.cpu().numpy(), *(from_patches(each, grid)[0].cpu().numpy() for each in (seen, filled)))


def filled_sheet(examples: Sequence[Example]) -> "Figure":
    """Of each clip three strips: input, what the encoder sees, output."""
    strips = []
    for number, example in enumerate(examples, 1):
        strips.append((f"clip {number}: input", example.frames))
        strips.append(("what the encoder sees", example.seen))
        strips.append(("output", example.filled))
    return _sheet(strips)


def mask_sheet(clips: ClipBatch, masker: Masker, numbers_seed: int, count: int) -> "Figure":
    """The first clips of a batch under masks of every kind (mgm where their motion is known)."""
    masks = {}
    for kind in KINDS if clips.motion is not None else [kind for kind in KINDS if kind != "mgm"]:
        other = Masker(kind, masker.ratio, masker.grid)
        masks[kind] = other(other.draw(numbers_seed, len(clips), clips.frames.device), clips.motion)
    strips = []
    for place in range(min(count, len(clips))):
        frames = clips.frames[place]
        strips.append((f"clip {place + 1}", frames.cpu().numpy()))
        for kind, mask in masks.items():
            hidden = mask[place].flatten().nonzero().squeeze(1)
            strips.append((kind, example_of(frames, hidden, frames.new_zeros(()), masker.grid).seen))
    return _sheet(strips)


def _sheet(strips: Sequence[tuple[str, np.ndarray]]) -> "Figure":
    figure = new_figure(1.35 * _SHOWN, 1.7 * max(len(strips), 1))
    rows = figure.subplots(max(len(strips), 1), squeeze=False)[:, 0]
    for axes, (title, frames) in zip(rows, strips, strict=False):
        draw_strip(axes, frames, title, _SHOWN)
    return figure
