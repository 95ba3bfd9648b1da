"""Any class names as vectors over the classes that a network knows: names for videos without any training.

    class name ──words──▶ vector ─┐
                                  ├─ cosines [C, K] ─▶ the 50 largest of each row, else 0 ─▶ class vectors
    K known names ──words──▶ ─────┘

A video's score for a class is the sum of those cosines, each times the root of what the network gives the known class
(objects2action: Jain, van Gemert, Mensink and Snoek, ICCV 2015; a convex combination of the nearest words: Norouzi et al.,
ICLR 2014). Some classes lie near to many known ones and would score high for any video; where unlabelled videos are at
hand, each class's scores are counted from their mean over these, in their standard deviations.

Everything else in the engine looks for the class of the largest cosine, not of the largest sum. Two more places make the
one the other: with (root of scores, 1, 0) for a video and (cosines, offset, rest) for a class, where `rest` brings all
classes to one length, the cosine is the sum but for one factor.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from engine.errors import InputError
from engine.models.image_weights import IMAGENET, imagenet_classes
from engine.schema.parser import MAX_SEED
from engine.semantics.classes import KeptVectors, build_class_embeddings
from engine.semantics.config import WordsConfig, WordSourceConfig, each_source, random_where_missing
from engine.semantics.embeddings import ClassEmbeddings

NEAREST = 50  # known classes that speak for a class; fixed before anything was measured with it
EXTRA = 2  # places behind those of the known classes


def video_points(roots: torch.Tensor) -> torch.Tensor:
    """Roots of mean scores [V, K] -> points [V, K + EXTRA] whose cosines with class vectors order them by score."""
    ends = roots.new_tensor([1.0, 0.0]).expand(roots.shape[0], -1)
    return torch.cat([roots, ends], dim=1)


class KnownClasses:
    """A `ClassVectorSource`: class names -> vectors [C, K + EXTRA].

    Args:
        known: the K classes of the network, in the order of its outputs.
        words: what compares their names with others.
        unlabelled: points [U, K + EXTRA] of videos to standardise scores over, whatever they show; at least 2.
    """

    def __init__(
        self, known: Sequence[str], words: WordsConfig | KeptVectors, unlabelled: torch.Tensor | None = None
    ) -> None:
        self.known = tuple(known)
        self.words = words if isinstance(words, KeptVectors) else KeptVectors(words)
        self.unlabelled = unlabelled
        if unlabelled is not None and len(unlabelled) < 2:
            raise InputError(f"scores are standardised over at least 2 unlabelled videos, not {len(unlabelled)}")

    def embed(self, names: Sequence[str]) -> ClassEmbeddings:
        """See `ClassVectorSource`."""
        asked = build_class_embeddings(tuple(names), self.words)
        weights = nearest_known(asked.vectors, known_vectors(self.known, self.words.config))
        order = weights.argsort(dim=1, descending=True)
        bound = float(NEAREST)  # of the squared length of such a row: the same name has the same vector in any list
        offsets = torch.zeros(len(weights), 1, dtype=torch.float64)
        how = ""
        if self.unlabelled is not None:
            scores = self.unlabelled[:, : len(self.known)].double() @ weights.T
            spread = scores.std(dim=0).clamp(min=1e-6)[:, None]
            weights, offsets = weights / spread, -scores.mean(dim=0)[:, None] / spread
            bound = float((weights.square().sum(dim=1) + offsets[:, 0].square()).max())
            how = f", standardised over {len(self.unlabelled)} unlabelled videos"
        rest = (bound - weights.square().sum(dim=1, keepdim=True) - offsets.square()).clamp(min=0).sqrt()
        vectors = torch.cat([weights, offsets, rest], dim=1)
        description = f"the {min(NEAREST, len(self.known))} nearest of {len(self.known)} known classes{how}; by {asked.description}"
        spoken_for = [[self.known[index] for index in row] for row in order[:, :3].tolist()]
        return ClassEmbeddings.from_raw(names, np.asarray(vectors), description, spoken_for)


def nearest_known(vectors: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Cosines of unit vectors [C, D] with those [K, D] of known classes, float64 [C, K]: a row's 50 largest, else 0."""
    cosines = vectors.double() @ known.double().T
    nearest = cosines.topk(min(NEAREST, len(known)), dim=1)
    return torch.zeros_like(cosines).scatter(1, nearest.indices, nearest.values)


def known_vectors(known: tuple[str, ...], words: WordsConfig) -> torch.Tensor:
    """The vectors [K, D] of a network's own classes, by the words that others are compared with.

    What defines ImageNet's classes is known (WordNet); others are defined by the same files as the classes asked for, or
    else by their names. Words that averaged vectors lack (ImageNet's Latin) get random ones. Random words are drawn apart
    from those of the classes asked for: else equal names would meet.
    """

    def of_known(source: WordSourceConfig) -> WordSourceConfig:
        if source.source == "sentence" and source.text != "name":
            files = [IMAGENET] if known == imagenet_classes() else source.definitions
            return dataclasses.replace(source, definitions=files, undefined="name")
        return dataclasses.replace(source, seed=MAX_SEED - source.seed) if source.source == "random" else source

    return build_class_embeddings(known, random_where_missing(each_source(words, of_known))).vectors
