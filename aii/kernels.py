"""What a pass of the decoder does between its linear layers, compiled (numba, an extra).

A token of one call is little arithmetic and many operations: written out in PyTorch, two thirds of
a pass is the way into each of them and out again (``benchmarks/LOG.md``). Here normalisations and
attention are loops over plain memory that let go of Python's lock; who calls them is
:mod:`aii.fused`, whose slow twin is :mod:`aii.ragged`. Machine code is kept on disk beside this
file, or in the user's cache, so that only the first start compiles it.

What is no number stays none: sums may be reordered and contracted, but nothing here assumes that
values are finite.

Shapes: M rows of one token, D = H heads x W, S frames. Numbers are float32; half precision is
bfloat16, as its 16 bits (uint16).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_FLAGS = {"reassoc", "contract", "arcp", "nsz"}
_HEAD = 64  # the width of a head in all of Whisper's sizes
_SMALLEST = np.float32(1e-30)  # what a row of zeros is divided by


def _compiled(function: Callable[..., Any]) -> Any:
    settings: dict[str, Any] = {"nogil": True, "fastmath": _FLAGS, "error_model": "numpy"}
    try:
        return njit(cache=True, **settings)(function)
    except RuntimeError:  # nowhere to keep it
        return njit(**settings)(function)


def _reading(_: Any, bits: Any) -> Any:
    """The float32 of 32 bits."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.bitcast(values[0], ir.FloatType())

    return types.float32(types.uint32), build


_as_float: Any = intrinsic(_reading)


def _writing(_: Any, value: Any) -> Any:
    """The 32 bits of a float32."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.bitcast(values[0], ir.IntType(32))

    return types.uint32(types.float32), build


_as_bits: Any = intrinsic(_writing)


def _widening(_: Any, value: Any) -> Any:
    """float32 of what is stored: itself, or 16 bits of bfloat16."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if isinstance(value, types.Float):
            return values[0]
        bits = builder.zext(values[0], ir.IntType(32))
        return builder.bitcast(builder.shl(bits, ir.Constant(bits.type, 16)), ir.FloatType())

    return types.float32(value), build


_wide: Any = intrinsic(_widening)


@_compiled
def _power(x: Any) -> Any:
    """e to the x for x up to 0, to 2e-7; Cephes' polynomial of 2 to the x within a power."""
    y = x * np.float32(1.4426950408889634)
    if y < np.float32(-126):
        y = np.float32(-126)
    whole = np.float32(np.floor(y + np.float32(0.5)))
    part = y - whole
    p = np.float32(1.535336188319500e-4)
    p = p * part + np.float32(1.339887440266574e-3)
    p = p * part + np.float32(9.618437357674640e-3)
    p = p * part + np.float32(5.550332471162809e-2)
    p = p * part + np.float32(2.402264791363012e-1)
    p = p * part + np.float32(6.931472028550421e-1)
    p = p * part + np.float32(1.0)
    if not (np.float32(-127) < whole < np.float32(128)):
        whole = np.float32(0)  # no number, which ``p`` then is neither; an integer cannot be that
    return p * _as_float(np.uint32((np.int32(whole) + np.int32(127)) << np.int32(23)))


@_compiled
def _dots(query: Any, keys: Any, scale: Any, scores: Any) -> None:
    """``scores`` (S,) of a ``query`` (W,) and ``keys`` (S, W)."""
    width = keys.shape[1]
    for s in range(len(scores)):
        total = np.float32(0)
        if width == _HEAD:  # known when this is compiled, which is twice as fast
            for w in range(_HEAD):
                total += query[w] * _wide(keys[s, w])
        else:
            for w in range(width):
                total += query[w] * _wide(keys[s, w])
        scores[s] = total * scale


