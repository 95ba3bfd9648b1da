"""Masks: how many tokens, where, and that the box of mgm lies on what moves while others do not."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.pyav.decode import PyAVDecoder
from engine.tasks.masked.masks import Masker, box_of, split_tokens
from tests.data.moving import SIDE, draw_moving, write_moving
from tests.data.videos import describe

CPU = torch.device("cpu")
KINDS = ("mgm", "smm", "tube", "random", "box")
GRIDS = ((8, 14, 14), (8, 7, 7), (4, 3, 3), (4, 2, 2), (1, 1, 2), (3, 5, 9))


def moving_object(count: int, grid: tuple[int, int, int], side: int = 2, seed: int = 0, noise: int = 0):
    """Motion of a square that wanders over a background of a little `noise`: (uint8 [N, T, h, w], centres [N, T', 2])."""
    time, height, width = grid
    draw = torch.Generator().manual_seed(seed)
    motion = torch.randint(0, noise + 1, (count, 2 * time, height, width), generator=draw)
    start = torch.rand(count, 2, generator=draw) * torch.tensor([height - side, width - side])
    end = torch.rand(count, 2, generator=draw) * torch.tensor([height - side, width - side])
    at = (torch.arange(2 * time) / (2 * time - 1)).reshape(1, -1, 1)
    corner = (start[:, None] * (1 - at) + end[:, None] * at).round().long()
    speed = torch.randint(12, 60, (count,), generator=draw)
    for clip, frame in torch.cartesian_prod(torch.arange(count), torch.arange(2 * time)).tolist():
        y, x = corner[clip, frame].tolist()
        motion[clip, frame, y : y + side, x : x + side] = speed[clip]
    return motion.to(torch.uint8), corner[:, ::2] + (side - 1) / 2


def masks(kind: str, count: int, grid: tuple[int, int, int], ratio: float = 0.25, seed: int = 0, motion=None):
    masker = Masker(kind, ratio, grid)
    return masker(masker.draw(seed, count, CPU), motion)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", GRIDS)
def test_every_clip_hides_the_same_number_of_tokens_in_every_frame(kind, grid):
    cells = grid[1] * grid[2]
    motion, _ = moving_object(16, grid, side=1)
    for ratio in (0.05, 0.25, 0.5, 0.75, 0.95):
        hidden = masks(kind, 16, grid, ratio, motion=motion)
        expected = min(max(round(ratio * cells), 1), cells - 1)
        assert hidden.shape == (16, *grid) and hidden.dtype == torch.bool
        assert (hidden.sum(dim=(2, 3)) == expected).all()
        seen, masked = split_tokens(hidden, grid[0] * expected)
        assert seen.shape == (16, grid[0] * (cells - expected)) and masked.shape == (16, grid[0] * expected)
        assert hidden.flatten(1).gather(1, masked).all() and not hidden.flatten(1).gather(1, seen).any()
        both = torch.cat([seen, masked], dim=1).sort(dim=1).values
        assert torch.equal(both, torch.arange(grid[0] * cells).expand(16, -1))
        assert (seen.diff(dim=1) > 0).all() and (masked.diff(dim=1) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_draws_the_same_and_a_part_of_a_batch_is_drawn_as_in_the_whole(kind):
    grid = (8, 7, 7)
    motion = moving_object(12, grid)[0]
    motion[::2] = 0  # half of the clips are still: they have smm's boxes
    one, masker = masks(kind, 12, grid, motion=motion), Masker(kind, 0.25, grid)
    assert torch.equal(one, masks(kind, 12, grid, motion=motion))
    assert not torch.equal(one, masks(kind, 12, grid, seed=1, motion=motion))
    assert torch.equal(one[1::3], masker(masker.draw(0, 12, CPU)[1::3], motion[1::3]))


def on_object(hidden: torch.Tensor, centres: torch.Tensor, grid: tuple[int, int, int]) -> tuple[float, float]:
    """Shares of frames in which the box's centre is the object's within a token (as far as the border lets it), and in which
    all of the object (2x2 tokens) is hidden."""
    places = torch.stack(torch.meshgrid(torch.arange(grid[1]), torch.arange(grid[2]), indexing="ij"), dim=-1).float()
    low, high = (fold(torch.where(hidden[..., None], places, empty)) for fold, empty in BOUNDS)
    half, size = (high - low) / 2, torch.tensor([grid[1], grid[2]])
    nearest = centres.maximum(half).minimum(size - 1 - half)
    near = (places - centres[:, :, None, None]).abs().amax(dim=-1) < 1  # the tokens of the object
    covered = (hidden | ~near).flatten(2).all(dim=2)
    return ((low + half - nearest).abs().amax(dim=-1) <= 1).float().mean().item(), covered.float().mean().item()


BOUNDS = ((lambda x: x.amin(dim=(2, 3)), float("inf")), (lambda x: x.amax(dim=(2, 3)), -float("inf")))


@pytest.mark.parametrize("grid", [(8, 14, 14), (8, 7, 7), (8, 9, 16)])
@pytest.mark.parametrize("noise", [0, 3])
def test_the_box_of_mgm_lies_on_what_moves_and_others_do_not(grid, noise):
    motion, centres = moving_object(200, grid, noise=noise)
    found = {kind: on_object(masks(kind, 200, grid, motion=motion), centres, grid) for kind in ("mgm", "smm", "box")}
    assert found["mgm"][0] > 0.98 and found["mgm"][1] > 0.98
    for kind in ("smm", "box"):
        assert found[kind][0] < 0.4 and found[kind][1] < 0.4, kind


@pytest.mark.parametrize("form", ["h264", "h264 with B-frames", "mpeg4"])
@pytest.mark.parametrize(("pan", "least"), [(0.0, 0.95), (2.0, 0.9)], ids=["still camera", "pan"])
def test_the_box_of_mgm_hides_what_moves_in_encoded_clips(tmp_path, form, pan, least):
    """The gates: 14x14 tokens a frame, a quarter hidden (7x7), a thing of 40 pixels."""
    decoder = PyAVDecoder(ClipFormat(num_frames=16, short_side=224, crop=224, motion=True), CPU, 1)
    drawn = [draw_moving(seed, pan=pan, size=(224, 224), num_frames=16) for seed in range(4)]
    files = [write_moving(tmp_path, form, moving, name=f"{seed}") for seed, moving in enumerate(drawn)]
    decoded = [decoder.decode([SnippetRequest(describe(file), 0, 0.5, 0.5, flip=False)]) for file in files]
    decoder.close()
    motion = torch.cat([each.motion for each in decoded])
    middle = torch.tensor([moving.places for moving in drawn]).flip(2) + SIDE / 2  # [N, T, 2]: (y, x) in pixels
    found = {}
    for kind in ("mgm", "box", "smm"):
        hidden = masks(kind, 4, (8, 14, 14), motion=motion).repeat_interleave(2, dim=1)
        rows, columns = hidden.any(dim=3).byte().argmax(dim=2), hidden.any(dim=2).byte().argmax(dim=2)
        corner = 16 * torch.stack([rows, columns], dim=2)
        centre, nearest = corner + 56, middle.clamp(56, 224 - 56)  # as far as the border lets a box be
        away = (centre - nearest).abs().amax(dim=2)
        past = torch.maximum(corner - (middle - SIDE / 2), middle + SIDE / 2 - (corner + 112)).amax(dim=2)
        found[kind] = [(is_so).float().mean().item() for is_so in (away <= SIDE / 2, past <= 0, past < SIDE / 2)]
    on_thing, hidden_whole, holds_centre = found["mgm"]
    assert on_thing >= least and hidden_whole >= least and holds_centre >= least, found
    for kind in ("box", "smm"):
        assert found[kind][0] < 0.4 and found[kind][1] < 0.5, found


def test_where_nothing_moves_the_box_stays_or_wanders():
    grid = (4, 7, 7)
    motion, _ = moving_object(3, grid)
    motion[0] = 0  # a still clip
    motion[1, 2:6] = 0  # it rests in the middle
    motion[2, :4] = 0  # it rests at first
    hidden, wandering = masks("mgm", 3, grid, motion=motion), masks("smm", 3, grid)
    assert torch.equal(hidden[0], wandering[0])
    assert torch.equal(hidden[1, 1], hidden[1, 0]) and torch.equal(hidden[1, 2], hidden[1, 0])
    assert torch.equal(hidden[2, 0], hidden[2, 2]) and torch.equal(hidden[2, 1], hidden[2, 2])


def test_two_things_move_and_the_box_takes_the_faster_one_even_in_a_corner():
    motion = torch.zeros(1, 8, 14, 14, dtype=torch.uint8)
    motion[:, :, 0:2, 0:2], motion[:, :, 10:12, 10:12] = 40, 20
    assert masks("mgm", 1, (4, 14, 14), motion=motion)[0, :, :7, :7].all()
    motion[:, 4:, 0:2, 0:2] = 0  # then it stops
    hidden = masks("mgm", 1, (4, 14, 14), motion=motion)
    assert hidden[0, :2, :7, :7].all() and hidden[0, 2:, 7:, 7:].all()


def test_kinds_are_what_they_say():
    grid, corners = (8, 14, 14), []
    tube, anew, box = masks("tube", 50, grid), masks("random", 50, grid), masks("box", 50, grid)
    assert (tube == tube[:, :1]).all() and (box == box[:, :1]).all()
    assert not (anew == anew[:, :1]).all(dim=(1, 2, 3)).any()
    assert tube.float().mean(dim=(0, 1)).sub(0.25).abs().max() < 0.3  # no place is preferred
    wandering = masks("smm", 400, grid).flatten(2).byte().argmax(dim=2)
    corners = torch.stack([wandering // 14, wandering % 14], dim=2)
    steps = corners.diff(dim=1).abs()
    assert steps.max() == 1 and (steps.sum(dim=(1, 2)) > 0).float().mean() > 0.9  # smoothly, and nearly all do move
    assert corners.unique().tolist() == list(range(8))  # everywhere there is room
    apart = (corners[:, -1] - corners[:, 0]).float().abs().amax(dim=1)
    assert apart.mean() > 1.5 and apart.max() > 5


@pytest.mark.parametrize(
    ("cells", "height", "width", "box"),
    [
        (49, 14, 14, (7, 7)),
        (12, 7, 7, (4, 3)),
        (147, 14, 14, (12, 13)),
        (2, 3, 3, (1, 2)),
        (3, 2, 2, (2, 2)),
        (1, 1, 2, (1, 1)),
    ],
)
def test_boxes_have_about_the_proportions_of_the_frame(cells, height, width, box):
    found = box_of(cells, height, width)
    assert found in (box, box[::-1])
    assert found[0] <= height and found[1] <= width and 0 <= found[0] * found[1] - cells < found[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_takes_no_numbers_from_the_host_once_it_has_been_made_before(kind):
    """On a GPU each would wait for the step before, all of it."""
    masker = Masker(kind, 0.5, (2, 4, 4))
    motion = torch.randint(0, 9, (3, 4, 4, 4), dtype=torch.uint8)
    masker(masker.draw(0, 3, CPU), motion)

    class Told(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            assert function not in (torch.tensor, torch.as_tensor, torch.from_numpy)
            return function(*args, **(kwargs or {}))

    with Told():
        masker(masker.draw(1, 3, CPU), motion)


def test_the_box_of_smm_turns_on_its_way():
    masker = Masker("smm", 0.01, (8, 56, 56))  # a small box in a large frame: no border is near
    numbers = torch.full((2, 3 + 8), 0.5)
    numbers[:, 2], numbers[:, 3] = 1.0, 0.0  # at full speed, both in one direction at first
    numbers[1, 4:] = 0.95  # and the second turns by 40 degrees each time
    first = masker(numbers).flatten(2).byte().argmax(dim=2)
    way = torch.stack([first // 56, first % 56], dim=2).diff(dim=1)
    assert (way[0] == way[0, 0]).all() and not (way[1] == way[1, 0]).all()
