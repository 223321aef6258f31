"""The ``alignatt`` policy: decoding stops where the attention reaches the end of the audio.

Papi et al., "AlignAtt" (arXiv 2305.11408), for Whisper: Simul-Whisper (arXiv 2406.10052). Every
half second the audio so far is decoded again, but the decoder is made to repeat the words that are
final already and only goes on from there. Each token attends to some frame of the audio; one that
attends to the very end may be half a word, so it waits for the next update. What is given is final
at once.

The last word of an update waits too, unless it is known to be complete: the token behind it, which
was dropped, begins another word, or the model ended the text there. So no half word and no half
UTF-8 sequence is ever final.

When the buffer is full, the words at its beginning become the model's context, and their audio
goes; the cut is at the end of a word. Where there is nothing to cut at, everything is made final as
at a stop. The buffer holds at most 30 s, the words of it and 200 tokens of context.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aii.errors import ConfigError
from aii.streaming.events import Event, Final, Partial
from aii.streaming.guards import LIMIT, find_loop
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
from aii.streaming.vocabulary import STEP
from aii.types import SAMPLE_RATE, AttentionStop, DecodeRequest, Hypothesis, Token, Word

CONTEXT = 200
"""Tokens of text before the buffer that are given to the model."""

FORCED = 180
"""Tokens that the model is made to repeat, before the buffer is shortened."""

LOOKED_AT = 40
"""Final words in which a loop is looked for together with the new ones."""

FRAME_TIME = STEP / SAMPLE_RATE
"""Seconds per frame of the encoder."""

PATIENCE = 4
"""Updates in a row that may end in a repetition without giving a word: behind them the model is
let go on, as what it says is all that there is."""

LONGEST_WORD = 25
"""Frames that a word is said to last at most when only one frame of each token is known."""

KEPT = SAMPLE_RATE
"""Samples at the end of a pause that stay in the buffer, for a word that begins there."""

MARGIN = SAMPLE_RATE // 10
"""Samples that are kept before the first word of a shortened buffer."""


@dataclass(frozen=True)
class AlignAttSettings:
    """How the ``alignatt`` policy listens.

    Attributes:
        step: seconds of new audio between two updates.
        buffer: seconds of audio decoded at most.
        threshold: frames of 20 ms before the end of the audio whose words are not given yet.
        last_threshold: the same at a stop.
        rewind: frames back from the word before at which new tokens are taken for a lapse; None
            never does.
        hold: keep back a last word that may be unfinished.
        pause: seconds without a new word after which the words before leave the buffer.
        beams: beams of the decoder; None is greedy.

    Raises:
        ConfigError: a buffer of more than 30 s, or numbers that mean nothing.
    """

    step: float = 0.5
    buffer: float = 28.0
    threshold: int = 25
    last_threshold: int = 4
    rewind: int | None = 200
    hold: bool = True
    pause: float = 2.0
    beams: int | None = None

    def __post_init__(self) -> None:
        if self.pause < 1.2 or (self.rewind is not None and self.rewind < 0):
            raise ConfigError("a pause is at least 1.2 s, and a rewind at least 0 frames")
        if not (self.step_samples >= FRAME and self.buffer > 0 and self.buffer + self.step <= 29.9):
            raise ConfigError(
                f"updates every {self.step:g} s and a buffer of {self.buffer:g} s do not go "
                "together; both must be above 0 s and at most 29.9 s in all"
            )
        if min(self.threshold, self.last_threshold) < 0 or (
            self.beams is not None and self.beams < 1
        ):
            raise ConfigError("thresholds must be at least 0 frames, beams at least 1")

    @property
    def step_samples(self) -> int:
        """``step`` in whole mel frames."""
        return round(self.step * 100) * FRAME


@dataclass(frozen=True)
class _Spoken:
    """A word with its tokens, and the first and last position that they attend to."""

    word: Word
    tokens: tuple[int, ...]
    first: int
    last: int


class AlignAttPolicy(UpdatePolicy):
    """See the module."""

    def __init__(self, context: CallContext, settings: AlignAttSettings) -> None:
        super().__init__(context, settings.step_samples)
        self._settings = settings
        self._forced: list[_Spoken] = []  # final, and their audio is in the buffer
        self._before: list[tuple[int, ...]] = []  # tokens of final words before the buffer
        self._recent: list[str] = []  # the last final words, to find loops in
        self._held: list[Word] = []  # what waited at the last update
        self._attended = 0  # position that the last final token attends to
        self._ended = 0.0  # end of the last final word
        self._stuck = 0  # updates without a word that ended in a repetition

    # Asking.

    def _request(self, update: Update, audio: CallAudio, now: float) -> DecodeRequest:
        settings, context = self._settings, self._context
        prefix = tuple(token for spoken in self._forced for token in spoken.tokens)
        new = (update.end - max(self._attended, update.start)) / SAMPLE_RATE
        stop = AttentionStop(
            threshold=settings.last_threshold if update.last else settings.threshold,
            last_frame=max(self._attended - update.start, 0) // STEP,
            rewind=None if update.last else settings.rewind,
            max_tokens=context.guards.cap(new),
            repeats=context.guards.repeat and self._stuck < PATIENCE,
        )
        options: dict[str, object] = {
            "initial_prompt": context.prompt,
            "suppress_blank": False,  # nothing new may have been said
        }
        if settings.beams is not None:
            options["beam_size"] = settings.beams
        return context.request(
            audio.read(update.start, update.end),
            update.start,
            now,
            urgent=update.last,
            prompt=[t for word in self._before for t in word] if context.condition else (),
            prefix=prefix,
            stop=stop,
            options=options,
        )

    # Hearing.

    def _heard(self, update: Update, hypothesis: Hypothesis, audio: CallAudio) -> list[Event]:
        removed = list(hypothesis.removed)
        tokens = self._unsilenced(hypothesis, removed)
        if tokens:
            self._settle(update, hypothesis)
        words = self._words(update, tokens, hypothesis)
        kept = len(words) if update.last else self._complete(words, tokens, hypothesis)
        final, held = words[:kept], words[kept:]
        repeats = hypothesis.stopped == "repeat"
        if repeats and hypothesis.dropped is not None:
            again = self._context.vocabulary.text([hypothesis.dropped.id]).strip()
            removed.append(f"repeat: {again}, heard before")
        self._stuck = self._stuck + 1 if repeats and not final else 0
        looped = self._loop(final, removed)
        if looped is not None:
            final, held = final[:looped], []
        self._held = [spoken.word for spoken in held]
        events = self._events(update, hypothesis, final, held, removed)
        self._commit(final)
        if looped is not None:
            self._start_over(audio)
        if not update.last:
            self._make_room(update, audio, _following(update, held, hypothesis))
        return events

    def _unsilenced(self, hypothesis: Hypothesis, removed: list[str]) -> tuple[Token, ...]:
        """The new tokens, unless the model thinks that nobody speaks."""
        guards, vocabulary = self._context.guards, self._context.vocabulary
        tokens = hypothesis.tokens
        if hypothesis.stopped == "limit":
            removed.append(LIMIT)
        if not tokens or guards.no_speech is None or guards.logprob is None:
            return tokens
        if (
            hypothesis.no_speech_prob <= guards.no_speech
            or hypothesis.avg_logprob >= guards.logprob
        ):
            return tokens
        said = " ".join(vocabulary.text(token.id for token in tokens).split())
        removed.append(f"no-speech: {said[:200]}")
        return ()

    def _words(
        self, update: Update, tokens: Sequence[Token], hypothesis: Hypothesis
    ) -> list[_Spoken]:
        """The words of new tokens; bytes at the end that are no whole character are none."""
        found = self._context.vocabulary.words([t.id for t in tokens], hypothesis.language)
        origin, limit = update.start / SAMPLE_RATE, update.end / SAMPLE_RATE
        runs, place = [], 0
        for _, ids in found:
            runs.append(tokens[place : place + len(ids)])
            place += len(ids)
        frames = [[token.frame or 0 for token in run] for run in runs]
        spans = [_span(run) for run in runs]
        spoken: list[_Spoken] = []
        time = self._ended
        for i, (text, ids) in enumerate(found):
            begin = clamp(origin + spans[i][0] * FRAME_TIME, time, limit)
            end = origin + spans[i][1] * FRAME_TIME
            if i + 1 < len(found):
                end = min(end, origin + spans[i + 1][0] * FRAME_TIME)
            time = clamp(end, begin, limit)
            word = Word(text, begin, time, _probability(runs[i]))
            places = (update.start + frame * STEP for frame in (min(frames[i]), max(frames[i])))
            spoken.append(_Spoken(word, ids, *places))
        return spoken

    def _complete(
        self, words: Sequence[_Spoken], tokens: Sequence[Token], hypothesis: Hypothesis
    ) -> int:
        """How many of the words are certainly finished: all, or all but the last."""
        whole = sum(len(spoken.tokens) for spoken in words) == len(tokens)
        if not words or not self._settings.hold:
            return len(words)
        if whole and hypothesis.stopped == "end":
            return len(words)
        dropped = hypothesis.dropped
        if whole and hypothesis.stopped == "attention" and dropped is not None:
            following = self._context.vocabulary.begins_word(dropped.id, hypothesis.language)
            return len(words) if following else len(words) - 1
        return len(words) - 1

    # Committing.

    def _events(
        self,
        update: Update,
        hypothesis: Hypothesis,
        final: Sequence[_Spoken],
        held: Sequence[_Spoken],
        removed: Sequence[str],
    ) -> list[Event]:
        """A final for what is complete, a partial for what is not."""
        first, limit = self._said, update.end / SAMPLE_RATE
        costs: dict[str, Any] = {
            "work": work_of(hypothesis, update.end - update.start),
            "removed": tuple(removed),
        }
        events: list[Event] = []
        if final or update.last:
            end = limit if update.last else clamp(final[-1].word.end, first, limit)
            fields = heard_by([spoken.word for spoken in final], first, end, hypothesis)
            events.append(Final(**fields, **costs, reason=update.reason or "agreement"))
            first, costs = end, {}
            self._said = end
        if not update.last and (held or not events):
            fields = heard_by([spoken.word for spoken in held], first, limit, hypothesis)
            events.append(Partial(**fields, **costs))
        return events

    def _commit(self, final: Sequence[_Spoken]) -> None:
        if final:
            self._forced += final
            self._recent = [*self._recent, *(spoken.word.text for spoken in final)][-LOOKED_AT:]
            self._ended = final[-1].word.end
            self._attended = final[-1].last

    def _loop(self, final: Sequence[_Spoken], removed: list[str]) -> int | None:
        """How many of the new words to keep when they complete a loop; None without a loop."""
        guards = self._context.guards
        if not guards.loop or not final:
            return None
        words = [*self._recent, *(spoken.word.text for spoken in final)]
        keep = find_loop(words, guards)
        if keep is None:
            return None
        new = max(keep - len(self._recent), 0)
        text = "".join(spoken.word.text for spoken in final[new:])
        if not text:
            return None
        removed.append(f"loop: {' '.join(text.split())[:200]}")
        return new

    # The buffer.

    def _start_over(self, audio: CallAudio) -> None:
        """After a loop: what is final is neither repeated nor context for what follows."""
        position = round(self._ended * SAMPLE_RATE / FRAME) * FRAME
        audio.drop_to(int(clamp(position, audio.start, audio.end)))
        self._forced, self._before, self._recent = [], [], []

    def _make_room(self, update: Update, audio: CallAudio, following: int) -> None:
        """Let the beginning of a full buffer go, with its words, or make everything final.

        ``following`` is where the first word begins that is not final.
        """
        full = update.end - audio.start > self._settings.buffer * SAMPLE_RATE
        tokens = sum(len(spoken.tokens) for spoken in self._forced)
        if self._forced and update.end - self._attended > self._settings.pause * SAMPLE_RATE:
            self._let_go(len(self._forced), audio, following)
            return
        if not full and tokens <= FORCED and self._has_room(update, audio):
            return
        middle = audio.start + (update.end - audio.start) // 2
        count = sum(1 for spoken in self._forced if spoken.last <= middle)
        if tokens > FORCED:
            count = max(count, len(self._forced) // 2)
        if self._forced:
            self._let_go(count, audio, following)
        if not self._forced or not self._has_room(update, audio):
            self._stops.appendleft((update.end, "reset"))

    def _let_go(self, count: int, audio: CallAudio, following: int) -> None:
        """Drop the audio of the first ``count`` words; they are context from now on.

        The cut is shortly before the next word: rather a remnant of the last one stays than that
        the next one loses its beginning.
        """
        gone, self._forced = self._forced[:count], self._forced[count:]
        self._remember(gone)
        following = self._forced[0].first if self._forced else following
        end = max(following - MARGIN, (gone[-1].last + following) // 2 if gone else 0)
        audio.drop_to(int(clamp(end // FRAME * FRAME, audio.start, audio.end)))

    def _lost(self, update: Update, line: str) -> Final:
        """What waited is all that is known."""
        return Final(
            start=self._said,
            end=update.end / SAMPLE_RATE,
            segments=phrase(self._held),
            language=self._context.language,
            reason="error",
            error=line,
        )

    def _remember(self, gone: Sequence[_Spoken]) -> None:
        """Words whose audio goes are context; the oldest whole words give way to them."""
        self._before += [spoken.tokens for spoken in gone]
        excess = sum(map(len, self._before)) - CONTEXT
        first = 0
        while excess > 0:
            excess -= len(self._before[first])
            first += 1
        del self._before[:first]

    def _forget(self) -> None:
        self._remember(self._forced)
        self._forced, self._held = [], []
        base = self._base or 0
        self._attended, self._ended = base, base / SAMPLE_RATE


def _following(update: Update, held: Sequence[_Spoken], hypothesis: Hypothesis) -> int:
    """Where the first word begins that is not final; shortly before the end where none is heard."""
    if held:
        return held[0].first
    dropped = hypothesis.dropped
    if hypothesis.stopped != "attention" or dropped is None or dropped.frame is None:
        return update.end - KEPT
    return update.start + dropped.frame * STEP


def _span(tokens: Sequence[Token]) -> tuple[int, int]:
    """First frame of a word's tokens, and the one behind its last."""
    spans = [
        (token.span[0], token.span[1] + 1)
        if token.span is not None
        else (token.frame or 0, (token.frame or 0) + LONGEST_WORD)
        for token in tokens
    ]
    return min(first for first, _ in spans), max(last for _, last in spans)


def _probability(tokens: Sequence[Token]) -> float | None:
    """Mean probability of a word's tokens; None where it is not known."""
    known = [math.exp(token.logprob) for token in tokens if token.logprob is not None]
    return sum(known) / len(known) if known else None
