"""What a model computes in: its compute type, by CTranslate2's names.

float32    exact, what every checkpoint is loaded as
bfloat16   half the memory; fast where the processor has it natively
float16    half the memory, for GPUs
int8       a third of the memory: linear layers and the table of tokens in 8-bit integers, the
           rest in bfloat16 where it is native, else in float32; for processors
auto       float16 on a GPU; else bfloat16 where it is native, int8 where its products come out
           exact, or float32
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import cast

import torch
from torch import nn

from .compiled import kernels
from .distinct import FewRows, SharedRow
from .errors import ConfigError
from .layers import Conv1d, Linear
from .model import MultiHeadAttention, ResidualAttentionBlock, Whisper
from .packed import PackedEmbedding, PackedLinear, PackedPerceptron, packs
from .quantized import QuantizedEmbedding, QuantizedLinear, exact, quantize

COMPUTE_TYPES = ("auto", "float32", "bfloat16", "float16", "int8")
"""The names that :func:`convert` takes."""

_HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


PREPARED_SHAPES = 128
"""How many shapes' preparations oneDNN keeps in a server; see :func:`limit_prepared_shapes`."""


def limit_prepared_shapes(environment: MutableMapping[str, str]) -> None:
    """Keep a server's memory level, whatever the lengths of its calls' windows.

    For products in bfloat16 PyTorch and oneDNN keep, per thread, what they prepared for each shape
    that they met, 1,024 of them by default. Windows come in ever new lengths, so that was half a
    gigabyte and more within minutes of calls; keeping ``PREPARED_SHAPES`` of them costs some
    percent of time at most (``benchmarks/LOG.md``). Both libraries read these variables at their
    first product, so this comes before the model is loaded; what ``environment`` has set stands.
    """
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        environment.setdefault(name, str(PREPARED_SHAPES))


