"""The ``window`` policy: the whole buffer again at each 5 s mark, final at 30 s.

Window k covers the samples from the buffer's start to exactly k * 5 s, whatever the sizes of the
reads. The result at 30 s is final. With ``carry`` the buffer then goes on behind the last segment
that was spoken to its end (``Hypothesis.advance``), and the committed tokens are the next windows'
prompt: the walk over the audio that ``aii.transcribe`` does over a file without word times, so a
call's finals are the words that it finds in the same audio. (With word times ``aii.transcribe``,
as openai-whisper, begins the next window where the last word ended. Here they never move a window:
a call's text is the same with and without them, and times that reach beyond what is committed are
cut there, so that no final begins before the one before it ends.) With ``hard`` the buffer is
cleared.

Which samples the finals are decoded from depends on the audio and on flushes alone. Time only
decides which of the windows in between are shown: when the engine is behind, marks are skipped (a
``Skipped`` event says so), the next one covers their audio.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from aii.errors import ConfigError
from aii.streaming.events import Event, Final, Partial, Skipped
from aii.streaming.guards import Guarded
from aii.streaming.policy import FRAME, CallAudio, CallContext, clamp, one_line, work_of
from aii.types import SAMPLE_RATE, DecodeRequest, Hypothesis, Segment

KEPT_PROMPT = 1024
"""Committed tokens kept as context; the decoder uses the last ``n_text_ctx // 2 - 1`` of them."""

HOT = 0.5
"""Text sampled at a higher temperature than this is no context for what follows (as Whisper)."""


@dataclass(frozen=True)
class WindowSettings:
    """How the ``window`` policy cuts a call.

    Attributes:
        window: seconds of new audio between two looks at the buffer.
        reset: seconds after which the result is final, at most 30.
        carry: at a reset go on behind the last whole segment; False cuts hard.

    Raises:
        ConfigError: no window can be cut so.
    """

    window: float = 5.0
    reset: float = 30.0
    carry: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.window_samples <= self.reset_samples <= 30 * SAMPLE_RATE:
            raise ConfigError(
                f"a window of {self.window:g} s and a reset after {self.reset:g} s do not go "
                "together; the window must be above 0 s and at most the reset, the reset at most "
                "30 s, in steps of 0.01 s"
            )

    @property
    def window_samples(self) -> int:
        """``window`` in whole mel frames."""
        return round(self.window * 100) * FRAME

    @property
    def reset_samples(self) -> int:
        """``reset`` in whole mel frames."""
        return round(self.reset * 100) * FRAME


@dataclass(frozen=True)
class _Asked:
    """The request that is out."""

    start: int
    end: int
    reason: str  # of the final, "" for a partial
    mark_before: int
    again: bool = False


