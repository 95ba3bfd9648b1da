"""Masked pretraining as a task: real videos without labels, the engine's loop; resumed, killed, distributed, used afterwards."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.config import Config, load_config
from engine.data.batch import ClipBatch
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError, SourceGone
from engine.features.encoder import build_encoder
from engine.models.token_selection import TokenSelection
from engine.models.video_transformer import VideoTransformer, from_patches, to_patches
from engine.processes.distributed import Ranks
from engine.processes.preemption import Preempted, StopVote
from engine.schema.parser import parse
from engine.tasks.masked import measuring
from engine.tasks.masked.batches import MaskedBatch
from engine.tasks.masked.config import KINDS, MaskedConfig
from engine.tasks.masked.data import MaskedData, read_data
from engine.tasks.masked.masks import Masker, split_tokens
from engine.tasks.masked.measuring import Measuring
from engine.tasks.masked.network import MaskedAutoencoder, Targets, constant_loss, patch_targets
from engine.tasks.masked.outcome import MaskedOutcome, MaskedResults, recorded
from engine.tasks.masked.task import Masked
from engine.tasks.token_batches import TokenBatches
from engine.train import train
from engine.training.build import build_run
from engine.training.precision import choose_precision
from tests import jobs
from tests.jobs import losses, same_weights
from tests.pretended_gpu import GPU, only_without_gpu, pretended_gpu, trained_there
from tests.training.test_step import StopAfter

CPU = Ranks(torch.device("cpu"))
GRID = (2, 2, 2)


def tree(manifest: Path, folder: Path, **changed: dict) -> dict:
    """A run of seconds: 9 steps; `changed` are single keys of its sections."""
    sections = {
        "run": {"folder": str(folder), "device": "cpu", "cpu_threads": 1},
        "data": {
            "train": [{"manifest": str(manifest), "splits": ["train"]}],
            "validation": {"video_share": 0.25},
            "decode_threads": 1,
        },
        "clip": {"num_frames": 4, "short_side": 32, "crop": 32, "motion": True},
        "model": {"backbone": "vit_tiny"},
        "masked": {"mask": "mgm", "decoder_depth": 1},
        "train": {"epochs": 2, "batch_size": 4, "lr": 1e-3, "schedule": "constant", "optimizer": "adamw"},
        "evaluate": {"num_snippets": 2},
        "checkpoint": {"keep": 1},
        "log": {"every_steps": 1},
    }
    return {"task": "masked", **{name: {**section, **changed.get(name, {})} for name, section in sections.items()}}


def config(manifest: Path, folder: Path, **changed: dict) -> Config:
    return parse(Config, tree(manifest, folder, **changed))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """For runs within this process, as for the processes held against them: more threads add up in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pretrained(one_thread, videos, tmp_path_factory) -> Path:
    """The folder of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("masked") / "run"
    Masked.show(train(config(videos, folder), CPU, StopVote()), None)
    return folder


def test_a_run_is_trained_measured_and_recorded(pretrained, videos):
    record = json.loads((pretrained / "results.json").read_text())
    assert record["task"] == "masked" and record["trained_steps"] == 9 and record["training_videos"] == 18
    assert record["masked"] == {"mask": "mgm", "ratio": 0.75, "decoder_depth": 1, "decoder_width": 0}
    assert record["held_out"]["clips"] == 12 and 0.5 < record["held_out"]["constant"] < 1
    assert (pretrained / "filled_in.png").is_file() and (pretrained / "masks.png").is_file()
    board = EventAccumulator(str(pretrained / "tensorboard")).Reload()
    assert set(board.Tags()["images"]) == {"masks", "filled_in"}
    constant = [point.value for point in board.Scalars("train/constant_loss")]
    assert len(constant) == 9 and all(0.3 < value < 1 for value in constant)
    assert [point.step for point in board.Scalars("held_out/loss")] == [9]
    log = (pretrained / "log.txt").read_text()
    assert "masks: mgm, 6 of 8 tokens hidden (0.750)" in log and "chosen by held-out loss" in log
    again = train(config(videos, pretrained), CPU, StopVote())
    assert again.results.to_dict() == record and (pretrained / "log.txt").read_text() == log  # nothing was done


@only_without_gpu
def test_a_training_on_a_gpu_stays_there(videos, tmp_path, monkeypatch):
    on = config(videos, tmp_path, run={"device": "auto"}, train={"epochs": 1}, evaluate={"num_snippets": 1})
    assert trained_there(on, monkeypatch).results.to_dict()["held_out"]["clips"] == 6


@only_without_gpu
@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_made_on_the_gpu_without_waiting(kind):
    masker = Masker(kind, 0.5, (4, 5, 5))
    motion = torch.randint(0, 9, (3, 8, 5, 5), dtype=torch.uint8)
    expected = masker(masker.draw(7, 3, CPU.device), motion)
    with pretended_gpu() as waits:
        on_gpu = motion.to(GPU, non_blocking=True)
        masker(masker.draw(7, 3, GPU), on_gpu)  # constants reach the device once
        waits.clear()
        mask = masker(masker.draw(7, 3, GPU), on_gpu)
        assert waits == [] and mask.device == GPU
        assert torch.equal(mask.cpu(), expected)


def test_a_finished_run_is_measured_again_where_it_is_asked_for_otherwise(videos, tmp_path):
    def reached(**evaluate: object) -> dict:
        run = config(videos, tmp_path, train={"epochs": 1, "ema_decay": 0.5}, evaluate=evaluate)
        return train(run, CPU, StopVote()).results.to_dict()

    first = reached()
    more = reached(num_snippets=3)
    assert first["held_out"]["clips"] == 12 and more["held_out"]["clips"] == 18 and more["num_snippets"] == 3
    assert more["clips_per_second"] == first["clips_per_second"] > 0  # of the training, which was not done again
    trained = reached(weights="trained")
    assert trained["weights"] == "trained" and trained["held_out"]["loss"] != first["held_out"]["loss"]
    for key in ("num_snippets", "weights"):  # as earlier versions have written it
        del trained[key]
    (tmp_path / "results.json").write_text(json.dumps(trained))
    assert reached()["held_out"] == trained["held_out"]


def test_a_loss_that_is_not_below_a_constants_is_told(pretrained, capsys):
    record = json.loads((pretrained / "results.json").read_text())
    filled = record.pop("held_out")
    for loss, is_told in ((0.9, False), (1.0, True), (1.1, True)):
        results = MaskedResults(record, filled | {"loss": loss, "constant": 1.0})
        Masked.show(MaskedOutcome(pretrained, results), None)
        told = capsys.readouterr().out.splitlines()[-1]
        assert told.endswith("train.lr)") == is_told == bool(results.to_dict()["doubts"])
    assert f"({loss:.4f}) is not below a constant's (1.0000): nothing was learnt" in told
    assert MaskedResults(record, None).doubts == []


def test_what_is_to_be_copied_to_a_command_line_is_quoted(pretrained, tmp_path, capsys):
    record = json.loads((pretrained / "results.json").read_text())
    folder = tmp_path / "my run"
    folder.symlink_to(pretrained)
    Masked.show(MaskedOutcome(folder, MaskedResults(record, record.pop("held_out"))), None)
    assert f"model.weights='{folder}' in a zero-shot run" in capsys.readouterr().out


def test_a_record_is_of_its_very_run_and_has_its_picture(pretrained, videos, tmp_path):
    folder = shutil.copytree(pretrained, tmp_path / "run")
    record = json.loads((folder / "results.json").read_text())
    task = SimpleNamespace(data=SimpleNamespace(train=SimpleNamespace(manifest=range(18))))
    best = record["best"] | {"step": 5}  # not the newest
    (folder / "results.json").write_text(json.dumps(record | {"best": best, "step": 5}))
    run = SimpleNamespace(folder=folder, ranks=CPU, config=config(videos, folder), best=best, step=9, task=task)
    assert recorded(run).results.to_dict() == record | {"best": best, "step": 5}
    run.step = 8
    assert recorded(run) is None
    run.step = 9
    (folder / "filled_in.png").unlink()
    assert recorded(run) is None


def test_a_stopped_run_resumes_bit_for_bit(pretrained, videos, tmp_path):
    with pytest.raises(Preempted):
        train(config(videos, tmp_path), CPU, StopAfter(5))  # in the middle of the second epoch
    train(config(videos, tmp_path), CPU, StopVote())
    assert losses(tmp_path) == losses(pretrained) and same_weights(tmp_path, pretrained)


def written(path: Path, sections: dict) -> Path:
    path.write_text(json.dumps(sections))  # YAML
    return path


def test_killed_it_ends_with_the_same_weights(pretrained, videos, tmp_path):
    file = written(tmp_path / "a.yaml", tree(videos, tmp_path / "run", checkpoint={"every_steps": 2, "keep": 1}))
    process = jobs.start(file)
    jobs.wait_for_step(tmp_path / "run", 3, process)
    process.kill()
    process.communicate()
    jobs.run(file)
    assert losses(tmp_path / "run") == losses(pretrained) and same_weights(tmp_path / "run", pretrained)


def test_two_ranks_train_what_one_does(videos, tmp_path):
    records = []
    for ranks in (1, 2):
        folder, exact = tmp_path / str(ranks), {"precision": "fp64", "accumulate": 3 - ranks}
        jobs.run(written(tmp_path / f"{ranks}.yaml", tree(videos, folder, train=exact)), ranks=ranks)
        records.append(json.loads((folder / "results.json").read_text())["held_out"])
    one, two = losses(tmp_path / "1"), losses(tmp_path / "2")
    assert len(one) == 9 and one == pytest.approx(two, rel=1e-9)
    assert records[0] == pytest.approx(records[1], rel=1e-9)
    constants = [
        [
            event["train/constant_loss"]
            for event in jobs.events(tmp_path / name, "scalars")
            if "train/constant_loss" in event
        ]
        for name in ("1", "2")
    ]
    assert constants[0] == pytest.approx(constants[1], rel=1e-6)


CHOOSERS = {kind: Masker(kind, 0.3, (2, 3, 3)) for kind in KINDS}
CHOOSERS |= {f"shown by {by}": TokenSelection(by, 7, (2, 3, 3)) for by in ("motion", "random")}


@pytest.mark.parametrize("kind", CHOOSERS)
def test_tokens_of_a_step_do_not_depend_on_ranks_or_on_where_a_run_begins(kind):
    motion = torch.randint(0, 40, (6, 4, 3, 3), dtype=torch.uint8)

    class Loader:
        stream = type("Stream", (), {"seed": 5, "batch_size": 6})

        def __init__(self, mine: slice) -> None:
            self.mine = mine

        def __next__(self) -> ClipBatch:
            frames = torch.zeros(6, 4, 48, 48, 3, dtype=torch.uint8)[self.mine]
            return ClipBatch(frames, *(torch.arange(6)[self.mine],) * 3, motion=motion[self.mine])

    def masks(first: int, rank: int = 0, world_size: int = 1) -> list[torch.Tensor]:
        loader = Loader(slice(rank, None, world_size))
        batches = TokenBatches(loader, CHOOSERS[kind], MaskedBatch, first, rank, world_size)
        return [next(batches).mask for _ in range(3)]

    whole = masks(0)
    assert torch.equal(masks(1)[0], whole[1]) and torch.equal(masks(2)[0], whole[2])
    assert kind in ("mgm", "shown by motion") or not torch.equal(whole[0], whole[1])
    for rank in range(3):
        assert all(torch.equal(part, mask[rank::3]) for part, mask in zip(masks(0, rank, 3), whole, strict=True))
    batch = next(TokenBatches(Loader(slice(None)), CHOOSERS[kind], MaskedBatch, 0, 0, 1))
    assert torch.equal(torch.cat([part.mask for part in batch.chunk(3)]), whole[0])
    assert torch.equal(torch.cat([part.video for part in batch.chunk(3)]), torch.arange(6))


def small() -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(VideoTransformer("vit_tiny", GRID), MaskedConfig(decoder_depth=1)).eval()


def hidden_half(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    masker = Masker("random", 0.5, GRID)
    return split_tokens(masker(masker.draw(0, count, CPU.device)), 4)


def test_what_is_said_of_hidden_patches_does_not_depend_on_them():
    network, clips, (visible, hidden) = small(), torch.randn(3, 3, 4, 32, 32), hidden_half(3)
    said = network(clips, visible, hidden)
    assert said.shape == (3, 4, 1536)
    patches = to_patches(clips.permute(0, 2, 3, 4, 1))
    patches.scatter_(1, hidden.unsqueeze(2).expand(-1, -1, 1536), float("nan"))
    spoilt = from_patches(patches, GRID).permute(0, 4, 1, 2, 3)
    assert torch.equal(network(spoilt, visible, hidden), said)  # bit for bit
    assert torch.equal(network.backbone.encode(spoilt, visible), network.backbone.encode(clips, visible))
    turned = network(clips, visible, hidden.flip(1)).flip(1)  # each knows which one is asked for
    torch.testing.assert_close(turned, said, rtol=1e-4, atol=1e-5)
    assert (said[:, 0] - said[:, 1]).abs().mean() > 1e-3
    with torch.no_grad():
        network.decoder.embed.weight.zero_()  # nothing is known of the visible ones then but where they are
        assert (network(clips, hidden, hidden) - network(clips, visible, hidden)).abs().max() > 1e-4
        network.decoder.norm.weight.zero_()
        assert torch.equal(network(clips, visible, hidden)[0, 0], network.decoder.pixels.bias)


def test_the_decoder_is_as_large_as_it_is_asked_for():
    backbone = small().backbone
    for asked, width in ((0, backbone.width // 2), (2 * backbone.width, 2 * backbone.width)):
        decoder = MaskedAutoencoder(backbone, MaskedConfig(decoder_depth=3, decoder_width=asked)).decoder
        assert len(decoder.blocks) == 3
        assert decoder.embed.out_features == decoder.pixels.in_features == len(decoder.hidden) == width


def test_predicted_values_become_the_nearest_pixels():
    targets = Targets(torch.zeros(1, 1, 5), torch.full((1, 1, 1), 0.5), torch.full((1, 1, 1), 0.25))
    predicted = torch.tensor([[[-3.0, 0.0, 0.3 / 63.75, 1.0, 3.0]]])  # 127.5 is the nearest even one
    assert targets.pixels(predicted).tolist() == [[[0, 128, 128, 191, 255]]]


def test_targets_have_no_mean_and_unit_variance_and_what_is_flat_stays_flat():
    frames = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8)
    frames[0, :2, :16, :16] = 200
    frames[0, :2, :16, 16:] = torch.tensor([99, 100, 99])  # less than a step of a byte apart
    everything = torch.arange(8).expand(2, -1)
    targets = patch_targets(frames, everything, torch.float64)
    assert targets.values.mean(dim=2).abs().max() < 1e-12
    spread = targets.values.square().mean(dim=2)
    assert spread[0, 0] == 0 and spread[0, 1] < 0.25 and spread[1].min() > 0.9997 and spread.max() <= 1
    back = targets.pixels(targets.values)
    assert torch.equal(from_patches(back, GRID), frames)
    constant = targets.values.mean(dim=(0, 1))
    expected = (targets.values - constant).square().mean()
    assert constant_loss(targets.sums()) == pytest.approx(expected.item())
    parts = [patch_targets(frames[i : i + 1], everything[:1], torch.float64).sums() for i in range(2)]
    assert constant_loss(sum(parts)) == pytest.approx(expected.item())
    assert targets.errors(constant.expand(2, 8, -1)).mean() == pytest.approx(expected.item())


class Clips:
    """In place of a `Filling`, its masker and the decoder: snippet k of row r is the number 10 r + k, 13 and 40 do not decode.

    What is said of a clip is its number, what it should be is 0. The mask of a clip is its seed beside its motion.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ends: Exception | None = None) -> None:
        self.seen: list[list[int]] = []  # of each clip: number, seed, motion
        self.models: list[str] = []
        self.masker, self.ends = self, ends
        monkeypatch.setattr(measuring, "video_requests", lambda manifest, rows, clip, snippets: [
            10 * row + k for row in rows.tolist() for k in range(snippets)
        ])  # fmt: skip
        monkeypatch.setattr(measuring, "decode_ahead", self.decoded)
        monkeypatch.setattr(measuring, "gather", lambda mine: [mine])

    def decoded(self, decoder: object, requests: list[int], size: int, clip: object) -> Iterator[SimpleNamespace]:
        for begin in range(0, len(requests), size):
            numbers = torch.tensor(requests[begin : begin + size])
            bad = {index: "bad" for index, number in enumerate(numbers.tolist()) if number in (13, 40)}
            yield SimpleNamespace(frames=numbers.view(-1, 1), motion=numbers.view(-1, 1), failures=bad)
        if self.ends:
            raise self.ends

    def draw(self, seed: int, count: int, device: torch.device) -> torch.Tensor:
        return torch.full((count, 1), seed)

    def __call__(self, *given: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, Targets]:
        if len(given) == 2:  # as masker
            return torch.cat(given, dim=1)
        model, frames, mask = given
        self.models.append(model)
        self.seen += torch.cat([frames, mask], dim=1).tolist()
        zeros = torch.zeros(len(frames), 2, 1536)
        return zeros + frames.unsqueeze(2), Targets(zeros, zeros[..., :1], zeros[..., :1])

    def measuring(self, rank: int = 0, world_size: int = 1, stops: bool = False) -> Measuring:
        ranks = SimpleNamespace(rank=rank, world_size=world_size, device=CPU.device)
        beats = SimpleNamespace(beat=lambda *_: None)
        asked = SimpleNamespace(requested=lambda: stops)
        settings = SimpleNamespace(clip=None, evaluate=SimpleNamespace(batch_size=4))
        run = SimpleNamespace(
            ranks=ranks, watchdog=beats, stop=asked, config=settings, step=3, model="trained", evaluated="evaluated"
        )
        decoding = SimpleNamespace(open=lambda size: SimpleNamespace(close=lambda: None))
        return Measuring(run, self, decoding, range(6))


