"""One window of up to 30 s: decoded with fallback, cut into segments, with word times.

Files (``aii.transcribe``) and calls (``aii.engine``) go through these functions, so that they hear
the same words in the same audio.

    mel or samples -> decode_with_fallback -> silent? -> segments -> word times -> Window
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from aii.decoding import DecodingOptions, DecodingResult, decode_features, encode
from aii.errors import AudioError, ConfigError, InputError
from aii.mel import (
    FRAMES_PER_SECOND,
    HOP_LENGTH,
    N_FFT,
    N_FRAMES,
    SAMPLE_RATE,
    log_mel_spectrogram,
    pad_or_trim,
)
from aii.timing import APPEND_PUNCTUATIONS, PREPEND_PUNCTUATIONS, add_word_timestamps
from aii.tokenizer import Tokenizer, get_tokenizer

if TYPE_CHECKING:
    from aii.model import Whisper

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Sampling temperatures to try, one after the other, while the result looks wrong."""

_FRAMES_PER_TIMESTAMP = 2
_SECONDS_PER_TIMESTAMP = _FRAMES_PER_TIMESTAMP * HOP_LENGTH / SAMPLE_RATE
_CONTEXT_MARGIN = 100  # frames of 10 ms behind the audio in a shortened context
_CONTEXT_STEP = 50
_SHORTEST_CONTEXT = 150


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
        audio_context: see :func:`audio_context_frames`.
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


@dataclass
class Window:
    """What was found in a window.

    Attributes:
        result: the accepted decode.
        segments: dictionaries as :func:`new_segment` makes them, with ``words`` if wanted.
        advance: frames of 10 ms that the segments account for, where the next window begins.
        silent: nobody speaks; there are no segments then.
        closed: the model saw the end of what is said: nothing follows the last timestamp.
    """

    result: DecodingResult
    segments: list[dict[str, Any]]
    advance: int
    silent: bool = False
    closed: bool = False


# -- how much audio the encoder sees ----------------------------------------------------------


def window_frames(model: Whisper) -> int:
    """Frames of 10 ms that fit into the model's encoder: 3000 for every published model."""
    return min(N_FRAMES, _FRAMES_PER_TIMESTAMP * model.dims.n_audio_ctx)


def default_audio_context(model: Whisper) -> str | float:
    """The context a model was trained for, as its checkpoint says; "full" for OpenAI's."""
    return parse_audio_context(model.metadata.get("audio_context", "full"))


def parse_audio_context(setting: object) -> str | float:
    """Check an audio context setting: "full", "auto", or seconds as a number or text.

    Raises:
        ConfigError: it is none of these.
    """
    if setting in ("full", "auto"):
        return str(setting)
    try:
        seconds = float(str(setting))
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigError(f"audio context must be full, auto or seconds above 0, not {setting!r}")
    return seconds