class WindowPolicy:
    """See the module."""

    def __init__(self, context: CallContext, settings: WindowSettings) -> None:
        self._context = context
        self._settings = settings
        self._window = settings.window_samples
        self._reset = settings.reset_samples
        self._mark = 0  # marks of this buffer already asked for (or skipped)
        self._first = 1  # first mark whose omission is worth an event
        self._stops: deque[tuple[int, str]] = deque()  # positions where a final must end
        self._over = False
        self._asked: _Asked | None = None
        self._failed: _Asked | None = None  # a final that is to be tried once more
        self._prompt: list[int] = []
        self._text = context.prompt
        self._draft = context.draft()
        self._looped = False  # the final before was cut at a loop
        self._shown: Partial | None = None  # of this buffer

    @property
    def done(self) -> bool:
        """Whether the call is over and all of it is committed."""
        return self._over and self.idle

    @property
    def idle(self) -> bool:
        """Whether no request is out and nothing must be made final."""
        return not self._stops and self._asked is None and self._failed is None

    def notice(self, audio: CallAudio, now: float) -> None:
        """Finals do not depend on time, and partials only on what is there."""

    def next_request(self, audio: CallAudio, now: float) -> DecodeRequest | None:
        """A final whose end has come, else the window up to a new 5 s mark, else None."""
        asked = self._failed or self._final(audio) or self._partial(audio)
        if asked is None:
            return None
        self._failed, self._asked = None, asked
        final = asked.reason != ""
        if not final:
            self._mark = (asked.end - asked.start) // self._window
        words = self._context.words
        return self._context.request(
            audio.read(asked.start, asked.end),
            asked.start,
            now,
            urgent=final,
            prompt=self._prompt,
            draft=self._draft.at(asked.start),
            options={
                "initial_prompt": self._text,
                "keep_tail": not (final and self._settings.carry),
                "word_timestamps": words == "all" or (words == "final" and final),
            },
        )

    def accept(self, hypothesis: Hypothesis, audio: CallAudio) -> list[Event]:
        """One partial or final; a final moves the buffer's start to where it ends."""
        asked = self._take()
        final = asked.reason != ""
        self._draft.keep([token.id for token in hypothesis.tokens], asked.start)
        guarded = self._context.guarded(hypothesis)
        if guarded.looped and self._unprompted() and final and not asked.again:
            self._failed = replace(asked, again=True)
            return []
        end = self._committed(asked, hypothesis, guarded) if final else asked.end
        span = asked.start / SAMPLE_RATE, end / SAMPLE_RATE
        heard: dict[str, Any] = {
            "start": span[0],
            "end": span[1],
            "segments": tuple(_within(segment, *span) for segment in guarded.segments),
            "language": hypothesis.language,
            "work": work_of(hypothesis, asked.end - asked.start),
            "removed": guarded.removed,
        }
        skipped = self._skips(asked)
        if not final:
            self._shown = Partial(**heard)
            return [*skipped, self._shown]
        self._remember(hypothesis, guarded)
        self._restart(asked, end, audio)
        return [*skipped, Final(**heard, reason=asked.reason)]

    def fail(self, error: BaseException, audio: CallAudio) -> list[Event]:
        """A partial is left out; a final is tried once more, then it is what was shown last, if
        anything, and says why."""
        asked = self._take()
        line = one_line(error)
        start, end = asked.start / SAMPLE_RATE, asked.end / SAMPLE_RATE
        if asked.reason == "":
            return [*self._skips(asked), Skipped(start=start, end=end, reason=f"error: {line}")]
        if not asked.again:
            self._failed = replace(asked, again=True)
            return []
        shown = self._shown or Partial(language=self._context.language)
        self._restart(asked, asked.end, audio)
        final = Final(
            start=start,
            end=end,
            segments=shown.segments,
            language=shown.language,
            reason="error",
            error=line,
        )
        return [*self._skips(asked), final]

    def refuse(self) -> None:
        """The request never was; the next one may reach further."""
        asked = self._take()
        self._mark = asked.mark_before
        if asked.again:
            self._failed = asked

    def begin(self, audio: CallAudio) -> None:
        """Windows count from here: what was shown before the silence is final."""
        self._mark, self._first = 0, 1
        self._shown = None
        self._draft.keep((), 0)

    def stop(self, audio: CallAudio, position: int, reason: str) -> None:
        """Everything up to ``position`` becomes final, by as many windows as it takes."""
        if not self._stops or self._stops[-1][0] != position:  # twice in a row is once
            self._stops.append((position, reason))
        if self._asked is None and self._failed is None:
            self._pass_stops(audio)

    def finish(self, audio: CallAudio) -> None:
        """The last window ends here."""
        self._over = True
        self.stop(audio, audio.end, "hangup")

    def _pass_stops(self, audio: CallAudio) -> None:
        """Forget the stops that the buffer's start has reached."""
        while self._stops and self._stops[0][0] - audio.start < FRAME:
            self._stops.popleft()

    def _final(self, audio: CallAudio) -> _Asked | None:
        """The window that must be final, if its end has come."""
        start, full = audio.start, audio.start + self._reset
        if self._stops and self._stops[0][0] < full:
            return _Asked(start, *self._stops[0], self._mark)
        if audio.end >= full:
            return _Asked(start, full, "reset", self._mark)
        return None

    def _partial(self, audio: CallAudio) -> _Asked | None:
        """The window up to the last 5 s mark, if it is a new one."""
        mark = len(audio) // self._window
        if mark <= self._mark:
            return None
        return _Asked(audio.start, audio.start + mark * self._window, "", self._mark)

    def _take(self) -> _Asked:
        asked, self._asked = self._asked, None
        if asked is None:
            raise RuntimeError("no request is out")
        return asked

    def _skips(self, asked: _Asked) -> list[Event]:
        """What to say of the marks between the last one asked for and this one."""
        first = max(asked.mark_before + 1, self._first)
        last = (asked.end - asked.start - 1) // self._window  # the last mark inside
        if last < first:
            return []
        begin, end = (asked.start + (first - 1) * self._window, asked.start + last * self._window)
        return [
            Skipped(
                start=begin / SAMPLE_RATE,
                end=end / SAMPLE_RATE,
                reason="behind",
                windows=last - first + 1,
            )
        ]

    def _committed(self, asked: _Asked, hypothesis: Hypothesis, guarded: Guarded) -> int:
        """Position up to which a final accounts for the audio; at least one frame further.

        What lies behind a loop is decoded anew, as a window of its own, but only once.
        """
        cut = None if guarded.end is None else round(guarded.end * 100) * FRAME
        if cut is not None and not self._looped and asked.start + SAMPLE_RATE <= cut < asked.end:
            self._looped = True
            return cut
        self._looped = False
        frames = round(hypothesis.advance * 100)
        if not self._settings.carry or frames <= 0:
            return asked.end
        end = min(asked.end, asked.start + frames * FRAME)
        nothing_follows = asked.reason in ("endpoint", "hangup") and asked.end - end < FRAME
        return asked.end if nothing_follows else end

    def _unprompted(self) -> bool:
        """Forget the text so far, which is copied in a loop; whether there was any."""
        some = bool(self._prompt)
        self._prompt = []
        return some

    def _remember(self, hypothesis: Hypothesis, guarded: Guarded) -> None:
        """The first final with text settles the language; then Whisper's rule of previous text as
        prompt."""
        if guarded.segments:
            self._context.settle(hypothesis.language)
        if not self._settings.carry or not hypothesis.segments:  # cut hard, or nobody spoke
            return
        tokens = [token for segment in guarded.segments for token in segment.tokens]
        if not self._context.condition or hypothesis.temperature > HOT:
            self._prompt, self._text = [], ""
        elif not guarded.looped:
            self._prompt = [*self._prompt, *tokens][-KEPT_PROMPT:]

    def _restart(self, asked: _Asked, position: int, audio: CallAudio) -> None:
        """Begin a new buffer at ``position``; audio behind it that was seen is shown at once."""
        audio.drop_to(position)
        self._shown = None
        carried = (asked.end - position) // self._window
        self._mark, self._first = max(carried - 1, 0), carried + 1
        self._pass_stops(audio)


def _within(segment: Segment, start: float, end: float) -> Segment:
    """The segment with all its times between ``start`` and ``end``."""
    words = tuple(
        replace(word, start=clamp(word.start, start, end), end=clamp(word.end, start, end))
        for word in segment.words
    )
    span = clamp(segment.start, start, end), clamp(segment.end, start, end)
    return replace(segment, start=span[0], end=span[1], words=words)
