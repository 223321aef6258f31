"""One pass of the decoder over rows of any number of decodes, of any lengths.

The new tokens of all decodes stand in one line, so that every weight is read once for all of them.
In attention, rows that read one token go side by side where their pasts (or their audios) stand
side by side; the others go one after the other. What a decode gets does not depend on who else is
in the pass, but for rounding, of sums and of integers. The slow twin is ``TextDecoder.forward``.

Shapes: M tokens in line, D = H heads x W, S encoder frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import heads_by_layer
from .compiled import kernels
from .heard import Heard, Layer, Shelf, Shelves
from .layers import hooked
from .packed import PackedLinear, check_audio
from .rows import Rows
from .transfers import put

if TYPE_CHECKING:
    from .model import ResidualAttentionBlock, TextDecoder, Whisper

FUSED_FROM = 16
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
        scores: where to put it.
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
    """The decoder of a model, with places for rows and for audios.

    Attributes:
        rows: the places for rows.
        shelves: the places for audios.

    Args:
        places: rows to begin with.
        dtype: of the encoded audio; None for the weights'.
    """

    def __init__(self, model: Whisper, places: int = 1, dtype: torch.dtype | None = None) -> None:
        decoder = model.decoder
        weight = decoder.positional_embedding
        self.decoder = decoder
        self._blocks = cast("list[ResidualAttentionBlock]", list(decoder.blocks))
        self._dtype = dtype or weight.dtype
        text = decoder.kv_dtype or self._dtype
        audio = decoder.audio_dtype or self._dtype
        width = weight.shape[1] // decoder.n_head
        self.rows = Rows(
            len(self._blocks),
            decoder.n_head,
            weight.shape[1],
            capacity=weight.shape[0],
            places=places,
            device=weight.device,
            dtype=text,
        )
        shape = (len(self._blocks), decoder.n_head, width)
        self.shelves = Shelves(shape, weight.device, audio)
        self._q_scale, self._k_scale = _scales(width, text)
        self._aligning = heads_by_layer(model.alignment_heads)

    def hear(self, features: Tensor) -> Heard:
        """Keep the keys and values of encoded audio (A, S, D) for all of its passes."""
        return self.shelves.put(audio_layers(self.decoder, features))

    def run(self, parts: Sequence[Part]) -> Tensor:
        """Read the new tokens of all parts; (M, D) hidden states, part by part, row by row.

        The scores of the alignment heads (R, heads, n, S) that parts asked for are appended to
        their ``scores``, layer by layer.

        Raises:
            ValueError: a row would grow past the capacity.
        """
        if (longest := max(part.end for part in parts)) > self.rows.capacity:
            raise ValueError(f"{longest} tokens do not fit a row of {self.rows.capacity}")
        return self._read(parts)

    def _read(self, parts: Sequence[Part]) -> Tensor:
        plan = _Plan(parts, self.rows.kv[0].device)
        decoder = self.decoder
        h = decoder.token_embedding(plan.tokens) + decoder.positional_embedding[plan.positions]
        h = h.to(self._dtype)
        for layer, block in enumerate(self._blocks):
            h = self._block(layer, block, h, plan)
        return decoder.ln(h)

    def _block(self, layer: int, block: ResidualAttentionBlock, h: Tensor, plan: _Plan) -> Tensor:
        attn, cross = block.attn, block.cross_attn
        assert cross is not None
        assert block.cross_attn_ln is not None
        shape = (len(h), attn.n_head, -1)
        q, k, v = (part.view(shape) for part in attn.projected(block.attn_ln(h)))
        kv = self.rows.kv[layer]
        plan.store(kv, k if self._k_scale is None else k * self._k_scale, v)
        h = h + attn.out(_over_text(q.to(kv.dtype) * self._q_scale, kv, plan).to(h.dtype))
        q = cross.query(block.cross_attn_ln(h)).view(shape)
        q = q.to(self.shelves.dtype) * self._q_scale
        h = h + cross.out(_over_audio(q, layer, plan, self._aligning.get(layer)).to(h.dtype))
        return h + block.mlp(block.mlp_ln(h))


def audio_layers(decoder: TextDecoder, features: Tensor) -> list[Layer]:
    """The keys and values (A, H, S, W) of encoded audio (A, S, D) in each layer of the decoder."""
    check_audio(features, decoder.token_embedding)
    layers = []
    dtype = decoder.audio_dtype or features.dtype
    loops = kernels() if dtype == torch.bfloat16 and features.device.type == "cpu" else None
    for block in decoder.blocks:
        cross = cast("ResidualAttentionBlock", block).cross_attn
        assert cross is not None
        both = (cross.key, cross.value)
        if loops is not None and isinstance(cross.key, PackedLinear) and not hooked(both):
            packed = cast("tuple[PackedLinear, PackedLinear]", both)
            k, v = (_stood(layer, features, cross.n_head, loops) for layer in packed)
        else:
            k, v = (cross.split(layer(features)).to(dtype) for layer in both)
        _, scale = _scales(k.shape[-1], dtype)
        layers.append((k if scale is None else k * scale, v))
    return layers


def _stood(layer: PackedLinear, features: Tensor, heads: int, loops: Any) -> Tensor:
    """What a layer makes of encoded audio (A, S, D), (A, H, S, W) in bfloat16."""
    audios, frames, size = features.shape
    out = torch.empty(audios, heads, frames, size // heads, dtype=torch.bfloat16)
    for own, here in zip(features, out, strict=True):
        product = layer.on_level(own.float())
        loops.stand(product.numpy(), here.view(torch.int16).numpy().view(np.uint16))
    return out


def _scales(width: int, dtype: torch.dtype) -> tuple[float, float | None]:
    """What queries and keys of heads of ``width`` are multiplied by; None for keys as they are.

    Half precision would overflow if the scale were not on both sides.
    """
    if dtype == torch.float16:
        return width**-0.25, width**-0.25
    return width**-0.5, None


@dataclass(frozen=True, eq=False)
class _Group:
    """Rows that read one token each and go side by side.

    Attributes:
        lines: where they stand in the line.
        places: where their keys and values stand, below ``reach``.
        reach: how many places there are up to the last of them.
        end: how many keys each place has.
        unseen: (reach, 1, 1, end), True for keys that are not the row's; None where all are.
        shelf: where their audios stand, None for text.
    """

    lines: Tensor
    places: Tensor
    reach: int
    end: int
    unseen: Tensor | None = None
    shelf: Shelf | None = None

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
        """Attention of the rows' queries out of q (M, H, W), written to ``out`` (M, H, W)."""
        spread = q.new_zeros(self.reach, *q.shape[1:])
        spread[self.places] = q[self.lines]
        keys, values = (t[: self.reach, :, : self.end] for t in (keys, values))
        scores = spread[:, :, None] @ keys.transpose(-1, -2)
        if self.unseen is not None:
            scores.masked_fill_(self.unseen, -torch.inf)
        out[self.lines] = (scores.softmax(dim=-1) @ values)[self.places, :, 0]


