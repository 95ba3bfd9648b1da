"""The matrix from Y'CbCr to R'G'B' that the engine's own conversions share, on the CPU and on a GPU, in whole numbers."""

import numpy as np

MATRIX_BITS = 20  # of the fraction in the matrix: what 32 bits have room for
CHROMA_BITS = 4  # of the fraction that weights of 1/4 and 3/4 along two axes leave in chroma


def rgb_matrix(full_range: bool) -> np.ndarray:
    """BT.601 (Kr 0.299, Kb 0.114): (Y, Cb, Cr, 1) to (R, G, B), int32 [3, 4], of chroma with its fraction.

    The last column rounds; a level is the sum, shifted right by `MATRIX_BITS`, cut off at 0 and 255.
    """
    red, blue = 1.402, 1.772
    chroma = np.array([[0, red], [-blue * 0.114 / 0.587, -red * 0.299 / 0.587], [blue, 0]])
    luma = np.ones((3, 1))
    if not full_range:
        luma, chroma = luma * 255 / 219, chroma * 255 / 224
    offset = -128 * chroma.sum(axis=1, keepdims=True) - (0 if full_range else 16) * luma + 0.5  # to round
    exact = np.concatenate([luma, chroma / 2**CHROMA_BITS, offset], axis=1) * 2**MATRIX_BITS
    return np.round(exact).astype(np.int32)