def native_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware."""
    cpu = torch.cpu
    asked = (
        getattr(cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return any(ask() for ask in asked if ask is not None)


def resolve(compute_type: str, device: torch.device) -> str:
    """The compute type that ``compute_type`` means on a device.

    Raises:
        ConfigError: there is none of that name, or the device cannot.
    """
    if compute_type not in COMPUTE_TYPES:
        raise ConfigError(
            f"compute type must be one of {', '.join(COMPUTE_TYPES)}, not {compute_type!r}"
        )
    gpu = device.type != "cpu"
    if compute_type == "auto":
        if gpu:
            return "float16"
        if native_bfloat16():
            return "bfloat16"
        return "int8" if exact(device) else "float32"
    if compute_type == "float16" and not gpu:
        raise ConfigError("compute type float16 is for GPUs; on a CPU choose bfloat16 or int8")
    if compute_type == "int8" and gpu:
        raise ConfigError("compute type int8 is for CPUs; on a GPU choose float16 or bfloat16")
    if compute_type == "int8" and not exact(device):
        raise ConfigError(
            "this CPU, or this PyTorch, has no exact products of 8-bit integers; choose bfloat16 "
            "or float32"
        )
    return compute_type


@torch.no_grad()
def convert(model: Whisper, compute_type: str) -> Whisper:
    """Let a float32 model compute in ``compute_type``, for good; the same model.

    Raises:
        ConfigError: see :func:`resolve`; or the model has been converted before.
    """
    compute_type = resolve(compute_type, model.device)
    if compute_type == model.compute_type:
        return model
    if model.compute_type != "float32":
        raise ConfigError(f"the model computes in {model.compute_type} already; load it anew")
    shared = _shared(model)
    if compute_type in _HALF:
        _halve(model, _HALF[compute_type])
    else:
        _quantize(model)
    model.decoder.few = FewRows.of(shared, model.decoder.token_embedding)
    model.compute_type = compute_type
    return model


@torch.no_grad()
def settle(model: Whisper) -> None:
    """Let a model whose weights stay as they are from now on score only the tokens that differ.

    :func:`convert` does so for good; a float32 model may be trained on, so who will not says it.
    """
    if model.decoder.few is None:
        model.decoder.few = FewRows.of(_shared(model), model.decoder.token_embedding)


def _shared(model: Whisper) -> SharedRow | None:
    table = model.decoder.token_embedding
    return None if isinstance(table, QuantizedEmbedding) else SharedRow.of(table.weight.detach())


def _halve(model: Whisper, dtype: torch.dtype) -> None:
    """All weights but those of the normalisations, which are few and compute in float32."""
    for module in model.modules():
        if isinstance(module, (Linear, Conv1d, nn.Embedding)):
            module.to(dtype)
    model.decoder.positional_embedding.data = model.decoder.positional_embedding.data.to(dtype)
    model.encoder.positional_embedding = model.encoder.positional_embedding.to(dtype)
    model.dtype = dtype
    if model.device.type == "cpu":
        _keep_on_cpu(model, dtype)


def _keep_on_cpu(model: Whisper, dtype: torch.dtype) -> None:
    """What keys and values are kept in where the network computes in ``dtype``.

    One query over few keys takes oneDNN 20 us in bfloat16, and some hundred whenever their number
    is new to it, but 3 us in float32; over the audio it is the memory that counts from a width of
    some 400 on, and always for compiled loops (``benchmarks/LOG.md``).
    """
    model.decoder.kv_dtype = torch.float32
    narrow = model.dims.n_text_state <= _NARROW and kernels() is None
    model.decoder.audio_dtype = torch.float32 if narrow else dtype


_NARROW = 400


def _quantize(model: Whisper) -> None:
    inner = torch.bfloat16 if native_bfloat16() else torch.float32
    _keep_on_cpu(model, inner)
    audio = model.decoder.audio_dtype or inner
    for block in cast("list[ResidualAttentionBlock]", list(model.encoder.blocks)):
        _quantize_attention(block.attn, inner)
        block.mlp = _perceptron(block.mlp, apart=False)
    for block in cast("list[ResidualAttentionBlock]", list(model.decoder.blocks)):
        _quantize_attention(block.attn, torch.float32, tokens=True)
        assert block.cross_attn is not None
        _quantize_attention(block.cross_attn, audio, tokens=True, over_audio=True)
        block.mlp = _perceptron(block.mlp, apart=True)
    for conv in (model.encoder.conv1, model.encoder.conv2):
        conv.to(inner)
    model.encoder.conv_dtype = inner
    table = quantize(cast(nn.Embedding, model.decoder.token_embedding).weight)
    model.decoder.token_embedding = (
        PackedEmbedding(*table) if packs() else QuantizedEmbedding(*table)
    )


def _quantize_attention(
    attention: MultiHeadAttention,
    inner: torch.dtype,
    *,
    tokens: bool = False,
    over_audio: bool = False,
) -> None:
    """Query, key and value in one where they read the same, or each by itself."""
    layers = [QuantizedLinear.of(cast(Linear, getattr(attention, name)), inner) for name in _QKV]
    if over_audio:
        query, *audio = layers
        found = [_packed(query, apart=True), *(_packed(layer, apart=False) for layer in audio)]
    else:
        attention.qkv = _packed(QuantizedLinear.joined(layers), apart=tokens)
        found = list(layers)
    for name, own in zip(_QKV, found, strict=True):
        setattr(attention, name, own)
    attention.out = _packed(QuantizedLinear.of(cast(Linear, attention.out)), apart=tokens)


def _perceptron(mlp: nn.Sequential, *, apart: bool) -> nn.Sequential:
    first, gelu, last = mlp
    kind = nn.Sequential if apart or not packs() else PackedPerceptron
    layers = (_packed(QuantizedLinear.of(cast(Linear, own)), apart=apart) for own in (first, last))
    return kind(next(layers), gelu, next(layers))


def _packed(layer: QuantizedLinear, *, apart: bool) -> nn.Module:
    """The layer in one operation, where there is one."""
    return PackedLinear(layer, apart=apart) if packs() else layer


_QKV = ("query", "key", "value")
