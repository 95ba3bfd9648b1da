"""README's block "On your own videos", read from README and run as it stands, line after line; and configs/my_videos.yaml.

The words in capitals are put in, the other test sets are there, and settings that make it fast stand behind the line that trains.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.data.pyav.encode import write_video
from engine.results.record import read_results
from tests.environment import ROOT, environment

SMALL = (
    "model.width=4 clip.num_frames=4 clip.short_side=32 clip.crop=24 train.epochs=1 train.batch_size=8 train.compile=no "
    "evaluate.num_snippets=1 run.device=cpu run.cpu_threads=1 data.decode_threads=1"
)
CLASSES = [
    "archery",
    "basketball",
    "bowling",
    "boxing",
    "cooking",
    "cycling",
    "dancing",
    "diving",
    "driving",
    "eating",
    "fencing",
    "fishing",
    "golf",
    "hiking",
    "jumping",
    "kayaking",
    "knitting",
    "painting",
    "piano",
    "reading",
    "rowing",
    "running",
    "sailing",
    "singing",
    "skating",
    "skiing",
]


def readme_block() -> tuple[str, list[str]]:
    """mine.yaml of README, and the commands below it without their remarks."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = text[text.index("## On your own videos") : text.index("\n## What it does")]
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (config,), (block,) = ([body for kind, body in blocks if kind == wanted] for wanted in ("yaml", ""))
    return config, [line.partition("   #")[0].strip() for line in block.splitlines()]


def write_class_folders(folder: Path, names: list[str], videos: int) -> Path:
    """A plain, moving square for each class, in a colour of its own."""
    for place, name in enumerate(names):
        for number in range(videos):
            frames = np.full((8, 32, 48, 3), 8 * place, dtype=np.uint8)
            for index, frame in enumerate(frames):
                frame[4 + number : 20, 2 * index : 2 * index + 16] = (200 - 5 * place, 60 + 7 * place, 40 * number)
            (folder / name).mkdir(parents=True, exist_ok=True)
            write_video(folder / name / f"{name}_{number}.mp4", frames, codec="mpeg4")
    return folder


def shell(command: str, folder: Path) -> str:
    """Run a line of README in a folder that looks like a checkout; returns what it printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment(PATH=path), capture_output=True, text=True, check=False, timeout=900
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def checkout(folder: Path) -> Path:
    for name in ("engine", "kernels", "tools", "configs"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def run_block(here: Path, videos: Path, others: Path, config: str, commands: list[str]) -> str:
    """Run the commands with what stands for FOLDER and VIDEO; returns all that they printed."""
    (here / "mine.yaml").write_text(config)
    for name in ("ucf101", "hmdb51"):
        shell(f"python tools/index_dataset.py {others} --out data/{name}.parquet", here)
    video = sorted(videos.glob("*/*.mp4"))[0]
    printed = ""
    for command in commands:
        command = command.replace("FOLDER", str(videos)).replace("VIDEO", str(video))
        if command.startswith("torchrun"):
            command += f" {SMALL}"
        printed += shell(command, here)
    return printed


@pytest.mark.slow
def test_the_block_of_readme_runs_as_it_stands(tmp_path):
    here = checkout(tmp_path)
    config, commands = readme_block()
    assert [re.search(r"\w+(?=\.py)", command).group() for command in commands] == [
        "index_dataset", "train", "predict", "evaluate",
    ]  # fmt: skip
    videos = write_class_folders(here / "videos", CLASSES, videos=2)
    others = write_class_folders(here / "others", ["surfing", "climbing", "typing"], videos=1)
    printed = run_block(here, videos, others, config, commands)
    results = read_results(here / "runs" / "mine")
    (unseen,) = results.tests.values()
    assert unseen.all_classes.num_classes == len(CLASSES) - 20 and results.seen is not None
    assert all(doubt in printed for doubt in unseen.doubts)
    assert "kayaking" in printed and "walking a dog" in printed
    evaluated = read_results(here / "runs" / "mine" / "evaluation")
    assert set(evaluated.tests) == {"ucf101", "hmdb51"}
    assert (here / "runs" / "mine" / "evaluation" / "report.html").stat().st_size > 0


@pytest.mark.slow
def test_the_config_for_ones_own_videos_beats_chance_on_real_clips(tmp_path, shared_data):
    """UCF101's clips of 15 classes, two from each of six groups: ten classes trained on, five unseen."""
    here = checkout(tmp_path)
    for clip in sorted((shared_data / "videos" / "ucf101").glob("*/*_g0[1-6]_c0[12].mp4")):
        (here / "videos" / clip.parent.name).mkdir(parents=True, exist_ok=True)
        (here / "videos" / clip.parent.name / clip.name).symlink_to(clip)
    shell("python tools/index_dataset.py videos --out data/mine.parquet", here)
    split = "data.train.0.class_split.num_train=10 data.tests.0.class_split.num_train=10"
    printed = shell(f"torchrun engine/train.py configs/my_videos.yaml {split} run.device=cpu train.epochs=5", here)
    print(printed)
    (unseen,) = read_results(here / "runs" / "my_videos").tests.values()
    assert unseen.all_classes.num_classes == 5
    assert unseen.all_classes.top1 > 0.2 + 2 * (0.2 * 0.8 / unseen.all_classes.num_videos) ** 0.5
