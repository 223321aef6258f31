"""Linear layers of 8-bit integers, each in one operation.

PyTorch brings a product that rounds its input to 255 steps, multiplies integers (FBGEMM) and scales
the sums, in a third to two thirds of the time that this takes written out (:mod:`aii.quantized`,
which is the slow twin, and what is taken where PyTorch or the processor lacks it). All rows of an
input share one step, from the least of their values to the greatest. For the frames of a window
that is as good. Tokens of several calls are first brought to the same greatest value each, so that
none is rounded more than twice as coarsely for another one's sake; still, what a token gives
depends a little on those beside it, as it does on their number. A step is never below 6e-5.

What is no number spoils the step of all rows. Among several it is no number afterwards, and
:mod:`aii.batch` then has each call read by itself; a single row and a window may hide it, so that
encoded audio is looked at before (:func:`check_audio`).
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from .errors import ServiceError
from .layers import hooked
from .quantized import QuantizedEmbedding, QuantizedLinear

PIECE = 256
"""Frames that go through a perceptron together: what is between its layers stays in the cache."""

_SMALLEST = 1e-30  # what a row of zeros is divided by


class PackedLinear(nn.Module):
    """What a :class:`.QuantizedLinear` computes, in one operation.

    Args:
        layer: the same, whose weights may be forgotten afterwards.
        apart: rows are tokens that have nothing to do with each other; else they are the frames of
            a window, (B, T, K) of B windows.
    """

    bias: Tensor

    def __init__(self, layer: QuantizedLinear, *, apart: bool) -> None:
        super().__init__()
        self.packed = _pack(layer.weight, layer.scale, layer.bias)
        self.register_buffer("bias", layer.bias)
        self.dtype = layer.dtype
        self.apart = apart

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) of any floating dtype -> (..., N)."""
        x = x.float()
        if not self.apart:
            return _windows(x, self.packed).to(self.dtype)
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) == 1:
            return _product(x, self.packed).to(self.dtype)
        rows, own = _levelled(rows)
        # The bias is in the product already, and must not be scaled with it.
        out = torch.addcmul(self.bias, _product(rows, self.packed).sub_(self.bias), own)
        return out.view(*x.shape[:-1], out.shape[-1]).to(self.dtype)

    def on_level(self, rows: Tensor) -> Tensor:
        """The product of rows (M, K) as :func:`_levelled` leaves them, with the bias as it is."""
        return _product(rows, self.packed)


class PackedPerceptron(nn.Sequential):
    """The two layers behind an encoder's attention, some frames after the others."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D); whole where hooks look on."""
        if hooked(self):
            return torch.stack([super(PackedPerceptron, self).forward(own) for own in x])
        pieces = -(-x.shape[1] // PIECE)
        first, gelu, last = self
        return torch.cat([last(gelu(first(own))) for own in x.chunk(pieces, dim=1)], dim=1)


class PackedEmbedding(QuantizedEmbedding):
    """A table of tokens whose scores take one operation."""

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        super().__init__(weight, scale)
        self.packed: Any = None  # a second copy, made only where all scores are asked for

    def project(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V) float32."""
        rows = hidden.float().reshape(-1, hidden.shape[-1])
        if self.packed is None:
            self.packed = _pack(self.weight, self.scale, None)
        if len(rows) == 1:
            out = _product(rows, self.packed)
        else:
            rows, own = _levelled(rows)
            out = _product(rows, self.packed).mul_(own)
        return out.view(*hidden.shape[:-1], out.shape[-1])


def check_audio(features: Tensor, table: nn.Module) -> None:
    """See to it that encoded audio for a decoder with such a ``table`` is numbers.

    Raises:
        ServiceError: it is not, and packed integers would hide it.
    """
    if isinstance(table, PackedEmbedding) and not bool(features.isfinite().all()):
        raise ServiceError("the network's scores of this audio are not finite numbers")


@cache
def packs() -> bool:
    """Whether PyTorch has the operation, and the processor sums its products exactly."""
    if torch.backends.quantized.engine not in ("x86", "fbgemm"):
        return False
    try:
        weight = torch.full((32, 64), 127, dtype=torch.int8)
        with warnings.catch_warnings():  # told once: tensors of this kind are to go, some day
            warnings.simplefilter("ignore", UserWarning)
            packed = _pack(weight, torch.ones(32), None)
        x = torch.arange(256.0).remainder(64).mul(4).clamp(max=255).view(4, 64)
        x[1:] = x[1:].flip(-1)
        x[:, 0], x[:, 1] = 0.0, 255.0  # so that a step is 1
        return torch.equal(_product(x, packed), x @ weight.float().T)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


def _pack(weight: Tensor, scale: Tensor, bias: Tensor | None) -> Any:
    """Weights (N, K) as the operation wants them."""
    whole = torch._make_per_channel_quantized_tensor(
        weight.contiguous(), scale.double(), torch.zeros(len(scale), dtype=torch.long), 0
    )
    return torch.ops.quantized.linear_prepack(whole, bias)


@cache
def _operation() -> Any:
    """The product itself, past a look at every argument that takes as long as a small product."""
    whole = torch.ops.quantized.linear_dynamic.default
    return getattr(whole, "_op", whole)


def _product(x: Tensor, packed: Any) -> Tensor:
    """(..., K) float32 -> (..., N) float32."""
    try:
        found: Tensor = _operation()(x, packed)
    except RuntimeError as error:
        if not bool(x.isfinite().all()):
            raise ServiceError("the network's values are not finite numbers") from error
        raise
    return found


def _windows(x: Tensor, packed: Any) -> Tensor:
    """(B, T, K) -> (B, T, N); no window is rounded by another's step."""
    if x.ndim < 3 or len(x) == 1:
        return _product(x, packed)
    return torch.stack([_product(own, packed) for own in x])


def _levelled(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (M, K) of largest value 1, and what each is to be multiplied by, (M, 1)."""
    own = rows.abs().amax(dim=-1, keepdim=True).clamp_(min=_SMALLEST)
    return rows / own, own
