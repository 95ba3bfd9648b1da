"""Features that others have published, one file a video or one HDF5 file, read as if they were a `FeatureCache`.

    FOLDER/ID.npy, FOLDER/ID.npz, FOLDER/ID.pt        FILE.h5, FILE.hdf5: a data set, or a group of one, for each ID

They say nothing of when their windows are: length and hop are the user's to give.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.errors import InputError
from engine.features.cache import INDEX_NAME, FeatureCache, VideoFeatures

_HDF5 = (".h5", ".hdf5")


class PublishedFeatures:
    """Features [W, D] of videos by their names (file names without suffix); each is read when it is asked for.

    Args:
        path: a folder of .npy, .npz and .pt files, at any depth, or an HDF5 file.
        window_s, hop_s: seconds of a window, and from one to the next; the first begins at 0.
        durations: name -> seconds of the video, as far as known: no window ends later. Default: as long as its windows.

    Attributes:
        videos: the names, sorted.

    Raises:
        InputError: nothing can be read there, or a window or hop that is not above 0.
    """

    def __init__(self, path: Path, window_s: float, hop_s: float, durations: Mapping[str, float] | None = None) -> None:
        for name, value in (("window", window_s), ("hop", hop_s)):
            if not value > 0:
                raise InputError(f"features in '{path}': their {name} is {value:g} s: it must be more than 0")
        self.path, self._window_s, self._hop_s, self._durations = Path(path), window_s, hop_s, durations or {}
        self._read = _from_hdf5(self.path) if self.path.suffix in _HDF5 else _from_files(self.path)
        self.videos = tuple(sorted(self._read))
        self._width: tuple[int, str] | None = None  # of the first that was read, and which that was

    def __len__(self) -> int:
        return len(self.videos)

    def __contains__(self, video: str) -> bool:
        return video in self._read

    def __getitem__(self, video: str) -> VideoFeatures:
        """Of a video by its name.

        Raises:
            InputError: there is nothing of it, or what there is are no features.
        """
        if video not in self._read:
            raise InputError(f"the features in '{self.path}' have nothing of '{video}' among {len(self)} videos")
        features = self._checked(self._read[video](), video)
        start_s = self._hop_s * np.arange(len(features), dtype=np.float64)
        end_s = start_s + self._window_s
        duration_s = float(self._durations.get(video, end_s[-1]))
        num_inside = int(np.sum(start_s < duration_s))
        if not num_inside:
            raise InputError(f"the features of '{video}' in '{self.path}': it is said to last {duration_s:g} s")
        inside = slice(num_inside)
        return VideoFeatures(features[inside], start_s[inside], np.minimum(end_s[inside], duration_s), duration_s)

    def _checked(self, values: Any, video: str) -> np.ndarray:
        where = f"the features of '{video}' in '{self.path}'"
        features = np.asanyarray(values)  # a memory map stays one
        if features.ndim > 2:  # [1, W, D], [W, 1, 1, D]
            shape = tuple(size for size in features.shape[:-1] if size != 1) + features.shape[-1:]
            features = features.reshape(shape if len(shape) > 1 else (1, *shape))
        if features.ndim != 2 or not features.size or features.dtype.kind != "f":
            raise InputError(
                f"{where} are {features.dtype} {list(features.shape)}: floats [windows, numbers] are needed"
            )
        if not np.isfinite(features).all():
            raise InputError(f"{where} are not all finite: leave the file out, or get it again")
        self._width = self._width or (features.shape[1], video)
        if features.shape[1] != self._width[0]:
            raise InputError(
                f"{where} have {features.shape[1]} numbers, those of '{self._width[1]}' {self._width[0]}: of two models"
            )
        return features if features.dtype.itemsize <= 4 else features.astype(np.float32)


def open_features(
    path: Path,
    *,
    window_s: float | None = None,
    hop_s: float | None = None,
    durations: Mapping[str, float] | None = None,
) -> FeatureCache | PublishedFeatures:
    """The features at a place: a cache of tools/extract_features.py, which knows its windows, or published ones.

    Raises:
        InputError: published ones without `window_s` and `hop_s`, or what reading them finds.
    """
    if (Path(path) / INDEX_NAME).is_file() or (Path(path) / "journal.jsonl").is_file():
        return FeatureCache(path)
    if window_s is None or hop_s is None:
        raise InputError(
            f"'{path}' is no folder of tools/extract_features.py; published features need the seconds of their window and hop"
        )
    return PublishedFeatures(path, window_s, hop_s, durations)


def _from_files(folder: Path) -> dict[str, Callable[[], Any]]:
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix not in _READERS or path.name.startswith("."):
            continue
        if path.stem in files:
            raise InputError(f"two files of one video: '{files[path.stem]}' and '{path}': leave one out")
        files[path.stem] = path
    if not files:
        raise InputError(
            f"no features in '{folder}': files {', '.join(_READERS)}, or one of {', '.join(_HDF5)}, are needed"
        )
    return {name: _Reading(path) for name, path in files.items()}


class _Reading:
    """A file that is read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> Any:
        try:
            return _READERS[self.path.suffix](self.path)
        except Exception as error:  # of numpy, zipfile, torch and pickle: whatever a damaged file makes them raise
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise InputError(f"features '{self.path}' cannot be read: {reason}") from error


def _npy(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _npz(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as arrays:
        return _only(arrays, arrays.files)


def _pt(path: Path) -> np.ndarray:
    found = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(found, dict):
        found = _only(found, list(found))
    tensor = torch.as_tensor(found).detach()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # numpy has no bfloat16


_READERS: dict[str, Callable[[Path], Any]] = {".npy": _npy, ".npz": _npz, ".pt": _pt}


def _only(arrays: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The one array that can be features: of two dimensions or more; "features" where there are several."""
    able = [name for name in names if getattr(arrays[name], "ndim", 0) >= 2]
    if "features" in able:
        able = ["features"]
    if len(able) != 1:
        raise ValueError(f"it holds {', '.join(map(str, names)) or 'nothing'}: one array [windows, numbers] is needed")
    return arrays[able[0]]


def _from_hdf5(path: Path) -> dict[str, Callable[[], Any]]:
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"'{path}' needs h5py: pip install h5py") from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"features '{path}' cannot be read: {error}") from error

    def reading(name: str) -> Callable[[], Any]:
        def read() -> Any:
            try:
                found = file[name]
                return np.asarray(found if isinstance(found, h5py.Dataset) else _only(found, list(found)))
            except (KeyError, ValueError, OSError) as error:  # a KeyError: a link to what is not there
                raise InputError(f"features of '{name}' in '{path}' cannot be read: {error}") from error

        return read

    if not len(file):
        raise InputError(f"no features in '{path}': it is empty")
    return {name: reading(name) for name in file}