def in_line(parts: Sequence[Part]) -> tuple[Tensor, list[tuple[int, Part]]]:
    """The new tokens of all parts, part by part and row by row.

    Returns:
        (3, M) their numbers, positions in their rows, and rows; and where each part begins.
    """
    tokens: list[int] = []
    positions: list[int] = []
    places: list[int] = []
    began = []
    for part in parts:
        began.append((len(tokens), part))
        for row, new in zip(part.rows, part.tokens, strict=True):
            tokens += new
            positions += range(part.start, part.end)
            places += [row] * part.width
    return torch.tensor([tokens, positions, places]), began


class _Plan:
    """Where the tokens of a pass stand, and who goes side by side.

    Attributes:
        tokens, positions, places: (M,) numbers, positions in their rows, and rows.
        texts, audios: groups of rows that go side by side over their pasts, and their audios.
        over_text, over_audio: the parts that go by themselves, and where in the line they begin.
    """

    def __init__(self, parts: Sequence[Part], device: torch.device) -> None:
        self._device = device
        line, began = in_line(parts)
        self.tokens, self.positions, self.places = put(line, device)
        _, position, place = line[:, 0].tolist()
        self._only = (place, position) if line.shape[1] == 1 else None
        self.texts, self.over_text = self._side_by_side_in_text(began)
        self.audios, self.over_audio = self._side_by_side_on_shelves(began)

    def store(self, kv: Tensor, k: Tensor, v: Tensor) -> None:
        """Write keys and values (M, H, W) of the new tokens to their rows."""
        if self._only is not None:
            row, position = self._only
            kv[row, 0, :, position] = k[0]
            kv[row, 1, :, position] = v[0]
        else:
            kv[self.places, :, :, self.positions] = torch.stack([k, v], dim=1).to(kv.dtype)

    def _side_by_side_in_text(
        self, parts: list[tuple[int, Part]]
    ) -> tuple[list[_Group], list[tuple[int, Part]]]:
        single = [(first, part) for first, part in parts if part.width == 1]
        rows = [row for _, part in single for row in part.rows]
        ends = [part.end for _, part in single for _ in part.rows]
        if len(rows) < 2:
            return [], parts
        reach, longest = max(rows) + 1, max(ends)
        # All as if they were as long as the longest, or one after the other?
        if reach * longest > 2 * sum(ends) + 64 * len(ends):
            return [], parts
        limits = torch.ones(reach, dtype=torch.long)  # who is not asked looks at something, too
        limits[rows] = torch.tensor(ends)
        unseen = (torch.arange(longest) >= limits[:, None])[:, None, None]
        lines = [first + i for first, part in single for i in range(len(part.rows))]
        group = self._group(lines, rows, longest, unseen=put(unseen, self._device))
        return [group], [(first, part) for first, part in parts if part.width > 1]

    def _side_by_side_on_shelves(
        self, parts: list[tuple[int, Part]]
    ) -> tuple[list[_Group], list[tuple[int, Part]]]:
        shelves: dict[Shelf, list[tuple[int, Part]]] = {}
        alone = []
        for first, part in parts:
            shelf = part.heard.shelf
            if shelf is None or part.width > 1 or len(part.rows) > 1 or part.attention:
                alone.append((first, part))
            else:
                shelves.setdefault(shelf, []).append((first, part))
        groups = []
        for shelf, members in shelves.items():
            places = [part.heard.place for _, part in members]
            if len(members) == 1 or max(places) + 1 > 2 * len(members):
                alone += members
            else:
                lines = [first for first, _ in members]
                groups.append(self._group(lines, places, shelf.frames, shelf=shelf))
        return groups, alone

    def _group(
        self,
        lines: list[int],
        places: list[int],
        end: int,
        *,
        unseen: Tensor | None = None,
        shelf: Shelf | None = None,
    ) -> _Group:
        index = put(torch.tensor([lines, places]), self._device)
        return _Group(index[0], index[1], max(places) + 1, end, unseen, shelf)


