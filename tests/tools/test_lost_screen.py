"""Every program with a screen that cannot be written: what it makes is made, and a result that is only printed is missed."""

import pytest

from tests.encoded import fade, write_colors
from tests.screens import break_screen
from tests.small_run import call_tool, write_run

CLASSES = ("rouge é", "vert", "bleu")
MADE = {  # program -> its arguments within a folder, and what it must leave there
    "index_dataset.py": ("videos", "--out", "out/m.parquet", "--workers", "1"),
    "ingest.py": ("m.parquet", "--out", "out/store", "--workers", "1", "--short-side", "32"),
    "evaluate.py": ("run", "--data", "m.parquet", "--out", "out/evaluation", "--device", "cpu"),
    "class_overlap.py": ("--train", "train.txt", "--test", "test.txt", "--out", "out/overlap"),
}
LEFT = {
    "index_dataset.py": "out/m.parquet",
    "ingest.py": "out/store/manifest.parquet",
    "evaluate.py": "out/evaluation/results.json",
    "class_overlap.py": "out/overlap/class_overlap.png",
}
SHOWN = {
    "predict.py": ("videos/vert/0.mp4", "--model", "run", "--classes", "é, run", "--device", "cpu"),
    "compare_runs.py": ("evaluation",),
    "doctor.py": ("--versions",),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Videos of classes whose names are not ASCII, their manifest, an untrained run and its evaluation."""
    folder = tmp_path_factory.mktemp("lost")
    for name, color in zip(CLASSES, ((230, 20, 20), (20, 230, 20), (20, 20, 230)), strict=True):
        for index in range(2):
            write_colors(folder / "videos" / name / f"{index}.mp4", fade(color, (10 * index, 50, 90), 6))
    write_run(folder / "run")
    (folder / "train.txt").write_text("café\nrunning\n", encoding="utf-8")
    (folder / "test.txt").write_text("café\nwalking\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        assert (
            call_tool("index_dataset.py", "videos", "--out", "m.parquet", "--workers", "1", monkeypatch=monkeypatch)
            == 0
        )
        words = ("run", "--data", "m.parquet", "--out", "evaluation", "--device", "cpu")
        assert call_tool("evaluate.py", *words, monkeypatch=monkeypatch) == 0
    return folder


@pytest.mark.parametrize("kind", ["full disk", "ascii"])
@pytest.mark.parametrize("program", MADE)
def test_what_a_program_makes_is_made_and_it_ends_well(program, kind, folder, tmp_path, monkeypatch):
    words = [tmp_path / word if word.startswith("out/") else word for word in MADE[program]]
    monkeypatch.chdir(folder)
    break_screen(monkeypatch, kind)
    assert call_tool(program, *words, monkeypatch=monkeypatch) == 0
    assert (tmp_path / LEFT[program]).stat().st_size > 0


@pytest.mark.parametrize("kind", ["closed pipe", "full disk", "ascii"])
@pytest.mark.parametrize("program", SHOWN)
def test_a_result_that_is_only_shown_is_missed_where_a_disk_is_full(program, kind, folder, monkeypatch):
    monkeypatch.chdir(folder)
    break_screen(monkeypatch, kind)
    assert call_tool(program, *SHOWN[program], monkeypatch=monkeypatch) == (2 if kind == "full disk" else 0)


def test_an_evaluation_that_cannot_be_written_is_shown(folder, tmp_path, monkeypatch, capsys):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "confusion.png")

    monkeypatch.chdir(folder)
    monkeypatch.setattr("engine.results.tables.save_figure", full)
    words = ("run", "--data", "m.parquet", "--out", tmp_path / "out", "--device", "cpu")
    assert call_tool("evaluate.py", *words, monkeypatch=monkeypatch) == 2
    printed = capsys.readouterr()
    assert "all classes" in printed.out and "written to" not in printed.out
    assert "error: No space left on device: 'confusion.png': make room on that disk" in printed.err
    assert not (tmp_path / "out" / "results.json").exists()
