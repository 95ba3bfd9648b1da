"""The main job on real encoded videos: it runs, resumes bit for bit after kill -9, and adds up over ranks."""

import json
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.data.manifests.manifest import Manifest
from engine.results.record import read_results
from engine.training.checkpoint import read_checkpoint
from tests.jobs import EXACT, events, final_weights, losses, run, start, wait_for_step, write_config

TABLE = "\naccuracy  "  # how the closing table begins


def board(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard")).Reload()


def test_torchrun_trains_evaluates_and_says_where_things_lie(finished):
    _, folder, printed = finished
    assert "UNSEEN classes (combinations)" in printed
    assert "control" in printed
    assert f"tensorboard --logdir '{folder}'" in printed  # to be copied: its name has a space
    assert f"--model '{folder}' --classes" in printed
    results = json.loads((folder / "results.json").read_text())
    unseen = results["tests"]["combinations"]["all_classes"]
    assert (unseen["num_classes"], unseen["chance_top1"]) == (3, pytest.approx(1 / 3))
    assert results["seen"]["all_classes"]["num_classes"] == 6
    for name in (
        "config.yaml",
        "log.txt",
        "result.png",
        "confusion_combinations.png",
        "predictions_combinations.csv",
        "report.html",
        "checkpoints/best.pt",
        "control/results.json",
    ):
        assert (folder / name).stat().st_size > 0
        assert name.split("/")[-1] in printed or name not in ("result.png", "report.html")
    logged = losses(folder)
    assert list(logged) == list(range(1, len(logged) + 1))
    assert logged[len(logged)] < logged[1]


def test_the_control_is_announced_and_comes_after_all_of_the_run_itself(finished):
    printed = finished[2]
    announced = printed.index("then the control: about ")
    table, report = printed.index(TABLE), printed.index("report ", printed.index(TABLE))
    begins = printed.index("then the control, about ")
    of_control = printed.index("(the control: no meaning)")  # its class vectors
    assert announced < table < report < begins < of_control < printed.rindex(TABLE)
    assert printed.count(TABLE) == 2
    assert "Ctrl-C loses nothing of the above" in printed


def break_control_off(finished: tuple[Path, Path, str], folder: Path, *words: str) -> str:
    """The finished run goes on in `folder` with its control, and is interrupted there; what it printed.

    The control takes a moment: where it was done before the signal came, all begins again.
    """
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(finished[1], folder)
        shutil.rmtree(folder / "control")
        for name in ("report.html", "result.png"):
            (folder / name).unlink()
        process = start(finished[0], *words)
        wait_for_step(folder / "control", 1, process)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=120)
        if not (folder / "control" / "results.json").exists():
            assert process.returncode == 130, printed
            return printed
    raise AssertionError(f"the control was done first every time: {printed}")


def test_a_control_that_is_broken_off_costs_nothing_and_is_gone_on_with(finished, tmp_path):
    config, folder = finished[0], tmp_path / "run"
    words = (f"run.folder={folder}", "train.epochs=4")
    printed = break_control_off(finished, folder, *words)
    assert "the run itself is finished, as told above" in printed
    assert "Traceback" not in printed
    assert printed.index(TABLE) < printed.index("then the control")
    assert not re.search(r"control [\d.]+ %", (folder / "report.html").read_text(encoding="utf-8"))
    assert (folder / "result.png").stat().st_size > 0
    assert read_results(folder).tests.keys() == read_results(finished[1]).tests.keys()
    assert not (folder / "control" / "results.json").exists()
    printed = run(config, *words).stdout
    assert "control: the same network trained towards random class vectors" in printed
    assert re.search(r"control [\d.]+ %", (folder / "report.html").read_text(encoding="utf-8"))
    assert losses(folder / "control") == losses(finished[1] / "control")
    mine, whole = (read_results(each / "control").tests["combinations"] for each in (folder, finished[1]))
    assert mine.all_classes == whole.all_classes


