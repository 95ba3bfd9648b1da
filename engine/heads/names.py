"""Names without training, over the kept features of the installed network: what heads are to be held against.

The layer of ImageNet's classes gives each window its scores; their mean over the video and the class names do the rest
(engine/naming). `untrained_splits.py` averages scores over frames; here the frames of a window are averaged before the layer.
"""

import functools

import torch
from torch import nn

from engine.heads.classes import Classes
from engine.heads.sequences import Sequences
from engine.models.image_weights import imagenet_classes
from engine.models.weights import INSTALLED
from engine.naming.known_classes import KnownClasses, video_points
from engine.naming.untrained import load_untrained


class NamesHead:
    """A `Head` for features of `--model installed`. The seen videos' labels are not used.

    Args:
        standardised: each class's scores are counted over the seen videos, whatever they show.
    """

    def __init__(self, *, standardised: bool) -> None:
        self.standardised = standardised

    def fit(self, videos: Sequences, label: torch.Tensor, classes: Classes, seed: int) -> None:
        """See `Head`."""
        self.unlabelled = _points(videos) if self.standardised else None

    def rank(self, videos: Sequences, classes: Classes) -> torch.Tensor:
        """See `Head`."""
        known = KnownClasses(imagenet_classes(), classes.source, self.unlabelled)
        return _points(videos) @ known.embed(classes.names).vectors.T


@torch.inference_mode()
def _points(videos: Sequences) -> torch.Tensor:
    scores = videos.map(lambda windows: _classifier()(windows).softmax(dim=1))
    return video_points(scores.means().sqrt())


@functools.cache
def _classifier() -> nn.Module:
    """Features [N, 1280] -> logits [N, 1000]."""
    return load_untrained(INSTALLED, torch.device("cpu")).model.network.network.get_classifier()
