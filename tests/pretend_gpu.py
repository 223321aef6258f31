"""A GPU that is not there: shows on any machine that no step mixes devices up.

Tensors that are put on ``cuda`` keep their numbers in the CPU's memory but say that they are on a
GPU. As on a real one, an operation that is given tensors of both is refused, and so is handing one
to numpy. What it cannot show is what only the hardware decides: speed, streams, rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)

# These may be given tensors of both: to copy from one to the other, or to take rows by number.
_BOTH = {Tensor.copy_, Tensor.to, Tensor.__getitem__, Tensor.__setitem__}
_TO_NUMPY = {Tensor.numpy, Tensor.__array__}

pinned: list[int] = []
"""How many numbers each tensor had that was put into pinned memory."""


class OnGpu(Tensor):
    """A tensor that says it is on a GPU."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return GPU

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


class PretendGpu(TorchFunctionMode):
    """Takes what is made on ``cuda``; for the thread that enters it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


def _is_device(value: object) -> bool:
    if isinstance(value, str):
        return value.split(":")[0] in ("cuda", "cpu")
    return isinstance(value, torch.device) and value.type in ("cuda", "cpu")


def _target(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool | None:
    """Whether the result is to be on the GPU; None where it is where its arguments are."""
    if func is Tensor.cuda:
        return True
    if func is Tensor.cpu:
        return False
    named = [value for value in (*args[1:2], kwargs.get("device")) if _is_device(value)]
    if named:
        return torch.device(named[-1]).type == "cuda"
    if func is Tensor.to and len(args) > 1 and isinstance(args[1], Tensor):
        return isinstance(args[1], OnGpu)
    return None


def _call(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    here = any(isinstance(tensor, OnGpu) for tensor in tensors)
    if here and func in _TO_NUMPY:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")
    first = isinstance(args[0], OnGpu) if args else False
    mixed = here and any(not isinstance(t, OnGpu) and t.ndim for t in tensors)
    if mixed and not (func in _BOTH and (first or func in (Tensor.copy_, Tensor.to))):
        raise RuntimeError(f"{func.__name__} was given tensors on the CPU and on the GPU")
    target = _target(func, args, kwargs)
    plain = {k: "cpu" if k == "device" and _is_device(v) else v for k, v in kwargs.items()}
    if func is Tensor.pin_memory:
        pinned.append(args[0].numel())
        return args[0]
    if func in (Tensor.cuda, Tensor.cpu):
        func, args = Tensor.to, (args[0], "cpu")
    elif target is not None:
        args = (*args[:1], *("cpu" if _is_device(value) else value for value in args[1:]))
    with torch._C.DisableTorchFunctionSubclass():
        found = func(*args, **plain)
    place = here if target is None else target
    return tree_map(lambda leaf: _placed(leaf, place), found)


def _placed(leaf: Any, on_gpu: bool) -> Any:
    if not isinstance(leaf, Tensor) or isinstance(leaf, OnGpu) == on_gpu:
        return leaf
    if leaf.layout is not torch.strided:  # which heads tell the time: can be no class of ours
        return leaf
    with torch._C.DisableTorchFunctionSubclass():
        return leaf.as_subclass(OnGpu if on_gpu else Tensor)


class _Generator(torch.Generator):
    """Chance on whatever device."""

    def __new__(cls, device: object = "cpu") -> _Generator:
        return super().__new__(cls, "cpu")

    def __init__(self, device: object = "cpu") -> None:
        super().__init__()


@contextmanager
def pretend_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within it ``cuda`` is a device like another, in this thread."""
    monkeypatch.setattr(torch, "Generator", _Generator)
    with PretendGpu():
        yield
