"""C3D: the published layer sizes, other input sizes, and a forward pass written out by hand."""

import pytest
import torch
from torch import nn

from engine.data.batch import ClipFormat
from engine.errors import InputError
from engine.models.backbone import build_backbone
from engine.models.c3d import C3D
from engine.models.config import ModelConfig


def test_published_sizes():
    with torch.device("meta"):
        network = C3D()
    assert network.fc6.weight.shape == (4096, 8192) and network.feature_dim == 4096
    # Conv layers of Tran et al. 2015, and 8192 x 4096 + 4096 of fc6.
    assert sum(p.numel() for p in network.parameters()) == 27_655_936 + 33_558_528
    assert network(torch.empty(2, 3, 16, 112, 112, device="meta")).shape == (2, 4096)


@pytest.mark.parametrize(("num_frames", "crop"), [(16, 16), (17, 40), (32, 56), (16, 65)])
def test_other_input_sizes_work(num_frames, crop):
    network = build_backbone(
        ModelConfig(backbone="c3d", width=4), ClipFormat(num_frames=num_frames, short_side=crop, crop=crop)
    )
    features = network(torch.randn(2, 3, num_frames, crop, crop))
    assert features.shape == (2, 256) and (features >= 0).all() and features.max() > 0
    assert not torch.equal(features[0], features[1])


def test_same_function_as_layers_in_a_row():
    torch.manual_seed(0)
    network = C3D(16, 32, width=4).double()
    pools = [nn.MaxPool3d((1, 2, 2)), *(nn.MaxPool3d(2) for _ in range(3)), nn.MaxPool3d(2, 2, padding=(0, 1, 1))]
    stages = [["conv1"], ["conv2"], ["conv3a", "conv3b"], ["conv4a", "conv4b"], ["conv5a", "conv5b"]]
    clips = x = torch.randn(2, 3, 16, 32, 32, dtype=torch.float64)
    for names, pool in zip(stages, pools, strict=True):
        for name in names:
            x = torch.relu(network.get_submodule(name)(x))
        x = pool(x)
    expected = torch.relu(network.fc6(x.reshape(2, -1)))
    torch.testing.assert_close(network(clips), expected, rtol=1e-12, atol=1e-12)
    channels_last = network(clips.contiguous(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(channels_last, expected, rtol=1e-9, atol=1e-9)


def test_start_keeps_the_signal_alive():
    """Without batch-norm a start too small would let the activations die over nine layers."""
    torch.manual_seed(0)
    features = C3D(16, 32, width=16)(torch.randn(4, 3, 16, 32, 32))
    assert 0.1 < features.square().mean().sqrt() < 10


@pytest.mark.parametrize(("num_frames", "crop"), [(8, 112), (16, 12)])
def test_too_small_snippets_are_refused(num_frames, crop):
    with pytest.raises(InputError, match=r"c3d needs snippets of at least 16 frames.*another backbone"):
        build_backbone(ModelConfig(backbone="c3d"), ClipFormat(num_frames=num_frames, short_side=crop, crop=crop))


def test_clip_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"built for clips of \(16, 32, 32\), not \(16, 48, 48\)"):
        C3D(16, 32, width=4)(torch.randn(1, 3, 16, 48, 48))