def test_the_report_tells_of_run_and_control(finished):
    page = (finished[1] / "report.html").read_text(encoding="utf-8")
    control = json.loads((finished[1] / "control" / "results.json").read_text())
    assert f"control {100 * control['tests']['combinations']['all_classes']['top1']:.1f} %" in page
    assert "seen classes, new videos" in page
    assert "engine/train.py" in page  # its command
    assert not (finished[1] / "control" / "report.html").exists()


def test_tensorboard_shows_what_the_readme_promises(finished):
    shown = board(finished[1])
    tags = shown.Tags()
    assert {
        "train/loss", "train/learning_rate", "speed/clips_per_second", "speed/data_wait_share", "data/bad_samples",
        "seen/top1", "unseen/combinations/top1", "final/combinations_top1", "final/combinations_mean_class",
        "unseen/combinations/mean_class",
    } <= set(tags["scalars"])  # fmt: skip
    assert {"training_snippets", "confusion/combinations", "tsne/combinations"} <= set(tags["images"])
    assert {"nearest_seen_class/combinations"} <= set(tags["images"])
    assert any(tag.startswith(("best_videos/", "worst_videos/")) for tag in tags["images"])
    assert (finished[1] / "tensorboard" / "projector_config.pbtxt").is_file()
    rates = [point.value for point in shown.Scalars("train/learning_rate")]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(1e-4)


def files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_started_again_says_the_same_and_touches_nothing(finished):
    config, folder, printed = finished
    before = files(folder)
    again = run(config).stdout
    assert again.strip() == printed[printed.rindex(TABLE) :].strip()  # the closing table, with the speed
    assert files(folder) == before


def test_what_the_closing_table_says_can_be_copied_where_the_command_has_started_it(finished):
    config, folder, printed = finished
    assert f"python tools/predict.py VIDEO --model '{folder}'" in printed
    again = start(config, ranks=1, merged=False, UNSEEN_COMMAND="1").completed(600)
    assert f"  unseen predict VIDEO --model '{folder}'" in again.stdout and "tools/" not in again.stdout


def test_a_finished_run_is_evaluated_again_where_its_record_is_of_something_else(finished, tmp_path):
    """Another number of snippets; and a report that is missing, as after a kill while the control was trained."""
    folder = Path(shutil.copytree(finished[1], tmp_path / "run"))
    curves, speed = board(folder).Scalars("train/loss"), read_results(folder).clips_per_second
    run(finished[0], f"run.folder={folder}", "run.control=false", "evaluate.num_snippets=1")
    results = read_results(folder)
    assert (results.num_snippets, results.clips_per_second) == (1, speed)
    (folder / "report.html").unlink()
    run(finished[0], f"run.folder={folder}", "run.control=false", "evaluate.num_snippets=1")
    assert read_results(folder).to_dict() == results.to_dict()
    assert "snippets of a video" in (folder / "report.html").read_text(encoding="utf-8")
    assert board(folder).Scalars("train/loss") == curves
    for tag in ("confusion/combinations", "tsne/combinations"):
        assert len(board(folder).Images(tag)) == 1
    assert len(board(folder).Scalars("final/combinations_top1")) == 1


def test_a_finished_run_is_evaluated_again_where_the_files_of_its_test_were_exchanged(videos, finished, tmp_path):
    """As many videos of the same classes, in a test set of the same name."""
    folder = Path(shutil.copytree(finished[1], tmp_path / "run"))
    manifest = Manifest.load(videos)
    rows = manifest.table.to_pylist()
    first, *_, last = (row for row in rows if row["split"] == "unseen")
    first["class_name"], last["class_name"] = last["class_name"], first["class_name"]
    Manifest.from_rows(rows, manifest.root).save(tmp_path / "m.parquet")
    before = read_results(folder).tests["combinations"]
    changed = (f"run.folder={folder}", "run.control=false", f"data.tests.0.manifest={tmp_path / 'm.parquet'}")
    run(finished[0], *changed)
    after = read_results(folder).tests["combinations"]
    assert after.contents != before.contents and not after.is_same_test(before)
    assert [row.num_videos for row in after.per_class] == [row.num_videos for row in before.per_class]


