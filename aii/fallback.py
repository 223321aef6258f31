"""One window decoded, and again at higher temperatures while the result looks wrong.

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (arXiv 2212.04356),
section 4.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aii.batch import run_alone
from aii.errors import InputError
from aii.loops import decoding_steps
from aii.options import DecodingOptions, DecodingResult
from aii.steps import Encode, Steps
from aii.timing import APPEND_PUNCTUATIONS, PREPEND_PUNCTUATIONS
from aii.transfers import put

if TYPE_CHECKING:
    from aii.model import Whisper

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Sampling temperatures to try, one after the other, while the result looks wrong."""


def default_condition(model: Whisper) -> bool:
    """Whether ``model`` does better with the text before a window than without, by its notes."""
    return bool(model.metadata.get("condition_on_previous_text", True))


def default_temperatures(model: Whisper) -> tuple[float, ...]:
    """What to try with a model: its notes may say that sampling does not better its text."""
    return TEMPERATURES if model.metadata.get("fallback", True) else (0.0,)


@dataclass(frozen=True)
class WindowOptions:
    """How to transcribe a window.

    Attributes:
        decoding: language, task, beam size...; its prompt and temperature are not used.
        temperatures: see :data:`TEMPERATURES`.
        compression_ratio_threshold: text that repeats itself more than this is tried again.
        logprob_threshold: text with a mean log-probability below this is tried again.
        no_speech_threshold: above this, and with text below ``logprob_threshold``, nobody speaks.
        word_timestamps: find out when each word was spoken.
        prepend_punctuations: marks that belong to the word after them.
        append_punctuations: marks that belong to the word before them.
        audio_context: see :func:`aii.audio_context.audio_context_frames`.
        seed: draw at temperatures above 0 as from this seed, in every window and whatever else
            draws in the process; None draws from PyTorch's global generator.
    """

    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    temperatures: Sequence[float] = TEMPERATURES
    compression_ratio_threshold: float | None = 2.4
    logprob_threshold: float | None = -1.0
    no_speech_threshold: float | None = 0.6
    word_timestamps: bool = False
    prepend_punctuations: str = PREPEND_PUNCTUATIONS
    append_punctuations: str = APPEND_PUNCTUATIONS
    audio_context: str | float = "full"
    seed: int | None = None


def decode_with_fallback(
    model: Whisper,
    segment: Tensor,
    options: DecodingOptions,
    *,
    temperatures: Sequence[float] = TEMPERATURES,
    compression_ratio_threshold: float | None = 2.4,
    logprob_threshold: float | None = -1.0,
    no_speech_threshold: float | None = 0.6,
    generator: torch.Generator | None = None,
) -> DecodingResult:
    """Decode a window, again at higher temperatures while the result looks wrong.

    The audio is encoded once. Beams are for temperature 0 and ``best_of`` for those above it, so
    ``options`` may give both.

    Args:
        segment: (mels, frames) log-mel, padded, on any device.
        generator: draws at temperatures above 0; None for torch's global one.

    Returns:
        The first result that passes, or the last one; ``passes`` counts all attempts.

    Raises:
        InputError: no temperatures, or options that do not fit.
    """
    wanted = WindowOptions(
        options,
        temperatures,
        compression_ratio_threshold,
        logprob_threshold,
        no_speech_threshold,
    )
    return run_alone(model, fallback_steps(model, segment, wanted, generator))


def fallback_steps(
    model: Whisper,
    segment: Tensor,
    options: WindowOptions,
    generator: torch.Generator | None = None,
    draft: Sequence[int] | None = None,
) -> Steps[DecodingResult]:
    """:func:`decode_with_fallback`, step by step.

    Args:
        draft: what the result probably is, see :func:`aii.loops.decoding_steps`.
    """
    if not options.temperatures:
        raise InputError("no temperature was given; give at least one, such as 0")
    decoding = options.decoding
    features = yield encoding(model, segment, decoding)
    passes = 0
    for temperature in options.temperatures:
        if temperature > 0:
            attempt = replace(decoding, temperature=temperature, beam_size=None, patience=None)
        else:
            attempt = replace(decoding, temperature=temperature, best_of=None)
        (result,) = yield from decoding_steps(model, features, attempt, generator, draft)
        passes += result.passes
        repeats = _above(result.compression_ratio, options.compression_ratio_threshold)
        unsure = _below(result.avg_logprob, options.logprob_threshold)
        silent = unsure and _above(result.no_speech_prob, options.no_speech_threshold)
        if silent or not (repeats or unsure):
            break
    return replace(result, passes=passes)


def encoding(model: Whisper, mel: Tensor, options: DecodingOptions) -> Encode:
    """The step that encodes (mels, frames) in the precision that the options ask for."""
    return Encode(put(mel[None], model.device, model.input_dtype(options.fp16)))


def is_silent(
    result: DecodingResult,
    *,
    no_speech_threshold: float | None = 0.6,
    logprob_threshold: float | None = -1.0,
) -> bool:
    """Whether nobody speaks: no speech is likely, and the text is not convincing either."""
    sure = _above(result.avg_logprob, logprob_threshold)
    return _above(result.no_speech_prob, no_speech_threshold) and not sure


def _above(value: float, threshold: float | None) -> bool:
    return threshold is not None and value > threshold


def _below(value: float, threshold: float | None) -> bool:
    return threshold is not None and value < threshold
