"""The Whisper network: an audio encoder and a text decoder joined by cross-attention.

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (arXiv 2212.04356).
Parameters carry the names of OpenAI's checkpoints, so those load unchanged. Modules hold weights
and nothing else: whatever belongs to one decode (its :class:`~aii.kv_cache.KVCache`, its
:class:`~aii.attention.AttentionRecorder`) is handed in with each call, so any number of decodes can
run on one model at once.

Shapes: B rows, T tokens, S encoder frames of 20 ms, H heads, W width of a head, D = H x W.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .attention import AttentionRecorder
from .blocks import (
    SDPA_AVAILABLE,
    Kept,
    LayerPass,
    MultiHeadAttention,
    ResidualAttentionBlock,
    disable_sdpa,
)
from .decoding import decode as decode_function
from .decoding import detect_language as detect_language_function
from .distinct import FewRows, scores
from .errors import InputError
from .kv_cache import KVCache
from .layers import Conv1d, LayerNorm, Linear, sinusoids
from .quantized import QuantizedEmbedding
from .transcribe import transcribe as transcribe_function

__all__ = [
    "SDPA_AVAILABLE",
    "AudioEncoder",
    "Conv1d",
    "LayerNorm",
    "Linear",
    "ModelDimensions",
    "MultiHeadAttention",
    "ResidualAttentionBlock",
    "TextDecoder",
    "Whisper",
    "decode_function",
    "detect_language_function",
    "disable_sdpa",
    "sinusoids",
    "transcribe_function",
]


@dataclass
class ModelDimensions:
    """Sizes of a Whisper network, named as in OpenAI's checkpoints."""

    n_mels: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(
                    f"model dimension {name} must be a positive integer, not {value!r}"
                )


class AudioEncoder(nn.Module):
    """Log-mel spectrogram to one vector per 20 ms."""

    positional_embedding: Tensor

    def __init__(self, n_mels: int, n_ctx: int, n_state: int, n_head: int, n_layer: int) -> None:
        super().__init__()
        self.conv1 = Conv1d(n_mels, n_state, kernel_size=3, padding=1)
        self.conv2 = Conv1d(n_state, n_state, kernel_size=3, stride=2, padding=1)
        self.register_buffer("positional_embedding", sinusoids(n_ctx, n_state))
        self.blocks = nn.ModuleList(ResidualAttentionBlock(n_state, n_head) for _ in range(n_layer))
        self.ln_post = LayerNorm(n_state)
        self.conv_dtype: torch.dtype | None = None  # of the convolutions, if not the input's

    def forward(self, x: Tensor) -> Tensor:
        """(B, mels, frames of 10 ms) -> (B, S, D), S half of the frames, rounded up.

        OpenAI's models expect 3000 frames. Fewer are a shortened audio context, which only models
        that were trained for it read well.

        Raises:
            InputError: the number of channels or frames does not fit the model.
        """
        n_ctx = self.positional_embedding.shape[0]
        n_mels = self.conv1.in_channels
        if x.ndim != 3 or x.shape[1] != n_mels or not 0 < x.shape[2] <= 2 * n_ctx:
            raise InputError(
                f"the encoder takes mel of shape (batch, {n_mels}, 1 to {2 * n_ctx} frames), "
                f"not {tuple(x.shape)}; see pad_or_trim and log_mel_spectrogram(n_mels=...)"
            )
        dtype = x.dtype
        x = F.gelu(self.conv1(x.to(self.conv_dtype or dtype)))
        x = F.gelu(self.conv2(x)).transpose(1, 2).contiguous()  # else no sum below is
        x = (x + self.positional_embedding[: x.shape[1]]).to(dtype)
        for block in self.blocks:
            x = block(x)
        return self.ln_post(x)


