"""The ``local-agreement`` policy: a word is final once two updates in a row have heard it.

Each second the whole buffer is decoded anew, with word times. What the transcript and the one
before it have in common behind the words that are already final becomes final; the rest is shown as
partial (``agreement.py``). When the buffer passes 15 s, what is final leaves it, at the end of a
segment if there is one, and then helps as prompt: the last 200 characters that ended before the
buffer begins. Words that are final but still in the buffer are never prompted: the model hears
them.

A stop decodes once more and makes everything final. Nothing is ever dropped that was not decoded
and either made final or heard as silence: where a speaker runs on for 15 s without agreement, the
words of the first half become final as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from aii.errors import ConfigError
from aii.streaming.agreement import Agreement
from aii.streaming.events import Event, Final, Partial, Work
from aii.streaming.policy import (
    FRAME,
    CallAudio,
    CallContext,
    clamp,
    heard_by,
    phrase,
    work_of,
)
from aii.streaming.updates import Update, UpdatePolicy
from aii.types import SAMPLE_RATE, DecodeRequest, Hypothesis, Word

PROMPTED = 200
"""Characters of final text that are given to the model."""

ROOM = 223
"""Prompt tokens that Whisper takes."""


@dataclass(frozen=True)
class AgreementSettings:
    """How the ``local-agreement`` policy listens.

    Attributes:
        step: seconds of new audio between two updates.
        trim: seconds of buffer above which final text leaves it.

    Raises:
        ConfigError: the buffer would grow beyond 30 s.
    """

    step: float = 1.0
    trim: float = 15.0

    def __post_init__(self) -> None:
        if not (self.step_samples >= FRAME and self.trim > 0 and self.trim + self.step <= 29.9):
            raise ConfigError(
                f"updates every {self.step:g} s and a buffer of {self.trim:g} s do not go "
                "together; both must be above 0 s and at most 29.9 s in all"
            )

    @property
    def step_samples(self) -> int:
        """``step`` in whole mel frames."""
        return round(self.step * 100) * FRAME


@dataclass
class _Answer:
    """An answer on its way to events."""

    update: Update
    hypothesis: Hypothesis
    removed: tuple[str, ...]
    work: Work
    events: list[Event] = field(default_factory=list)


class LocalAgreementPolicy(UpdatePolicy):
    """See the module."""

    def __init__(self, context: CallContext, settings: AgreementSettings) -> None:
        super().__init__(context, settings.step_samples)
        self._settings = settings
        self._agreement = Agreement()
        self._draft = context.draft()
        self._text = ""  # the end of what is final and no longer in the buffer

    def _request(self, update: Update, audio: CallAudio, now: float) -> DecodeRequest:
        options: dict[str, object] = {"keep_tail": True, "word_timestamps": True}
        if not update.last:  # the next update is another attempt
            options["temperatures"] = (0.0,)
        return self._context.request(
            audio.read(update.start, update.end),
            update.start,
            now,
            urgent=update.last,
            prompt=self._prompt(),
            draft=self._draft.at(update.start),
            options=options,
        )

    def _prompt(self) -> tuple[int, ...]:
        """The call's own prompt, then as much of the text before the buffer as there is room for.

        The text begins at a word.
        """
        fixed = self._context.vocabulary.encode(self._context.prompt)[-ROOM:]
        if not self._context.condition:
            return fixed
        text = self._text[-PROMPTED:]
        if len(self._text) > PROMPTED and " " in text:
            text = text[text.index(" ") :]
        words = self._context.vocabulary.words(self._context.vocabulary.encode(text))
        before: tuple[int, ...] = ()
        for _, tokens in reversed(words):
            if len(fixed) + len(tokens) + len(before) > ROOM:
                break
            before = (*tokens, *before)
        return (*fixed, *before)

    def _heard(self, update: Update, hypothesis: Hypothesis, audio: CallAudio) -> list[Event]:
        self._draft.keep([token.id for token in hypothesis.tokens], update.start)
        guarded = self._context.guarded(hypothesis)
        if guarded.looped:
            copied, self._text = self._text, ""
            if update.last and copied and not update.again:
                self._ask_again(update)
                return []
        if guarded.segments:
            self._settle(update, hypothesis)
        limits = update.start / SAMPLE_RATE, update.end / SAMPLE_RATE
        words = [
            replace(word, start=clamp(word.start, *limits), end=clamp(word.end, *limits))
            for segment in guarded.segments
            for word in segment.words
        ]
        answer = _Answer(
            update, hypothesis, guarded.removed, work_of(hypothesis, update.end - update.start)
        )
        done = self._agreement.update(words)
        if update.last:
            self._say(
                answer, [*done, *self._agreement.commit(len(self._agreement.tail))], update.reason
            )
            return answer.events
        if done:
            self._say(answer, done, "agreement")
        self._trim(answer, [segment.end for segment in guarded.segments], audio)
        tail = self._agreement.tail
        if tail or not answer.events:
            self._say(answer, tail, "")
        return answer.events

    def _say(self, answer: _Answer, words: list[Word], reason: str) -> None:
        """Add a final of ``words``, or with no reason a partial; the first one has the costs."""
        first = self._said
        limit = answer.update.end / SAMPLE_RATE
        end = limit if reason in ("", answer.update.reason) else clamp(words[-1].end, first, limit)
        fields = heard_by(words, first, end, answer.hypothesis)
        if not answer.events:
            fields |= {"work": answer.work, "removed": answer.removed}
        if not reason:
            answer.events.append(Partial(**fields))
            return
        answer.events.append(Final(**fields, reason=reason))
        self._said = end

    # The buffer.

    def _trim(self, answer: _Answer, ends: list[float], audio: CallAudio) -> None:
        """Shorten the buffer once it is too long; what was not agreed on there becomes final."""
        update, agreement = answer.update, self._agreement
        length = (update.end - audio.start) / SAMPLE_RATE
        if length <= self._settings.trim:
            return
        begin = audio.start / SAMPLE_RATE
        whole = [end for end in ends[:-1] if begin < end <= agreement.said]
        if whole:
            self._cut(max(whole), audio)
        elif agreement.said <= begin:  # no agreement in all of it
            middle = begin + length / 2
            done = agreement.commit_until(middle)
            if done:
                self._say(answer, done, "reset")
            self._cut(done[-1].end if done else self._quiet_until(middle), audio)
        if not self._has_room(update, audio):
            if agreement.said > audio.start / SAMPLE_RATE:
                self._cut(agreement.said, audio)
            if not self._has_room(update, audio):  # one word without end, or next to it
                done = agreement.commit(len(agreement.tail))
                if done:
                    self._say(answer, done, "reset")
                self._cut(update.end / SAMPLE_RATE, audio)

    def _quiet_until(self, time: float) -> float:
        """The latest moment up to ``time`` at which no word of the tail has begun."""
        return min([time, *(word.start for word in self._agreement.tail[:1])])

    def _cut(self, time: float, audio: CallAudio) -> None:
        """The buffer begins at ``time`` from now on; what was final before it may be prompted."""
        position = round(time * SAMPLE_RATE / FRAME) * FRAME
        audio.drop_to(min(max(position, audio.start), audio.end))
        gone = self._agreement.drop_to(audio.start / SAMPLE_RATE)
        self._text = (self._text + "".join(word.text for word in gone))[-2 * PROMPTED :]

    def _lost(self, update: Update, line: str) -> Final:
        """The tail is what is known."""
        tail = self._agreement.commit(len(self._agreement.tail))
        return Final(
            start=self._said,
            end=update.end / SAMPLE_RATE,
            segments=phrase(tail),
            language=self._context.language,
            reason="error",
            error=line,
        )

    def _forget(self) -> None:
        agreement = self._agreement
        gone = "".join(word.text for word in agreement.committed)
        self._text = (self._text + gone)[-2 * PROMPTED :]
        agreement.begin((self._base or 0) / SAMPLE_RATE)
        self._draft.keep((), 0)
