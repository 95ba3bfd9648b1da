"""The kernels as the compiler makes them for GPUs that need not be there: nothing spilled, loads of 16 bytes, tensor cores."""

import pytest
import torch
from bench import compiled

from kernels.cosine_topk import has_kernel
from kernels.triton_support import can_use_triton

triton = pytest.importorskip("triton", reason="Triton comes with torch on Linux only")
RELEASE = tuple(map(int, triton.__version__.split(".")[:2]))
ON_B200 = pytest.param(
    100, marks=pytest.mark.skipif(RELEASE < (3, 8), reason="needs Triton 3.8; before it, PyTorch computes")
)
KINDS = {"fp16": 2, "bf16": 2, "fp32": 4}
PRODUCTS = {80: "HMMA", 89: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}


def check_cosine_topk(capability, kind, k, config, width):
    found = compiled.inspect_cosine_topk(capability, kind, k, config, width)
    assert found.registers <= 255 and found.spills == 0
    assert 0 < found.shared_bytes <= compiled.SHARED_BYTES[capability]
    product = "FFMA" if kind == "fp32" else PRODUCTS[capability]
    assert any(name.startswith(product) for name in found.counts)
    widths = found.widths("LDGSTS")  # copies into shared memory that run ahead: of classes, and of streamed queries
    columns = config.block_d or compiled.padded_width(width)
    tile_bytes = config.block_c * columns * KINDS[kind]
    assert widths[128] * 16 * 32 * config.warps >= config.stages * tile_bytes
    if not config.block_d:
        assert set(widths) == {128}


def shipped(capability, width):
    return [(kind, config) for kind in KINDS for config in compiled.shipped_configs(capability, kind, width)]


@pytest.mark.parametrize("capability", [80, 90, ON_B200])
def test_cosine_topk_as_it_is_shipped(capability):
    for kind, config in shipped(capability, 300):
        check_cosine_topk(capability, kind, 5, config, 300)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 89, 90, ON_B200])
@pytest.mark.parametrize("k", [1, 2, 32])
@pytest.mark.parametrize("width", [1, 50, 260, 300, 384, 385, 520, 2048])
def test_cosine_topk_for_other_sizes(width, k, capability):
    for kind, config in shipped(capability, width):
        check_cosine_topk(capability, kind, k, config, width)


@pytest.mark.parametrize(
    ("release", "capability", "has"), [("3.6.0", 9, True), ("3.6.0", 10, False), ("3.8.1", 10, True)]
)
def test_a_compiler_that_cannot_compile_it_is_not_asked(monkeypatch, release, capability, has):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (capability, 0))
    monkeypatch.setattr(triton, "__version__", release)
    for function in (can_use_triton, has_kernel):
        function.cache_clear()
    found = has_kernel(torch.device("cuda", 0))
    for function in (can_use_triton, has_kernel):
        function.cache_clear()
    assert found == has


def test_a_spill_and_a_narrow_load_would_be_seen():
    config = compiled.Config(64, 64, 4, 2)
    assert compiled.inspect_cosine_topk(90, "bf16", 32, config, width=512).spills > 0
    few = compiled.Config(64, 16, 8, 2)  # 16 x 64 elements of 2 bytes for 256 threads
    assert set(compiled.inspect_cosine_topk(90, "fp16", 1, few, width=64).widths("LDGSTS")) == {64}


