"""Tokens selected by motion: those on what moves; the same number, and the same ones, however clips are batched."""

import math

import pytest
import torch

from engine.data.batch import ClipBatch, ClipFormat, SnippetRequest
from engine.data.pyav.decode import PyAVDecoder
from engine.errors import InputError
from engine.models.backbone import build_backbone
from engine.models.config import ModelConfig, TokensConfig
from engine.models.embedder import build_embedder
from engine.models.token_selection import TokenSelection, token_motion
from engine.models.video_transformer import from_patches, to_patches
from engine.schema.parser import parse
from tests.data.moving import SIDE, draw_moving, write_moving
from tests.data.videos import describe

CPU = torch.device("cpu")
GRID = (4, 3, 5)
CLIP = ClipFormat(num_frames=8, short_side=48, crop=48, motion=True)


def selection(by: str = "motion", kept: int = 15, grid: tuple[int, int, int] = GRID) -> TokenSelection:
    return TokenSelection(by, kept, grid)


def some_motion(count: int, grid: tuple[int, int, int] = GRID, most: int = 256) -> torch.Tensor:
    size = (count, 2 * grid[0], *grid[1:])
    return torch.randint(0, most, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("form", ["h264 with B-frames", "mpeg4"])
@pytest.mark.parametrize("pan", [0.0, 2.0])
def test_the_tokens_that_are_shown_lie_on_what_moves(tmp_path, form, pan):
    """Half as many are kept as the thing covers; of as many at random few lie on it."""
    clip = ClipFormat(num_frames=16, stride=2, short_side=176, crop=176, motion=True)
    grid, requests, places = (8, 11, 11), [], []
    for seed in range(3):
        moving = draw_moving(seed, pan=pan)
        video = describe(write_moving(tmp_path, form, moving, name=str(seed)))
        requests.append(SnippetRequest(video, 0, 0.5, 0.5, flip=False))
        places.append(moving.places[::4])
    decoder = PyAVDecoder(clip, CPU, 1)
    motion = decoder.decode(requests).motion
    decoder.close()
    shares = {}
    for by in ("motion", "random"):
        rule = selection(by, 30, grid)  # the thing covers at least 2 x 2 whole tokens of 8 moments
        on_thing = [
            on(place, token, grid) for place, row in zip(places, shown(rule, motion), strict=True) for token in row
        ]
        shares[by] = sum(on_thing) / len(on_thing)
    assert shares["motion"] > 0.93 and shares["random"] < 0.25, shares


def shown(rule: TokenSelection, motion: torch.Tensor, seed: int = 0) -> list[list[int]]:
    return rule(rule.draw(seed, len(motion), CPU), motion).tolist()


def on(places: list[tuple[int, int]], token: int, grid: tuple[int, int, int]) -> bool:
    """Whether a token shows any of the thing, or would a frame or two later (4 pixels a frame at most)."""
    time, row, column = token // (grid[1] * grid[2]), token // grid[2] % grid[1], token % grid[2]
    return all(
        16 * at - SIDE - 8 < corner < 16 * at + 16 + 8 for at, corner in zip((column, row), places[time], strict=True)
    )


@pytest.mark.parametrize("by", ["motion", "random"])
@pytest.mark.parametrize("kept", [1, 15, 59, 60])
def test_every_clip_shows_the_same_number_in_order(by, kept):
    motion = some_motion(9)
    motion[::3] = 0
    rule = selection(by, kept)
    tokens = rule(rule.draw(0, 9, CPU), motion)
    assert tokens.shape == (9, kept) and tokens.dtype == torch.int64
    assert (tokens.diff(dim=1) > 0).all() and tokens.min() >= 0 and tokens.max() < math.prod(GRID)


def test_what_moves_most_comes_first_and_what_moves_alike_by_lot():
    motion = torch.zeros(2, 8, 3, 5, dtype=torch.uint8)
    motion[0, 6:, 1, 2] = torch.tensor([0, 9])  # the two frames of a token count together
    motion[0, 2, 2, 4] = 8
    motion[1, 3, 0, 0] = 1
    tokens = {0: 3 * 15 + 1 * 5 + 2, 1: 1 * 15 + 2 * 5 + 4, 2: 1 * 15}
    assert token_motion(motion, 4).flatten(1)[0, tokens[0]] == 9 and token_motion(motion, 4).sum() == 18
    assert shown(selection(kept=1), motion) == [[tokens[0]], [tokens[2]]]
    assert shown(selection(kept=2), motion)[0] == sorted([tokens[0], tokens[1]])
    one, other = (shown(selection(kept=4), motion, seed)[0] for seed in (0, 1))
    assert {tokens[0], tokens[1]} <= set(one) & set(other) and one != other
    full = torch.full_like(motion, 255)  # the fastest that is told, everywhere
    assert shown(selection(), full) == shown(selection("random"), full)


def test_a_still_shows_what_random_shows_of_it():
    still = torch.zeros(4, 8, 3, 5, dtype=torch.uint8)
    assert shown(selection(), still) == shown(selection("random"), still)
    counts = torch.zeros(60)
    for seed in range(200):
        for tokens in shown(selection(), still, seed):
            counts[tokens] += 1
    assert counts.min() > 140 and counts.max() < 270  # evenly: 200 each, within five standard deviations


@pytest.mark.parametrize("by", ["motion", "random"])
def test_the_same_step_shows_the_same_and_a_part_of_a_batch_what_the_whole_does(by):
    motion, rule = some_motion(12, most=3), selection(by)
    numbers = rule.draw(7, 12, CPU)
    whole = rule(numbers, motion)
    assert torch.equal(rule(rule.draw(7, 12, CPU), motion), whole)
    assert not torch.equal(rule(rule.draw(8, 12, CPU), motion), whole)
    assert torch.equal(rule(numbers[1::3], motion[1::3]), whole[1::3])
    batch = ClipBatch(torch.zeros(12, 1), *(torch.arange(12),) * 3, motion=motion, visible=whole)
    assert torch.equal(torch.cat([part.visible for part in batch.chunk(4)]), whole)
    assert torch.equal(torch.cat([part.motion for part in batch.chunk(4)]), motion)


@pytest.mark.parametrize("by", ["motion", "random"])
def test_in_evaluation_a_video_shows_the_same_wherever_it_stands(by):
    """Three videos of five snippets that are alike: however batches cut through them."""
    motion, rule = some_motion(5, most=3).repeat(3, 1, 1, 1), selection(by)
    whole = rule.evaluated(0, 15, 5, motion, CPU)
    assert torch.equal(whole[:5], whole[5:10]) and torch.equal(whole[:5], whole[10:])
    parts = [rule.evaluated(first, 4, 5, motion[first : first + 4], CPU) for first in (0, 4, 8)]
    assert torch.equal(torch.cat(parts), whole[:12])
    if by == "random":
        assert len({tuple(tokens) for tokens in whole[:5].tolist()}) == 5


def test_the_share_is_kept_as_near_as_whole_tokens_allow():
    for share, kept in ((0.25, 15), (0.5, 30), (0.001, 1), (0.99, 59), (0.995, 60)):
        assert TokenSelection.of(TokensConfig(share), CLIP, GRID).kept == kept
    assert TokenSelection.of(TokensConfig(1.0), ClipFormat(), GRID) is None
    still = ClipFormat(num_frames=8, short_side=48, crop=48)
    assert TokenSelection.of(TokensConfig(0.5, "random"), still, GRID).by == "random"
    with pytest.raises(
        InputError, match=r"model\.tokens\.by motion needs the motion of the clips: set clip.motion=true, or"
    ):
        TokenSelection.of(TokensConfig(0.5), still, GRID)


def model_config(share: float = 0.25, by: str = "motion") -> ModelConfig:
    tokens = {"share": share} | ({"by": by} if share < 1 else {})
    return parse(ModelConfig, {"backbone": "vit_tiny", "dropout": 0.0, "tokens": tokens})


def test_nothing_is_read_of_the_tokens_that_are_not_shown():
    config = model_config()
    assert str(config) == "vit_tiny, 0.25 of the tokens by motion"
    torch.manual_seed(0)
    model = build_embedder(config, CLIP, 7).eval()
    clips, motion = torch.randn(2, 3, 8, 48, 48), some_motion(2, (4, 3, 3))
    visible = model.tokens.evaluated(0, 2, 1, motion, CPU)
    assert visible.shape == (2, 9)
    points = model(clips, visible)
    patches = to_patches(clips.permute(0, 2, 3, 4, 1))
    kept = torch.zeros(2, 36, dtype=torch.bool).scatter_(1, visible, torch.ones(2, 9, dtype=torch.bool))
    patches[~kept] = float("nan")
    spoilt = from_patches(patches, (4, 3, 3)).permute(0, 4, 1, 2, 3)
    assert torch.equal(model(spoilt, visible), points)  # bit for bit
    assert not torch.equal(model(clips, visible.flip(0)), points)
    with pytest.raises(AssertionError, match="which tokens"):
        model(clips)


def test_all_tokens_are_the_network_without_a_selection_bit_for_bit():
    """As the class was before tokens could be selected: patches, blocks, mean."""
    torch.manual_seed(0)
    network, clips = build_backbone(model_config(share=1.0), CLIP).eval(), torch.randn(2, 3, 8, 48, 48)
    assert network.tokens is None
    tokens = network.patch_embed(to_patches(clips.permute(0, 2, 3, 4, 1))) + network.position.flatten(2).transpose(1, 2)
    for block in network.blocks:
        tokens = block(tokens)
    assert torch.equal(network(clips), network.norm(tokens).mean(dim=1))
    torch.testing.assert_close(network(clips, torch.arange(36).expand(2, -1)), network(clips))
