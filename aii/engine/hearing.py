"""What a request asks for, as steps of a decode, and what a hypothesis says of it.

A request goes through the functions that ``aii transcribe`` uses, so a call and a file give the
same words; one with an ``AttentionStop`` goes through ``aii.alignatt``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from torch import Tensor

from aii.alignatt import Aligned, aligned_steps
from aii.audio_context import audio_context_frames
from aii.batch import run_alone
from aii.errors import AudioError, InputError
from aii.fallback import WindowOptions, encoding
from aii.loops import language_steps
from aii.mel import HOP_LENGTH, N_SAMPLES, N_SAMPLES_PER_TOKEN, log_mel_spectrogram, pad_or_trim
from aii.mel_memory import MelMemory
from aii.model import Whisper
from aii.options import DecodingOptions
from aii.steps import Steps
from aii.tokenizer import get_tokenizer
from aii.types import DecodeRequest, Segment, Token, Word
from aii.uncached import uncached
from aii.windows import Window, check_window, window_mel, window_steps

SEED = 0

MOST_ROWS = 64
"""Rows of tokens for one request, as for ``--beam-size``: each takes memory and time of all."""

LOUDEST = 1e9
"""Samples from which on the energy of a frame comes near to what float32 can hold."""

_DECODING = {item.name for item in fields(DecodingOptions)} - {
    "task", "language", "prompt", "prefix", "temperature",
}  # fmt: skip
_WINDOW = {item.name for item in fields(WindowOptions)} - {"decoding"}
_OURS = {"initial_prompt", "keep_tail", "kv_cache"}


def hear(model: Whisper, request: DecodeRequest, defaults: Mapping[str, object]) -> dict[str, Any]:
    """Answer one request, alone: :func:`hearing`, run to its end."""
    return run_alone(model, hearing(model, request, defaults))


def hearing(
    model: Whisper,
    request: DecodeRequest,
    defaults: Mapping[str, object],
    memory: MelMemory | None = None,
) -> Steps[dict[str, Any]]:
    """Transcribe the window of a request, step by step.

    Args:
        defaults: options that hold where the request does not say otherwise.
        memory: what is known of the calls' audio already.

    Returns:
        The fields of its :class:`aii.types.Hypothesis` but for ``timing``.

    Raises:
        InputError: options that do not exist or do not fit the model.
        AudioError: samples that are no window, or no sound.
    """
    _check_audio(request.audio)
    options = {**defaults, **request.options}
    if not options.get("kv_cache", True):
        cached = replace(request, options={**request.options, "kv_cache": True})
        return (yield from uncached(hearing(model, cached, defaults, memory)))
    wanted = _window_options(request, options)
    language = request.language
    if language is None:
        language = yield from _language(model, request.audio, wanted)
    wanted = replace(wanted, decoding=replace(wanted.decoding, language=language))
    tokenizer = get_tokenizer(
        model.is_multilingual,
        num_languages=model.num_languages,
        language=language,
        task=request.task,
    )
    text = str(options.get("initial_prompt") or "").strip()
    static = tokenizer.encode(" " + text) if text else []
    if request.stop is not None:
        mel = _mel(model, request, memory)
        aligned = yield from _until_the_end(model, request, wanted, static, mel)
        return _aligned_fields(aligned, request)
    window = yield from window_steps(
        model,
        _mel(model, request, memory),
        wanted,
        prompt=[*static, *request.prompt],
        draft=request.draft,
        keep_tail=bool(options.get("keep_tail")),
    )
    begin = tokenizer.timestamp_begin
    items = window.segments if window.tail is None else [*window.segments, window.tail]
    pieces = [_segment(item, request, begin) for item in items]
    return _window_fields(window, pieces, language, request)


def rows_needed(request: DecodeRequest, defaults: Mapping[str, object]) -> int:
    """Rows of tokens that a request's decode will take at most: beams, or draws to choose from."""
    options = {**defaults, **request.options}
    counts = [options.get("beam_size"), options.get("best_of")]
    return max([1, *(count for count in counts if isinstance(count, int))])


def _check_audio(samples: np.ndarray) -> None:
    if samples.ndim != 1:
        raise AudioError(f"a window is one row of samples, not an array of shape {samples.shape}")
    if samples.dtype.kind != "f":
        raise AudioError(
            f"samples are {samples.dtype}, not float; divide 16-bit samples by 32768 first"
        )
    if len(samples) and not -LOUDEST <= float(samples.min()) <= float(samples.max()) <= LOUDEST:
        raise AudioError("the samples are not all finite numbers of sound; wanted are -1 to 1")


