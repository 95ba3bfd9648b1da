"""The step as torch.compile writes it for a GPU that is not there: no passes over memory but those that are meant."""

import tempfile
from pathlib import Path

import pytest
import record_tables
import torch
from bench import absent_gpu
from bench.absent_gpu import compiled_step, compiled_steps

from engine.errors import InputError
from engine.files.json_lines import read_json_lines
from tests.small_run import call_tool

pytest.importorskip("triton", reason="Triton comes with torch on Linux only")
IS_CUDA_13 = (torch.version.cuda or "").startswith("13.")
CAN_COMPILE = IS_CUDA_13 and absent_gpu.c_compiler() is not None
needs_compilers = pytest.mark.skipif(not CAN_COMPILE, reason="needs torch for CUDA 13, and a C compiler")
CLIPS, FRAMES, SIDE = 8, 16, 56  # of what the stem puts out


def passes(step, kind):
    """How often a kind of launch reads or writes the 64 channels between blocks, in bf16."""
    return step.bytes.get(kind, 0) / (CLIPS * 64 * FRAMES * SIDE * SIDE * 2)


@needs_compilers
def test_the_fused_form_passes_over_memory_as_often_as_it_must():
    """Stem and one block: three batch-norms of 64 channels, and two between, of 48 and 144 channels, which have no passes.

    Forward a batch-norm reads and writes, and the sum at the block's end reads one more: 7. Backward it reads two and writes:
    9; the sum's gradient reads two and writes, and so do the two gradients that meet behind the stem: 6. The 23rd pass is
    that over the block's result, which a network has none of. A copy of what lies between would be 4.5 more.
    """
    step = compiled_step("r2plus1d_18", "fused", CLIPS, stages=2)
    assert passes(step, "element-wise") == pytest.approx(23, abs=0.2)
    assert step.bytes.keys() == {"element-wise", "convolutions", "own kernels"}
    assert (
        step.launches["own kernels"] == 12
    )  # forward and backward of three convolutions in time, sums of five batch-norms
    assert step.launches["convolutions"] == 6


@pytest.mark.slow
@needs_compilers
@pytest.mark.parametrize(("form", "element_wise", "sums"), [("flat", 52, 30.7), ("summed", 51.3, 0)])
def test_other_forms_pass_more_often(form, element_wise, sums):
    step = compiled_step("r2plus1d_18", form, CLIPS, stages=2)
    assert passes(step, "element-wise") == pytest.approx(element_wise, abs=0.5)
    assert passes(step, "sums") == pytest.approx(sums, abs=0.5)


def test_each_form_has_a_line_and_other_networks_one(tmp_path, monkeypatch, capsys):
    """As they come, in a record, and in its table."""
    asked = []

    def step(backbone, form, batch):
        asked.append((backbone, form, batch))
        return absent_gpu.Step({"convolutions": 3 * 10**9, "sums": 6 * 10**9}, {"convolutions": 2, "sums": 5})

    monkeypatch.setattr(absent_gpu, "compiled_step", step)
    words = ("--out", tmp_path, "compute", "--compiled", "--batch", "4")
    assert call_tool("bench_throughput.py", *words, monkeypatch=monkeypatch) == 0
    assert [form for _, form, _ in asked] == ["torchvision", "published", "flat", "summed", "fused"]
    (record,) = read_json_lines(tmp_path / "records" / "compiled.jsonl")
    assert record["batch"] == 4 and record["steps"]["engine flat"]["launches"] == {"convolutions": 2, "sums": 5}
    shown = record_tables.maker_of("compiled")(record, {})
    assert shown.rows[1] == ["engine published", "3.0", "6.0", "9.0", 7, "3"]
    assert shown.text() in capsys.readouterr().out
    assert [name for name, _ in compiled_steps("c3d", 4)] == ["engine"] and asked[-1] == ("c3d", "auto", 4)
    assert call_tool("bench_throughput.py", *words, "--no-record", monkeypatch=monkeypatch) == 0
    assert len(list(read_json_lines(tmp_path / "records" / "compiled.jsonl"))) == 1


def test_what_is_missing_is_told(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    with pytest.raises(InputError, match="needs torch for CUDA 13 on Linux, not"):
        compiled_step("r2plus1d_18", "flat")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(InputError, match=r"no C compiler is found, .*: install gcc, or set CC"):
        compiled_step("r2plus1d_18", "flat")
    for compiler, message in (
        ("/bin/false -m64", r"/bin/false -m64 fails on .*absent_gpu.c"),
        ("nonesuch -O1", "CC is 'nonesuch -O1', which cannot be started: No such file or directory"),
    ):
        monkeypatch.setenv("CC", compiler)
        with pytest.raises(InputError, match=message):
            compiled_step("r2plus1d_18", "flat")


@needs_compilers
def test_a_step_that_the_compiler_cannot_write_is_told(tmp_path, monkeypatch):
    """Also where temporary files lie in a folder with a blank in its name, which LD_PRELOAD would take for two."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "of two words"))
    Path(tempfile.gettempdir()).mkdir()
    with pytest.raises(
        InputError, match="torch's compiler fails on nonesuch, torchvision: ValueError: Unknown model nonesuch"
    ):
        compiled_step("nonesuch", "torchvision")
