"""From log-mel or encoded audio to tokens: windows decoded as openai-whisper's ``decode`` does.

    mel -> encode -> prompt + <|startoftranscript|> ... -> [filter logits, choose tokens] -> text

The loops are in ``aii.loops``; here are the functions that run them on their own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .batch import run_alone
from .decoding_task import (
    ApplyTimestampRules,
    BeamSearchDecoder,
    DecodingTask,
    GreedyDecoder,
    Inference,
    LogitFilter,
    MaximumLikelihoodRanker,
    PyTorchInference,
    SequenceRanker,
    SuppressBlank,
    SuppressTokens,
    TokenDecoder,
)
from .errors import InputError
from .loops import decoding_steps, language_steps
from .mel import CHUNK_LENGTH
from .options import DecodingOptions, DecodingResult, compression_ratio
from .steps import Attach, Steps
from .tokenizer import Tokenizer, get_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model import Whisper

__all__ = [
    "CHUNK_LENGTH",
    "ApplyTimestampRules",
    "BeamSearchDecoder",
    "DecodingOptions",
    "DecodingResult",
    "DecodingTask",
    "GreedyDecoder",
    "Inference",
    "LogitFilter",
    "MaximumLikelihoodRanker",
    "PyTorchInference",
    "SequenceRanker",
    "SuppressBlank",
    "SuppressTokens",
    "TokenDecoder",
    "compression_ratio",
    "decode",
    "decode_features",
    "detect_language",
    "encode",
    "is_encoded",
]

_DEFAULTS = DecodingOptions()


@torch.no_grad()
def detect_language(
    model: Whisper, mel: Tensor, tokenizer: Tokenizer | None = None
) -> tuple[Tensor, Any]:
    """Find the language spoken.

    Args:
        mel: log-mel of one audio (mels, frames) or several (B, mels, frames), or encoded audio.
        tokenizer: one for the model; made where it is None.

    Returns:
        The likeliest language tokens, () or (B,), and a dict from language code to probability, or
        a list of B of them.

    Raises:
        InputError: the model knows no languages.
    """
    tokenizer = tokenizer or get_tokenizer(model.is_multilingual, num_languages=model.num_languages)
    if tokenizer.language is None or tokenizer.language_token not in tokenizer.sot_sequence:
        raise InputError("this model has no language tokens, so it cannot detect the language")
    single = mel.ndim == 2
    batch = mel[None] if single else mel
    if model.compute_type != "float32":
        batch = batch.to(model.dtype)
    features = batch if is_encoded(model, batch) else model.encoder(batch)
    probs = run_alone(model, _attached(features, language_steps(tokenizer, len(features))))
    best = [tokenizer.to_language_token(max(row, key=row.__getitem__)) for row in probs]
    tokens = torch.tensor(best, device=features.device)
    return (tokens[0], probs[0]) if single else (tokens, probs)


def is_encoded(model: Whisper, mel: Tensor) -> bool:
    """Whether (B, ...) holds encoded audio of the full context rather than log-mel."""
    return tuple(mel.shape[-2:]) == (model.dims.n_audio_ctx, model.dims.n_audio_state)


@torch.no_grad()
def encode(model: Whisper, mel: Tensor, *, fp16: bool = False) -> Tensor:
    """Encode log-mel (B, mels, frames) to (B, S, D); encoded audio stays as it is."""
    half = fp16 and model.compute_type == "float32"
    mel = mel.to(torch.float16 if half else model.dtype)
    return mel if is_encoded(model, mel) else model.encoder(mel)


@torch.no_grad()
def decode(
    model: Whisper, mel: Tensor, options: DecodingOptions = _DEFAULTS, **kwargs: Any
) -> DecodingResult | list[DecodingResult]:
    """Decode windows of up to 30 s.

    Args:
        mel: log-mel of one window (mels, frames) or several (B, mels, frames), or encoded audio of
            the full context, (S, D) or (B, S, D).
        options: how; further keywords replace its fields.

    Returns:
        One result, or a list of them where ``mel`` has a batch dimension.

    Raises:
        InputError: options that contradict each other or do not fit the model.
    """
    options = replace(options, **kwargs)
    single = mel.ndim == 2
    features = encode(model, mel[None] if single else mel, fp16=options.fp16)
    results = decode_features(model, features, options)
    return results[0] if single else results


@torch.no_grad()
def decode_features(
    model: Whisper,
    features: Tensor,
    options: DecodingOptions,
    generator: torch.Generator | None = None,
    draft: Sequence[int] | None = None,
) -> list[DecodingResult]:
    """Decode encoded audio (B, S, D), which may have a shortened context; see :func:`decode`.

    Args:
        generator: draws at temperatures above 0; None for torch's global one.
        draft: what the result of a single audio probably is, see :func:`decoding_steps`.
    """
    steps = decoding_steps(model, features, options, generator, draft)
    return run_alone(model, _attached(features, steps))


def _attached(features: Tensor, steps: Steps[Any]) -> Steps[Any]:
    """``steps`` over encoded audio that is there already."""
    yield Attach(features)
    return (yield from steps)
