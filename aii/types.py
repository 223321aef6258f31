"""Plain values that pass between streaming and the engine.

Only these and numpy arrays cross the engine's interface, so an engine in this process and one on
another machine look the same. Times are seconds from the start of the call; samples are 16 kHz.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing

SAMPLE_RATE = 16_000
"""Samples per second of everything past ``aii.audio.pcm``."""


class Samples:
    """Samples (N,) float32 that stay in the blocks they came in until somebody needs them in one.

    A thousand calls may want a window decoded at the same moment; who hands them over has no time
    to copy them. NumPy takes it for an array.

    Args:
        blocks: one after the other; nobody may change them any more.
    """

    def __init__(self, blocks: Sequence[np.ndarray]) -> None:
        self._blocks = tuple(blocks)
        self._size = sum(map(len, self._blocks))
        self._whole: np.ndarray | None = None

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, key: slice) -> np.ndarray:
        return self.__array__()[key]

    def __array__(
        self, dtype: np.typing.DTypeLike | None = None, copy: bool | None = None
    ) -> np.ndarray:
        found = self._whole
        if found is None:
            found = np.concatenate(self._blocks) if self._blocks else np.empty(0, np.float32)
            self._whole, self._blocks = found, ()
        if dtype is not None and found.dtype != dtype:
            return found.astype(dtype)
        return found.copy() if copy else found


@dataclass(frozen=True)
class Token:
    """One decoded token.

    Attributes:
        id: its number in the vocabulary.
        logprob: natural logarithm of its probability, or None where it was not kept.
        frame: the encoder frame (20 ms) it attends to most, or None.
        span: first and last of the frames around it that it attends to much, those before it
            more than the token before does; or None.
    """

    id: int
    logprob: float | None = None
    frame: int | None = None
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class Word:
    """One word with its place in the call (seconds) and its probability (0 to 1, or None)."""

    text: str
    start: float
    end: float
    probability: float | None = None


@dataclass(frozen=True)
class Segment:
    """A stretch of speech between two timestamps, in seconds from the start of the call."""

    start: float
    end: float
    text: str
    tokens: tuple[int, ...] = ()
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class AttentionStop:
    """Stop decoding where the attention comes too near to the end of the audio (AlignAtt).

    The rule of Simul-Whisper, arXiv 2406.10052. All
    numbers are encoder frames of 20 ms, counted from the first sample of the request.

    Attributes:
        threshold: a token that attends to one of the last ``threshold`` frames of the audio is
            dropped, and decoding stops before it.
        last_frame: the frame that the last token of the update before attended to.
        rewind: new tokens are thrown away when one attends more than this before ``last_frame``;
            None never does (the last chunk of a call).
        max_tokens: new tokens at most.
        repeats: end where a token attends further before the one before it than the model's
            notes (``attention_back``) say is possible in text that does not repeat itself;
            models without that note have no such place.
    """

    threshold: int = 25
    last_frame: int = 0
    rewind: int | None = 200
    max_tokens: int = 200
    repeats: bool = False


@dataclass(frozen=True, eq=False)
class DecodeRequest:
    """Ask the engine what is spoken in some samples.

    Attributes:
        request_id: unique in the process.
        call_id: whose audio it is; ``cancel(call_id)`` withdraws all of a call's requests.
        samples: (N,) float32 at 16 kHz, at most 30 s.
        start: seconds from the start of the call to ``samples[0]``.
        language: Whisper's code ("en"), or None to detect it.
        task: "transcribe" or "translate".
        prompt: tokens of the text before the samples; context, never part of the result.
        prefix: tokens with which the result must begin.
        draft: tokens that the result probably has (timestamps included, already shifted to this
            request's start), () where nothing is known of it; with the prompt they make decoding
            faster and never change what comes out. None takes one token per pass.
        stop: AlignAtt's rule of when to stop; None decodes to the end.
        options: further decoding options by their names in ``DecodingOptions`` (plus
            ``word_timestamps`` and the thresholds of ``transcribe``).
        deadline: clock reading (seconds) by which the answer is wanted; earliest goes first.
    """

    request_id: int
    call_id: str
    samples: np.ndarray | Samples
    start: float = 0.0
    language: str | None = None
    task: str = "transcribe"
    prompt: tuple[int, ...] = ()
    prefix: tuple[int, ...] = ()
    draft: tuple[int, ...] | None = None
    stop: AttentionStop | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    deadline: float = float("inf")

    @property
    def duration(self) -> float:
        """Seconds of audio in the request."""
        return len(self.samples) / SAMPLE_RATE

    @property
    def audio(self) -> np.ndarray:
        """The samples in one piece, (N,) float32; not to be changed."""
        return np.asarray(self.samples)


@dataclass(frozen=True)
class Timing:
    """Seconds that a request spent waiting in the queue and being computed."""

    queued: float = 0.0
    computed: float = 0.0


@dataclass(frozen=True)
class Hypothesis:
    """What the engine heard.

    Attributes:
        request_id: the request that it answers.
        tokens: every token of the result, timestamps included.
        segments: the text by timestamps, times from the start of the call.
        language: Whisper's code of the language decoded in.
        no_speech_prob: probability that nobody speaks.
        avg_logprob: mean log-probability per token.
        compression_ratio: bytes of text over its bytes after zlib; high means repetition.
        advance: seconds of the samples that the segments account for; where the next window may
            begin (as Whisper's ``seek`` moves).
        passes: forward passes of the decoder that it took.
        temperature: the sampling temperature of the accepted attempt.
        stopped: why decoding ended: "end" (the model said so), "attention" (``AttentionStop``),
            "rewind" (likewise, the new tokens were thrown away), "repeat" (likewise, the text began
            to say again what was said) or "limit" (too many tokens).
        dropped: the token that decoding ended at and that is not among ``tokens``: with "attention"
            the one that came from too near to the end, with "repeat" the one that went back, with
            "end" the end-of-text token; None else, and where no ``AttentionStop`` was asked for.
        removed: what guards took away, a line each.
        timing: where the time went.
    """

    request_id: int
    tokens: tuple[Token, ...] = ()
    segments: tuple[Segment, ...] = ()
    language: str = "en"
    no_speech_prob: float = 0.0
    avg_logprob: float = 0.0
    compression_ratio: float = 1.0
    advance: float = 0.0
    passes: int = 0
    temperature: float = 0.0
    stopped: str = "end"
    dropped: Token | None = None
    removed: tuple[str, ...] = ()
    timing: Timing = Timing()

    @property
    def text(self) -> str:
        """The segments' text, joined as Whisper joins it."""
        return "".join(segment.text for segment in self.segments)
