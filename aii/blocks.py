"""Attention and residual blocks, which the encoder and the decoder are stacks of.

Vaswani et al., "Attention Is All You Need" (arXiv 1706.03762). A block is called as those of
openai-whisper are, ``(x, xa, mask, kv_cache)``, and its attention gives what it found and its
scores, so that programs which hang hooks on the network find what they know. What one decode keeps
is handed in as a :class:`LayerPass` in the place of that package's dictionary.

Shapes: B rows, T tokens, A audios, S encoder frames, H heads, W width of a head, D = H x W.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .attention import HAS_SDPA, AttentionRecorder, attend
from .kv_cache import LayerCache, Step
from .layers import LayerNorm, Linear

SDPA_AVAILABLE = HAS_SDPA
"""Whether this PyTorch has fused attention."""


@dataclass(frozen=True)
class TextPass:
    """Where the self-attention of a layer puts new keys and values, and finds the old ones."""

    cache: LayerCache
    step: Step


@dataclass(frozen=True)
class AudioPass:
    """What the cross-attention of a layer keeps (if anything), and whether scores are wanted."""

    cache: LayerCache | None = None
    watched: bool = False


@dataclass(frozen=True)
class LayerPass:
    """One pass of one decode through one layer: its cache, its recorder, either, or neither."""

    layer: int = 0
    cache: LayerCache | None = None
    step: Step | None = None
    recorder: AttentionRecorder | None = None

    def text(self) -> TextPass | None:
        """What self-attention is told."""
        if self.cache is None or self.step is None:
            return None
        return TextPass(self.cache, self.step)

    def audio(self) -> AudioPass:
        """What cross-attention is told."""
        watched = self.recorder is not None and self.recorder.wants(self.layer)
        return AudioPass(self.cache, watched)

    def record(self, scores: Tensor | None) -> None:
        """Take in the cross-attention's scores (B, H, T, S), if they are wanted."""
        if self.recorder is not None and scores is not None and self.recorder.wants(self.layer):
            self.recorder.record(self.layer, scores)


Kept = Mapping[nn.Module, Tensor]
"""openai-whisper's cache: what each projection of keys or values has given so far, (B, T, D)."""


@contextmanager
def disable_sdpa() -> Iterator[None]:
    """Have every attention write its weights out meanwhile, and so give its scores."""
    before = MultiHeadAttention.use_sdpa
    MultiHeadAttention.use_sdpa = False
    try:
        yield
    finally:
        MultiHeadAttention.use_sdpa = before


