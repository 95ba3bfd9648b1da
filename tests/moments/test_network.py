"""The network: padding has no effect to the last bit, each switch is what it says, and it learns what it is for."""

import numpy as np
import pytest
import torch

from engine.moments.config import MomentsConfig
from engine.moments.network import MULTIPLE, MomentNetwork, places
from engine.moments.search import padded

CPU = torch.device("cpu")
FUSIONS = ("cross", "one_way", "none", "late")


def network(**options) -> MomentNetwork:
    torch.manual_seed(0)
    return MomentNetwork(37, 50, MomentsConfig(features="f", annotations="a", **options)).eval()


def rows(lengths, width, seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(length, width)).astype(np.float32) for length in lengths]


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("frame_weight", [0.0, 1.0])
def test_padding_changes_nothing_to_the_last_bit(fusion, frame_weight):
    model = network(fusion=fusion, frame_weight=frame_weight)
    videos, queries = rows([20, 5, 128, 33, 1, 77], 37, 0), rows([3, 9, 1, 40, 16, 2], 50, 1)
    with torch.inference_mode():
        together = model(*padded(videos, CPU), *padded(queries, CPU))
        for row, (video, query) in enumerate(zip(videos, queries, strict=True)):
            alone = model(*padded([video], CPU), *padded([query], CPU))
            for one, all_ in zip(alone, together, strict=True):
                assert torch.equal(one[0, : len(video)], all_[row, : len(video)])
    for part in together[:2]:
        assert torch.isinf(part[0, 20:]).all() and torch.isfinite(part[0, :20]).all()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_what_stands_in_the_padding_is_never_seen(fusion):
    model = network(fusion=fusion)
    (video, is_segment), (query, is_token) = padded(rows([20, 7], 37, 0), CPU), padded(rows([3, 9], 50, 1), CPU)
    other_video = torch.where(is_segment[..., None], video, 1e4)
    other_query = torch.where(is_token[..., None], query, -1e4)
    with torch.inference_mode():
        first, second = model(video, is_segment, query, is_token), model(other_video, is_segment, other_query, is_token)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one[is_segment], other[is_segment])
    changed = video.clone()
    changed[0, 3] += 1  # what does stand in the video is
    assert not torch.equal(model(changed, is_segment, query, is_token)[0][0, :20], first[0][0, :20])


def test_gradients_do_not_reach_the_padding_and_do_reach_all_weights():
    for fusion in FUSIONS:
        model = network(fusion=fusion).train()
        (video, is_segment), (query, is_token) = padded(rows([20, 7], 37, 0), CPU), padded(rows([3, 9], 50, 1), CPU)
        video.requires_grad_()
        start, end, inside = model(video, is_segment, query, is_token)
        (start.log_softmax(1)[:, 2] + end.log_softmax(1)[:, 4] + inside[:, :7].sum(1)).sum().backward()
        assert (video.grad[~is_segment] == 0).all() and (video.grad[is_segment] != 0).any()
        without = [name for name, weight in model.named_parameters() if weight.grad is None]
        assert not without, (fusion, without)  # DDP would wait for them for ever


def test_the_switches():
    count = {fusion: sum(p.numel() for p in network(fusion=fusion).parameters()) for fusion in FUSIONS}
    assert count["cross"] > count["one_way"] > count["none"]
    video, query = padded(rows([20], 37, 0), CPU), padded(rows([3], 50, 1), CPU)
    with torch.inference_mode():
        assert (network(frame_weight=0.0)(*video, *query)[2] == 0).all()
    assert torch.equal(places(40, 8, CPU)[:16], places(16, 8, CPU)) and places(3, 7, CPU).shape == (3, 7)


def test_padded_lengths_are_multiples():
    batch, is_real = padded(rows([17, 2], 3, 0), CPU)
    assert batch.shape == (2, 2 * MULTIPLE, 3) and is_real.sum(1).tolist() == [17, 2]


def test_it_learns_which_segments_a_query_means():
    """Ten concepts, each a vector in the video and another in the query: after a minute of steps it finds them anew."""
    rng = np.random.default_rng(3)
    seen, said = rng.normal(size=(10, 37)).astype(np.float32), rng.normal(size=(10, 50)).astype(np.float32)

    def draw(count):
        videos, queries, firsts = [], [], []
        for _ in range(count):
            concepts = rng.permutation(10)[:4]
            videos.append(seen[np.repeat(concepts, 8)] + 0.5 * rng.normal(size=(32, 37)).astype(np.float32))
            place = rng.integers(4)
            queries.append(said[concepts[place]][None])
            firsts.append(8 * place)
        first = torch.tensor(firsts)
        return (*padded(videos, CPU), *padded(queries, CPU)), first, first + 7

    model = network(width=32, heads=4, dropout=0.0).train()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(120):
        batch, first, last = draw(32)
        start, end, _ = model(*batch)
        loss = torch.nn.functional.cross_entropy(start, first) + torch.nn.functional.cross_entropy(end, last)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    batch, first, last = draw(100)
    start, end, _ = model.eval()(*batch)
    assert (start.argmax(1) == first).float().mean() > 0.9
    assert (end.argmax(1) == last).float().mean() > 0.9


def test_where_a_segment_stands_counts():
    """Equal segments far from the ends do not score alike."""
    model = network()
    video, query = [np.tile(rows([1], 37, 0)[0], (64, 1))], rows([4], 50, 1)
    with torch.inference_mode():
        start, end, _ = model(*padded(video, CPU), *padded(query, CPU))
    for scores in (start[0, 16:48], end[0, 16:48]):
        assert scores.std() > 1e-3
