"""What a model computes in: its compute type, by CTranslate2's names.

float32    exact, what every checkpoint is loaded as
bfloat16   half the memory; fast where the processor has it natively
float16    half the memory, for GPUs
int8       a quarter of the memory: linear layers and the table of tokens in 8-bit integers, the
           rest in bfloat16 where it is native, else in float32; for processors
auto       float16 on a GPU; else bfloat16 where it is native, int8 where its products come out
           exact, or float32
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import cast

import torch
from torch import nn

from .distinct import FewRows, SharedRow
from .errors import ConfigError
from .layers import Conv1d, Linear
from .model import MultiHeadAttention, Whisper
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


def _quantize(model: Whisper) -> None:
    inner = torch.bfloat16 if native_bfloat16() else torch.float32
    for module in list(model.modules()):
        if isinstance(module, MultiHeadAttention):
            layers = [
                QuantizedLinear.of(cast(Linear, getattr(module, name)), inner) for name in _QKV
            ]
            module.qkv = QuantizedLinear.joined(layers)
            for name, own in zip(_QKV, layers, strict=True):
                setattr(module, name, own)
            module.out = QuantizedLinear.of(cast(Linear, module.out))
        elif isinstance(module, nn.Sequential):
            for place, layer in enumerate(module):
                if isinstance(layer, Linear):
                    module[place] = QuantizedLinear.of(layer)
    for conv in (model.encoder.conv1, model.encoder.conv2):
        conv.to(inner)
    model.encoder.conv_dtype = model.decoder.kv_dtype = inner
    table = model.decoder.token_embedding
    model.decoder.token_embedding = QuantizedEmbedding(*quantize(cast(nn.Embedding, table).weight))


_QKV = ("query", "key", "value")
