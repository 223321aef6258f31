"""Scaled dot-product attention, and a look at what the decoder attends to.

Vaswani et al., "Attention Is All You Need" (arXiv 1706.03762), section 3.2. Shapes use B rows,
H heads, T queries, S keys, W width of a head.

Hand an :class:`AttentionRecorder` to the decoder and it collects that decode's cross-attention,
and nobody else's: nothing is registered on the model.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .compiled import kernels, memory

HAS_SDPA = hasattr(F, "scaled_dot_product_attention")

_WRITTEN_FROM = 64
"""Queries from which on half precision is written out on a CPU."""

_QUERIES_AT_ONCE = 750
"""So many are looked up together then: their weights, 2 MB, are still in the cache when used."""


def attention_scores(q: Tensor, k: Tensor) -> Tensor:
    """Scaled dot products (B, H, T, S) of queries (B, H, T, W) and keys (B, H, S, W)."""
    scale = q.shape[-1] ** -0.25  # on both sides: half precision would overflow otherwise
    return (q * scale) @ (k * scale).transpose(-1, -2)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    explicit: bool = not HAS_SDPA,
) -> tuple[Tensor, Tensor | None]:
    """Attention of queries (B, H, T, W) over keys and values (B, H, S, W).

    Args:
        mask: boolean, broadcast to (B, H, T, S), True where a query may look.
        causal: query t may look at keys 0..t only.
        explicit: write the weights out instead of calling PyTorch's fused kernel.

    Returns:
        (B, H, T, W), and in the explicit form the scores before the softmax in float32.
    """
    if not explicit:
        if mask is None and not causal and _suits_writing_out(q, k, v):
            return attend_by_heads(q, k, v), None
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal), None
    scores = attention_scores(q, k).float()
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    masked = scores if mask is None else scores.masked_fill(~mask, -math.inf)
    return masked.softmax(dim=-1).to(q.dtype) @ v, scores


def _suits_writing_out(q: Tensor, k: Tensor, v: Tensor) -> bool:
    if torch.is_grad_enabled() and any(part.requires_grad for part in (q, k, v)):
        return False  # it writes into memory of its own, which has no gradient
    return q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] >= _WRITTEN_FROM


def _suits_loops(q: Tensor) -> bool:
    if type(q) is not Tensor or torch.jit.is_tracing():  # what has no memory to be written to
        return False
    return q.dtype == torch.bfloat16 and torch.get_num_threads() == 1


def attend_by_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of (B, H, T, W) over (B, H, S, W), one head and some queries at a time.

    On CPUs with bfloat16 this takes two thirds of the time of PyTorch's fused kernel, whose
    products are small (``benchmarks/LOG.md``). Scores are rounded to the type of the inputs. With
    one thread the softmax is a compiled loop, where there are such, which may round otherwise.
    """
    queries, keys, values = (part.flatten(0, 1) for part in (q * q.shape[-1] ** -0.5, k, v))
    length = queries.shape[1]
    size = -(-length // -(-length // _QUERIES_AT_ONCE))
    out = torch.empty_like(queries)
    room = queries.new_empty(size, keys.shape[1])
    soften = None
    if _suits_loops(q) and (loops := kernels()) is not None:
        soften, plain = loops.soften, memory(room)
    for head, own in enumerate(keys.transpose(1, 2)):
        for first in range(0, length, size):
            here = queries[head, first : first + size]
            weights = room[: len(here)]
            torch.mm(here, own, out=weights)
            if soften is not None:
                soften(plain[: len(here)])
            else:
                torch.softmax(weights, dim=-1, out=weights)
            torch.mm(weights, values[head], out=out[head, first : first + size])
    return out.view(q.shape)


def heads_by_layer(selection: Tensor) -> dict[int, list[int]]:
    """The heads of each layer that ``selection`` (layers, heads), dense or sparse, names."""
    dense = selection.to_dense() if selection.is_sparse else selection
    found: dict[int, list[int]] = {}
    for layer, head in dense.nonzero().tolist():
        found.setdefault(layer, []).append(head)
    return found


class AttentionRecorder:
    """Collects cross-attention scores of one decode.

    Scores are scaled dot products before the softmax, float32, (rows, heads, tokens, frames);
    a frame is 20 ms. Several passes are joined along the token axis.

    Args:
        keep: hold only the last ``keep`` tokens (None: all), so that memory stays bounded.
        selection: (layers, heads), nonzero for the heads to hold (None: all), which then are
            :attr:`chosen`; the other layers take PyTorch's fused attention.
    """

    def __init__(self, keep: int | None = None, selection: Tensor | None = None) -> None:
        self.keep = keep
        self._passes: dict[int, list[Tensor]] = {}
        self._wanted: dict[int, list[int]] | None = None
        if selection is not None:
            self._wanted = heads_by_layer(selection)

    def wants(self, layer: int) -> bool:
        """Whether scores of this layer are of interest."""
        return self._wanted is None or layer in self._wanted

    def record(self, layer: int, scores: Tensor) -> None:
        """Take in layer ``layer``'s scores of one pass, (rows, heads, tokens, frames)."""
        if self._wanted is not None:
            scores = scores[:, self._wanted[layer]]
        if self.keep is not None:
            scores = scores[:, :, -self.keep :]
        passes = self._passes.setdefault(layer, [])
        passes.append(scores.detach().float())
        if self.keep is not None and sum(p.shape[2] for p in passes) > self.keep:
            self._passes[layer] = [torch.cat(passes, dim=2)[:, :, -self.keep :]]

    @property
    def chosen(self) -> Tensor:
        """The scores of all heads held, (rows, heads, tokens, frames), layer by layer."""
        return torch.cat(self.cross, dim=1)

    @property
    def cross(self) -> list[Tensor]:
        """One tensor per layer, (rows, heads, tokens, frames)."""
        return [torch.cat(self._passes[layer], dim=2) for layer in sorted(self._passes)]

    def heads(self, selection: Tensor) -> Tensor:
        """The scores of some heads only.

        Args:
            selection: (layers, heads), dense or sparse, nonzero where a head is wanted, as
                ``Whisper.alignment_heads``.

        Returns:
            (rows, selected heads, tokens, frames), layer by layer.
        """
        dense = selection.to_dense() if selection.is_sparse else selection
        cross = self.cross
        chosen = [cross[int(layer)][:, int(head)] for layer, head in dense.nonzero()]
        return torch.stack(chosen, dim=1)