class TextDecoder(nn.Module):
    """Tokens and encoded audio to a score for every possible next token.

    Attributes:
        kv_dtype: of cached keys and values, where it is not the encoded audio's.
        audio_dtype: the same of those of the audio.
        few: the rows of the table that differ, where most are one; set when a model is loaded.
        graphs: whether steps are recorded and replayed on a GPU.
    """

    def __init__(self, n_vocab: int, n_ctx: int, n_state: int, n_head: int, n_layer: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.token_embedding: nn.Embedding | QuantizedEmbedding = nn.Embedding(n_vocab, n_state)
        self.positional_embedding = nn.Parameter(torch.empty(n_ctx, n_state))
        self.blocks = nn.ModuleList(
            ResidualAttentionBlock(n_state, n_head, cross_attention=True) for _ in range(n_layer)
        )
        self.ln = LayerNorm(n_state)
        self.kv_dtype: torch.dtype | None = None
        self.audio_dtype: torch.dtype | None = None
        self.few: FewRows | None = None
        self.graphs = True
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)

    def new_cache(
        self,
        rows: int,
        *,
        capacity: int | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> KVCache:
        """An empty cache that fits this decoder, for ``rows`` sequences."""
        weight = self.positional_embedding
        return KVCache(
            len(self.blocks),
            self.n_head,
            weight.shape[1],
            rows=rows,
            capacity=capacity or weight.shape[0],
            device=device or weight.device,
            dtype=self.kv_dtype or dtype or weight.dtype,
        )

    def hidden(
        self,
        x: Tensor,
        xa: Tensor | None,
        kv_cache: KVCache | Kept | None = None,
        recorder: AttentionRecorder | None = None,
    ) -> Tensor:
        """The part of :meth:`forward` before the projection to the vocabulary, (B, T, D)."""
        cache = kv_cache if isinstance(kv_cache, KVCache) else None
        kept = None if isinstance(kv_cache, KVCache) else kv_cache
        step = cache.begin(x.shape[1]) if cache is not None else None
        start = next(iter(kept.values())).shape[1] if kept else 0
        positions = slice(start, start + x.shape[1]) if step is None else step.positions
        h = self.token_embedding(x) + self.positional_embedding[positions]
        if xa is not None:
            h = h.to(xa.dtype)
        elif cache is not None and self.kv_dtype is None:
            h = h.to(cache.dtype)
        mask = self.mask if cache is None else None
        for i, block in enumerate(self.blocks):
            if cache is None and recorder is None:
                h = block(h, xa, mask=mask, kv_cache=kept)
                continue
            layer = cache.layers[i] if cache is not None else None
            h = block(h, xa, mask=mask, kv_cache=LayerPass(i, layer, step, recorder))
        if cache is not None:
            cache.advance(x.shape[1])
        return self.ln(h)

    @property
    def mask(self) -> Tensor:
        """(n_ctx, n_ctx) minus infinity for every later token, else 0."""
        weight = self.positional_embedding
        size = weight.shape[0]
        return torch.full((size, size), -torch.inf, device=weight.device).triu_(1)

    def project(self, hidden: Tensor) -> Tensor:
        """Scores for each token of the vocabulary, (..., D) -> (..., n_vocab) in float32."""
        table = self.token_embedding
        if self.few is not None and self.few.serve(table):
            return self.few.scores(hidden)
        return scores(hidden, table if isinstance(table, QuantizedEmbedding) else table.weight)

    def forward(
        self,
        x: Tensor,
        xa: Tensor | None,
        kv_cache: KVCache | Kept | None = None,
        recorder: AttentionRecorder | None = None,
    ) -> Tensor:
        """Logits of the next token behind each token.

        Args:
            x: (B, T) token numbers; with a cache, only those that it does not hold yet.
            xa: (A, S, D) encoded audio, A = B or B a multiple of A; may be None once the cache
                holds the audio.
            kv_cache: from :meth:`new_cache`; extended by the new tokens. Or the dictionary of
                :meth:`Whisper.install_kv_cache_hooks`, without a recorder.
            recorder: collects the cross-attention.

        Returns:
            (B, T, n_vocab) float32.
        """
        return self.project(self.hidden(x, xa, kv_cache, recorder))


class Whisper(nn.Module):
    """A Whisper network with the methods that openai-whisper's has.

    Attributes:
        dims: its sizes.
        metadata: what a checkpoint of ours says of itself ("name", "language", "audio_context",
            "domain", "version"); empty for OpenAI's.
        compute_type: what it computes in, as :func:`aii.compute.convert` has left it.
        dtype: what its encoder takes and gives.
        alignment_heads: sparse (layers, heads), which cross-attention heads tell the time.
    """

    alignment_heads: Tensor

    def __init__(self, dims: ModelDimensions) -> None:
        super().__init__()
        self.dims = dims
        self.metadata: Mapping[str, Any] = {}
        self.compute_type = "float32"
        self.dtype = torch.float32
        self.encoder = AudioEncoder(
            dims.n_mels, dims.n_audio_ctx, dims.n_audio_state, dims.n_audio_head, dims.n_audio_layer
        )
        self.decoder = TextDecoder(
            dims.n_vocab, dims.n_text_ctx, dims.n_text_state, dims.n_text_head, dims.n_text_layer
        )
        # Unless a model's own heads are known: all heads of the later half of the decoder.
        # Always on the CPU: a model that is built on the "meta" device has real ones too.
        heads = torch.zeros((dims.n_text_layer, dims.n_text_head), dtype=torch.bool, device="cpu")
        heads[dims.n_text_layer // 2 :] = True
        self.register_buffer("alignment_heads", heads.to_sparse(), persistent=False)

    def set_alignment_heads(self, dump: bytes) -> None:
        """Set the heads that tell the time, from OpenAI's base85 of gzip of booleans."""
        flags = np.frombuffer(gzip.decompress(base64.b85decode(dump)), dtype=bool).copy()
        shape = (self.dims.n_text_layer, self.dims.n_text_head)
        if flags.size != shape[0] * shape[1]:
            raise InputError(f"alignment heads for {flags.size} heads, but the model has {shape}")
        heads = torch.from_numpy(flags).reshape(shape).to_sparse()
        self.register_buffer("alignment_heads", heads.to(self.device), persistent=False)

    def embed_audio(self, mel: Tensor) -> Tensor:
        """Encode (B, mels, frames) to (B, S, D)."""
        return self.encoder(mel)

    def logits(self, tokens: Tensor, audio_features: Tensor) -> Tensor:
        """(B, T) tokens and (B, S, D) audio -> (B, T, n_vocab)."""
        return self.decoder(tokens, audio_features)

    def input_dtype(self, fp16: bool) -> torch.dtype:
        """What to give the encoder: half precision where ``fp16`` asks a float32 model on a GPU."""
        if fp16 and self.compute_type == "float32" and self.device.type != "cpu":
            return torch.float16  # a CPU has no use for it
        return self.dtype

    def forward(self, mel: Tensor, tokens: Tensor) -> Tensor:
        """(B, mels, frames) and (B, T) -> (B, T, n_vocab)."""
        return self.decoder(tokens, self.encoder(mel))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.positional_embedding.device

    @property
    def is_multilingual(self) -> bool:
        """Whether the vocabulary is the multilingual one (51,865 tokens or more)."""
        return self.dims.n_vocab >= 51865

    @property
    def num_languages(self) -> int:
        """How many language tokens the vocabulary has."""
        return self.dims.n_vocab - 51765 - int(self.is_multilingual)

    def install_kv_cache_hooks(
        self, cache: Mapping[nn.Module, Tensor] | None = None
    ) -> tuple[dict[nn.Module, Tensor], list[RemovableHandle]]:
        """openai-whisper's cache: hooks by which the decoder's projections keep what they give.

        Decoding of ours needs none of it (:meth:`TextDecoder.new_cache`); this is for programs that
        run the decoder themselves: ``decoder(new_tokens, features, kv_cache=cache)``.

        Args:
            cache: one to go on with; it is not changed.

        Returns:
            The dictionary that the hooks fill, from each projection of keys or values to what it
            has given so far, (B, T, D); and the hooks, to be removed at the end.
        """
        held = dict(cache or {})

        def keep(module: nn.Module, _: Any, output: Tensor) -> Tensor:
            before = held.get(module)
            held[module] = output if before is None else torch.cat([before, output], 1).detach()
            return held[module]

        def put(module: nn.Module, _: Any, output: Tensor) -> None:
            held[module] = output  # of the audio, asked for once

        handles = []
        for block in cast("list[ResidualAttentionBlock]", list(self.decoder.blocks)):
            for layer in (block.attn.key, block.attn.value):
                handles.append(layer.register_forward_hook(keep))
            if block.cross_attn is not None:
                for layer in (block.cross_attn.key, block.cross_attn.value):
                    handles.append(layer.register_forward_hook(put))
        return held, handles

    detect_language = detect_language_function
    decode = decode_function
    transcribe = transcribe_function
