"""Decoded pictures into their places of one snippet: converted, cut, turned, mirrored."""

import av
import cv2
import numpy as np

from engine.data.geometry import CropWindow
from engine.data.pyav.convert import FrameConverter
from engine.data.pyav.planar import PlanarWindows, is_full_range, is_planar_420


class SnippetWriter:
    """Writes the pictures of one snippet, in any order.

    Pictures of the size that is wanted are only gathered and converted together when the snippet is full, and only
    what the crop shows of them. Any other picture is converted and scaled whole, at once.

    Args:
        clip: uint8 [T, crop, crop, 3], to be filled.
    """

    def __init__(self, clip: np.ndarray, window: CropWindow, convert: FrameConverter) -> None:
        self._clip, self._window, self._convert = clip, window, convert
        self._waiting = len(clip)
        self._gathered: PlanarWindows | None = None
        self._form: tuple[str, int, int, int] | None = None  # of the pictures that are gathered

    def put(self, place: int, picture: av.VideoFrame, converted: dict[tuple[int, int], np.ndarray]) -> None:
        """Take a picture, once for each place; `converted`: the picture by size, shared between snippets."""
        form = (picture.format.name, picture.color_range, picture.width, picture.height)
        if form == self._form or (self._form is None and self._gather(picture, form)):
            self._gathered.put(picture, self._clip[place])
        else:
            size = (self._window.width, self._window.height)
            if size not in converted:
                converted[size] = self._convert(picture, *size)
            cut(converted[size], self._window, self._clip[place])
        self._waiting -= 1
        if not self._waiting and self._gathered is not None:
            self._gathered.flush()

    def _gather(self, picture: av.VideoFrame, form: tuple[str, int, int, int]) -> bool:
        """Begin to gather pictures of this form, if they are to be shown as large as they are."""
        window, crop, size = self._window, self._clip.shape[1], (picture.height, picture.width)
        if size != (window.height, window.width) or window.quarter_turns or not is_planar_420(picture):
            return False
        place, workspace = (window.top, window.left, crop, crop), self._convert.workspace
        self._gathered = PlanarWindows(*place, *size, is_full_range(picture), workspace, flip=window.flip)
        self._form = form
        return True


def cut(image: np.ndarray, window: CropWindow, square: np.ndarray) -> None:
    """Fill `square`, uint8 [crop, crop, 3], with what the window shows of a scaled image [H, W, 3]."""
    crop = len(square)
    shown = image[window.top : window.top + crop, window.left : window.left + crop]
    if window.quarter_turns:
        shown = np.rot90(shown, -window.quarter_turns)
    if window.flip:
        cv2.flip(np.ascontiguousarray(shown), 1, square)
    else:
        square[...] = shown
