"""A pretended second device: finds computations that would fail on a GPU, on a machine that has none.

A GPU refuses to mix its tensors with those of the CPU. Here every tensor carries a tag instead. Tensors of a case are
on the pretended device, and so is whatever comes from them or is made there; their `device` says so. All others are on
the CPU. Scalars (tensors without axes) may be mixed, and tensors of the CPU may be indices, as in PyTorch.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

import lightning_vmat

PACKAGE = Path(lightning_vmat.__file__).parent
DEVICE, CPU = torch.device("cuda", 0), torch.device("cpu")
NAMES = ("zeros", "ones", "full", "empty", "arange", "linspace", "tensor", "as_tensor", "eye", "rand", "randn")
MAKERS = {getattr(torch, name) for name in (*NAMES, "from_numpy", "frombuffer", "randint", "randperm")}
MAKERS |= {torch.fft.fftfreq, torch.fft.rfftfreq}
TO_CPU = {Tensor.cpu, Tensor.numpy}
INDEXING = {Tensor.__getitem__, Tensor.__setitem__}
UNTOUCHED = {torch._C._nn._parse_to, torch._has_compatible_shallow_copy_type}  # steps of a module's `to`
SET_DATA = Tensor.data.__set__  # type: ignore[attr-defined]
PLACE = Tensor.device.__get__


class OtherDevice(TorchFunctionMode):
    """Pretends while it is active that some tensors are on another device; counts lines that mix devices.

    Args:
        tensors: tensors that are there at the start.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        self.there: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self.mixed: Counter[str] = Counter()
        for tensor in tensors:
            self.there[tensor] = True

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls the function on the CPU, and tags its results."""
        kwargs = kwargs or {}
        if func == PLACE:
            return DEVICE if self.is_there(args[0]) else CPU
        if func in UNTOUCHED:
            return func(*args, **kwargs)
        if func == SET_DATA:
            self.there[args[0]] = self.is_there(args[1])  # a module that moves its parameters
            return func(*args, **kwargs)
        named = [torch.device(a) for a in (*args[1:], kwargs.get("device")) if isinstance(a, torch.device | str)]
        args = tuple(CPU if isinstance(a, torch.device) else a for a in args)
        if "device" in kwargs:
            kwargs = {**kwargs, "device": CPU}
        result = func(*args, **kwargs)
        if (func is Tensor.to or func in TO_CPU) and result is args[0]:
            result = result.view_as(result)  # a copy on another device is another tensor
        inputs = [self.is_there(tensor) for tensor in tensors_in((args, kwargs)) if tensor.ndim]
        if func is Tensor.to:
            there = named[0] == DEVICE if named else self.is_there(list(tensors_in(args))[-1])
        elif func in TO_CPU or (func in MAKERS and not named):
            there = False
        elif named and func in MAKERS:
            there = named[0] == DEVICE
        else:
            there = any(self.is_there(tensor) for tensor in tensors_in((args, kwargs)))
            if any(inputs) and not all(inputs) and not (func in INDEXING and inputs[0]):
                self.mixed[line_of_package()] += 1
        if there:
            for tensor in tensors_in(result):
                self.there[tensor] = True
        return result

    def is_there(self, tensor: Tensor) -> bool:
        """Whether a tensor is on the pretended device."""
        return bool(self.there.get(tensor, False))


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Yields the tensors in nested lists, tuples and dictionaries."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from tensors_in(value)
    elif isinstance(values, dict):
        yield from tensors_in(list(values.values()))


def line_of_package() -> str:
    """The innermost line of the package in the current stack."""
    frames = [frame for frame in traceback.extract_stack() if Path(frame.filename).is_relative_to(PACKAGE)]
    last = frames[-1] if frames else traceback.extract_stack()[-3]
    return f"{last.filename.removeprefix(str(PACKAGE))[1:]}:{last.lineno} {last.line}"
