"""A pass of the decoder with little between its linear layers: compiled loops, no operations.

What :class:`.Ragged` does, which is the slow twin, in float32 between the layers whatever the
layers compute in. On a CPU with numba (the extra ``fast``) only; there a pass takes a half to a
fifth of the time (``benchmarks/LOG.md``).

Shapes: M tokens in line, D = H heads x W, S encoder frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from .compiled import kernels
from .heard import Heard, Shelf
from .layers import LayerNorm, hooked
from .packed import PackedLinear
from .plan import Part, in_line
from .ragged import FUSED_FROM, Ragged, over_audio_of

if TYPE_CHECKING:
    from .blocks import ResidualAttentionBlock
    from .model import Whisper

_NO_HEADS = np.empty(0, np.int64)


def fuses(model: Whisper, dtype: torch.dtype | None = None) -> bool:
    """Whether the passes of a model over audio encoded in ``dtype`` can be made by loops."""
    decoder = model.decoder
    dtype = dtype or decoder.positional_embedding.dtype
    if model.device.type != "cpu" or (decoder.kv_dtype or dtype) != torch.float32:
        return False
    if (decoder.audio_dtype or dtype) not in (torch.float32, torch.bfloat16):
        return False
    if hooked(decoder.modules()):
        return False
    blocks = cast("list[ResidualAttentionBlock]", list(decoder.blocks))
    return all(map(_ordinary, blocks)) and _whole(decoder.ln) and kernels() is not None


def _ordinary(block: ResidualAttentionBlock) -> bool:
    """Whether a block is what the loops take it for."""
    mlp = block.mlp
    if type(mlp) is not nn.Sequential or len(mlp) != 3:
        return False
    gelu = type(mlp[1]) is nn.GELU and mlp[1].approximate == "none"
    return gelu and all(map(_whole, (block.attn_ln, block.cross_attn_ln, block.mlp_ln)))


def _whole(norm: nn.Module | None) -> bool:
    """Whether a normalisation is Whisper's."""
    if type(norm) is not LayerNorm:
        return False
    return all(own is not None and own.dtype == torch.float32 for own in (norm.weight, norm.bias))


class Fused(Ragged):
    """The decoder of a model, its passes made by compiled loops between linear layers."""

    def __init__(self, model: Whisper, places: int = 1, dtype: torch.dtype | None = None) -> None:
        super().__init__(model, places, dtype)
        self._loops: Any = kernels()
        self._scale = np.float32(self.shelves.width**-0.5)
        self._layers = [_Layer(block) for block in self._blocks]
        self._last = _Norm(self.decoder.ln)

    def _read(self, parts: Sequence[Part]) -> Tensor:
        line = _Line(parts)
        decoder = self.decoder
        h = decoder.token_embedding(line.tokens) + decoder.positional_embedding[line.positions]
        passing = _Passing(self._loops, line, h.float().contiguous())
        for number, layer in enumerate(self._layers):
            passing.norm(layer.norms[0], layer.packed)
            self._over_text(layer, self.rows.kv[number].numpy(), passing)
            passing.more = layer.out(passing.a, passing).numpy()
            passing.norm(layer.norms[1], layer.packed)
            self._over_audio(number, layer.query(passing.x, passing), passing)
            passing.more = layer.cross_out(passing.a, passing).numpy()
            passing.norm(layer.norms[2], layer.packed)
            inner = layer.first(passing.x, passing)
            self._loops.gelu(inner.numpy(), passing.own, passing.levels(layer.packed))
            passing.more = layer.second(inner, passing).numpy()
        passing.norm(self._last, False)
        return passing.x.to(self._dtype)

    def _over_text(self, layer: _Layer, kv: np.ndarray[Any, Any], passing: _Passing) -> None:
        found = [own(passing.x, passing).numpy() for own in layer.qkv]
        starts = layer.starts
        if len(found) == 1:
            found *= 3
        line, out = passing.line, passing.a.numpy()
        own = (line.places, line.positions.numpy(), kv, out, passing.own)
        levels = passing.levels(layer.packed)
        self._loops.over_text(*found, starts, self._scale, *own, levels)

    def _over_audio(self, number: int, query: Tensor, passing: _Passing) -> None:
        aligning = self._aligning.get(number)
        q, out = query.numpy(), passing.a.numpy()
        for group in passing.line.audios:
            keys, values = group.arrays[number]
            watched = group.watched if aligning is not None else None
            heads = _NO_HEADS if watched is None or aligning is None else aligning.numpy()
            kept = np.empty((len(group.lines), len(heads), keys.shape[2]), np.float32)
            where = (group.lines, group.places, keys, values)
            self._loops.over_audio(q, self._scale, *where, out, heads, kept)
            if watched is not None:
                split = torch.from_numpy(kept).unflatten(0, (-1, watched.width)).transpose(1, 2)
                watched.scores.append(split[:, :, -watched.attention :])
        for first, part in passing.line.wide:
            end = first + len(part.rows) * part.width
            own = query[first:end].unflatten(1, (self.decoder.n_head, -1)) * self._q_scale
            found = over_audio_of(own.to(self.shelves.dtype), number, part, aligning)
            passing.a[first:end] = found.flatten(1)
        if passing.levels(self._layers[number].packed):
            self._loops.level(out, out, passing.own)


