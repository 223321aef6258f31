"""Whether the compiled loops of :mod:`aii.kernels` are there, and right on this processor."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

log = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]

_TOLD = 2.0
"""Seconds of compiling that are worth a line in the log."""


@cache
def kernels() -> ModuleType | None:
    """:mod:`aii.kernels`, all of it compiled; None without numba, or where it goes wrong."""
    begin = time.monotonic()
    try:
        from . import kernels as found

        wrong = next((name for name, right in _tried(found).items() if not right), "")
    except ModuleNotFoundError:  # not installed
        return None
    except Exception as error:  # a numba that does not fit numpy, a processor it does not know
        wrong = f"{type(error).__name__}: {error}".splitlines()[0]
    if wrong:
        log.warning(
            "numba's loops go wrong here (%s); PyTorch's operations do the same, slower", wrong
        )
        return None
    if (seconds := time.monotonic() - begin) > _TOLD:
        log.info("the decoder's loops were compiled for this processor in %.0f s", seconds)
    return found


def memory(tensor: Tensor) -> Array:
    """The memory of a tensor on a CPU, as the loops take it: of bfloat16 its 16 bits."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.numpy()


def _tried(loops: Any) -> dict[str, bool]:
    """Each loop by name, called as it is in earnest, and whether it came out right.

    Right means as numpy has it, within rounding, and that what is no number stays with its row.
    """
    chance = np.random.default_rng(0)

    def numbers(*shape: int) -> Array:
        return chance.standard_normal(shape, np.float32)

    return {**_rows(loops, numbers), **_attention(loops, numbers)}


def _rows(loops: Any, numbers: Callable[..., Array]) -> dict[str, bool]:
    """Those that take each row by itself."""
    h, weight, own, out = numbers(2, 64), numbers(64), np.empty(2, np.float32), numbers(2, 64)
    right = {}
    loops.norm(h, h[:0], weight, weight, np.float32(1e-5), out, own, True)
    centred = h - h.mean(axis=1, keepdims=True)
    normal = centred / np.sqrt(centred.var(axis=1, keepdims=True) + 1e-5) * weight + weight
    right["norm"] = _near(out * own[:, None], normal)
    loops.level(h, out, own)
    right["level"] = _near(own, np.abs(h).max(axis=1)) and _near(out * own[:, None], h)
    loops.unlevel(out, own, weight * 0)
    right["unlevel"] = _near(out, h)
    out[:] = h
    loops.gelu(out, own, False)
    whole = np.array([[x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in row] for row in h])
    right["gelu"] = _near(out, whole)
    stood = np.empty((2, 2, 32), np.uint16)
    loops.stand(h, stood)
    right["stand"] = _near(_wide(stood[1]), h[:, 32:], 0.004)
    shares = np.exp(h) / np.exp(h).sum(axis=1, keepdims=True)
    picked = np.empty(2, np.int64)
    loops.likeliest(h, picked, own)
    right["likeliest"] = bool((picked == h.argmax(axis=1)).all())
    right["likeliest"] &= _near(own, np.log(shares.max(axis=1)))
    halves = _halves(h)
    shares = np.exp(_wide(halves))
    loops.soften(halves)
    right["soften"] = _near(_wide(halves), shares / shares.sum(axis=1, keepdims=True), 0.004)
    return right


def _attention(loops: Any, numbers: Callable[..., Array]) -> dict[str, bool]:
    """Those of one query each."""
    h, own, out = numbers(2, 64), np.empty(2, np.float32), numbers(2, 64)
    keys, values = numbers(2, 1, 9, 64), numbers(2, 1, 9, 64)
    one, two, none = np.float32(1), np.arange(2), np.empty(0, np.int64)
    right = {}
    weights = np.exp(keys[0, 0] @ h[0])
    attention = (weights / weights.sum()) @ values[0, 0]
    keys[1, 0, 3, 5] = np.nan
    kept = np.empty((2, 0, 9), np.float32)
    loops.over_audio(h, one, two, two, keys, values, out, none, kept)
    right["over_audio"] = _near(out[0], attention) and bool(np.isnan(out[1]).all())
    loops.over_audio(h, one, two, two, _halves(keys), _halves(values), out, none, kept)
    right["over_audio in bfloat16"] = bool(np.isnan(out[1]).all())
    right["over_audio in bfloat16"] &= bool(np.allclose(out[0], attention, atol=0.3))
    kv = np.stack([keys, values], axis=1)
    line = (two, two + 7, kv, out, own, False)
    loops.over_text(h, keys[0, 0, 7:9], values[0, 0, 7:9], np.zeros(3, np.int64), one, *line)
    weights = np.exp(keys[0, 0, :8] @ h[0])
    right["over_text"] = _near(out[0], (weights / weights.sum()) @ values[0, 0, :8])
    return right


def _near(found: Array, expected: Array, relative: float = 1e-5) -> bool:
    return bool(np.allclose(found, expected, rtol=relative, atol=1e-4))


def _halves(values: Array) -> Array:
    """The upper 16 bits of float32: bfloat16, rounded down."""
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def _wide(halves: Array) -> Array:
    """float32 of bfloat16's bits."""
    return (halves.astype(np.uint32) << 16).view(np.float32)