class MultiHeadAttention(nn.Module):
    """Attention of a sequence over itself, or over encoded audio.

    Attributes:
        use_sdpa: take PyTorch's fused attention, which keeps its scores to itself.
        qkv: query, key and value in one, where that is faster than one after the other.
    """

    use_sdpa = True
    qkv: nn.Module | None

    def __init__(self, n_state: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.qkv = None
        self.query: nn.Module = Linear(n_state, n_state)
        self.key: nn.Module = Linear(n_state, n_state, bias=False)
        self.value: nn.Module = Linear(n_state, n_state)
        self.out: nn.Module = Linear(n_state, n_state)

    def split(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, H, T, W)."""
        return x.unflatten(-1, (self.n_head, -1)).transpose(1, 2)

    def projected(self, x: Tensor) -> Sequence[Tensor]:
        """Queries, keys and values (..., D) of ``x`` (..., D)."""
        if self.qkv is not None:
            fused: Tensor = self.qkv(x)
            return fused.chunk(3, dim=-1)
        return self.query(x), self.key(x), self.value(x)

    def forward(
        self,
        x: Tensor,
        xa: Tensor | None = None,
        mask: Tensor | None = None,
        kv_cache: Kept | TextPass | AudioPass | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from ``x`` (B, T, D) over itself, or over audio ``xa`` (A, S, D); A divides B.

        Args:
            mask: given, no token looks at later ones; what is in it does not count.
            kv_cache: a pass of ours; or a dictionary as ``Whisper.install_kv_cache_hooks`` gives,
                whose hooks put what came before in front of new keys and values.

        Returns:
            (B, T, D), and the scaled dot products (B, H, T, keys) in float32, or None. They are
            given where a recorder or a forward hook looks at them, or ``disable_sdpa`` is on.
        """
        if isinstance(kv_cache, AudioPass) or (
            xa is not None and not isinstance(kv_cache, TextPass)
        ):
            return self._over_audio(x, xa, kv_cache)
        if isinstance(kv_cache, TextPass):
            return self._over_kept(x, kv_cache)
        if kv_cache is None:
            q, k, v = self.projected(x)
        else:
            q, k, v = self.query(x), self.key(x), self.value(x)  # each with its hook
        out, scores = self.qkv_attention(q, k, v, mask)
        return self.out(out), scores

    def qkv_attention(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Attention (B, T, D) of queries (B, T, D) over keys and values (B, S, D), and scores.

        With a mask the last query sees all keys, the one before it all but the last, and so on.
        """
        new, every = q.shape[1], k.shape[1]
        seen = None
        if mask is not None and new > 1 and every > new:
            seen = _seen(new, every, q.device)
        q, k, v = self.split(q), self.split(k), self.split(v)
        causal = mask is not None and new > 1 and seen is None
        a, scores = attend(q, k, v, mask=seen, causal=causal, explicit=self._written_out)
        if scores is not None and mask is not None:
            scores = scores.masked_fill(~_seen(new, every, q.device), -math.inf)
        return a.transpose(1, 2).flatten(2), scores

    @property
    def _written_out(self) -> bool:
        return not (self.use_sdpa and HAS_SDPA) or bool(self._forward_hooks)

    def _over_kept(self, x: Tensor, kept: TextPass) -> tuple[Tensor, Tensor | None]:
        """Over the new tokens and those that the cache holds."""
        q, k, v = (self.split(projected) for projected in self.projected(x))
        k, v = kept.cache.extend(kept.step, k, v)
        a, scores = attend(
            q.to(k.dtype),
            k,
            v,
            mask=kept.step.mask,
            causal=kept.step.causal,
            explicit=self._written_out,
        )
        return self.out(a.transpose(1, 2).flatten(2).to(x.dtype)), scores

    def _over_audio(
        self, x: Tensor, xa: Tensor | None, kept: Kept | AudioPass | None
    ) -> tuple[Tensor, Tensor | None]:
        k, v = self._audio(xa, kept)
        rows, length = x.shape[:2]
        # No query looks at another one here, so the rows of an audio can stand in one line.
        shared = self.split(self.query(x).reshape(k.shape[0], -1, x.shape[2]))  # (A, H, B/A x T, W)
        watched = isinstance(kept, AudioPass) and kept.watched
        a, scores = attend(shared, k, v, explicit=watched or self._written_out)
        if scores is not None:
            split = scores.unflatten(2, (rows // k.shape[0], length)).transpose(1, 2)
            scores = split.flatten(0, 1)  # (B, H, T, S)
        return self.out(a.transpose(1, 2).reshape(rows, length, -1)), scores

    def _audio(self, xa: Tensor | None, kept: Kept | AudioPass | None) -> tuple[Tensor, Tensor]:
        """Keys and values (A, H, S, W) of the audio, computed once where they can be kept."""
        cache = kept.cache if isinstance(kept, AudioPass) else None
        if cache is not None and cache.audio is not None:
            return cache.audio
        if kept is not None and not isinstance(kept, AudioPass) and self.key in kept:
            return self.split(kept[self.key]), self.split(kept[self.value])
        if xa is None:
            raise ValueError("neither encoded audio nor a cache that holds it was given")
        k, v = self.split(self.key(xa)), self.split(self.value(xa))
        if cache is not None:
            k, v = k.contiguous(), v.contiguous()
            cache.audio = (k, v)
        return k, v


def _seen(new: int, every: int, device: torch.device) -> Tensor:
    """(new, every) which keys each of the last ``new`` of ``every`` tokens sees."""
    return torch.ones(new, every, dtype=torch.bool, device=device).tril(every - new)


class ResidualAttentionBlock(nn.Module):
    """Self-attention, cross-attention (decoder only) and a two-layer perceptron, each residual."""

    def __init__(self, n_state: int, n_head: int, cross_attention: bool = False) -> None:
        super().__init__()
        self.attn = MultiHeadAttention(n_state, n_head)
        self.attn_ln = LayerNorm(n_state)
        self.cross_attn = MultiHeadAttention(n_state, n_head) if cross_attention else None
        self.cross_attn_ln = LayerNorm(n_state) if cross_attention else None
        self.mlp = nn.Sequential(
            Linear(n_state, 4 * n_state), nn.GELU(), Linear(4 * n_state, n_state)
        )
        self.mlp_ln = LayerNorm(n_state)

    def forward(
        self,
        x: Tensor,
        xa: Tensor | None = None,
        mask: Tensor | None = None,
        kv_cache: Kept | LayerPass | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D); see :meth:`MultiHeadAttention.forward`."""
        ours = kv_cache if isinstance(kv_cache, LayerPass) else None
        theirs = None if isinstance(kv_cache, LayerPass) else kv_cache
        text = theirs if ours is None else ours.text()
        x = x + self.attn(self.attn_ln(x), mask=mask, kv_cache=text)[0]
        if self.cross_attn is not None and self.cross_attn_ln is not None:
            if xa is None and ours is None:
                raise ValueError("neither encoded audio nor a cache that holds it was given")
            audio = theirs if ours is None else ours.audio()
            heard, scores = self.cross_attn(self.cross_attn_ln(x), xa, kv_cache=audio)
            if ours is not None:
                ours.record(scores)
            x = x + heard
        return x + self.mlp(self.mlp_ln(x))