def _over_text(q: Tensor, kv: Tensor, plan: _Plan) -> Tensor:
    """Attention of (M, H, W) over the tokens of each one's row; (M, D)."""
    out = torch.empty_like(q)
    for group in plan.texts:
        group.attend(q, kv[:, 0], kv[:, 1], out)
    for first, part in plan.over_text:
        count = len(part.rows) * part.width
        if count == 1:
            one = slice(first, first + 1)
            out[one] = _look_up(q[one], *kv[part.rows[0], :, :, : part.end]).view(1, *q.shape[1:])
            continue
        own = kv[list(part.rows), :, :, : part.end]
        here = q[first : first + count].unflatten(0, (-1, part.width)).transpose(1, 2)
        a = _attend_text(here, own[:, 0], own[:, 1], part)
        out[first : first + count] = a.transpose(1, 2).flatten(0, 1)
    return out.flatten(1)


def _look_up(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of one query (1, H, W) over keys and values (H, S, W); (1, D)."""
    weights = torch.bmm(q.transpose(0, 1), keys.transpose(1, 2)).softmax(dim=-1)
    return torch.bmm(weights, values).view(1, -1)


def _attend_text(q: Tensor, k: Tensor, v: Tensor, part: Part) -> Tensor:
    """Causal attention of the new tokens (R, H, n, W) over theirs and those before them."""
    if part.width == 1:
        return (q @ k.transpose(-1, -2)).softmax(dim=-1) @ v
    if part.start == 0:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
    mask = torch.ones(part.width, part.end, dtype=torch.bool, device=q.device).tril(part.start)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)


def _over_audio(q: Tensor, layer: int, plan: _Plan, aligning: list[int] | None) -> Tensor:
    """Attention of (M, H, W) over the audio of each one's part; (M, D)."""
    out = torch.empty_like(q)
    for group in plan.audios:
        assert group.shelf is not None
        group.attend(q, *group.shelf.layers[layer], out)
    for first, part in plan.over_audio:
        count = len(part.rows) * part.width
        if count == 1 and not (part.attention and aligning is not None):
            one = slice(first, first + 1)
            k, v = part.heard.layers[layer]
            out[one] = _look_up(q[one], k[0], v[0]).view(1, *q.shape[1:])
        else:
            out[first : first + count] = over_audio_of(
                q[first : first + count], layer, part, aligning
            )
    return out.flatten(1)


def over_audio_of(q: Tensor, layer: int, part: Part, aligning: list[int] | None) -> Tensor:
    """Attention of all queries (M, H, W) of one part over its audio; (M, H, W)."""
    k, v = part.heard.layers[layer]
    # No query looks at another one here, so the rows of an audio can stand in one line.
    here = q.unflatten(0, (len(k), -1)).transpose(1, 2)
    if not (part.attention and aligning is not None) and here.shape[2] >= FUSED_FROM:
        a = F.scaled_dot_product_attention(here, k, v, scale=1.0)
    else:
        scores = here @ k.transpose(-1, -2)
        a = scores.softmax(dim=-1) @ v
        if part.attention and aligning is not None:
            split = scores[:, aligning].unflatten(2, (-1, part.width)).transpose(1, 2)
            part.scores.append(split.flatten(0, 1)[:, :, -part.attention :].float())
    return a.transpose(1, 2).flatten(0, 1)
