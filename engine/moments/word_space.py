"""Where windows and queries can be compared by cosine: the candidates of a trained model come from there.

features ──the linear layer of the network that made them──▶ points of the word space ◀── query's mean word vector
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from engine.errors import InputError
from engine.features.cache import FeatureCache, Stamp
from engine.features.encoder import OBJECTS, Encoder, build_encoder
from engine.files.arrays import mapped_array
from engine.files.atomic_file import atomic_write
from engine.models.embedder import Embedder
from engine.models.image_weights import installed_names
from engine.moments.objects import ObjectQueries
from engine.moments.queries import QueryEncoder

_ROWS = 1 << 16  # windows projected at once


class Space(Protocol):
    """vector: of a query, float32 [E]."""

    def vector(self, query: str) -> np.ndarray: ...

    def points(self, features: np.ndarray) -> np.ndarray:
        """Features [W, D] -> float [W, E]."""
        ...

    def windows(self, cache: FeatureCache) -> "Windows": ...


@dataclass(frozen=True)
class Windows:
    """All windows of all videos as points, float [W, E]; the rest as in `FeatureCache`."""

    features: np.ndarray
    video_of: np.ndarray
    videos: Sequence[str]


class ObjectSpace:
    """Features of the objects that are seen: words are held against them as they are."""

    def __init__(self) -> None:
        self.vector: Callable[[str], np.ndarray] = ObjectQueries()

    def points(self, features: np.ndarray) -> np.ndarray:
        return features

    def windows(self, cache: FeatureCache) -> Windows:
        return Windows(cache.features, cache.video_of, cache.videos)


class WordSpace:
    """Features of a zero-shot model, whose linear layer makes them points among words."""

    def __init__(self, model: Embedder, queries: QueryEncoder) -> None:
        self._model, self.vector = model, queries.sentence

    @torch.inference_mode()
    def points(self, features: np.ndarray) -> np.ndarray:
        device = self._model.linear.weight.device
        parts = [
            self._model.project(torch.from_numpy(np.array(features[first : first + _ROWS], np.float32)).to(device))
            for first in range(0, len(features), _ROWS)
        ]
        return torch.cat(parts).half().cpu().numpy()

    def windows(self, cache: FeatureCache) -> Windows:
        """Projected once, and kept beside the features as long as they are the same."""
        digest = hashlib.blake2b(digest_size=8)
        for tensor in self._model.linear.state_dict().values():
            digest.update(tensor.cpu().numpy().tobytes())
        source = Path(cache.features.filename)
        state = source.stat()
        digest.update(f"{source.name} {state.st_size} {state.st_mtime_ns}".encode())
        kept = cache.folder / f"points-{digest.hexdigest()}.npy"
        points = self._kept(kept, len(cache.features))
        if points is None:
            points = self.points(cache.features)
            try:
                with atomic_write(kept) as partial:
                    np.save(partial, points)
                for old in cache.folder.glob("points-*.npy"):
                    if old != kept:
                        old.unlink()
                points = mapped_array(kept)
            except OSError:  # a folder that may only be read
                pass
        return Windows(points, cache.video_of, cache.videos)

    def _kept(self, path: Path, num_windows: int) -> np.ndarray | None:
        """None: there are none yet, or they are damaged."""
        try:
            points = mapped_array(path)
        except (OSError, ValueError):
            return None
        return points if points.shape == (num_windows, self._model.linear.out_features) else None


def open_space(stamp: Stamp, network: Encoder | None, queries: QueryEncoder) -> Space | None:
    """The space of features and queries; None where they have none in common, as far as is known."""
    if stamp.model in installed_names(OBJECTS):
        return ObjectSpace()
    model = getattr(network, "model", None)
    if isinstance(model, Embedder) and model.linear is not None and model.linear.out_features == queries.dim:
        return WordSpace(model, queries)
    return None


def find_network(stamp: Stamp, named: str | None, run: Path, device: torch.device) -> Encoder | None:
    """The network that made a run's features: the one that is named, else one of its name beside the run, or in runs/.

    Raises:
        InputError: the one that is named is another.
    """
    if named is not None:
        found = build_encoder(named, device, "--encoder")
        if found.digest != stamp.digest:
            raise InputError(
                f"--encoder '{named}' is {found.name}, digest {found.digest[:12]}: the model was trained with features of "
                f"{stamp.model}, {stamp.digest[:12]}"
            )
        return found
    folder = stamp.model.partition("/")[0]
    places = [run.parent / folder, Path("runs") / folder] if "/" in stamp.model else [stamp.model]
    for place in places:
        try:
            found = build_encoder(str(place), device)
        except InputError:
            continue
        if found.digest == stamp.digest:
            return found
    return None
