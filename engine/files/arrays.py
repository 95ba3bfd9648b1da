"""Arrays of numpy in files: whatever damaged bytes make numpy raise is one kind of error."""

from pathlib import Path

import numpy as np


def mapped_array(path: Path) -> np.ndarray:
    """The array of an .npy file, read-only; its values are read as they are asked for.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is no such file, or a damaged one.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # numpy takes a header apart as Python: what can be wrong has many types
        raise ValueError(str(error) or type(error).__name__) from error
