"""kill -9 aimed at what is most delicate: a step, the writing of a checkpoint, an evaluation, ingest and index.

`test_faults.py` kills at moments drawn over a whole run. Here each kill waits until the run is at the place meant and
then a little longer, by chance; thirty in all, six at each place.
"""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.data.manifests.manifest import Manifest
from engine.data.store.reader import find_entry
from engine.training.checkpoint import newest_checkpoint
from tests import jobs
from tests.data.videos import write_copies
from tests.small_run import ROOT

NUM_KILLS = 6  # at each place
NUM_FILES = 120


def config_of(folder, videos):
    """A checkpoint of 7 MB after every step, so that writing it takes long; and two long evaluations, at 9 and 18."""
    return jobs.write_config(
        folder.parent / "config.yaml", videos, folder, model={"width": 8}, checkpoint={"every_steps": 1, "keep": 2},
        evaluate={"every_epochs": 2, "num_snippets": 2, "during_snippets": 60, "batch_size": 2},
        log={"every_steps": 1, "sample_clips": 0},
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(videos, tmp_path_factory):
    """The folder of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    jobs.run(config_of(folder, videos))
    return folder


def kill_once(command: list[str], is_there: Callable[[], bool], delay_s: float) -> bool:
    """Start a program, kill it `delay_s` after it is where it is meant to be; False if it ended before."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=jobs.environment())
    deadline = time.monotonic() + 600
    while process.poll() is None and not is_there():
        assert time.monotonic() < deadline, "it did not come to the place meant"
        time.sleep(0.0005)
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    printed, _ = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), printed
    return process.returncode == -signal.SIGKILL


def steps_done(folder: Path) -> int:
    return max(jobs.losses(folder), default=0) if (folder / "log.jsonl").is_file() else 0


def starts(folder: Path) -> int:
    path = folder / "provenance.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def half_written(folder: Path) -> bool:
    return any((folder / "checkpoints").glob(".step_*.partial*"))


def killed_in(place: str, folder: Path, config: Path, draw: random.Random) -> bool:
    """One start and one kill. Returns whether the kill hit the place, as far as what it left behind tells."""
    before, begun = steps_done(folder), starts(folder)
    match place:
        case "step":
            kill_once(
                [sys.executable, jobs.TRAIN, str(config)], lambda: steps_done(folder) > before, draw.uniform(0, 0.2)
            )
            return steps_done(folder) > before
        case "checkpoint":
            for leftover in (folder / "checkpoints").glob(".*"):
                leftover.unlink()  # of the kill before, so that this one's is known
            kill_once([sys.executable, jobs.TRAIN, str(config)], lambda: half_written(folder), draw.uniform(0, 0.01))
            return half_written(folder)
        case "evaluation":
            kill_once(
                [sys.executable, jobs.TRAIN, str(config)],
                lambda: starts(folder) > begun and steps_done(folder) == 9 and not half_written(folder),
                draw.uniform(0.1, 0.6),
            )
            found, _ = newest_checkpoint(folder)
            measured = [e for e in jobs.events(folder, "scalars") if "seen/top1" in e]
            return (found["step"], measured) == (9, [])
    raise AssertionError(place)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["step", "checkpoint", "evaluation"])
def test_killed_in_training_no_snippet_is_lost_or_seen_twice(videos, whole, tmp_path, place):
    folder = tmp_path / "run"
    config, draw, hits = config_of(folder, videos), random.Random(place), 0
    for _ in range(3 * NUM_KILLS):  # a checkpoint may be whole before the kill comes
        hits += killed_in(place, folder, config, draw)
        found, passed_over = newest_checkpoint(folder)
        assert passed_over == []  # every checkpoint that has a name is whole
        assert found is None or found["step"] * 4 == found["epoch"] * 18 + found["position"]
        if hits == NUM_KILLS or (folder / "results.json").exists():
            break
    assert hits == NUM_KILLS
    jobs.run(config)
    assert jobs.same_weights(whole, folder)
    # Equal losses of all steps, each there: every step saw the snippets that it would have seen.
    assert jobs.losses(folder) == jobs.losses(whole)
    assert sorted(jobs.losses(folder)) == list(range(1, 19))
    tops = [[e["seen/top1"] for e in jobs.events(f, "scalars") if "seen/top1" in e] for f in (folder, whole)]
    assert tops[0][-1] == tops[1][-1]
    assert list((folder / "checkpoints").glob(".*")) == []


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Many files, each long enough that a kill finds some of them in hand."""
    return write_copies(tmp_path_factory.mktemp("raw") / "set", {"surfing": 60, "archery": 90}, NUM_FILES // 2)


def lines(path: Path) -> int:
    return path.read_bytes().count(b'"path"') if path.is_file() else 0


def kill_while_it_grows(command: list[str], journal: Path, draw: random.Random) -> None:
    """Kill again and again, always after some more files and some chance."""
    for _ in range(NUM_KILLS):
        goal = lines(journal) + draw.randrange(2, NUM_FILES // NUM_KILLS - 6)
        assert kill_once(command, lambda goal=goal: lines(journal) >= goal, draw.uniform(0, 0.01))


def tool(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "tools" / name), *map(str, arguments), "--workers", "2"]


@pytest.mark.slow
def test_killed_in_index_the_manifest_is_the_same(raw, tmp_path):
    whole, out = tmp_path / "whole.parquet", tmp_path / "killed.parquet"
    subprocess.run(tool("index_dataset.py", raw, "--out", whole), check=True, env=jobs.environment())
    command = tool("index_dataset.py", raw, "--out", out)
    kill_while_it_grows(command, tmp_path / "killed.parquet.journal", random.Random("index"))
    assert not out.exists()
    subprocess.run(command, check=True, env=jobs.environment())
    assert out.read_bytes() == whole.read_bytes()
    assert len(Manifest.load(out)) == NUM_FILES


@pytest.mark.slow
def test_killed_in_ingest_the_store_holds_the_same_videos_once(raw, tmp_path):
    source = tmp_path / "raw.parquet"
    subprocess.run(tool("index_dataset.py", raw, "--out", source), check=True, env=jobs.environment())
    stores = tmp_path / "whole", tmp_path / "killed"
    commands = [
        tool("ingest.py", source, "--out", store, "--preset", "ultrafast", "--short-side", 96, "--motion")
        for store in stores
    ]
    subprocess.run(commands[0], check=True, env=jobs.environment())
    kill_while_it_grows(commands[1], stores[1] / "journal.jsonl", random.Random("ingest"))
    assert not (stores[1] / "manifest.parquet").exists()
    printed = subprocess.run(commands[1], check=True, env=jobs.environment(), capture_output=True, text=True).stdout
    assert f"verified: all {NUM_FILES} byte ranges" in printed
    assert (stores[0] / "manifest.parquet").read_bytes() == (stores[1] / "manifest.parquet").read_bytes()
    one, other = (Manifest.load(store / "manifest.parquet") for store in stores)
    assert [content(one, row) for row in range(NUM_FILES)] == [content(other, row) for row in range(NUM_FILES)]
    sizes = [sum(shard.stat().st_size for shard in store.glob("*.h264")) for store in stores]
    assert sizes[0] == sizes[1]  # no byte of a half-written video is left, none is there twice
    assert len({(store / "store.motion").stat().st_size for store in stores}) == 1


def content(store: Manifest, row: int) -> tuple[bytes, bytes]:
    reader, entry = find_entry(store.video(row))
    motion = reader.read_motion(entry, 0, entry.num_frames - 1).tobytes()
    return reader.read(entry, 0, len(entry.group_end) - 1), motion
