"""Sequences of unequal length, against lists of them."""

import pytest
import torch
from torch import nn

from engine.heads.sequences import Sequences, run

LENGTHS = (3, 1, 5, 2)


@pytest.fixture
def parts() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, 4, generator=generator) for length in LENGTHS]


def test_sequences_are_chosen_and_padded(parts):
    whole = Sequences.of(parts)
    assert len(whole) == 4 and whole.lengths.tolist() == list(LENGTHS)
    for rows in (torch.tensor([2, 0, 2]), torch.tensor([False, True, True, False])):
        chosen = whole[rows]
        wanted = [parts[i] for i in (rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows).tolist()]
        assert all(map(torch.equal, chosen.values.split(chosen.lengths.tolist()), wanted))
    padded = whole.padded()
    assert padded.shape == (4, 5, 4) and whole.is_step().sum(dim=1).tolist() == list(LENGTHS)
    assert torch.equal(padded[whole.is_step()], whole.values) and (padded[~whole.is_step()] == 0).all()
    torch.testing.assert_close(whole.means(), torch.stack([part.mean(dim=0) for part in parts]))
    assert torch.equal(whole.largest(), torch.stack([part.amax(dim=0) for part in parts]))
    assert torch.equal(whole.map(lambda values: 2 * values).values, 2 * whole.values)


def test_long_ones_are_thinned_evenly():
    steps = Sequences.of([torch.arange(float(length))[:, None] for length in (10, 2, 3, 5)])
    thin = steps.thinned(3)
    assert thin.lengths.tolist() == [3, 2, 3, 3]
    assert thin.values[:, 0].tolist() == [1, 5, 8, 0, 1, 0, 1, 2, 0, 2, 4]
    assert torch.equal(steps.thinned(10).values, steps.values)


@pytest.mark.parametrize("network", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("both", [False, True])
def test_what_lies_behind_an_end_is_not_read(network, both, parts):
    torch.manual_seed(0)
    network = network(4, 6, batch_first=True, bidirectional=both)
    whole = Sequences.of(parts)
    dirty = whole.padded().masked_fill(~whole.is_step()[:, :, None], 1e6)
    outputs, last = run(network, dirty, whole.lengths)
    for row, part in enumerate(parts):
        alone, _ = network(part[None])
        torch.testing.assert_close(outputs[row, : len(part)], alone[0])
        assert (outputs[row, len(part) :] == 0).all()
        ends = torch.cat([alone[0, -1, :6], alone[0, 0, 6:]])  # the backward direction ends at the first step
        torch.testing.assert_close(last[row], ends)