class _Norm:
    """A normalisation's numbers, which may be written to but not replaced meanwhile."""

    def __init__(self, norm: Any) -> None:
        self.numbers = tuple(
            np.require(own.detach().numpy(), np.float32, ["C", "A", "W"])
            for own in (norm.weight, norm.bias)
        )
        self.epsilon = np.float32(norm.eps)


class _Layer:
    """A layer of the decoder.

    Attributes:
        norms: before attention over text, over audio, and the perceptron.
        qkv: query, key and value of the text, in one or in three.
        starts: from which column each of them has what it gives.
        out, query, cross_out, first, second: the other linear layers.
        packed: whether they want rows of largest value 1.
    """

    def __init__(self, block: ResidualAttentionBlock) -> None:
        attn, cross, mlp = block.attn, block.cross_attn, block.mlp
        assert cross is not None
        self.norms = tuple(map(_Norm, (block.attn_ln, block.cross_attn_ln, block.mlp_ln)))
        if attn.qkv is not None:
            self.qkv, width = [_Linear(attn.qkv)], self.norms[0].numbers[0].size
        else:
            self.qkv, width = list(map(_Linear, (attn.query, attn.key, attn.value))), 0
        self.starts = np.arange(3) * width
        self.out, self.query, self.cross_out = map(_Linear, (attn.out, cross.query, cross.out))
        self.first, self.second = _Linear(mlp[0]), _Linear(mlp[2])
        self.packed = isinstance(attn.qkv, PackedLinear)


class _Linear:
    """A linear layer of float32 (M, K) to float32 (M, N), whatever it computes in."""

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer
        self._dtype = layer.weight.dtype if isinstance(layer, nn.Linear) else torch.float32
        self._bias = layer.bias.numpy() if isinstance(layer, PackedLinear) else None

    def __call__(self, x: Tensor, passing: _Passing) -> Tensor:
        if isinstance(self._layer, PackedLinear):
            found = self._layer.on_level(x)
            if passing.levels(True):
                passing.loops.unlevel(found.numpy(), passing.own, self._bias)
            return found
        out: Tensor = self._layer(x.to(self._dtype))
        return out.float().contiguous()


class _Passing:
    """What a pass has come to.

    Attributes:
        line: who stands where.
        more: (M, D) what is still to be added to the residual stream; no rows for nothing.
        x, a: (M, D) what a layer reads, and what attention found.
        own: (M,) what each row of the one or the other is still to be multiplied by.
    """

    def __init__(self, loops: Any, line: _Line, h: Tensor) -> None:
        self.loops = loops
        self.line = line
        self.x, self.a = torch.empty_like(h), torch.empty_like(h)
        self.own = np.empty(len(h), np.float32)
        self._h, self._x = h.numpy(), self.x.numpy()
        self.more = self._h[:0]

    def levels(self, packed: bool) -> bool:
        """Whether rows are to be levelled for such a layer."""
        return packed and len(self.own) > 1

    def norm(self, norm: _Norm, packed: bool) -> None:
        """Let ``x`` be the normalised stream, as such a layer wants it."""
        own = (self._x, self.own, self.levels(packed))
        self.loops.norm(self._h, self.more, *norm.numbers, norm.epsilon, *own)


@dataclass(frozen=True, eq=False)
class _Group:
    """Tokens whose audios stand in one piece of memory.

    Attributes:
        lines: (n,) where they stand in the line.
        places: (n,) where their audios stand.
        arrays: keys and values of each layer.
        watched: the part whose attention is wanted, which then is alone here.
    """

    lines: np.ndarray[Any, Any]
    places: np.ndarray[Any, Any]
    arrays: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]
    watched: Part | None = None


class _Line:
    """Where the tokens of a pass stand.

    Attributes:
        tokens, positions: (M,) numbers, and positions in their rows.
        places: (M,) their rows.
        audios: those that loops read, by their audios.
        wide: parts with so many queries over an audio that a product of matrices is faster, and
            where in the line they begin.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        line, began = in_line(parts)
        self.tokens, self.positions = line[0], line[1]
        self.places = line[2].numpy()
        self.wide: list[tuple[int, Part]] = []
        gathered: dict[tuple[Shelf | Heard, Part | None], tuple[list[int], list[int]]] = {}
        for first, part in began:
            heard = part.heard
            count = len(part.rows) * part.width
            each = count // len(heard.layers[0][0])  # of one audio
            if each >= FUSED_FROM:
                self.wide.append((first, part))
                continue
            key = (heard.shelf or heard, part if part.attention else None)
            lines, places = gathered.setdefault(key, ([], []))
            lines += range(first, first + count)
            places += [heard.place + i // each for i in range(count)]
        self.audios = [
            _Group(np.array(lines), np.array(places), holder.arrays, watched)
            for (holder, watched), (lines, places) in gathered.items()
        ]