def audio_context_frames(model: Whisper, samples: int, setting: str | float) -> int:
    """Mel frames to pad a window to before it is encoded.

    Args:
        samples: real samples (16 kHz) in the window.
        setting: "full": the model's whole context (30 s), exact for every model. "auto": the real
            length and a margin of 1 s, at least 1.5 s. Seconds: that, or the real length where it
            is more. The last two are rounded up to 0.5 s and suit models trained so.

    Raises:
        ConfigError: ``setting`` is something else.
    """
    full = window_frames(model)
    setting = parse_audio_context(setting)
    if setting == "full":
        return full
    real = -(-samples // HOP_LENGTH)
    if isinstance(setting, str):
        wanted = max(real + _CONTEXT_MARGIN, _SHORTEST_CONTEXT)
    else:
        wanted = max(real, math.ceil(setting * FRAMES_PER_SECOND))
    return min(full, -(-wanted // _CONTEXT_STEP) * _CONTEXT_STEP)


# -- from mel to a result ---------------------------------------------------------------------


@torch.no_grad()
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
    if not temperatures:
        raise InputError("no temperature was given; give at least one, such as 0")
    half = options.fp16 and model.device.type != "cpu"  # a CPU has no use for it
    features = encode(model, segment[None].to(model.device), fp16=half)
    passes = 0
    for temperature in temperatures:
        if temperature > 0:
            attempt = replace(options, temperature=temperature, beam_size=None, patience=None)
        else:
            attempt = replace(options, temperature=temperature, best_of=None)
        result = decode_features(model, features, attempt, generator)[0]
        passes += result.passes
        repeats = _above(result.compression_ratio, compression_ratio_threshold)
        unsure = _below(result.avg_logprob, logprob_threshold)
        silent = unsure and _above(result.no_speech_prob, no_speech_threshold)
        if silent or not (repeats or unsure):
            break
    return replace(result, passes=passes)


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


# -- from a result to segments ----------------------------------------------------------------


def new_segment(
    result: DecodingResult,
    tokenizer: Tokenizer,
    *,
    seek: int,
    start: float,
    end: float,
    tokens: list[int],
) -> dict[str, Any]:
    """One segment as openai-whisper writes it down.

    Args:
        result: the decode that it comes from.
        seek: where the window begins, in frames of 10 ms.
        start: beginning of the segment in seconds.
        end: end of the segment in seconds.
        tokens: its tokens, timestamps included.
    """
    return {
        "seek": seek,
        "start": start,
        "end": end,
        "text": tokenizer.decode([token for token in tokens if token < tokenizer.eot]),
        "tokens": tokens,
        "temperature": result.temperature,
        "avg_logprob": result.avg_logprob,
        "compression_ratio": result.compression_ratio,
        "no_speech_prob": result.no_speech_prob,
    }


def segments(
    result: DecodingResult,
    tokenizer: Tokenizer,
    *,
    seek: int = 0,
    segment_size: int = N_FRAMES,
) -> tuple[list[dict[str, Any]], int]:
    """Cut a window's tokens at its timestamps.

    A segment lies between two timestamps. Text after the last pair of neighbouring timestamps is
    unfinished and left to the next window, which begins there.

    Args:
        seek: where the window begins, in frames of 10 ms; added to the segments' times.
        segment_size: frames of audio in the window.

    Returns:
        The segments, and how many frames they account for: where the next window begins.
    """
    tokens = result.tokens
    begin = tokenizer.timestamp_begin
    offset = float(seek * HOP_LENGTH / SAMPLE_RATE)
    cuts = [i for i in range(1, len(tokens)) if tokens[i] >= begin and tokens[i - 1] >= begin]
    closed = ends_closed(result, tokenizer)
    if not cuts:
        duration = segment_size * HOP_LENGTH / SAMPLE_RATE
        last = next((token for token in reversed(tokens) if token >= begin), begin)
        if last != begin:
            duration = (last - begin) * _SECONDS_PER_TIMESTAMP
        whole = new_segment(
            result, tokenizer, seek=seek, start=offset, end=offset + duration, tokens=tokens
        )
        return [whole], segment_size
    advance = segment_size if closed else (tokens[cuts[-1] - 1] - begin) * _FRAMES_PER_TIMESTAMP
    if closed:
        cuts.append(len(tokens))
    found = []
    for first, end in zip([0, *cuts], cuts, strict=False):
        piece = tokens[first:end]
        times = [offset + (piece[i] - begin) * _SECONDS_PER_TIMESTAMP for i in (0, -1)]
        found.append(
            new_segment(result, tokenizer, seek=seek, start=times[0], end=times[1], tokens=piece)
        )
    return found, advance


def ends_closed(result: DecodingResult, tokenizer: Tokenizer) -> bool:
    """Whether the tokens end with a single timestamp: nothing is said after it."""
    return [token >= tokenizer.timestamp_begin for token in result.tokens[-2:]] == [False, True]


# -- the whole way ----------------------------------------------------------------------------


def transcribe_mel(
    model: Whisper,
    mel: Tensor,
    options: WindowOptions,
    *,
    prompt: Sequence[int] = (),
    seek: int = 0,
    last_speech: float = 0.0,
) -> Window:
    """Transcribe one window of log-mel.

    Args:
        mel: (mels, frames) the real frames of the window, not padded, at most 30 s.
        prompt: tokens of the text before the window.
        seek: where the window begins, in frames of 10 ms; added to all times.
        last_speech: where the last word before the window ended, in seconds.
    """
    size = mel.shape[-1]
    context = audio_context_frames(model, size * HOP_LENGTH, options.audio_context)
    padded = pad_or_trim(mel, context)
    generator = None
    if options.seed is not None:
        generator = torch.Generator(model.device).manual_seed(options.seed)
    result = decode_with_fallback(
        model,
        padded,
        replace(options.decoding, prompt=list(prompt)),
        temperatures=options.temperatures,
        compression_ratio_threshold=options.compression_ratio_threshold,
        logprob_threshold=options.logprob_threshold,
        no_speech_threshold=options.no_speech_threshold,
        generator=generator,
    )
    if is_silent(
        result,
        no_speech_threshold=options.no_speech_threshold,
        logprob_threshold=options.logprob_threshold,
    ):
        return Window(result, [], size, silent=True)
    tokenizer = get_tokenizer(
        model.is_multilingual,
        num_languages=model.num_languages,
        language=result.language,
        task=options.decoding.task,
    )
    found, advance = segments(result, tokenizer, seek=seek, segment_size=size)
    if options.word_timestamps:
        add_word_timestamps(
            segments=found,
            model=model,
            tokenizer=tokenizer,
            mel=padded,
            num_frames=size,
            prepend_punctuations=options.prepend_punctuations,
            append_punctuations=options.append_punctuations,
            last_speech_timestamp=last_speech,
            audio_features=result.audio_features,
        )
    return Window(result, found, advance, closed=ends_closed(result, tokenizer))


def transcribe_window(
    model: Whisper,
    samples: np.ndarray | Tensor,
    options: WindowOptions,
    *,
    prompt: Sequence[int] = (),
    last_speech: float = 0.0,
) -> Window:
    """Transcribe one window of samples; all times count from its first sample.

    The log-mel is what a file of just these samples would have: its range is set by the loudest
    moment of the window, where :func:`aii.transcribe.transcribe` takes that of the whole file.

    Args:
        samples: (N,) float at 16 kHz, -1 to 1; at most what the encoder takes (30 s).
        prompt: tokens of the text before the window.
        last_speech: where the last word before the window ended, in seconds from its beginning
            (so negative or 0).

    Raises:
        AudioError: the window is not one row of samples, or longer than the encoder takes.
    """
    longest = window_frames(model)
    size = max(1, samples.shape[-1] // HOP_LENGTH)
    if samples.ndim != 1 or size > longest:
        raise AudioError(
            f"a window is one row of at most {longest / FRAMES_PER_SECOND:g} s of samples, "
            f"not an array of shape {tuple(samples.shape)}"
        )
    mel = log_mel_spectrogram(samples, model.dims.n_mels, padding=2 * N_FFT)
    return transcribe_mel(model, mel[:, :size], options, prompt=prompt, last_speech=last_speech)
