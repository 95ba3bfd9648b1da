"""What the compiler makes of the kernels for a GPU that need not be there: registers, spills, width of loads, instructions."""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.options import SHARED_BYTES
from kernels.cosine_configs import Config, fitting_configs, padded_width

_H100_MACS = {"fp16": 2048, "bf16": 2048, "fp32": 128}  # a cycle of a multiprocessor
_PRODUCTS = ("HMMA", "HGMMA", "UTCHMMA", "FFMA")
_WIDTHS = {"U8": 8, "U16": 16, "64": 64, "128": 128}
_WIDTH = 300  # of class vectors
_KINDS = {"fp16": 2, "bf16": 2, "fp32": 4}


@dataclass(frozen=True, slots=True)
class Compiled:
    """A kernel's machine code, counted.

    registers: of a thread. spills: instructions that load from or store to local memory. shared_bytes: of a block.
    counts: instructions by name (`LDGSTS.E.BYPASS.128`). loop: of these, those of the innermost loop with the products.
    """

    registers: int
    spills: int
    shared_bytes: int
    counts: Counter[str]
    loop: Counter[str]

    def widths(self, name: str) -> dict[int, int]:
        """How often each width in bits (32 where the instruction names none) of an instruction occurs."""
        found = Counter[int]()
        for instruction, count in self.counts.items():
            kind, *suffixes = instruction.split(".")
            if kind == name:
                found[next((_WIDTHS[each] for each in suffixes if each in _WIDTHS), 32)] += count
        return dict(found)


def compile_kernel(
    kernel: Any, capability: int, types: Mapping[str, Any], constants: Mapping[str, Any], options: Mapping[str, int]
) -> Any:
    """Triton's compiled kernel for a compute capability.

    Args:
        types: of pointers ("*fp16", aligned to 16 bytes as torch's are), of integers that are multiples of 16, and others;
            int32 where none is given.
        constants: what is known when it is compiled. options: num_warps and the like.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    constants = {name: value for name, value in constants.items() if name in names}
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    is_aligned = [str(types.get(name, "")).startswith(("*", "i")) for name in names]
    aligned = {(index,): [["tt.divisibility", 16]] for index, is_so in enumerate(is_aligned) if is_so}
    source = ASTSource(kernel, signature, constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=dict(options))


def inspect(compiled: Any) -> Compiled:
    """Count what a compiled kernel consists of, with the disassembler that comes with Triton."""
    import triton

    programs = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        read = partial(subprocess.run, capture_output=True, text=True, check=True)
        usage = read([programs / "cuobjdump", "-res-usage", file.name]).stdout
        assembly = read([programs / "nvdisasm", "-c", file.name]).stdout
    lines = list(_instructions(assembly))
    counts = Counter(name for name, *_ in lines)
    return Compiled(
        registers=int(re.search(r"REG:(\d+)", usage).group(1)),
        spills=sum(count for name, count in counts.items() if name.startswith(("LDL", "STL"))),
        shared_bytes=compiled.metadata.shared,
        counts=counts,
        loop=_product_loop(lines),
    )


def _instructions(assembly: str) -> Iterator[tuple[str, int, int]]:
    """Name, address and the address that it may jump to (-1) of each instruction."""
    labels, found, waiting = {}, [], []
    for line in assembly.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            waiting.append(label.group(1))
        elif code := re.match(r"\s+/\*([0-9a-f]+)\*/\s+(?:@!?U?P\d+ )?([A-Z0-9_.]+)(.*)", line):
            address = int(code.group(1), 16)
            labels |= dict.fromkeys(waiting, address)
            waiting = []
            goal = re.search(r"\((\.L_x_\d+)\)", code.group(3)) if code.group(2).startswith("BRA") else None
            found.append((code.group(2), address, goal and goal.group(1)))
    for name, address, goal in found:
        yield name, address, labels.get(goal, -1)


def _product_loop(lines: list[tuple[str, int, int]]) -> Counter[str]:
    """The loop with the most products, the smallest such, without the loops within it."""
    loops = [(goal, address) for _, address, goal in lines if 0 <= goal < address]

    def products(loop: tuple[int, int]) -> int:
        return sum(name.startswith(_PRODUCTS) for name, address, _ in lines if loop[0] <= address <= loop[1])

    if not loops:
        return Counter()
    start, end = max(loops, key=lambda loop: (products(loop), loop[0] - loop[1]))
    inner = [loop for loop in loops if start <= loop[0] and loop[1] < end]
    return Counter(
        name
        for name, address, _ in lines
        if start <= address <= end and not any(first <= address <= last for first, last in inner)
    )


def inspect_cosine_topk(capability: int, kind: str, k: int, config: Config, width: int = _WIDTH) -> Compiled:
    """`cosine_topk`'s kernel for queries and classes of a type ("fp16", "bf16", "fp32"), without splits."""
    from kernels import cosine_topk_triton

    types = {"queries": f"*{kind}", "classes": f"*{kind}", "inverse": "*fp32", "bias": "*fp32"}
    types |= {"scores": "*fp32", "indices": "*i64", "keys": "*i64", "classes_of_split": "i32"}
    constants = cosine_topk_triton.constants(width, k, False, config) | {"UPCAST": False}
    options = cosine_topk_triton.options(config)
    return inspect(compile_kernel(cosine_topk_triton._kernel, capability, types, constants, options))


