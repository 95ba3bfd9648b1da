"""The command `unseen`, from a wheel in a folder that has nothing of the checkout."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.environment import ROOT, environment

SOURCES = ("engine", "kernels", "tools", "configs", "setup.py", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder that a wheel was installed into."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in SOURCES:
        take = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        take(ROOT / name, folder / "source" / name)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--target", folder / "site", folder / "source"], check=True, capture_output=True, timeout=120)
    shutil.rmtree(folder / "source")
    return folder / "site"


@pytest.fixture(scope="module")
def installed(site):
    """A call of the installed command: its words -> status, output and errors."""

    def call(*words, cwd=site.parent):
        command = [sys.executable, site / "bin" / "unseen", *map(str, words)]
        found = environment(PYTHONPATH=str(site))
        return subprocess.run(command, cwd=cwd, env=found, capture_output=True, text=True, check=False, timeout=120)

    return call


def test_what_the_engine_reads_beside_its_code_comes_along(site):
    read = [
        path.relative_to(ROOT)
        for path in (ROOT / "engine").rglob("*")
        if path.suffix in (".html", ".css", ".yaml", ".gz")
    ]
    assert {"page.css", "page.html", "moment_page.html", "class_words.yaml"} <= {path.name for path in read}
    assert [path for path in read if not (site / path).is_file()] == []


def test_every_program_is_there_with_its_own_help(installed):
    out = installed("--help").stdout
    for name in ("train", "predict", "index_dataset", "evaluate", "export"):
        assert f"\n  {name} " in out
        done = installed(name, "--help")
        assert done.returncode == 0 and done.stdout.startswith(f"usage: unseen {name} "), done.stderr
        assert not re.search(r"(python|torchrun) (tools|engine)/", done.stdout)
        assert str(ROOT) not in done.stdout


def test_mistakes_are_told_in_a_line(installed):
    for words, said in ((["predcit"], "invalid choice: 'predcit'"), (["predict"], "--classes"), ([], "NAME")):
        done = installed(*words)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


def test_what_a_mistake_says_can_be_copied(installed):
    done = installed("extract_features", "no.parquet", "--model", "installed", "--out", "features")
    assert "make one with `unseen index_dataset FOLDER --out no.parquet`" in done.stderr, done.stderr


def test_the_configs_come_along_and_train_reads_them(installed, tmp_path):
    configs = Path(installed("configs").stdout.strip())
    assert not configs.is_relative_to(ROOT)
    assert {path.name for path in configs.glob("*.yaml")} == {path.name for path in (ROOT / "configs").glob("*.yaml")}
    done = installed("train", configs / "my_videos.yaml", "train.epcohs=4", cwd=tmp_path)
    assert done.returncode == 2 and "train.epochs" in done.stderr
    done = installed("index_dataset", tmp_path, "--out", tmp_path / "mine.parquet", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr and str(tmp_path) in done.stderr


def test_in_a_checkout_the_configs_are_its_own():
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "unseen.py", "configs"], env=environment(), capture_output=True, text=True, check=True
    )  # fmt: skip
    assert Path(done.stdout.strip()) == ROOT / "configs"
