"""One pass of the decoder over rows of any number of decodes, of any lengths.

The new tokens of all decodes stand in one line, so that every weight is read once for all of them;
``aii.plan`` says who goes side by side in attention. What a decode gets does not depend on who else
is in the pass, but for rounding, of sums and of integers. The slow twin is ``TextDecoder.forward``.

Shapes: M tokens in line, D = H heads x W, S encoder frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import heads_by_layer
from .compiled import kernels, memory
from .heard import Heard, Layer, Shelves
from .layers import hooked
from .packed import PackedLinear, check_audio
from .plan import Part, Plan
from .rows import Rows

if TYPE_CHECKING:
    from .model import ResidualAttentionBlock, TextDecoder, Whisper

FUSED_FROM = 16
"""Queries over one audio from which on PyTorch's fused attention is faster than written out."""


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
        self._aligning = {
            layer: torch.tensor(heads, device=weight.device)
            for layer, heads in heads_by_layer(model.alignment_heads).items()
        }

    def hear(self, features: Tensor) -> Heard:
        """Keep the keys and values of encoded audio (A, S, D) for all of its passes."""
        if len(features) > 1:
            return self.shelves.put(audio_layers(self.decoder, features))
        heard = self.shelves.room(features.shape[1])
        try:
            audio_layers(self.decoder, features, heard.layers)
        except BaseException:
            self.shelves.take_away(heard)
            raise
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
        return self._read(parts)

    def _read(self, parts: Sequence[Part]) -> Tensor:
        return self._follow(Plan.of(parts, self.rows.kv[0].device))

    def _follow(self, plan: Plan) -> Tensor:
        decoder = self.decoder
        h = decoder.token_embedding(plan.tokens) + decoder.positional_embedding[plan.positions]
        h = h.to(self._dtype)
        for layer, block in enumerate(self._blocks):
            h = self._block(layer, block, h, plan)
        return decoder.ln(h)

    def _block(self, layer: int, block: ResidualAttentionBlock, h: Tensor, plan: Plan) -> Tensor:
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


def audio_layers(
    decoder: TextDecoder, features: Tensor, room: Sequence[Layer] | None = None
) -> list[Layer]:
    """The keys and values (A, H, S, W) of encoded audio (A, S, D) in each layer of the decoder.

    Args:
        room: memory to write them to.
    """
    check_audio(features, decoder.token_embedding)
    found: list[Tensor] = []
    dtype = decoder.audio_dtype or features.dtype
    loops = kernels() if dtype == torch.bfloat16 and features.device.type == "cpu" else None
    whole = features.float() if loops is not None else features
    for number, block in enumerate(decoder.blocks):
        cross = cast("ResidualAttentionBlock", block).cross_attn
        assert cross is not None
        own = room[number] if room is not None else (None, None)
        both = (cross.key, cross.value)
        if loops is not None and isinstance(cross.key, PackedLinear) and not hooked(both):
            for layer, out in zip(cast("tuple[PackedLinear, ...]", both), own, strict=True):
                found.append(_stood(layer, whole, cross.n_head, loops, out))
        else:
            k, v = (cross.split(layer(features)).to(dtype) for layer in both)
            _, scale = _scales(k.shape[-1], dtype)
            k = k if scale is None else k * scale
            for made, out in zip((k, v), own, strict=True):
                found.append(made if out is None else out.copy_(made))
    return list(zip(found[::2], found[1::2], strict=True))


def _stood(
    layer: PackedLinear, features: Tensor, heads: int, loops: Any, out: Tensor | None
) -> Tensor:
    """What a layer makes of encoded audio (A, S, D) in float32, (A, H, S, W) in bfloat16."""
    audios, frames, size = features.shape
    if out is None:
        out = torch.empty(audios, heads, frames, size // heads, dtype=torch.bfloat16)
    for own, here in zip(features, out, strict=True):
        loops.stand(layer.on_level(own).numpy(), memory(here))
    return out


def _scales(width: int, dtype: torch.dtype) -> tuple[float, float | None]:
    """What queries and keys of heads of ``width`` are multiplied by; None for keys as they are.

    Half precision would overflow if the scale were not on both sides.
    """
    if dtype == torch.float16:
        return width**-0.25, width**-0.25
    return width**-0.5, None


def _over_text(q: Tensor, kv: Tensor, plan: Plan) -> Tensor:
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


def _over_audio(q: Tensor, layer: int, plan: Plan, aligning: Tensor | None) -> Tensor:
    """Attention of (M, H, W) over the audio of each one's part; (M, D)."""
    out = torch.empty_like(q)
    for group in plan.audios:
        assert group.layers is not None
        scores = group.attend(q, *group.layers[layer], out)
        if group.kept is not None and aligning is not None:
            group.kept.append(scores[:, aligning].float())
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


def over_audio_of(q: Tensor, layer: int, part: Part, aligning: Tensor | None) -> Tensor:
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
