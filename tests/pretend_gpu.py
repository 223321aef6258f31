"""A GPU that is not there: shows on any machine that no step mixes devices up.

Tensors that are put on ``cuda`` keep their numbers in the CPU's memory but say that they are on a
GPU. As on a real one, an operation that is given tensors of both is refused, and so is handing one
to numpy. CUDA graphs are recorded and replayed as on a real one: on the same memory, whatever is in
it by then, and what a graph has left in memory of its own is spoilt when another of its pool is
replayed. What it cannot show is what only the hardware decides: speed, streams, rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)

# These may be given tensors of both: to copy from one to the other, or to take rows by number.
_BOTH = {Tensor.copy_, Tensor.to, Tensor.__getitem__, Tensor.__setitem__}
_INDEXED = {Tensor.__getitem__, Tensor.__setitem__}
_TO_NUMPY = {Tensor.numpy, Tensor.__array__}
# While a graph is recorded, nobody may wait for a number or bring one from the processor.
_WAITS = set(
    "__bool__ __complex__ __float__ __index__ __int__ allclose argwhere as_tensor bincount cpu "
    "equal from_numpy is_nonzero item masked_select nonzero numpy pin_memory tensor tolist unique "
    "unique_consecutive unique_dim".split()
)

pinned: list[int] = []
"""How many numbers each tensor had that was put into pinned memory."""


recording: list[Graph] = []
"""The graph that is being recorded, if one is."""


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
    if recording and _needs_the_processor(
        func, args, tensors, target := _target(func, args, kwargs)
    ):
        raise RuntimeError(f"{func.__name__} is not permitted when stream is capturing")
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
    found = tree_map(lambda leaf: _placed(leaf, place), found)
    if recording and func.__name__ != "__get__":
        recording[0].note(func, args, plain, found)
    return found


def _needs_the_processor(
    func: Any, args: tuple[Any, ...], tensors: list[Tensor], target: bool | None
) -> bool:
    """Whether an operation would wait for the GPU, or bring numbers from the processor."""
    if func.__name__ in _WAITS or any(not isinstance(t, OnGpu) and t.ndim for t in tensors):
        return True
    if tensors and target is False:
        return True
    if func is torch.where and len(args) == 1:
        return True
    if func is torch.repeat_interleave or func is Tensor.repeat_interleave:
        return any(isinstance(own, Tensor) for own in args[1:])
    if func in _INDEXED:  # a list would be copied, a mask be counted
        index = args[1] if isinstance(args[1], tuple) else args[1:2]
        masks = (isinstance(own, Tensor) and own.dtype == torch.bool for own in index)
        return any(isinstance(own, list) for own in index) or any(masks)
    return False


def _placed(leaf: Any, on_gpu: bool) -> Any:
    if not isinstance(leaf, Tensor) or isinstance(leaf, OnGpu) == on_gpu:
        return leaf
    if leaf.layout is not torch.strided:  # which heads tell the time: can be no class of ours
        return leaf
    with torch._C.DisableTorchFunctionSubclass():
        return leaf.as_subclass(OnGpu if on_gpu else Tensor)


class Graph:
    """What ``torch.cuda.CUDAGraph`` is.

    Attributes:
        replays: how often it has been replayed.
    """

    made: list[Graph] = []

    def __init__(self) -> None:
        self.replays = 0
        self.pool: object = None
        self._steps: list[tuple[Any, Any, Any, Any]] = []
        self._outside: set[int] = set()  # memory that was there before
        self._own: dict[int, Tensor] = {}
        Graph.made.append(self)

    def note(self, func: Any, args: Any, kwargs: Any, found: Any) -> None:
        """One more operation."""
        with torch._C.DisableTorchFunctionSubclass():
            for tensor in _tensors((args, kwargs)):
                if (own := tensor.untyped_storage().data_ptr()) not in self._own:
                    self._outside.add(own)
            for tensor in _tensors(found):
                if (own := tensor.untyped_storage().data_ptr()) not in self._outside:
                    self._own[own] = tensor
        self._steps.append((func, args, kwargs, found))

    def replay(self) -> None:
        """All operations once more, on the same memory."""
        assert not recording, "a graph was replayed while one is recorded"
        waits = _Stream.waits
        assert not waits or waits[-1][0] is _Stream.now[-1], "what was recorded is not waited for"
        self.replays += 1
        for graph in Graph.made:
            if graph is not self and graph.pool is self.pool:
                graph.spoil()
        with torch._C.DisableTorchFunctionSubclass():
            for func, args, kwargs, found in self._steps:
                again = func(*args, **kwargs)
                for old, new in zip(_tensors(found), _tensors(again), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)

    def spoil(self) -> None:
        """Leave nonsense in all memory of its own."""
        with torch._C.DisableTorchFunctionSubclass():
            for tensor in self._own.values():
                if tensor.is_floating_point():
                    tensor.fill_(torch.nan)
                elif tensor.dtype == torch.long:
                    tensor.fill_(1 << 40)


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


@contextmanager
def _captured(graph: Graph, *, pool: object, stream: object, capture_error_mode: str) -> Any:
    """What ``torch.cuda.graph`` is."""
    assert not recording, "a process records one graph at a time"
    assert stream is _Stream.now[-1]
    assert capture_error_mode == "thread_local"  # others go on meanwhile
    graph.pool = pool
    recording.append(graph)
    try:
        yield
    finally:
        recording.clear()


class _Stream:
    """What ``torch.cuda.Stream`` is."""

    waits: list[tuple[_Stream, _Stream]] = []
    now: list[_Stream] = []

    def __init__(self, device: object = None) -> None:
        pass

    def wait_stream(self, other: _Stream) -> None:
        """What is asked for from now on comes after what ``other`` was asked for."""
        self.waits.append((self, other))


@contextmanager
def _on(stream: _Stream) -> Iterator[None]:
    """What ``torch.cuda.stream`` is; who leaves a stream has to let the next one wait for it."""
    before = _Stream.now[-1]
    assert (stream, before) in _Stream.waits, "a stream does not wait for what it needs"
    _Stream.now.append(stream)
    _Stream.waits.clear()
    try:
        yield
    finally:
        _Stream.now.pop()


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
    cuda = {
        "CUDAGraph": Graph,
        "graph": _captured,
        "graph_pool_handle": object,
        "Stream": _Stream,
        "stream": _on,
        "current_stream": lambda device: _Stream.now[-1],
        "device": nullcontext,
    }
    for name, value in cuda.items():
        monkeypatch.setattr(torch.cuda, name, value)
    Graph.made.clear()
    _Stream.now[:] = [_Stream()]
    _Stream.waits.clear()
    with PretendGpu():
        yield
