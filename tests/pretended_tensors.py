"""Tensors that say they are on a GPU and are computed on the CPU, and what torch must be told to believe them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
_ATEN = torch.ops.aten
_TO_HOST = (torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.data_ptr, torch.Tensor.untyped_storage)
# Their results, or the sizes of these, are numbers for the host.
_READ_BY_HOST = {
    _ATEN._local_scalar_dense.default, _ATEN.equal.default, _ATEN.nonzero.default, _ATEN.masked_select.default,
    _ATEN._unique2.default, _ATEN.unique_dim.default, _ATEN.unique_consecutive.default, _ATEN.repeat_interleave.Tensor,
}  # fmt: skip
_TAKES_INDICES = {_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default, _ATEN._index_put_impl_.default}


class DevicesMixed(RuntimeError):
    """What a GPU refuses."""


class OnGpu(torch.Tensor):
    """A tensor of the pretended GPU; `held` has its values, on the CPU."""

    held: torch.Tensor
    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "OnGpu":
        with torch.inference_mode(False):  # else views of weights could not be made in inference mode
            made = torch.Tensor._make_wrapper_subclass(
                cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype
            )
        made.held = inner
        return made

    @property
    def data(self) -> torch.Tensor:
        return self.detach()

    @data.setter
    def data(self, value: "OnGpu") -> None:
        torch._C.TensorBase.data.__set__(self, value)
        self.held = value.held

    def record_stream(self, stream: object) -> None:
        pass

    def __reduce_ex__(self, protocol: int) -> Any:
        return self.held.__reduce_ex__(protocol)

    def __repr__(self) -> str:
        return f"OnGpu({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} on a tensor of a pretended GPU that is gone")


class Generator(torch.Generator):
    """Of random numbers; of a GPU too, whose numbers are those of the CPU."""

    def __new__(cls, device: Any = CPU) -> "Generator":
        made = super().__new__(cls)
        made.place = torch.device(device).type
        return made


class Operations(TorchDispatchMode):
    """Computes every operation on the CPU, after a look at where its tensors are."""

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__()
        self._note, self.moves_to_host = note, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:  # in inference mode what is made of other operations comes whole
                return func.decompose(*args, **kwargs)
        tensors: list[torch.Tensor] = []
        inner = _each((args, kwargs), lambda tensor: tensors.append(tensor) or getattr(tensor, "held", tensor))
        on_gpu = {id(each.held): each for each in tensors if isinstance(each, OnGpu)}
        if func is _ATEN._to_copy.default:
            is_result_there = self._copied(args[0], kwargs)
        elif func is _ATEN.copy_.default:
            is_result_there, is_waited_for = (
                isinstance(args[0], OnGpu),
                not (kwargs.get("non_blocking") or any(args[2:])),
            )
            if isinstance(args[1], OnGpu) != is_result_there and is_waited_for:
                self._note("copy_")
        else:
            asked = kwargs.get("device")
            is_result_there = bool(on_gpu) or (asked is not None and torch.device(asked).type == "cuda")
            if on_gpu:
                self._look(func, args, tensors)
        on_cpu = {"device": CPU} if kwargs.get("device") is not None else {}
        with torch._C.DisableTorchFunction():
            made = func(*inner[0], **{**inner[1], **on_cpu})
        if not is_result_there:
            return made
        # What was changed in place is the same tensor.
        return _each(made, lambda tensor: on_gpu[id(tensor)] if id(tensor) in on_gpu else OnGpu(tensor))

    def _copied(self, source: torch.Tensor, kwargs: dict[str, Any]) -> bool:
        """Whether a copy is on the GPU. Autograd names the device of before, which it takes to be the CPU: no such copy leaves."""
        was_there = isinstance(source, OnGpu)
        asked = kwargs.get("device")
        stays = asked is None or (was_there and not self.moves_to_host)
        is_there = was_there if stays else torch.device(asked).type == "cuda"
        if was_there != is_there and not kwargs.get("non_blocking"):
            self._note(f"to {asked}")
        return is_there

    def _look(self, func: Any, args: Sequence[Any], tensors: Sequence[torch.Tensor]) -> None:
        """Raises DevicesMixed. A number on the CPU may be anywhere; indices there are copied, and so waited for."""
        elsewhere = [each for each in tensors if not isinstance(each, OnGpu) and each.ndim > 0]
        if func in _TAKES_INDICES and isinstance(args[0], OnGpu):
            indices = [each for each in args[1] if each is not None]
            if any(not isinstance(each, OnGpu) or each.dtype == torch.bool for each in indices):
                self._note(f"{func} by indices on the CPU, or by a mask")
            elsewhere = [each for each in elsewhere if not any(each is index for index in indices)]
        if elsewhere:
            shapes = [(tuple(each.shape), "cuda" if isinstance(each, OnGpu) else "cpu") for each in tensors]
            raise DevicesMixed(f"{func}: {shapes}")
        if func in _READ_BY_HOST:
            self._note(str(func))


class Functions(TorchFunctionMode):
    """What goes on above the operations: devices by name, copies to and from the host."""

    def __init__(self, note: Callable[[str], None], operations: Operations) -> None:
        super().__init__()
        self._note, self._operations = note, operations

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.device:
            return func(*args, **kwargs)
        args = tuple(_numbered(each) for each in args)
        kwargs = {key: _numbered(value) for key, value in kwargs.items() if key != "pin_memory"}
        if isinstance(generator := kwargs.get("generator"), Generator):
            place = kwargs.get("device") or next((each.device for each in args if isinstance(each, torch.Tensor)), CPU)
            if generator.place != torch.device(place).type:
                raise DevicesMixed(f"{func} on {place} by a generator on {generator.place}")
        if func is torch.Tensor.pin_memory:
            return args[0]
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == GPU:
            return func(*args, **{**kwargs, "device": CPU}).to(GPU)
        if args and isinstance(args[0], OnGpu):
            return self._of_gpu(func, args, kwargs)
        if func is torch.Tensor.to and any(isinstance(each, OnGpu) for each in args[1:]):
            return args[0].to(GPU, args[1].dtype)
        return func(*args, **kwargs)

    def _of_gpu(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        tensor = args[0]
        if func in _TO_HOST:
            raise DevicesMixed(f"{func} of a tensor on the GPU")
        if func is torch.Tensor.tolist:
            self._note("tolist")
            return tensor.held.tolist()
        if func is torch.Tensor.new_tensor:
            return func(*args, **kwargs).to(GPU)
        if func is torch.Tensor.cpu:
            return self._to_host(tensor, None, **kwargs)
        if func is torch.Tensor.to:
            words = [torch.device(each) if isinstance(each, str) else each for each in (*args[1:], *kwargs.values())]
            like = [each for each in words if isinstance(each, torch.Tensor)]
            places = [each for each in words if isinstance(each, torch.device)] + [each.device for each in like]
            types = [each for each in words if isinstance(each, torch.dtype)] + [each.dtype for each in like]
            if places[:1] == [CPU]:
                return self._to_host(tensor, types[0] if types else None, bool(kwargs.get("non_blocking")))
            if like:
                return func(tensor, like[0].dtype)
        return func(*args, **kwargs)

    def _to_host(self, tensor: OnGpu, dtype: torch.dtype | None, non_blocking: bool = False) -> torch.Tensor:
        self._operations.moves_to_host = True
        try:
            return _ATEN._to_copy(tensor, dtype=dtype, device=CPU, non_blocking=non_blocking)
        finally:
            self._operations.moves_to_host = False


def _each(of: Any, do: Callable[[torch.Tensor], Any]) -> Any:
    """The same with something done to each tensor in it. (torch's own tree_map takes five times as long.)"""
    if isinstance(of, torch.Tensor):
        return do(of)
    if isinstance(of, (tuple, list)):
        return type(of)([_each(one, do) for one in of])
    return {key: _each(one, do) for key, one in of.items()} if isinstance(of, dict) else of


def _numbered(device: Any) -> Any:
    """cuda -> cuda:0: torch itself would ask the driver for the number."""
    if isinstance(device, torch.device) and device.type == "cuda":
        return GPU
    return GPU if isinstance(device, str) and device == "cuda" else device