def test_kill_9_and_resume_end_with_bit_identical_weights(videos, finished, tmp_path):
    """Killed twice, in the middle of epochs, with checkpoints every few steps."""
    folder = tmp_path / "killed"
    config = write_config(tmp_path / "config.yaml", videos, folder, checkpoint={"every_steps": 2})
    for kill_after in (3, 8):
        process = start(config)
        wait_for_step(folder, kill_after, process)
        process.kill()
        process.communicate()
        assert not (folder / "results.json").exists(), "it ended before it was killed"
    run(config)
    resumed = [line for line in (folder / "log.txt").read_text().splitlines() if line.startswith("resumed at step")]
    assert len(resumed) == 2
    expected, found = final_weights(finished[1]), final_weights(folder)
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.equal(expected[name], found[name]), name
    assert losses(folder) == losses(finished[1])


@pytest.mark.distributed
def test_two_ranks_give_the_loss_curve_of_one(videos, exact_losses, tmp_path):
    run(write_config(tmp_path / "config.yaml", videos, tmp_path / "run", **EXACT), ranks=2)
    assert losses(tmp_path / "run") == pytest.approx(exact_losses, rel=1e-4)


def test_accumulation_gives_the_same_loss_curve(videos, exact_losses, tmp_path):
    run(write_config(tmp_path / "config.yaml", videos, tmp_path / "run", **EXACT), "train.accumulate=2")
    assert losses(tmp_path / "run") == pytest.approx(exact_losses, rel=1e-4)


def test_a_broken_video_is_replaced_counted_and_named(videos, tmp_path):
    table = sorted((videos.parent / "train").rglob("*.mp4"))
    broken, whole = table[0], table[0].read_bytes()
    config = write_config(
        tmp_path / "config.yaml", videos, tmp_path / "run",
        data={
            "train": [{"manifest": str(videos), "splits": ["train"]}], "tests": [], "validation": {"video_share": 0.0},
            "max_bad_share": 0.2, "decode_threads": 1,
        },
    )  # fmt: skip
    try:
        broken.write_bytes(whole[: len(whole) // 2] + b"\0" * (len(whole) - len(whole) // 2))
        run(config)
        named = events(tmp_path / "run", "bad_sample")
        assert len(named) >= 2  # at least once in each of four epochs, but epochs draw stand-ins too
        assert {event["path"] for event in named} == {str(broken)}
        counted = [e["data/bad_samples"] for e in events(tmp_path / "run", "scalars") if "data/bad_samples" in e]
        assert counted[-1] == len(named)
        done = run(config, f"run.folder={tmp_path / 'strict'}", "data.max_bad_share=0.0", check=False)
        assert done.returncode == 2
        assert "more than data.max_bad_share" in done.stderr
        assert broken.name in done.stderr
    finally:
        broken.write_bytes(whole)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["model.width=8"], "holds a run with another model"),
        (["train.batch_size=6"], "another train.batch_size"),
        (["run.resume=never"], "run.resume is 'never' but"),
        (["run.resume=nowhere.pt"], "no checkpoint at 'nowhere.pt'"),
        (["train.epoch=3"], "did you mean 'train.epochs'"),
        (["data.tests.0.splits=[test]"], "has no split 'test'"),
        (["words.path=missing.bin", "words.source=word2vec"], "missing.bin"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_the_run_alone(finished, overrides, says):
    config, folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "checkpoints").iterdir()}
    done = run(config, *overrides, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert says in errors[0]
    assert "Traceback" not in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "checkpoints").iterdir()}


def test_weights_carry_over_with_init_from(videos, finished, tmp_path):
    config = write_config(
        tmp_path / "config.yaml",
        videos,
        tmp_path / "run",
        train={"epochs": 1, "lr": 0.0, "init_from": str(finished[1])},
    )
    run(config, "train.batch_size=4")
    source = read_checkpoint(finished[1] / "checkpoints" / "best.pt")["model"]
    found = final_weights(tmp_path / "run")
    for name in source:
        if "running_" not in name and "num_batches" not in name:
            assert torch.equal(source[name], found[name]), name
