"""One pass of the decoder over rows of any number of decodes, of any lengths.

The new tokens of all decodes stand in one line, so that every weight is read once for all of them;
only attention goes row by row (or all rows of one token side by side). What a decode gets does not
depend on who else is in the pass, but for the rounding of floating-point sums. The slow twin is
``TextDecoder.forward``.

Keys are kept scaled by W ** -0.25, as queries are, so that no pass touches them again (on both
sides, because half precision would overflow otherwise).

Shapes: M tokens in line, D = heads x W, S encoder frames, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import heads_by_layer
from .rows import Rows

if TYPE_CHECKING:
    from .model import ResidualAttentionBlock, Whisper

Heard = list[tuple[Tensor, Tensor]]
"""For each layer the keys and values (A, heads, S, W) of A encoded audios."""

_FUSED_FROM = 16
"""Queries over one audio from which on PyTorch's fused attention is faster than written out."""


@dataclass(frozen=True, eq=False)
class Part:
    """What one decode wants of a pass.

    Attributes:
        tokens: R rows of n new tokens.
        rows: their R places.
        start: how many tokens they hold.
        heard: the A audios; R is a multiple of A.
        attention: how many of the last tokens' attention to give, 0 for none.
    """

    tokens: Sequence[Sequence[int]]
    rows: Sequence[int]
    start: int
    heard: Heard
    attention: int = 0
    scores: list[Tensor] = field(default_factory=list)

    @property
    def width(self) -> int:
        """New tokens of each row."""
        return len(self.tokens[0])

    @property
    def end(self) -> int:
        """Tokens that the rows hold afterwards."""
        return self.start + self.width


class Ragged:
    """The decoder of a model, with places for rows.

    Args:
        places: rows to begin with.
    """

    def __init__(self, model: Whisper, places: int = 1, dtype: torch.dtype | None = None) -> None:
        decoder = model.decoder
        weight = decoder.positional_embedding
        self.decoder = decoder
        self._blocks = cast("list[ResidualAttentionBlock]", list(decoder.blocks))
        self.rows = Rows(
            len(decoder.blocks),
            decoder.n_head,
            weight.shape[1],
            capacity=weight.shape[0],
            places=places,
            device=weight.device,
            dtype=decoder.kv_dtype or dtype or weight.dtype,
        )
        self.dtype = dtype or weight.dtype
        self._aligning = heads_by_layer(model.alignment_heads)

    def hear(self, features: Tensor) -> Heard:
        """The keys and values of encoded audio (A, S, D), computed once for all of its passes."""
        heard = []
        for block in self._blocks:
            cross = block.cross_attn
            assert cross is not None
            k, v = cross.split(cross.key(features)), cross.split(cross.value(features))
            heard.append(((k * k.shape[-1] ** -0.25).contiguous(), v.contiguous()))
        return heard

    def run(self, parts: Sequence[Part]) -> Tensor:
        """Read the new tokens of all parts; (M, D) hidden states, part by part, row by row.

        The scores of the alignment heads (R, heads, n, S) that parts asked for are appended to
        their ``scores``, layer by layer.

        Raises:
            ValueError: a row would grow past the capacity.
        """
        if (longest := max(part.end for part in parts)) > self.rows.capacity:
            raise ValueError(f"{longest} tokens do not fit a row of {self.rows.capacity}")
        plan = _Plan(parts, self.rows.keys[0].device)
        decoder = self.decoder
        h = decoder.token_embedding(plan.tokens) + decoder.positional_embedding[plan.positions]
        h = h.to(self.dtype)
        for layer, block in enumerate(self._blocks):
            h = self._block(layer, block, h, plan)
        return decoder.ln(h)

    def _block(self, layer: int, block: ResidualAttentionBlock, h: Tensor, plan: _Plan) -> Tensor:
        attn, cross = block.attn, block.cross_attn
        assert cross is not None
        assert block.cross_attn_ln is not None
        normed = block.attn_ln(h)
        q, k, v = (part.view(len(h), attn.n_head, -1) for part in attn.projected(normed))
        keys, values = self.rows.keys[layer], self.rows.values[layer]
        scale = q.shape[-1] ** -0.25
        keys[plan.places, :, plan.positions] = k * scale
        values[plan.places, :, plan.positions] = v
        h = h + attn.out(_over_text(q * scale, keys, values, plan))
        q = cross.query(block.cross_attn_ln(h)).view(len(h), attn.n_head, -1)
        h = h + cross.out(_over_audio(q * scale, layer, plan, self._aligning.get(layer)))
        return h + block.mlp(block.mlp_ln(h))


