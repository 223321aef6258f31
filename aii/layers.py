"""The layers that the network is made of; they compute in the dtype of their input."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import InputError


def hooked(modules: Iterable[nn.Module]) -> bool:
    """Whether somebody's forward hooks hang on one of them."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in modules)


class Linear(nn.Linear):
    """A linear layer that computes in the dtype of its input, whatever its weights are kept in."""

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dtype == x.dtype:
            return F.linear(x, self.weight, self.bias)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class Conv1d(nn.Conv1d):
    """A convolution that computes in the dtype of its input."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        bias = None if bias is None else bias.to(x.dtype)
        return super()._conv_forward(x, weight.to(x.dtype), bias)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation in float32, given back in the dtype of its input."""

    def forward(self, x: Tensor) -> Tensor:
        mixed = x.dtype == torch.bfloat16 and x.device.type == "cpu"  # float32 within, in one go
        if self.weight.dtype == torch.float32 and (x.dtype == torch.float32 or mixed):
            return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        weight, bias = self.weight.float(), self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


def sinusoids(length: int, channels: int, max_timescale: float = 10_000) -> Tensor:
    """(length, channels) position embedding of sines, then cosines, of geometric wavelengths.

    Vaswani et al., "Attention Is All You Need" (arXiv 1706.03762), section 3.5.

    Raises:
        InputError: ``channels`` is odd, or less than four.
    """
    if channels % 2 or channels < 4:
        raise InputError(f"sinusoids need an even number of channels from 4 on, not {channels}")
    half = channels // 2
    rates = torch.exp(torch.arange(half) * (-math.log(max_timescale) / (half - 1)))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
