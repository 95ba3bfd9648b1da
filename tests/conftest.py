"""What tests of all parts share: whether there is a GPU, DALI where it exists, and the real data beside the checkout.

A test marked `gpu` is skipped where there is no NVIDIA GPU. With REQUIRE_GPU=1 in the environment a `gpu`
test that would be skipped, for whatever reason, fails instead: a GPU job cannot pass by testing nothing. Where the
GPU has no NVDEC, or the container does not show it, `-m "gpu and not nvdec"` asks for the rest.

The process that starts two others and computes nothing reads this file too: what takes seconds to import is imported within.
"""

import ctypes
import functools
import gc
import importlib
import itertools
import os
from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest

from tests.environment import UNFREEZE

REQUIRE_GPU = os.environ.get("REQUIRE_GPU") == "1"


@functools.cache
def has_gpu() -> bool:
    """Whether torch sees an NVIDIA GPU; without the driver's library nobody has to ask it."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    import torch

    return torch.cuda.is_available()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The default suite runs in two processes where xdist is installed (half of its time is waiting); -n says otherwise.

    In one: files that are named, what another -m chooses (slow tests measure time), and where there is a GPU, for all share it.
    """
    if hasattr(config, "workerinput"):  # one of the two, which has the same arguments: it starts no others
        return
    is_whole = config.args_source == pytest.Config.ArgsSource.TESTPATHS and config.option.markexpr == "not slow"
    is_alone = getattr(config.option, "numprocesses", 0) is None and not config.option.usepdb
    if is_whole and is_alone and not has_gpu():
        config.option.numprocesses, config.option.dist, config.option.loadscopereorder = 2, "loadfile", False
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # else the threads of the two wait for each other's


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Folders whose tests start whole programs come first: with short files at the end, both processes end together."""
    items.sort(key=lambda item: item.path.parent.name not in ("tests", "training", "processes", "tools", "kernels"))


def pytest_configure() -> None:
    gc.disable()  # while the tests are imported


def pytest_collection_finish() -> None:
    """Garbage is looked for in what tests leave, not each time in the half a million objects that were imported."""
    gc.freeze()
    gc.enable()


def pytest_report_header() -> str:
    """Which versions these tests ran with, in the first lines of every run (and so of `.ci/run`)."""
    from engine.records import versions

    return "versions: " + ", ".join(f"{name} {version}" for name, version in versions().items())


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not has_gpu():
        pytest.skip("needs an NVIDIA GPU, and torch sees none")
    if item.get_closest_marker("nvdec") and (problem := _nvdec_problem()):
        pytest.skip(f"needs NVDEC through DALI: {problem}")


@functools.cache
def _nvdec_problem() -> str | None:
    import torch

    from engine.data.decoders import dali_problem

    return dali_problem(torch.device("cuda", 0))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if REQUIRE_GPU and report.skipped and item.get_closest_marker("gpu"):
        report.outcome = "failed"
        report.longrepr = f"REQUIRE_GPU=1, but skipped: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    """The tests' tensors are small: more threads only wait."""
    import torch

    torch.set_num_threads(min(4, torch.get_num_threads()))


@pytest.fixture(scope="session", autouse=True)
def _fresh_processes_are_forked() -> Generator[None]:
    """What the engine spawns is forked by the server of tests/forked.py, which has imported torch already."""
    from tests.forked import spawning_is_forking

    with spawning_is_forking():
        yield


@pytest.fixture(scope="session", autouse=True)
def _imports_stay_set_apart() -> Generator[None]:
    """A training gives the collector back all there is, imports too (`engine/training/garbage.py`): here each 16th does."""
    ended = itertools.count(1)

    def unfreeze() -> None:
        if next(ended) % 16 == 0:
            UNFREEZE()
            gc.collect()
            gc.freeze()

    with mock.patch("gc.unfreeze", unfreeze):
        yield


@pytest.fixture(autouse=True)
def _no_test_has_been_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C that a test gives this process is forgotten after it: reads from object storage would be given up."""
    monkeypatch.setattr("engine.errors._was_interrupted", [False])


@pytest.fixture(scope="session")
def dali() -> ModuleType:
    """The module `engine.data.dali.decode`; skips the test where DALI is not installed."""
    pytest.importorskip(
        "nvidia.dali", reason="DALI is not installed (it has wheels for Linux only): extra cuda13 or cuda12"
    )
    return importlib.import_module("engine.data.dali.decode")


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a small set of real H.264 files. A test that changes one writes a set of its own."""
    from tests import jobs

    return jobs.write_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="session")
def finished(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A run with a control that nothing happened to: (config, run folder, what it printed). Read it, write nothing."""
    from tests import jobs

    here = tmp_path_factory.mktemp("a finished one")
    run = {"folder": str(here / "run"), "device": "cpu", "cpu_threads": 1, "control": True}
    config = jobs.write_config(here / "config.yaml", videos, here / "run", run=run, log={"report": True})
    done = jobs.start(config, ranks=1, merged=False, fresh=True).completed(600)
    assert done.returncode == 0, done.stderr
    return config, here / "run", done.stdout


@pytest.fixture(scope="session")
def whole(finished: tuple[Path, Path, str]) -> Path:
    """The folder of that run: what one that was killed, stopped or spoilt must end as."""
    return finished[1]


@pytest.fixture(scope="session")
def exact_losses(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """Step -> loss of `jobs.EXACT` on one rank, however its batches may be divided elsewhere."""
    from tests import jobs

    here = tmp_path_factory.mktemp("exact")
    jobs.run(jobs.write_config(here / "config.yaml", videos, here / "run", **jobs.EXACT))
    return jobs.losses(here / "run")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; skips the test where it is absent."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"needs the real data at {path}, which no checkout brings along")
    return path