def inspect_clip_normalize(capability: int, kind: str, channels: int) -> Compiled:
    """`clip_normalize`'s kernel for RGB frames."""
    from kernels import clip_normalize_triton

    values = ("fp32",) * 3
    types = {"frames": "*u8", "clips": f"*{kind}", "scales": values, "shifts": values, "size": "i32"}
    constants = {"C": 3, "C_OUT": channels, "BLOCK": clip_normalize_triton._BLOCK}
    options = {"num_warps": clip_normalize_triton._WARPS}
    return inspect(compile_kernel(clip_normalize_triton._kernel, capability, types, constants, options))


def shipped_configs(capability: int, kind: str, width: int = _WIDTH) -> list[Config]:
    """Of `cosine_topk` for rows of that many columns."""
    return fitting_configs(padded_width(width), _KINDS[kind], SHARED_BYTES[capability])


def predicted_share(kind: str, config: Config, compiled: Compiled) -> float:
    """Of an H100's peak before very many classes, if nothing but its multiprocessors limits: their products and their
    issue slots. fp32 products are instructions as any other. On tensor cores the products of a tile come first and
    its other instructions then: a program that is alone on its multiprocessor has nothing to do both at once.
    """
    macs = config.block_n * config.block_c / _H100_MACS[kind]  # cycles for a column of a tile
    issue = sum(compiled.loop.values()) * config.warps / 4  # one instruction a cycle from each of four schedulers
    columns = config.block_d or padded_width(_WIDTH)  # of a turn of the loop
    products = 0 if kind == "fp32" else macs * columns
    alone = 2 * compiled.shared_bytes > SHARED_BYTES[90]
    cycles = products + issue if alone else max(products, issue)
    return macs * _WIDTH / (cycles * padded_width(_WIDTH) / columns)


def compiled_rows(capability: int) -> Iterator[list[object]]:
    """Lines of the table of `bench_throughput.py kernels --compiled`, as they are compiled."""
    for kind in _KINDS:
        for config in shipped_configs(capability, kind):
            for k in (1, 5, 32):
                found = inspect_cosine_topk(capability, kind, k, config)
                share = f"{100 * predicted_share(kind, config, found):.0f}" if capability == 90 else ""
                yield [f"cosine_topk {kind}, {config.block_n} x {config.block_c}, k {k}", *_cells(found), share]
    for kind in _KINDS:
        for channels in (3, 8):
            found = inspect_clip_normalize(capability, kind, channels)
            yield [f"clip_normalize {kind}, {channels} channels", *_cells(found), ""]


HEADINGS = ["", "registers", "spills", "shared KB", "loads: bits x times", "in the loop", "predicted % of peak"]


def _cells(found: Compiled) -> list[object]:
    widths = {"async": found.widths("LDGSTS"), "": found.widths("LDG")}
    loads = [f"{name} {bits} x {count}".strip() for name, by in widths.items() for bits, count in sorted(by.items())]
    loop = sum(found.loop.values()) or ""
    return [found.registers, found.spills, f"{found.shared_bytes / 1024:.0f}", ", ".join(loads), loop]
