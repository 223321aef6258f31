"""Linear layers of 8-bit integers.

Weights are kept as integers with one scale per output; inputs are rounded to integers with one
scale per row as they come, and the products are summed exactly, in 32 bits. So what a row gives
depends on that row alone, not on those it is computed with.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CHUNK = 128
"""Rows at a time: what comes between the steps stays in the processor's cache."""

_LARGEST = 127.0
_SMALLEST = 1e-30  # scale of a row of zeros


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(N, K) int8 and the scale (N,) float32 of each row, from floats (N, K)."""
    weight = weight.float()
    scale = (weight.abs().amax(dim=-1) / _LARGEST).clamp(min=_SMALLEST)
    return (weight / scale[:, None]).round().to(torch.int8), scale


class QuantizedLinear(nn.Module):
    """A linear layer of integer weights.

    Args:
        weight: (N, K) int8.
        scale: (N,) float32.
        bias: (N,) float32, None for none.
        dtype: of the result; None for float32.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(
        self, weight: Tensor, scale: Tensor, bias: Tensor | None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", torch.zeros_like(scale) if bias is None else bias.float())
        self.dtype = dtype or torch.float32

    @classmethod
    def of(cls, layer: nn.Linear, dtype: torch.dtype | None = None) -> QuantizedLinear:
        """The same layer in integers."""
        bias = None if layer.bias is None else layer.bias.detach()
        return cls(*quantize(layer.weight.detach()), bias, dtype)

    @classmethod
    def joined(cls, layers: list[QuantizedLinear]) -> QuantizedLinear:
        """One layer that gives what ``layers`` give, side by side; they become views of it."""
        whole = cls(
            torch.cat([layer.weight for layer in layers]),
            torch.cat([layer.scale for layer in layers]),
            torch.cat([layer.bias for layer in layers]),
            layers[0].dtype,
        )
        first = 0
        for layer in layers:
            end = first + len(layer.scale)
            layer.weight, layer.scale = whole.weight[first:end], whole.scale[first:end]
            layer.bias = whole.bias[first:end]
            first = end
        return whole

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) of any floating dtype -> (..., N)."""
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) <= CHUNK:
            out = self._rows(rows).to(self.dtype)
        else:
            out = torch.empty(len(rows), len(self.scale), dtype=self.dtype, device=x.device)
            for first in range(0, len(rows), CHUNK):
                out[first : first + CHUNK] = self._rows(rows[first : first + CHUNK])
        return out.view(*x.shape[:-1], len(self.scale))

    def _rows(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias, *_product(x, self.weight, self.scale))


class QuantizedEmbedding(nn.Module):
    """The table of tokens in integers: a token's vector, and a score for every token.

    Args:
        weight: (V, D) int8.
        scale: (V,) float32.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)

    def forward(self, tokens: Tensor) -> Tensor:
        """(...,) numbers -> (..., D) float32."""
        return self.weight[tokens] * self.scale[tokens][..., None]

    def project(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V) float32."""
        product, scale = _product(hidden.reshape(-1, hidden.shape[-1]), self.weight, self.scale)
        return product.mul_(scale).view(*hidden.shape[:-1], len(self.scale))

    def some(self, tokens: Tensor) -> QuantizedEmbedding:
        """The table of some tokens only."""
        return type(self)(self.weight[tokens], self.scale[tokens])


def _product(x: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """x (M, K) times weights (N, K), and by what each row of the (M, N) is still to be scaled."""
    x = x.float()
    # A row of zeros is divided by zero and multiplied by it: whatever the integers are, it is zero.
    own = x.abs().amax(dim=-1, keepdim=True).div_(_LARGEST)
    rounded = x.div(own).round_().to(torch.int8)
    return torch._int_mm(rounded, weight.t()) * scale, own


def exact(device: torch.device) -> bool:
    """Whether integer products come out exact here: some processors sum them in 16 bits."""
    try:
        chance = torch.Generator().manual_seed(0)
        a, b = (torch.randint(-127, 128, (32, 64), generator=chance) for _ in range(2))
        a[0], b[0] = 127, 127
        found = torch._int_mm(a.to(device, torch.int8), b.to(device, torch.int8).T)
        return torch.equal(found.cpu().long(), a @ b.T)
    except (RuntimeError, AttributeError):
        return False
