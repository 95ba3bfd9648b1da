"""What is held out of training: the same as ever where no file is there twice, and never a copy on both sides."""

from pathlib import Path

import numpy as np
import pytest

from engine.data.config import ValidationConfig
from engine.data.manifests.manifest import Manifest
from engine.data.sets.footage import HELD_OUT_CLASS, HELD_OUT_VIDEO, LEFT_OUT, TRAINED
from engine.data.sets.holding_out import draw_parts, hold_out_classes, hold_out_videos, rows_of_classes
from engine.data.sets.sources import draw_videos, num_drawn
from tests.rows import row


def drawn_as_ever(manifest: Manifest, config: ValidationConfig) -> np.ndarray:
    """The draw of all versions, by groups: what runs on disk were trained with."""
    held = np.zeros(len(manifest), dtype=bool)
    groups = manifest.strings("group")
    generator = np.random.RandomState(config.seed)
    for index in range(len(manifest.classes)):
        rows = np.flatnonzero(manifest.class_index == index)
        sources = np.array([groups[row] or f"row {row}" for row in rows], dtype=object)
        names, counts = np.unique(sources, return_counts=True)
        order = generator.permutation(len(names))[: len(names) - 1]
        before = np.cumsum(counts[order]) - counts[order]
        held[rows[np.isin(sources, names[order[before < config.video_share * len(rows)]])]] = True
    return held


def random_manifest(seed: int, *, num_files: int | None = None) -> Manifest:
    """Up to 6 classes with up to 30 rows each, in groups of many sizes, some rows without; files drawn from `num_files`."""
    rng = np.random.default_rng(seed)
    rows = []
    for name in range(rng.integers(1, 7)):
        for _ in range(rng.integers(1, 31)):
            group = rng.choice(["", *(f"g{i}" for i in range(6))])
            found = len(rows) if num_files is None else int(rng.integers(num_files))
            rows.append(row(f"{len(rows)}.mp4", f"class {name}", group=str(group), content_hash=found))
    order = rng.permutation(len(rows))
    return Manifest.from_rows([rows[i] for i in order], Path("/v"))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("share", [0.05, 0.25, 0.9])
def test_without_copies_the_draw_is_the_one_of_all_versions(seed, share):
    manifest, config = random_manifest(seed), ValidationConfig(share, seed=seed)
    assert np.array_equal(hold_out_videos(manifest, config), drawn_as_ever(manifest, config))
    copies = random_manifest(seed, num_files=20)
    assert np.array_equal(hold_out_videos(copies, config, join_copies=False), drawn_as_ever(copies, config))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_share_of_videos_is_the_one_of_all_versions(seed, share):
    manifest = random_manifest(seed)
    kept = np.zeros(len(manifest), bool)
    for index, name in enumerate(manifest.classes):
        rows = np.flatnonzero(manifest.class_index == index)
        sequence = np.random.SeedSequence((seed, *name.encode()))
        order = np.random.Generator(np.random.Philox(sequence)).permutation(len(rows))
        kept[rows[order[: num_drawn(share, len(rows))]]] = True
    assert np.array_equal(draw_videos(manifest, share, seed), kept)


def test_the_rows_of_each_class_are_ascending_also_where_there_are_none():
    manifest = random_manifest(3)
    for index, rows in enumerate(rows_of_classes(manifest)):
        assert np.array_equal(rows, np.flatnonzero(manifest.class_index == index))
    nothing = manifest.select(np.arange(0))
    assert not hold_out_videos(nothing, ValidationConfig(0.1)).size and not draw_videos(nothing, 0.5, 0).size


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("num_files", [1, 8, 40, 300])
def test_a_file_is_on_one_side_and_every_class_trains(seed, num_files):
    """Copies within a class and a group or not, and of several classes."""
    manifest = random_manifest(seed, num_files=num_files)
    held = hold_out_videos(manifest, ValidationConfig(0.25, seed=seed))
    files = manifest.table.column("content_hash").to_numpy()
    assert not set(files[held]) & set(files[~held])
    assert set(manifest.class_index[~held]) == set(range(len(manifest.classes)))
    groups = list(zip(manifest.class_index.tolist(), manifest.strings("group"), strict=True))
    assert not {g for g, h in zip(groups, held, strict=True) if h and g[1]} & {
        g for g, h in zip(groups, held, strict=True) if not h
    }


def test_copies_of_many_videos_still_leave_some_to_hold_out():
    """Each video twice, by another name; a fifth of the videos is held out, with its copies."""
    rows = [row(f"{i}.mp4", "x", group="", content_hash=i % 50) for i in range(100)]
    held = hold_out_videos(Manifest.from_rows(rows, Path("/v")), ValidationConfig(0.2))
    assert held.sum() == 20 and np.array_equal(held[:50], held[50:])


def test_a_video_of_several_classes_is_held_out_of_all_of_them():
    rows = [row(f"{name}{i}.mp4", name, group="", content_hash=i) for name in ("a", "b") for i in range(40)]
    held = hold_out_videos(Manifest.from_rows(rows, Path("/v")), ValidationConfig(0.2))
    assert held.sum() == 16 and np.array_equal(held[:40], held[40:])


def test_copies_in_a_held_out_class_are_in_no_part():
    rows = [
        row(f"{name}{i}.mp4", name, content_hash=10 * place + i) for place, name in enumerate("abcd") for i in range(4)
    ]
    rows += [row(f"copy{name}.mp4", name, content_hash=-1) for name in "abcd"]
    manifest = Manifest.from_rows(rows, Path("/v"))
    part = draw_parts(manifest, ValidationConfig(0.0, num_classes=2))
    assert sorted(part[-4:]) == [TRAINED, TRAINED, LEFT_OUT, LEFT_OUT]
    assert np.bincount(part).tolist() == [10, 0, 8, 2]
    assert (TRAINED, HELD_OUT_VIDEO, HELD_OUT_CLASS, LEFT_OUT) == (0, 1, 2, 3)  # checkpoints have these numbers


def test_segments_of_one_file_in_another_class_are_not_copies():
    rows = [
        row("long.mp4", name, content_hash=1, segment_start=float(i), segment_end=i + 1.0, first_frame=25 * i)
        for i, name in enumerate("abc")
    ]
    part = draw_parts(Manifest.from_rows(rows, Path("/v")), ValidationConfig(0.0, num_classes=1))
    assert np.bincount(part, minlength=4).tolist() == [2, 0, 1, 0]


def test_other_seeds_hold_out_other_classes():
    names = [f"class {index:02}" for index in range(30)]
    drawn = {tuple(hold_out_classes(names, ValidationConfig(num_classes=5, seed=seed))) for seed in range(5)}
    assert len(drawn) == 5