@pytest.mark.parametrize("channels", [3, 8])
@pytest.mark.parametrize("kind", ["fp16", "fp32"])
def test_clip_normalize_loads_nothing_but_frames(kind, channels):
    found = compiled.inspect_clip_normalize(90, kind, channels)
    assert found.spills == 0
    loads, stores = found.widths("LDG"), found.widths("STG")
    if channels == 3:
        assert loads == {128: 1}
        assert set(stores) == {128}
    else:  # bytes are gathered
        assert set(loads) == {8}
        assert set(stores) == {128}


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize(
    ("way", "channels", "out_channels"), [("tiles", 144, 64), ("tiles", 288, 128), ("walk", 144, 64)]
)
def test_temporal_conv_compiles_to_tensor_cores(way, channels, out_channels, capability, monkeypatch):
    from kernels import temporal_conv_tiles_triton as tiles
    from kernels import temporal_conv_triton as launches
    from kernels import temporal_conv_walk_triton as walk

    if way == "tiles":
        monkeypatch.setattr(launches, "_WALKED", (0, 0))
    types = dict.fromkeys(("x", "taps", "z", "dz", "dx"), "*bf16")
    types |= dict.fromkeys(("scale", "shift", "slope", "base", "partial"), "*fp32")
    constants = {"C": channels, "C_OUT": out_channels, "UPCAST": False}
    constants |= {"STRIDE": 1} if way == "tiles" else walk.parts_of(channels, out_channels)
    for name, kernel in (("forward", "forward"), ("activation", "activation_gradient"), ("tap", "tap_gradient")):
        config = dict(launches.config_of(name, channels, out_channels, 1, torch.device("cpu")))
        options = {option: config.pop(option) for option in ("num_warps", "num_stages")}
        own = {"FINISH": True} if (way, name) == ("walk", "activation") else {}
        own |= {"T": 8, "T_OUT": 8, "P": 784} if (way, name) == ("tiles", "tap") else {}
        function = getattr(tiles if way == "tiles" else walk, kernel)
        found = compiled.inspect(
            compiled.compile_kernel(function, capability, types, {**constants, **own, **config}, options)
        )
        assert any(each.startswith(PRODUCTS[capability]) for each in found.counts), name
        assert found.widths("LDGSTS").get(128, 0) > 0, name  # loads run ahead of the arithmetic
        if capability == 90:
            # The walk fills all registers: Triton 3.6 spills none, 3.8 a few, 3.9 some in one kernel (docs/lab_notes.md).
            assert found.spills <= (16 if RELEASE < (3, 9) or name != "activation" else 40), name
            assert found.shared_bytes <= launches._WALK_SHARED or way == "tiles", name
        if capability == 90 and way == "tiles":  # while one block stores, another computes
            assert found.spills == 0 and 2 * 32 * options["num_warps"] * (-(-found.registers // 8) * 8) <= 65536, name
            assert 2 * (found.shared_bytes + 1024) <= compiled.SHARED_BYTES[90], name


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("columns", [64, 144, 256, 1152])
def test_sums_over_channels_read_sixteen_bytes_at_a_time(columns, capability):
    from kernels import channel_sums_triton as sums

    types = {"x": "*bf16", "grad": "*bf16", "size": "i32"}
    types |= dict.fromkeys(("mean", "scale", "shift", "sums"), "*fp32")
    constants = {"C": columns, "RELU": True, "BLOCK": sums._BLOCK, "STAGES": sums._STAGES}
    for kernel, operands in ((sums._moments_kernel, 1), (sums._gradients_kernel, 2)):
        options = {"num_warps": sums._WARPS, "num_stages": 3}
        found = compiled.inspect(compiled.compile_kernel(kernel, capability, types, constants, options))
        assert found.spills == 0 and found.registers <= 128
        assert set(found.widths("LDGSTS")) == {128} and found.widths("LDGSTS")[128] >= operands


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_what_completes_sums_of_channels_compiles(capability):
    from kernels import channel_sums_triton as sums
    from kernels import temporal_conv_triton as launches

    options, constants = {"num_warps": 4, "num_stages": 3}, {"C": 144, "IS_BATCH": True, "BLOCK": 256}
    types = dict.fromkeys(("mean", "var", "inverse", "scale", "of_channels", "through"), "*fp32") | {"x": "*bf16"}
    for kernel, kind in ((sums._complete_kernel, "*fp32"), (launches._complete, "*fp64")):
        found = compiled.inspect(
            compiled.compile_kernel(kernel, capability, {**types, "sums": kind}, constants, options)
        )
        assert found.spills == 0 and found.shared_bytes == 0  # each channel by itself: nothing is exchanged
