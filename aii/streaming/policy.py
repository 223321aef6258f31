"""The interface of a streaming policy, and what a policy knows about its call.

A policy decides which samples are decoded when, with which context, and what of the answer is
final. It owns no audio, no clock and no engine: the audio and the time are handed to it, requests
and events come out. The session guarantees that at most one request is out at a time, and hands
each answer back exactly once, as ``accept``, ``fail`` or ``refuse``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from aii.audio.buffer import AudioBuffer
from aii.streaming.drafts import Draft
from aii.streaming.events import Event, Work
from aii.streaming.guards import Guarded, GuardSettings, guard
from aii.streaming.vocabulary import Vocabulary
from aii.types import (
    SAMPLE_RATE,
    AttentionStop,
    DecodeRequest,
    Hypothesis,
    Samples,
    Segment,
    Word,
)

FRAME = 160
"""Samples per mel frame (10 ms): a shorter rest of audio holds no frame and is never decoded."""

LONGEST = 30 * SAMPLE_RATE
"""Samples that a model takes at once."""


class CallAudio:
    """What a policy sees of a call's audio: the buffer's samples, up to ``limit`` if there is one.

    With voice activity the limit keeps back what nobody has judged yet and what follows the end of
    the utterance.
    """

    def __init__(self, start: int = 0) -> None:
        self.buffer = AudioBuffer(start)
        self.limit: int | None = None

    @property
    def start(self) -> int:
        """Position of the first sample kept."""
        return self.buffer.start

    @property
    def end(self) -> int:
        """Position after the last sample that may be decoded."""
        end = self.buffer.end
        return end if self.limit is None else max(min(self.limit, end), self.buffer.start)

    def __len__(self) -> int:
        """Samples that may be decoded."""
        return self.end - self.start

    def read(self, start: int, end: int) -> Samples:
        """See :meth:`aii.audio.buffer.AudioBuffer.read`."""
        return self.buffer.read(start, end)

    def drop_to(self, position: int) -> None:
        """See :meth:`aii.audio.buffer.AudioBuffer.drop_to`."""
        self.buffer.drop_to(position)


@dataclass
class CallContext:
    """What a policy needs to write a request for its call.

    Attributes:
        call_id: whose requests they are.
        ids: source of request ids, unique in the process.
        language: code, or None until it has been detected.
        task: "transcribe" or "translate".
        options: decoding options for every request, by name.
        objective: seconds within which an answer is wanted that is not ``urgent``.
        prompt: text for the model to know names and spellings by, or "".
        words: which results get word times: "none", "final", "all"; policies that commit words
            always have them.
        condition: give the committed text to the model as prompt.
        guards: what is looked for in every answer.
        drafts: whether the answer before helps to decode the next.
        vocabulary: the model's.
    """

    call_id: str
    ids: Iterator[int]
    language: str | None = None
    task: str = "transcribe"
    options: Mapping[str, object] = field(default_factory=dict)
    objective: float = 1.0
    prompt: str = ""
    words: str = "final"
    condition: bool = True
    guards: GuardSettings = field(default_factory=GuardSettings)
    drafts: bool = True
    vocabulary: Vocabulary = field(default_factory=Vocabulary)

    def draft(self) -> Draft:
        """A fresh memory for drafts; none are made where they are switched off or cannot help.

        Beams and sampling do not take them.
        """
        greedy = self.options.get("beam_size") is None
        return Draft(self.vocabulary, used=self.drafts and greedy)

    def request(
        self,
        samples: np.ndarray | Samples,
        start: int,
        now: float,
        *,
        prompt: Sequence[int] = (),
        prefix: Sequence[int] = (),
        draft: Sequence[int] | None = None,
        stop: AttentionStop | None = None,
        options: Mapping[str, object] | None = None,
        urgent: bool = False,
    ) -> DecodeRequest:
        """A request for ``samples``, the first of which has position ``start`` in the call.

        ``urgent`` ones, the finals, go before all others: they are wanted ``now``.
        """
        guarding = self.guards.options(len(samples) / SAMPLE_RATE)
        return DecodeRequest(
            request_id=next(self.ids),
            call_id=self.call_id,
            samples=samples,
            start=start / SAMPLE_RATE,
            language=self.language,
            task=self.task,
            prompt=tuple(prompt),
            prefix=tuple(prefix),
            draft=None if draft is None else tuple(draft),
            stop=stop,
            options={**guarding, **self.options, **(options or {})},
            deadline=now if urgent else now + self.objective,
        )

    def settle(self, language: str) -> None:
        """Keep the language that was detected for the rest of the call."""
        if self.language is None:
            self.language = language

    def guarded(self, hypothesis: Hypothesis) -> Guarded:
        """What the guards leave of an answer."""
        text = "" if hypothesis.segments else self.vocabulary.text(t.id for t in hypothesis.tokens)
        return guard(hypothesis, self.guards, text=text)


class Policy(Protocol):
    """When to decode and what to commit. Events come without call id, number and leg."""

    @property
    def done(self) -> bool:
        """Whether the call has ended and nothing of its audio is left to decode."""

    @property
    def idle(self) -> bool:
        """Whether no request is out and nothing must be made final."""

    def notice(self, audio: CallAudio, now: float) -> None:
        """So much audio is there at the clock's ``now``; called even while a request is out."""

    def next_request(self, audio: CallAudio, now: float) -> DecodeRequest | None:
        """What is to be decoded now, or None. Not called while a request is out."""

    def accept(self, hypothesis: Hypothesis, audio: CallAudio) -> list[Event]:
        """The answer to the request that is out; drops from ``audio`` what is committed."""

    def fail(self, error: BaseException, audio: CallAudio) -> list[Event]:
        """The request that is out failed in the engine."""

    def refuse(self) -> None:
        """The engine had no room for the request; forget it, as if it had never been made."""

    def begin(self, audio: CallAudio) -> None:
        """An utterance begins at ``audio.start``, with silence before it. Called while idle."""

    def stop(self, audio: CallAudio, position: int, reason: str) -> None:
        """Everything up to ``position`` is wanted now, as finals; the last one for ``reason``."""

    def finish(self, audio: CallAudio) -> None:
        """No more audio comes: everything up to ``audio.end`` is wanted, and the policy done."""


# -- what policies share ----------------------------------------------------------------------


def work_of(hypothesis: Hypothesis, samples: int) -> Work:
    """What an answer to ``samples`` cost."""
    timing = hypothesis.timing
    return Work(timing.computed, timing.queued, samples / SAMPLE_RATE, hypothesis.passes)


def one_line(error: BaseException) -> str:
    """An error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def clamp(value: float, least: float, most: float) -> float:
    """``value``, or the nearest that lies between ``least`` and ``most``."""
    return min(max(value, least), most)


def phrase(words: Sequence[Word]) -> tuple[Segment, ...]:
    """Words as one segment; none where there are no words."""
    if not words:
        return ()
    text = "".join(word.text for word in words)
    return (Segment(words[0].start, words[-1].end, text, words=tuple(words)),)


def heard_by(
    words: Sequence[Word], start: float, end: float, hypothesis: Hypothesis
) -> dict[str, Any]:
    """The fields of a final or partial that says ``words`` between two times of the call."""
    return {
        "start": start,
        "end": end,
        "segments": phrase(words),
        "language": hypothesis.language,
    }