@_compiled
def _largest(values: Any) -> Any:
    """The greatest of (N,); a NaN of positive sign, if there is one; others are passed by.

    Compared as 32-bit integers in the order of the numbers, as only these are many at a time.
    """
    top = np.int32(-0x80000000)
    for i in range(len(values)):
        bits = np.int32(_as_bits(values[i]))
        place = np.int32(bits ^ np.int32(np.int32(bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))
        top = np.int32(max(top, place))
    bits = np.int32(top ^ np.int32(np.int32(top >> np.int32(31)) & np.int32(0x7FFFFFFF)))
    return _as_float(np.uint32(bits))


@_compiled
def _ordered(bits: Any) -> Any:
    """The bits of a bfloat16 as a 16-bit integer in the order of the numbers, and back."""
    return np.int16(bits ^ np.int16(np.int16(bits >> np.int16(15)) & np.int16(0x7FFF)))


@_compiled
def _softmax(scores: Any) -> None:
    """In place, (S,)."""
    top = _largest(scores)
    total = np.float32(0)
    for s in range(len(scores)):
        scores[s] = _power(scores[s] - top)
        total += scores[s]
    factor = np.float32(1) / total
    if not total < np.float32(np.inf):
        factor = np.float32(np.nan)
    for s in range(len(scores)):
        scores[s] *= factor


@_compiled
def _gathered(weights: Any, values: Any, out: Any) -> None:
    """``out`` (W,), the sum of ``values`` (S, W) by ``weights`` (S,).

    The loop stands here twice, as in :func:`_dots`: a function of the width takes a fifth longer.
    """
    width = len(out)
    for w in range(width):
        out[w] = np.float32(0)
    fours = len(weights) // 4 * 4
    for s in range(0, fours, 4):
        a, b, c, d = weights[s], weights[s + 1], weights[s + 2], weights[s + 3]
        if width == _HEAD:
            for w in range(_HEAD):
                out[w] += (
                    a * _wide(values[s, w])
                    + b * _wide(values[s + 1, w])
                    + c * _wide(values[s + 2, w])
                    + d * _wide(values[s + 3, w])
                )
        else:
            for w in range(width):
                out[w] += (
                    a * _wide(values[s, w])
                    + b * _wide(values[s + 1, w])
                    + c * _wide(values[s + 2, w])
                    + d * _wide(values[s + 3, w])
                )
    for s in range(fours, len(weights)):
        for w in range(width):
            out[w] += weights[s] * _wide(values[s, w])


@_compiled
def _levelled(row: Any, out: Any) -> Any:
    """``out`` (K,), a row divided by its largest value; that value."""
    bits = np.int32(0)  # of sizes, which stand like integers; what is no number is the greatest
    for i in range(len(row)):
        bits = np.int32(max(bits, np.int32(np.int32(_as_bits(row[i])) & np.int32(0x7FFFFFFF))))
    top = _as_float(np.uint32(bits))
    if top < _SMALLEST:
        top = _SMALLEST
    factor = np.float32(1) / top
    for i in range(len(row)):
        out[i] = row[i] * factor
    return top


@_compiled
def level(x: Any, out: Any, own: Any) -> None:
    """Rows (M, K) divided by their largest value, which goes to ``own`` (M,)."""
    for m in range(len(x)):
        own[m] = _levelled(x[m], out[m])


@_compiled
def unlevel(product: Any, own: Any, bias: Any) -> None:
    """Products (M, N) of levelled rows, and a bias that was not levelled, in place."""
    for m in range(len(product)):
        for i in range(product.shape[1]):
            product[m, i] = product[m, i] * own[m] + bias[i] * (np.float32(1) - own[m])


@_compiled
def norm(
    h: Any, more: Any, weight: Any, bias: Any, epsilon: Any, out: Any, own: Any, levelling: Any
) -> None:
    """Add ``more`` (M, D) to ``h``, in place, and let ``out`` be the normalised sum.

    ``more`` may have no rows. ``own`` (M,) is what ``out`` is still to be multiplied by.
    """
    size = h.shape[1]
    for m in range(len(h)):
        if len(more) > 0:
            for i in range(size):
                h[m, i] += more[m, i]
        mean = np.float32(0)
        for i in range(size):
            mean += h[m, i]
        mean /= np.float32(size)
        spread = np.float32(0)
        for i in range(size):
            spread += (h[m, i] - mean) * (h[m, i] - mean)
        factor = np.float32(1) / np.sqrt(spread / np.float32(size) + epsilon)
        for i in range(size):
            out[m, i] = (h[m, i] - mean) * factor * weight[i] + bias[i]
        if levelling:
            own[m] = _levelled(out[m], out[m])


@_compiled
def gelu(x: Any, own: Any, levelling: Any) -> None:
    """x times the normal distribution up to x, (M, K), in place; ``own`` as in :func:`norm`.

    The distribution to 1e-7: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
    """
    for m in range(len(x)):
        for i in range(x.shape[1]):
            value = x[m, i]
            size = abs(value) * np.float32(0.7071067811865476)
            t = np.float32(1) / (np.float32(1) + np.float32(0.3275911) * size)
            p = np.float32(1.061405429) * t - np.float32(1.453152027)
            p = p * t + np.float32(1.421413741)
            p = p * t - np.float32(0.284496736)
            p = p * t + np.float32(0.254829592)
            tail = p * t * _power(-size * size) * np.float32(0.5)  # of either side
            x[m, i] = value * (np.float32(1) - tail if value > 0 else tail)
        if levelling:
            own[m] = _levelled(x[m], x[m])


@_compiled
def over_audio(
    q: Any,
    scale: Any,
    lines: Any,
    places: Any,
    keys: Any,
    values: Any,
    out: Any,
    heads: Any,
    kept: Any,
) -> None:
    """Attention over encoded audio.

    Args:
        q: (M, D) queries.
        scale: of the scores.
        lines: which of them, n.
        places: of each, where its audio stands.
        keys, values: (places, H, S, W).
        out: (M, D), written at ``lines``.
        heads: whose scores are wanted.
        kept: (n, those heads, S), for these scores.
    """
    count, frames, width = keys.shape[1:]
    scores = np.empty(frames, np.float32)
    for h in range(count):
        first, end = h * width, (h + 1) * width
        for i in range(len(lines)):
            line, place = lines[i], places[i]
            _dots(q[line, first:end], keys[place, h], scale, scores)
            for a in range(len(heads)):
                if heads[a] == h:
                    kept[i, a, :] = scores
            _softmax(scores)
            _gathered(scores, values[place, h], out[line, first:end])


@_compiled
def over_text(
    q: Any,
    k: Any,
    v: Any,
    starts: Any,
    scale: Any,
    places: Any,
    positions: Any,
    kv: Any,
    out: Any,
    own: Any,
    levelling: Any,
) -> None:
    """Keep keys and values of new tokens, then attention of each over its row up to itself.

    Args:
        q, k, v: (M, any), queries, keys and values.
        starts: from which column on.
        scale: of the scores.
        places, positions: (M,) rows of the tokens, and where in them.
        kv: (places, 2, H, capacity, W), float32.
        out: (M, D).
        own, levelling: as in :func:`norm`.
    """
    count, capacity, width = kv.shape[2:]
    for m in range(len(out)):
        place, position = places[m], positions[m]
        for h in range(count):
            for w in range(width):
                kv[place, 0, h, position, w] = k[m, starts[1] + h * width + w]
                kv[place, 1, h, position, w] = v[m, starts[2] + h * width + w]
    room = np.empty(capacity, np.float32)
    for m in range(len(out)):
        place, seen = places[m], positions[m] + 1
        scores = room[:seen]
        for h in range(count):
            first = starts[0] + h * width
            _dots(q[m, first : first + width], kv[place, 0, h, :seen], scale, scores)
            _softmax(scores)
            _gathered(scores, kv[place, 1, h, :seen], out[m, h * width : (h + 1) * width])
        if levelling:
            own[m] = _levelled(out[m], out[m])


@_compiled
def _narrow(value: Any) -> Any:
    """The nearest bfloat16."""
    bits = _as_bits(value)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    bits = (bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    return np.uint16(bits) if value == value else np.uint16(0x7FC0)


@_compiled
def stand(x: Any, out: Any) -> None:
    """Keys or values (S, D), head by head in bfloat16 (H, S, W), rounded to the nearest."""
    count, frames, width = out.shape
    for h in range(count):
        for s in range(frames):
            for w in range(width):
                out[h, s, w] = _narrow(x[s, h * width + w])


@_compiled
def soften(weights: Any) -> None:
    """The softmax of each row (T, S) of bfloat16, in place; in float32 within."""
    row = np.empty(weights.shape[1], np.float32)
    for t in range(len(weights)):
        top = np.int16(-0x8000)
        for s in range(len(row)):
            bits = np.int16(weights[t, s])
            top = np.int16(max(top, _ordered(bits)))
        most = _wide(np.uint16(_ordered(top)))
        total = np.float32(0)
        for s in range(len(row)):
            row[s] = _power(_wide(weights[t, s]) - most)
            total += row[s]
        factor = np.float32(1) / total
        if not total < np.float32(np.inf):
            factor = np.float32(np.nan)
        for s in range(len(row)):
            weights[t, s] = _narrow(row[s] * factor)


@_compiled
def likeliest(scores: Any, picked: Any, logprobs: Any) -> None:
    """Of each row (R, V) the first of its greatest scores, and the logarithm of its share."""
    for r in range(len(scores)):
        top = _largest(scores[r])
        total = np.float32(0)
        for i in range(scores.shape[1]):
            total += _power(scores[r, i] - top)
        place = 0
        while place < scores.shape[1] - 1 and scores[r, place] != top:
            place += 1
        picked[r] = place
        logprobs[r] = -np.log(total) if total < np.float32(np.inf) else np.float32(np.nan)
