"""The features of videos with their classes, as heads learn from them and are asked about them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from engine.heads.sequences import Sequences


@dataclass(frozen=True)
class LabelledFeatures:
    """The features of the windows of V videos, with their classes, int64 [V] into `classes`, -1 of none of them.

    shown: int64 [V], equal for what shows the same (engine/data/manifests/contents.py); None: not known.
    """

    videos: Sequences
    label: torch.Tensor
    classes: tuple[str, ...]
    shown: torch.Tensor | None = None

    def among(self, names: Sequence[str]) -> tuple[Sequences, torch.Tensor]:
        """The videos of some classes, and their classes as indices into `names`."""
        label = self._label_in(names)
        return self.videos[label >= 0], label[label >= 0]

    def only(self, names: Sequence[str]) -> "LabelledFeatures":
        """The videos of some classes."""
        return LabelledFeatures(*self.among(names), tuple(names), self.shown_by(names))

    def shown_by(self, names: Sequence[str]) -> torch.Tensor | None:
        """`shown` of the videos of some classes."""
        return None if self.shown is None else self.shown[self._label_in(names) >= 0]

    def counts(self) -> Counter[str]:
        """Videos of each class."""
        return Counter(self.classes[index] for index in self.label.tolist() if index >= 0)

    def without(self, shown: torch.Tensor | None) -> "LabelledFeatures":
        """The videos that show one of these are of no class any more; without `shown` nothing is told. No feature is copied."""
        if shown is None or self.shown is None:
            return self
        return replace(self, label=self.label.masked_fill(torch.isin(self.shown, shown), -1))

    def joined(self, other: "LabelledFeatures") -> "LabelledFeatures":
        """Both as one data set: one name is one class."""
        classes = tuple(dict.fromkeys((*self.classes, *other.classes)))
        videos = Sequences.joined([self.videos, other.videos])
        shown = None if self.shown is None or other.shown is None else torch.cat([self.shown, other.shown])
        return LabelledFeatures(videos, torch.cat([self.label, other._label_in(classes)]), classes, shown)

    def _label_in(self, names: Sequence[str]) -> torch.Tensor:
        """int64 [V]: the classes as indices into `names`, -1 of all others."""
        place = {name: index for index, name in enumerate(names)}
        return torch.tensor([*(place.get(name, -1) for name in self.classes), -1])[self.label]