def test_a_clip_is_measured_with_its_own_mask_and_motion_whatever_fails_beside_it(monkeypatch):
    """The mask of a snippet depends on its video and its place alone, not on batches, ranks or clips that do not decode."""
    of_one, of_two, of_few = (Clips(monkeypatch) for _ in range(3))
    found = of_one.measuring().filled(3, None)
    numbers = [10 * row + k for row in range(6) for k in range(3) if 10 * row + k not in (13, 40)]
    assert of_one.seen == [[number, number // 10 * 3 + number % 10, number] for number in numbers]
    assert found.loss == pytest.approx(np.square(numbers).mean()) and found.clips == len(numbers) == 17
    assert set(of_one.models) == {"evaluated"}
    monkeypatch.setattr(measuring, "decode_ahead", of_two.decoded)
    for rank in range(2):
        of_two.measuring(rank, 2).filled(3, None)
    assert sorted(of_two.seen) == of_one.seen and of_two.seen != of_one.seen
    monkeypatch.setattr(measuring, "decode_ahead", of_few.decoded)
    of_few.measuring().filled(1, 3)
    assert [number for number, *_ in of_few.seen] == [0, 20]  # of rows 0, 2 and 4, the last of which does not decode


def test_measuring_ends_where_it_is_asked_to_and_a_source_that_is_gone_is_told(monkeypatch):
    with pytest.raises(Preempted):
        Clips(monkeypatch).measuring(stops=True).filled(1, None)
    gone = SourceGone("the store is gone")
    with pytest.raises(SourceGone):
        Clips(monkeypatch, gone).measuring().filled(1, None)
    with pytest.raises(Preempted):
        Clips(monkeypatch, gone).measuring(stops=True).filled(1, 0)  # while no clip has come


def test_it_learns_what_a_constant_cannot(videos, tmp_path):
    """Clips that are seen again and again are filled in far better than by any constant."""
    few = {"train": [{"manifest": str(videos), "classes": ["ball falling"]}], "validation": {"video_share": 0.0}}
    course = {"epochs": 80, "schedule": "cosine", "warmup_epochs": 5, "gc_every_steps": 0}
    seldom = {"evaluate": {"every_epochs": 80}, "checkpoint": {"every_epochs": 80}}
    masks, clip = {"mask": "tube", "ratio": 0.5}, {"flip": False, "stride": 3}  # the one snippet that there is
    outcome = train(
        config(videos, tmp_path, data=few, train=course, masked=masks, clip=clip, **seldom), CPU, StopVote()
    )
    assert outcome.results.filled is None  # nothing was held out
    constant = [e["train/constant_loss"] for e in jobs.events(tmp_path, "scalars") if "train/constant_loss" in e]
    assert losses(tmp_path)[80] < 0.8 * constant[-1]


def test_classes_are_not_needed(videos, tmp_path):
    table = pq.read_table(videos)
    names = table.schema.names
    table = table.set_column(names.index("class_name"), "class_name", [[""] * len(table)])
    pq.write_table(table, tmp_path / "unlabelled.parquet")
    sources = [{"manifest": str(tmp_path / "unlabelled.parquet"), "root": str(videos.parent)}]
    run = build_run(config(videos, tmp_path / "run", data={"train": sources}), CPU, StopVote())
    assert run.task.data.train.classes == ("",) and run.task.data.held_out is not None


@pytest.mark.parametrize("freeze", [False, True])
def test_the_encoder_starts_a_zero_shot_run(pretrained, videos, tmp_path, freeze):
    sections = tree(
        videos, tmp_path, clip={"num_frames": 8, "short_side": 48, "crop": 48, "motion": False}, train={"epochs": 1}
    )
    del sections["masked"]
    sections["model"] |= {"weights": str(pretrained), "freeze_backbone": freeze}
    sections["data"]["tests"] = [{"manifest": str(videos), "splits": ["unseen"], "name": "new"}]
    sections |= {"task": "zero_shot", "words": {"source": "random", "dim": 6}, "log": {"report": False}}
    zero_shot = parse(Config, sections)
    run = build_run(zero_shot, CPU, StopVote())
    kept = torch.load(pretrained / "checkpoints" / "best.pt")["model"]
    own = run.model.backbone.state_dict()
    assert torch.equal(own["blocks.11.fc1.weight"], kept["backbone.blocks.11.fc1.weight"])
    assert own["position"].shape[2:] == (4, 3, 3) and kept["backbone.position"].shape[2:] == GRID
    assert "resized to these clips position" in run.model.weights_from
    told = "\n".join(run.notes)
    assert "warning" not in told and "is not known" not in told  # no class was seen, nor a test video
    if freeze:
        with pytest.raises(InputError, match=r"is of the task masked: take its backbone alone, with model\.weights="):
            sections["train"] |= {"init_from": str(pretrained)}
            build_run(parse(Config, sections), CPU, StopVote())
    else:
        train(zero_shot, CPU, StopVote())
        moved = torch.load(tmp_path / "checkpoints" / "best.pt")["model"]["backbone.blocks.0.qkv.weight"]
        assert not torch.equal(moved, kept["backbone.blocks.0.qkv.weight"])


def test_videos_or_classes_are_held_out_of_pretraining(videos, tmp_path):
    def read(**data: object) -> MaskedData:
        return read_data(config(videos, tmp_path, data=data), CPU.device)

    of_each = read()
    assert of_each.held_out.classes == of_each.train.classes and of_each.notes == []
    of_classes = read(validation={"video_share": 0.0, "num_classes": 1})
    assert len(of_classes.held_out.classes) == 1 and not {*of_classes.held_out.classes} & {*of_classes.train.classes}
    assert read(validation={"video_share": 0.0}).held_out is None
    manifest = Manifest.load(videos)
    firsts = np.unique(manifest.class_index, return_index=True)[1]
    manifest.select(firsts).save(tmp_path / "few.parquet")
    lone = read(train=[{"manifest": str(tmp_path / "few.parquet"), "root": str(videos.parent)}])
    assert lone.held_out is None and "no video is held out" in lone.notes[-1]


def test_test_videos_among_those_pretrained_on_are_told(pretrained, videos, tmp_path):
    test = [{"manifest": str(videos), "splits": ["train"], "name": "the same"}]
    run = build_run(config(videos, tmp_path / "a", data={"tests": test}), CPU, StopVote())
    assert "transductive" in "\n".join(run.notes) and "18 of the" in "\n".join(run.notes)


def test_what_cannot_be_pretrained_is_refused(videos, tmp_path):
    for section, values, message in (
        ("model", {"backbone": "r3d_18"}, r"trains vit_tiny, vit_small or vit_base: set model.backbone \(here r3d_18"),
        ("model", {"freeze_backbone": True}, "trains the backbone: leave model.freeze_backbone out"),
        ("model", {"tokens": {"share": 0.5}}, r"what masked\.ratio leaves of the tokens: leave model\.tokens out"),
        ("clip", {"motion": False}, "needs the motion of the clips: set clip.motion=true, or take smm"),
        ("clip", {"crop": 16}, "clip.crop=16 is a single token"),
        ("clip", {"crop": 24}, "takes clips of whole patches"),
    ):
        with pytest.raises(InputError, match=message):
            build_run(config(videos, tmp_path / "run", **{section: values}), CPU, StopVote())
    with pytest.raises(InputError, match="decoder_width 100 is no multiple of 64"):
        config(videos, tmp_path / "run", masked={"decoder_width": 100})
    file = written(tmp_path / "a.yaml", {"masked": {"ratio": 0.5}})
    with pytest.raises(InputError, match="'masked' needs task masked"):
        load_config(file, [])


def test_a_run_is_resumed_with_its_own_masks_and_videos_alone(pretrained, videos, tmp_path):
    with pytest.raises(InputError, match=r"another masked\.ratio \(0.75 there, 0.5 here\)"):
        build_run(config(videos, pretrained, masked={"ratio": 0.5}), CPU, StopVote())
    others = {"train": [{"manifest": str(videos), "splits": ["unseen"]}]}
    with pytest.raises(InputError, match="set of videos \\(24 of its videos are gone, 6 others are there\\)"):
        build_run(config(videos, pretrained, data=others), CPU, StopVote())
    manifest = Manifest.load(videos)
    manifest.select(np.random.default_rng(0).permutation(len(manifest))).save(tmp_path / "shuffled.parquet")
    sources = {"train": [{"manifest": str(tmp_path / "shuffled.parquet"), "splits": ["train"]}]}
    run = build_run(config(videos, pretrained, data=sources), CPU, StopVote())
    assert "it goes on as it was" in "\n".join(run.notes)


def test_features_of_a_pretrained_encoder(pretrained, videos):
    encoder = build_encoder(str(pretrained), CPU.device)
    assert encoder.width == 192 and encoder.clip.crop == 32 and encoder.model.linear is None
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 32, 32, 3), dtype=np.uint8)
    features = encoder(frames)
    assert features.shape == (2, 192) and features.std() > 0.05


def test_held_out_videos_that_cannot_be_decoded_are_told_before_training(videos, tmp_path):
    shutil.copytree(videos.parent, tmp_path / "videos")
    task = Masked.build(
        config(tmp_path / "videos" / videos.name, tmp_path / "run"), CPU, choose_precision("fp32", CPU.device)
    )
    held = task.data.held_out.manifest
    assert task.rehearse() == [] and held.root.is_relative_to(tmp_path)
    for row in range(len(held)):
        held.video(row).path.write_bytes(b"no video")
    with pytest.raises(InputError, match=f"can measure nothing: none of its {len(held)} videos can be decoded"):
        task.rehearse()