class _Plan:
    """Where the tokens of a pass stand.

    Attributes:
        parts: with the first of each one's tokens in the line.
        tokens, positions, places: (M,) numbers, positions in their rows, and rows.
        single: the rows (and places in the line) of parts that read one token.
    """

    def __init__(self, parts: Sequence[Part], device: torch.device) -> None:
        tokens: list[int] = []
        positions: list[int] = []
        places: list[int] = []
        self.parts: list[tuple[int, Part]] = []
        self.lines: list[int] = []
        self.single: list[int] = []
        lengths: list[int] = []
        for part in parts:
            self.parts.append((len(tokens), part))
            for row, new in zip(part.rows, part.tokens, strict=True):
                if part.width == 1:
                    self.lines.append(len(tokens))
                    self.single.append(row)
                    lengths.append(part.end)
                tokens += new
                positions += range(part.start, part.end)
                places += [row] * part.width
        packed = torch.tensor([tokens, positions, places], device=device)
        self.tokens, self.positions, self.places = packed
        self.longest = max(lengths, default=0)
        self.lengths = lengths
        self.side_by_side = len(self.single) > 1 and self._worth_it()
        if self.side_by_side:
            self.reach = max(self.single) + 1
            limits = torch.zeros(self.reach, dtype=torch.long)
            limits[self.single] = torch.tensor(lengths)
            seen = torch.arange(self.longest) < limits[:, None]
            seen[:, 0] = True  # a place that is not asked for looks at something, too
            self.unseen = ~seen[:, None, None].to(device)  # (reach, 1, 1, longest)
            self.line_index = torch.tensor(self.lines, device=device)
            self.single_index = torch.tensor(self.single, device=device)

    def _worth_it(self) -> bool:
        """Whether reading all rows as if they were of the same length beats one after the other."""
        together = (max(self.single) + 1) * self.longest
        return together <= 2 * sum(self.lengths) + 64 * len(self.lengths)


def _over_text(q: Tensor, keys: Tensor, values: Tensor, plan: _Plan) -> Tensor:
    """Attention of (M, heads, W) over the tokens of each one's row; (M, D)."""
    out = torch.empty_like(q)
    for first, part in plan.parts:
        count = len(part.rows) * part.width
        if part.width == 1 and plan.side_by_side:
            continue
        here = q[first : first + count].unflatten(0, (-1, part.width)).transpose(1, 2)
        if len(part.rows) == 1:
            row = part.rows[0]
            k, v = keys[row : row + 1, :, : part.end], values[row : row + 1, :, : part.end]
        else:
            k, v = (t[list(part.rows), :, : part.end] for t in (keys, values))
        a = _attend_text(here, k, v, part)
        out[first : first + count] = a.transpose(1, 2).flatten(0, 1)
    if plan.side_by_side:
        spread = q.new_zeros(plan.reach, *q.shape[1:])
        spread[plan.single_index] = q[plan.line_index]
        k, v = (t[: plan.reach, :, : plan.longest] for t in (keys, values))
        scores = (spread[:, :, None] @ k.transpose(-1, -2)).float()
        weights = scores.masked_fill_(plan.unseen, -torch.inf).softmax(dim=-1).to(q.dtype)
        out[plan.line_index] = (weights @ v)[plan.single_index, :, 0]
    return out.flatten(1)


def _attend_text(q: Tensor, k: Tensor, v: Tensor, part: Part) -> Tensor:
    """Causal attention of the new tokens (R, heads, n, W) over theirs and those before them."""
    if part.width == 1:
        return (q @ k.transpose(-1, -2)).float().softmax(dim=-1).to(q.dtype) @ v
    if part.start == 0:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
    mask = torch.ones(part.width, part.end, dtype=torch.bool, device=q.device).tril(part.start)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)


def _over_audio(q: Tensor, layer: int, plan: _Plan, aligning: list[int] | None) -> Tensor:
    """Attention of (M, heads, W) over the audio of each one's part; (M, D)."""
    out = torch.empty_like(q)
    for first, part in plan.parts:
        k, v = part.heard[layer]
        count = len(part.rows) * part.width
        # No query looks at another one here, so the rows of an audio can stand in one line.
        here = q[first : first + count].unflatten(0, (len(k), -1)).transpose(1, 2)
        wanted = aligning if part.attention else None
        if wanted is None and here.shape[2] >= _FUSED_FROM:
            a = F.scaled_dot_product_attention(here, k, v, scale=1.0)
        else:
            scores = (here @ k.transpose(-1, -2)).float()
            a = scores.softmax(dim=-1).to(q.dtype) @ v
            if wanted is not None:
                split = scores[:, wanted].unflatten(2, (-1, part.width)).transpose(1, 2)
                part.scores.append(split.flatten(0, 1)[:, :, -part.attention :])
        out[first : first + count] = a.transpose(1, 2).flatten(0, 1)
    return out.flatten(1)
