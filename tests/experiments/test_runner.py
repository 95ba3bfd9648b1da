"""Jobs are run once, in order of need, side by side; failures stay alone; a running job cannot be run twice."""

import contextlib
import fcntl
import subprocess
import sys
import time
from pathlib import Path

from engine.cluster import programs
from engine.cluster.programs import LocalPrograms
from engine.errors import InputError
from engine.experiments.runner import Job, Runner


def job(folder: Path, body: str, needs: list[Job] | None = None) -> Job:
    """A real process that runs some Python in its folder and is done when `done` is there."""
    folder.mkdir(parents=True, exist_ok=True)
    code = f"import time, sys, os; os.chdir({str(folder)!r}); {body}"
    return Job(
        folder.name, folder, [sys.executable, "-S", "-c", code], (folder / "done").is_file, lambda: None, needs or []
    )


DONE = "open('done', 'a').write(str(time.time()) + ' ')"


def test_needs_come_first_and_what_is_done_is_not_run_again(tmp_path):
    first = job(tmp_path / "first", f"time.sleep(0.3); {DONE}")
    second = job(tmp_path / "second", DONE, [first])
    said: list[str] = []
    Runner([second, first], LocalPrograms(2), said.append).run()
    assert float((tmp_path / "first" / "done").read_text()) < float((tmp_path / "second" / "done").read_text())
    assert len(said) == 2 and said[-1].startswith("[2/2] second: ") and said[-1].endswith("about 00:00 left")
    said.clear()
    Runner([second, first], LocalPrograms(2), said.append).run()
    assert said == ["2 of 2 cells are finished already"]
    assert len((tmp_path / "first" / "done").read_text().split()) == 1


def test_workers_are_the_most_at_a_time(tmp_path):
    body = "t = time.time(); time.sleep(0.4); open('done', 'w').write(f'{t} {time.time()}')"
    jobs = [job(tmp_path / f"job{number}", body) for number in range(4)]
    Runner(jobs, LocalPrograms(2), lambda text: None).run()
    spans = [tuple(map(float, (j.folder / "done").read_text().split())) for j in jobs]
    overlaps = [sum(start <= moment < end for start, end in spans) for moment, _ in spans]
    assert max(overlaps) == 2


def test_every_worker_has_a_gpu_to_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "gpus", lambda: ["2", "5"])
    body = "time.sleep(0.4); open('done', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])"
    jobs = [job(tmp_path / f"job{number}", body) for number in range(2)]
    Runner(jobs, LocalPrograms(2), lambda text: None).run()
    assert {(j.folder / "done").read_text() for j in jobs} == {"2", "5"}


def test_a_failed_job_is_named_with_its_log_and_the_others_go_on(tmp_path):
    bad = job(tmp_path / "bad", "print('line before'); print('the reason'); sys.exit(3)")
    lost = job(tmp_path / "lost", DONE, [bad])
    silent = job(tmp_path / "silent", "pass")  # status 0, but no result
    good = job(tmp_path / "good", DONE)
    said: list[str] = []
    runner = Runner([bad, lost, silent, good], LocalPrograms(1), said.append)
    runner.run()
    assert {failed.name for failed in runner.failed} == {"bad", "lost", "silent"}
    assert good.is_done() and not lost.is_done()
    told = "\n".join(said)
    assert "bad FAILED with status 3" in told and "the reason" in told
    assert "lost is left out" in told
    assert "silent FAILED with status 0" in told


def test_a_job_whose_result_is_refused_at_its_end_fails_alone(tmp_path):
    """As of a cell whose manifest was changed while it trained."""
    changed, good = job(tmp_path / "changed", DONE), job(tmp_path / "good", f"time.sleep(0.3); {DONE}")

    def refuse() -> bool:
        if (changed.folder / "done").is_file():
            raise InputError("holds cell 'changed' trained on other videos")
        return False

    changed.is_done, said = refuse, []
    runner = Runner([changed, good, job(tmp_path / "lost", DONE, [changed])], LocalPrograms(2), said.append)
    runner.run()
    assert [failed.name for failed in runner.failed] == ["changed", "lost"] and good.is_done()
    assert "changed FAILED: holds cell 'changed' trained on other videos; about" in "\n".join(said)


def test_a_job_that_another_process_has_in_hand_is_waited_for(tmp_path):
    folder = tmp_path / "one"
    mine = job(folder, DONE)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        orphan = subprocess.Popen(
            [
                sys.executable,
                "-S",
                "-c",
                f"import time; time.sleep(1.0); open({str(folder / 'done')!r}, 'w').write('0 ')",
            ],
            pass_fds=[lock.fileno()],
        )
    said: list[str] = []
    Runner([mine], LocalPrograms(1), said.append).run()
    orphan.wait()
    assert (folder / "done").read_text() == "0 "  # the orphan's; ours was not run
    assert "another process is at work on it" in said[0]
    assert said[1].startswith("[1/1] one: finished by another process")


def test_an_interrupt_stops_the_running_jobs(tmp_path):
    slow = job(tmp_path / "slow", "import signal; signal.signal(15, lambda *_: (open('told', 'w'), sys.exit(0))); "
               "open('up', 'w'); time.sleep(30)")  # fmt: skip

    class Stop(Exception):
        pass

    def say(text: str) -> None:
        raise Stop

    quick = job(tmp_path / "quick", f"\nwhile not os.path.exists('../slow/up'): time.sleep(0.01)\n{DONE}")
    runner = Runner([slow, quick], LocalPrograms(2), say)
    started = time.monotonic()
    with contextlib.suppress(Stop):
        runner.run()
    assert (tmp_path / "slow" / "told").exists()
    assert time.monotonic() - started < 20
