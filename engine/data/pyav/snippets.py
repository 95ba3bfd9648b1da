"""Decoded frames into their indices of one snippet: converted, cut, turned, mirrored."""

import av
import cv2
import numpy as np

from engine.data.geometry import CropWindow
from engine.data.pyav.convert import FrameConverter
from engine.data.pyav.planar import convert_window, is_planar_420


class SnippetWriter:
    """Writes the frames of one snippet, in any order.

    Of a frame of the size that is wanted only what the crop shows is converted. Any other is converted and scaled whole.

    Args:
        clip: uint8 [T, crop, crop, 3], to be filled.
    """

    def __init__(self, clip: np.ndarray, window: CropWindow, convert: FrameConverter) -> None:
        self._clip, self._window, self._convert = clip, window, convert

    def put(self, index: int, frame: av.VideoFrame, converted: dict[tuple[int, int], np.ndarray]) -> None:
        """Take a frame, once for each index; `converted`: the frame by size, shared between snippets."""
        window, square, size = self._window, self._clip[index], (self._window.width, self._window.height)
        if size == (frame.width, frame.height) and not window.quarter_turns and is_planar_420(frame):
            convert_window(frame, window.top, window.left, square, flip=window.flip)
            return
        if size not in converted:
            converted[size] = self._convert(frame, *size)
        cut(converted[size], window, square)


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
