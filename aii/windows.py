"""One window of up to 30 s: decoded with fallback, cut into segments, with word times.

Files (``aii.transcribe``) and calls (``aii.engine``) go through these functions, so that they hear
the same words in the same audio.

    mel or samples -> decode_with_fallback -> silent? -> segments -> word times -> Window
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from aii.audio_context import (
    FRAMES_PER_POSITION,
    audio_context_frames,
    default_audio_context,
    parse_audio_context,
    window_frames,
)
from aii.batch import run_alone
from aii.errors import AudioError
from aii.fallback import (
    TEMPERATURES,
    WindowOptions,
    decode_with_fallback,
    fallback_steps,
    is_silent,
)
from aii.mel import (
    FRAMES_PER_SECOND,
    HOP_LENGTH,
    N_FFT,
    N_FRAMES,
    SAMPLE_RATE,
    log_mel_spectrogram,
    pad_or_trim,
)
from aii.options import DecodingResult
from aii.steps import Steps
from aii.timing import add_word_timestamps
from aii.tokenizer import Tokenizer, get_tokenizer

if TYPE_CHECKING:
    from aii.model import Whisper

__all__ = [
    "TEMPERATURES",
    "Window",
    "WindowOptions",
    "audio_context_frames",
    "decode_with_fallback",
    "default_audio_context",
    "ends_closed",
    "is_silent",
    "new_segment",
    "parse_audio_context",
    "segments",
    "tail_segment",
    "transcribe_mel",
    "transcribe_window",
    "window_frames",
    "window_steps",
]

_SECONDS_PER_TIMESTAMP = FRAMES_PER_POSITION * HOP_LENGTH / SAMPLE_RATE


@dataclass
class Window:
    """What was found in a window.

    Attributes:
        result: the accepted decode.
        segments: dictionaries as :func:`new_segment` makes them, with ``words`` if wanted.
        advance: frames of 10 ms that the segments account for, where the next window begins.
        silent: nobody speaks; there are no segments then.
        closed: the model saw the end of what is said: nothing follows the last timestamp.
        tail: where it was asked for, the unfinished text after the last whole segment, as a segment
            that lasts to the window's end.
    """

    result: DecodingResult
    segments: list[dict[str, Any]]
    advance: int
    silent: bool = False
    closed: bool = False
    tail: dict[str, Any] | None = None


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
    advance = segment_size if closed else (tokens[cuts[-1] - 1] - begin) * FRAMES_PER_POSITION
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
    steps = window_steps(model, mel, options, prompt=prompt, seek=seek, last_speech=last_speech)
    return run_alone(model, steps)


def window_steps(
    model: Whisper,
    mel: Tensor,
    options: WindowOptions,
    *,
    prompt: Sequence[int] = (),
    draft: Sequence[int] | None = None,
    seek: int = 0,
    last_speech: float = 0.0,
    keep_tail: bool = False,
) -> Steps[Window]:
    """:func:`transcribe_mel`, step by step.

    Args:
        draft: what the tokens probably are, see :func:`aii.loops.decoding_steps`.
        keep_tail: also give the unfinished text after the last whole segment.
    """
    size = mel.shape[-1]
    context = audio_context_frames(model, size * HOP_LENGTH, options.audio_context)
    padded = pad_or_trim(mel, context)
    generator = None
    if options.seed is not None:
        generator = torch.Generator(model.device).manual_seed(options.seed)
    prompted = replace(options, decoding=replace(options.decoding, prompt=list(prompt)))
    result = yield from fallback_steps(model, padded, prompted, generator, draft)
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
    tail = tail_segment(result, found, tokenizer, seek=seek, size=size) if keep_tail else None
    if options.word_timestamps:
        add_word_timestamps(
            segments=found if tail is None else [*found, tail],
            model=model,
            tokenizer=tokenizer,
            mel=padded,
            num_frames=size,
            prepend_punctuations=options.prepend_punctuations,
            append_punctuations=options.append_punctuations,
            last_speech_timestamp=last_speech,
            audio_features=result.audio_features,
        )
    return Window(result, found, advance, closed=ends_closed(result, tokenizer), tail=tail)


def tail_segment(
    result: DecodingResult,
    found: Sequence[dict[str, Any]],
    tokenizer: Tokenizer,
    *,
    seek: int,
    size: int,
) -> dict[str, Any] | None:
    """The text behind the segments ``found``, up to the window's end; None where there is none."""
    tokens = result.tokens[sum(len(segment["tokens"]) for segment in found) :]
    if not tokenizer.decode([token for token in tokens if token < tokenizer.eot]).strip():
        return None
    offset = seek * HOP_LENGTH / SAMPLE_RATE
    end = offset + size * HOP_LENGTH / SAMPLE_RATE
    start = offset + max(tokens[0] - tokenizer.timestamp_begin, 0) * _SECONDS_PER_TIMESTAMP
    return new_segment(result, tokenizer, seek=seek, start=min(start, end), end=end, tokens=tokens)


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
    mel = window_mel(model, samples)
    return transcribe_mel(model, mel, options, prompt=prompt, last_speech=last_speech)


def window_mel(model: Whisper, samples: np.ndarray | Tensor) -> Tensor:
    """(mels, frames) the log-mel of a window's samples (N,), not padded.

    Raises:
        AudioError: the window is not one row of samples, or longer than the encoder takes.
    """
    check_window(model, samples)
    size = max(1, samples.shape[-1] // HOP_LENGTH)
    return log_mel_spectrogram(samples, model.dims.n_mels, padding=2 * N_FFT)[:, :size]


def check_window(model: Whisper, samples: np.ndarray | Tensor) -> None:
    """Refuse what is no window.

    Raises:
        AudioError: it is not one row of samples, or longer than the encoder takes.
    """
    longest = window_frames(model)
    size = max(1, samples.shape[-1] // HOP_LENGTH)
    if samples.ndim != 1 or size > longest:
        raise AudioError(
            f"a window is one row of at most {longest / FRAMES_PER_SECOND:g} s of samples, "
            f"not an array of shape {tuple(samples.shape)}"
        )