def _mel(model: Whisper, request: DecodeRequest, memory: MelMemory | None) -> Tensor:
    """(mels, frames) the log-mel of a request's window, not padded."""
    check_window(model, request.audio)
    if memory is None:
        return window_mel(model, request.audio)
    return memory.window(request.call_id, request.audio, request.start)


def _until_the_end(
    model: Whisper,
    request: DecodeRequest,
    wanted: WindowOptions,
    static: Sequence[int],
    mel: Tensor,
) -> Steps[Aligned]:
    """The steps of a request that stops by attention."""
    assert request.stop is not None
    context = audio_context_frames(model, mel.shape[-1] * HOP_LENGTH, wanted.audio_context)
    yield encoding(model, pad_or_trim(mel, context), wanted.decoding)
    return (
        yield from aligned_steps(
            model,
            wanted.decoding,
            request.stop,
            frames=len(request.audio) // N_SAMPLES_PER_TOKEN,
            static=static,
            context=request.prompt,
        )
    )


def _aligned_fields(heard: Aligned, request: DecodeRequest) -> dict[str, Any]:
    return {
        "request_id": request.request_id,
        "tokens": heard.tokens,
        "segments": (),
        "language": heard.language,
        "no_speech_prob": heard.no_speech_prob,
        "avg_logprob": heard.avg_logprob,
        "compression_ratio": heard.compression_ratio,
        "passes": heard.passes,
        "stopped": heard.stopped,
        "dropped": heard.dropped,
    }


def _window_fields(
    window: Window, pieces: Sequence[Segment], language: str, request: DecodeRequest
) -> dict[str, Any]:
    result = window.result
    return {
        "request_id": request.request_id,
        "tokens": tuple(Token(token) for token in result.tokens),
        "segments": tuple(pieces),
        "language": language,
        "no_speech_prob": result.no_speech_prob,
        "avg_logprob": result.avg_logprob,
        "compression_ratio": result.compression_ratio,
        "advance": window.advance / 100,
        "passes": result.passes,
        "temperature": result.temperature,
        "stopped": result.stopped,
    }


def _window_options(request: DecodeRequest, options: Mapping[str, Any]) -> WindowOptions:
    """The options of a request, sorted into those of the decoder and those of the window."""
    if unknown := sorted(set(options) - _DECODING - _WINDOW - _OURS):
        raise InputError(f"no option of a request is called {unknown[0]!r}")
    if rows_needed(request, options) > MOST_ROWS:
        raise InputError(f"a request may have at most {MOST_ROWS} beams, or draws to choose from")
    # What the engine computes in is its model's compute type, also on a GPU.
    decoding = {"fp16": False, **{name: options[name] for name in options.keys() & _DECODING}}
    window = {"seed": SEED, **{name: options[name] for name in options.keys() & _WINDOW}}
    prefix = list(request.prefix) or None
    return WindowOptions(DecodingOptions(task=request.task, prefix=prefix, **decoding), **window)


def _language(model: Whisper, samples: np.ndarray, wanted: WindowOptions) -> Steps[str]:
    """The language of a call whose first window this is, found as for a file of these samples."""
    if not model.is_multilingual:
        return "en"
    mel = log_mel_spectrogram(samples, model.dims.n_mels, padding=N_SAMPLES)
    mel = pad_or_trim(mel, audio_context_frames(model, len(samples), wanted.audio_context))
    yield encoding(model, mel, wanted.decoding)
    tokenizer = get_tokenizer(True, num_languages=model.num_languages)
    (probs,) = yield from language_steps(tokenizer, 1)
    return max(probs, key=probs.__getitem__)


def _segment(item: Mapping[str, Any], request: DecodeRequest, times: int) -> Segment:
    """A segment as a value; an empty one stays, emptied, as in a file's transcript.

    Tokens from ``times`` on are timestamps.
    """
    tokens = item["tokens"]
    begin, end = _span(item, request)
    # Word times may have moved its ends, so that its own timestamps tell; it may have none.
    instant = len(tokens) > 1 and tokens[-1] == tokens[0] >= times
    if instant or not item["text"].strip():
        return Segment(begin, end, "")
    words = tuple(
        Word(word["word"], *_span(word, request), word["probability"])
        for word in item.get("words", ())
    )
    return Segment(begin, end, item["text"], tuple(tokens), words)


def _span(item: Mapping[str, Any], request: DecodeRequest) -> tuple[float, float]:
    """Start and end within the request's audio: the model may place speech in the padding."""
    times = (min(max(item[key], 0.0), request.duration) for key in ("start", "end"))
    begin, end = (request.start + time for time in times)
    return begin, max(begin, end)
