"""What torch.compile makes of a network's training step for a GPU that need not be there: bytes that move, and launches.

`bench.absent_gpu.compiled_step` runs it in a process of its own, with a GPU that computes nothing. Tensors are torch's fake ones;
the compiler's work ends where its program is written.
"""

import ctypes
import json
import os
import sys
import types
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import nn

_H100 = types.SimpleNamespace(
    name="H100", major=9, minor=0, multi_processor_count=132, warp_size=32, max_threads_per_multi_processor=2048,
    max_threads_per_block=1024, regs_per_multiprocessor=65536, shared_memory_per_block_optin=232448,
    L2_cache_size=50 << 20, total_memory=80 << 30,
)  # fmt: skip


class _Driver:
    """Triton's view of the GPU."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 10 * _H100.major + _H100.minor, _H100.warp_size)


@contextmanager
def written_programs() -> Iterator[list[list[tuple[str, int]]]]:
    """Each program that the compiler writes within: of each launch its kind and the bytes that it reads and writes."""
    from torch._inductor import config
    from torch._inductor.graph import GraphLowering
    from triton.runtime import driver

    programs: list[list[tuple[str, int]]] = []

    def write(graph: GraphLowering) -> Any:
        graph.codegen()
        nodes = graph.scheduler.nodes
        programs.append([(kind, node.get_read_write_buffers_sizes()) for node in nodes if (kind := kind_of(node))])
        return types.SimpleNamespace(call=lambda *_: None, __file__="", key="")

    options = {"compile_threads": 1, "force_disable_caches": True, "shape_padding": False}  # padding is found by timing
    with ExitStack() as stack:
        stack.enter_context(config.patch(options))
        stack.enter_context(mock.patch.object(GraphLowering, "compile_to_module", write))
        driver.set_active(_Driver())  # for good: without a GPU there is none to go back to
        yield programs


def kind_of(node: Any) -> str | None:
    """Of a node of the compiler's schedule; None: it launches nothing."""
    from torch._inductor import ir, scheduler

    if isinstance(node, scheduler.NopKernelSchedulerNode):
        return None
    if not isinstance(node, scheduler.ExternKernelSchedulerNode):
        return "sums" if node.is_reduction() else "element-wise"
    if isinstance(node.node, ir.MultiOutput):
        return None
    name = node.node.python_kernel_name or ""
    return "convolutions" if "convolution" in name else "own kernels" if ".unseen." in name else "other"


def on_gpu(network: nn.Module) -> nn.Module:
    """The network with fake weights on the GPU, in place; `nn.Module.to` does not take fake tensors there."""
    for module in network.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                layout = torch.channels_last_3d if weight.ndim == 5 else torch.contiguous_format
                there = torch.empty(weight.shape, dtype=weight.dtype, device="cuda").contiguous(memory_format=layout)
                module._parameters[name] = nn.Parameter(there)
        for name, values in module._buffers.items():
            if values is not None:
                module._buffers[name] = torch.empty(values.shape, dtype=values.dtype, device="cuda")
    return network


def compile_step(network: nn.Module, clips: torch.Tensor) -> None:
    """Forward and backward of a network in bf16, as one graph each.

    Args:
        clips: fake [N, C, T, H, W] on the GPU.
    """
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner

    def inner(graph: torch.fx.GraphModule, inputs: Sequence[Any], **options: Any) -> Any:
        traced = torch.fx.GraphModule(graph, torch.fx.Graph())
        traced.graph.output(traced.graph.graph_copy(graph.graph, {}))  # the compiler changes its own
        compiled = compile_fx_inner(graph, inputs, **options)
        compiled.current_callable = lambda arguments: list(torch.fx.Interpreter(traced).run(*arguments))
        return compiled

    def backend(graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Any:
        return compile_fx(graph, inputs, inner_compile=inner)

    with torch.autocast("cuda", torch.bfloat16):
        features = torch.compile(network, backend=backend, fullgraph=True)(clips)
    features.float().sum().backward()


def network_of(backbone: str, form: str, batch: int) -> tuple[nn.Module, torch.Tensor]:
    """A network on the GPU and its clips of 16x112x112, in the memory order in which each takes them.

    Args:
        form: as `model.form`; or torchvision, for its own network, whose clips are fp32 as its users' are.
    """
    from engine.config import Config
    from engine.models.backbone import build_backbone
    from engine.schema.parser import parse

    channels, dtype = 3, torch.float32
    if form == "torchvision":
        from torchvision.models import get_model

        network = on_gpu(get_model(backbone, num_classes=300))
    else:
        config = parse(Config, {"model": {"backbone": backbone, "form": form}})
        network = on_gpu(build_backbone(config.model, config.clip))
        channels, dtype = network.clip_channels, torch.bfloat16
    clips = torch.empty((batch, channels, 16, 112, 112), dtype=dtype, device="cuda")
    return network, clips.contiguous(memory_format=torch.channels_last_3d)


def main(arguments: Sequence[str]) -> None:
    """Print as JSON what `bench.absent_gpu.Step` holds. Arguments: its backbone, form, batch and stages."""
    from torch._subclasses import FakeTensorMode

    backbone, form, batch, stages = arguments
    if not hasattr(ctypes.CDLL(None), "absent_gpu"):
        raise RuntimeError("the GPU that is pretended was not loaded (LD_PRELOAD): is there a colon in TMPDIR?")
    torch.cuda.get_device_properties = lambda *_: _H100  # before the compiler is imported, which keeps the function
    with FakeTensorMode(), written_programs() as programs:
        network, clips = network_of(backbone, form, int(batch))
        compile_step(nn.Sequential(*network.stages()[: int(stages)]) if int(stages) else network, clips)
    bytes_of, launches = Counter(), Counter()
    for kind, size in (launch for program in programs for launch in program):
        bytes_of[kind] += size
        launches[kind] += 1
    print(json.dumps({"bytes": bytes_of, "launches": launches}))


if __name__ == "__main__":
    main(sys.argv[1:])
    sys.stdout.flush()
    # Threads that wait for the GPU that is not there end the interpreter's own end by abort(), now and then.
    os._exit(0)
