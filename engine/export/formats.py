"""An exported program as files, and how they are opened again without this package.

torch.export   model.pt2            torch.export.load
onnx           model.onnx           onnxruntime and others
safetensors    model.safetensors    the tensors under the network's own names,
               model.py             and the operations on them as Python that imports torch and safetensors alone

The tensors are turned into bytes first and then written by Python: torch's own writer ends the process on a full disk.
"""

import io
import re
import runpy
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor
from torch.export import ExportedProgram

from engine.errors import InputError
from engine.export.program import Traced

_PREFIX = "model."  # of the names within `VideoModel`
_ONE_FILE = 2**31 - 2**20  # bytes: of a protobuf, which an ONNX file is; larger weights lie beside it
_PYTHON = '''"""From the frames of videos to their points, see README.md.

The operations were written by torch.export; the tensors are in model.safetensors, under the names that the network gives them.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import device, inf, nan  # names that the operations below may use


def load():
    """The network: a function of clips."""
    tensors = load_file(Path(__file__).with_name("model.safetensors"))
    values = [tensors[name] for name in NAMES]
    return lambda clips: operations(*values, checked(clips))[0]


def checked(clips):
    """The clips, if they are such as the operations take: of some others too they would make points, which mean nothing."""
    sizes = [*clips.shape]
    is_whole = len(sizes) == 6 and sizes[1] > 0 and sizes[2] in FRAMES and sizes[3:] == [{crop}, {crop}, 3]
    if clips.dtype != torch.uint8 or not is_whole:
        raise ValueError(
            f"clips are a {{type(clips).__name__}} of {{clips.dtype}} {{sizes}}: they must be a Tensor of torch.uint8 "
            "[videos, snippets, frames, {crop}, {crop}, 3], with a snippet at least and as many frames as README.md says"
        )
    return clips


FRAMES = {frames}
NAMES = [
{names}]


{operations}
'''
LOADING = {  # the lines of the card; `clips` -> `points`
    "torch.export": 'import numpy, torch\nmodel = torch.export.load("model.pt2").module()\npoints = model(clips).numpy()',
    "onnx": (
        'import numpy, onnxruntime\nmodel = onnxruntime.InferenceSession("model.onnx")\n'
        'points = model.run(None, {"clips": clips})[0]'
    ),
    "safetensors": "import numpy\nfrom model import load\npoints = load()(clips).numpy()",
}


def write_model(traced: Traced, folder: Path, form: str) -> Callable[[Tensor], Tensor]:
    """Write a program in one of `LOADING`; returns what the files answer, opened as a user would open them.

    Raises:
        InputError: a package that the format needs is not installed.
        OSError: the disk is full.
    """
    program = traced.program
    if form == "torch.export":
        content = io.BytesIO()
        torch.export.save(program, content)
        (folder / "model.pt2").write_bytes(content.getbuffer())
        return torch.export.load(folder / "model.pt2").module()
    if form == "onnx":
        return _write_onnx(program, folder / "model.onnx")
    names, tensors = _tensors(program)
    (folder / "model.safetensors").write_bytes(save(tensors))
    (folder / "model.py").write_text(_python(traced, names), encoding="utf-8")
    return runpy.run_path(str(folder / "model.py"))["load"]()


def _write_onnx(program: ExportedProgram, file: Path) -> Callable[[Tensor], Tensor]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter writes with it)
    except ImportError as error:
        raise InputError(
            f"--format onnx: {error.name} is not installed: pip install onnx onnxscript onnxruntime"
        ) from error
    size = sum(tensor.numel() * tensor.element_size() for tensor in _tensors(program)[1].values())
    torch.onnx.export(
        program, (), file, dynamo=True, external_data=size > _ONE_FILE, verbose=False,
        input_names=["clips"], output_names=["points"],
        dynamic_shapes={"clips": {0: "videos", 1: "snippets", 2: "frames"}},  # their names alone
    )  # fmt: skip
    session = onnxruntime.InferenceSession(file)
    return lambda clips: torch.from_numpy(session.run(None, {"clips": clips.numpy()})[0])


def _tensors(program: ExportedProgram) -> tuple[list[str], dict[str, Tensor]]:
    """The tensors of a program by name, and the names in the order in which its operations take them."""
    held = {**program.constants, **program.state_dict}
    targets = [spec.target for spec in program.graph_signature.input_specs if spec.target is not None]
    names = [target.removeprefix(_PREFIX) for target in targets]
    return names, {
        name: held[target].detach().clone().contiguous() for name, target in zip(names, targets, strict=True)
    }


def _python(traced: Traced, names: list[str]) -> str:
    """The source of model.py."""
    source = traced.program.graph.python_code("self").src.strip()
    source = re.sub(r"def forward\(self, ", "def operations(", source, count=1)
    listed = "".join(f'    "{name}",\n' for name in names)
    return _PYTHON.format(names=listed, operations=source, frames=traced.lengths, crop=traced.crop)
