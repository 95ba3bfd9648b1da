"""Which GPUs a build of torch computes on, by the names of the code in it: no GPU is needed to tell."""

from types import SimpleNamespace

import pytest
import torch

from engine import diagnosis
from engine.config import Config
from engine.errors import InputError
from engine.gpus import unfit
from engine.processes.distributed import Ranks, choose_device
from engine.schema.parser import parse
from engine.training.report import introduce

CUDA_13 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]  # torch 2.11 to 2.15 for Linux
V100 = ("Tesla V100-SXM2-32GB", (7, 0))


@pytest.fixture
def machine(monkeypatch):
    """Makes torch see some GPUs: (name, capability) of each."""

    def make(*gpus, built=CUDA_13):
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        for name, value in {
            "is_available": lambda: True,
            "device_count": lambda: len(gpus),
            "get_arch_list": lambda: built,
            "get_device_name": lambda index: gpus[index][0],
            "get_device_capability": lambda index: gpus[index][1],
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    return make


@pytest.mark.parametrize(
    ("capability", "built", "fits"),
    [
        ((7, 0), CUDA_13, False),
        ((6, 1), CUDA_13, False),
        ((7, 5), CUDA_13, True),
        ((8, 9), CUDA_13, True),  # by the code of 8.6
        ((9, 0), CUDA_13, True),
        ((12, 1), CUDA_13, True),
        ((13, 0), CUDA_13, False),
        ((13, 0), [*CUDA_13, "compute_120"], True),  # compiled by the driver
        ((7, 0), ["compute_75"], False),
        ((8, 0), ["sm_86"], False),  # of the same family, but earlier
        ((9, 0), ["sm_90a"], True),
        ((9, 1), ["sm_90a"], False),
        ((10, 3), ["sm_100f"], False),
        ((7, 0), ["sm_50", "sm_60", "sm_70"], True),
        ((9, 0), ["gfx942"], True),  # another maker's: nothing is known
        ((7, 0), [], True),
    ],
)
def test_a_build_computes_on_the_gpus_that_it_has_code_for(machine, capability, built, fits):
    machine(("a GPU", capability), built=built)
    assert (unfit(0) is None) == fits


def test_auto_leaves_such_a_gpu_alone_and_cuda_says_what_to_install(machine):
    machine(V100)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(InputError) as told:
        choose_device("cuda")
    assert str(told.value) == (
        f"GPU 0 (Tesla V100-SXM2-32GB) has compute capability 7.0, and torch {torch.__version__} was built for 7.5 to "
        "12.0: install torch for an older CUDA and `pip install -e '.[cuda12]'`; or use the CPU (run.device or --device: "
        "cpu) or other GPUs (CUDA_VISIBLE_DEVICES)"
    )


def test_the_ranks_of_a_machine_choose_alike(machine):
    """One that computed on the CPU beside others on GPUs could not speak with them."""
    machine(("NVIDIA H200", (9, 0)), V100)
    assert choose_device("auto", 0) == torch.device("cuda", 0)
    with pytest.raises(InputError, match=r"^GPU 1 \(Tesla V100"):
        choose_device("auto", 1)


@pytest.mark.parametrize(
    ("asked", "says"), [("auto", ["device: cpu (run.device is auto, and GPU 0 (Tesla V100"]), ("cpu", [])]
)
def test_a_run_says_why_it_is_on_the_cpu(machine, asked, says):
    machine(V100)
    lines = []
    run = SimpleNamespace(
        ranks=Ranks(choose_device(asked)), config=parse(Config, {"run": {"device": asked}}), step=0, total_steps=1,
        task=SimpleNamespace(introduce=lambda run: []), notes=[],
    )  # fmt: skip
    introduce(run, SimpleNamespace(message=lines.append, event=lambda *_, **__: None))
    assert "CPU" in lines[0]
    assert [line[: len(says[0])] if says else line for line in lines[1:]] == says


def test_the_doctor_tells_it(machine):
    machine(V100)
    finding = diagnosis.check_gpu()
    assert finding.state == "warning"
    assert finding.text.startswith("GPU 0 (Tesla V100-SXM2-32GB) has compute capability 7.0, ")
    assert finding.text.endswith(": the CPU will train")
    assert "'.[cuda12]'" in finding.mend
    machine(("NVIDIA GB300", (13, 0)))
    assert diagnosis.check_gpu().mend == "install a newer torch"


def test_what_cudnn_says_of_itself_is_told(machine, monkeypatch):
    machine(("NVIDIA H200", (9, 0)))

    def version():
        raise RuntimeError("cuDNN version incompatibility: one in LD_LIBRARY_PATH\nmore")

    monkeypatch.setattr(torch.backends.cudnn, "version", version)
    finding = diagnosis.check_gpu()
    assert finding.state == "blocker"
    assert finding.text == "it does not compute: cuDNN version incompatibility: one in LD_LIBRARY_PATH"
