"""What a decode is told and what it gives: plain values, by openai-whisper's names."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from .errors import InputError
from .logit_filters import Constraint


@dataclass(frozen=True)
class DecodingOptions:
    """How to decode one window; the fields and defaults of openai-whisper's class.

    Attributes:
        task: "transcribe", "translate" (into English) or "lang_id" (detect the language only).
        language: code or name of the language spoken; None detects it.
        temperature: 0 takes the likeliest tokens, above that they are drawn at random.
        sample_len: most tokens to decode; None for half of the text context.
        best_of: transcripts to draw at a temperature above 0, the best of which is kept.
        beam_size: beams at temperature 0.
        patience: finished beams to wait for, times ``beam_size`` (arXiv 2204.05424).
        length_penalty: 0 to 1, see :func:`aii.search.best_candidate`; None divides by the length.
        prompt: text or tokens that came before the window.
        prefix: text or tokens with which the transcript begins.
        suppress_tokens: token numbers, or a comma-separated string of them; -1 stands for the
            tokens that are not speech; None or "" for no suppression.
        suppress_blank: keep the transcript from beginning blank.
        without_timestamps: text only.
        max_initial_timestamp: latest first timestamp in seconds; None or 0 for any.
        fp16: compute in float16.
        constraint: which tokens may follow, see :class:`aii.logit_filters.Constraint`.
    """

    task: str = "transcribe"
    language: str | None = None
    temperature: float = 0.0
    sample_len: int | None = None
    best_of: int | None = None
    beam_size: int | None = None
    patience: float | None = None
    length_penalty: float | None = None
    prompt: str | list[int] | None = None
    prefix: str | list[int] | None = None
    suppress_tokens: str | Sequence[int] | None = "-1"
    suppress_blank: bool = True
    without_timestamps: bool = False
    max_initial_timestamp: float | None = 1.0
    fp16: bool = True
    constraint: Constraint | None = None


@dataclass(frozen=True)
class DecodingResult:
    """What one window says.

    Attributes:
        audio_features: (S, D) the encoded audio.
        language: code of the language decoded in.
        language_probs: probability of each language, where "lang_id" asked for it.
        tokens: the transcript's tokens, timestamps included, without the end.
        text: the same as text.
        avg_logprob: mean log-probability per token, the end included.
        no_speech_prob: probability of the no-speech token behind the start token.
        temperature: the one it was decoded at.
        compression_ratio: see :func:`compression_ratio`.
        passes: forward passes of the decoder.
        stopped: "end" where the model ended the text, "limit" where there was no room for more.
    """

    audio_features: Tensor
    language: str
    language_probs: dict[str, float] | None = None
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    avg_logprob: float = math.nan
    no_speech_prob: float = math.nan
    temperature: float = math.nan
    compression_ratio: float = math.nan
    passes: int = 0
    stopped: str = "end"


def compression_ratio(text: str) -> float:
    """Bytes of the text over its bytes after zlib; repetition makes it high (2.4 is suspect)."""
    data = text.encode("utf-8")
    return len(data) / len(zlib.compress(data))


def check(options: DecodingOptions) -> None:
    """Refuse options that contradict each other.

    Raises:
        InputError: they do.
    """
    if options.task not in ("transcribe", "translate", "lang_id"):
        raise InputError(f"task must be transcribe, translate or lang_id, not {options.task!r}")
    if options.beam_size is not None and options.best_of is not None:
        raise InputError("beam_size and best_of exclude each other; give one")
    if options.temperature == 0 and options.best_of is not None:
        raise InputError("best_of draws at random; give a temperature above 0, or no best_of")
    if options.patience is not None and options.beam_size is None:
        raise InputError("patience belongs to beam search; give beam_size too")
    if not 0 <= options.temperature < math.inf:
        raise InputError(f"temperature must be a number from 0 on, not {options.temperature}")
    for name in ("sample_len", "best_of", "beam_size"):
        value = getattr(options, name)
        if value is not None and (not isinstance(value, int) or value < 0):
            raise InputError(f"{name} must be a whole number from 0 on, not {value!r}")
    if options.length_penalty is not None and not 0 <= options.length_penalty <= 1:
        raise InputError(f"length_penalty must be from 0 to 1, not {options.length_penalty}")
