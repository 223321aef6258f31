"""What the policies share that listen in small steps and commit words as they become sure of them.

Updates come at marks: the positions at which the utterance has grown by one more step, whatever the
sizes of the reads. Each decodes what is in the buffer up to its mark. Marks are left out only when
the engine is behind a live call (``pace.py``), so the same audio gives the same words. A stop (a
flush, the end of an utterance or of the call) is an update of its own that commits everything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, replace

from aii.streaming.events import Event, Final, Skipped
from aii.streaming.pace import Pace
from aii.streaming.policy import FRAME, LONGEST, CallAudio, CallContext, one_line
from aii.types import SAMPLE_RATE, DecodeRequest, Hypothesis

SETTLED = 3 * SAMPLE_RATE
"""Samples of an utterance after which the language that is detected in its words is kept."""


@dataclass(frozen=True)
class Update:
    """The request that is out.

    Attributes:
        start: position of its first sample.
        end: position after its last sample.
        reason: why everything up to ``end`` must be final; "" where it need not.
        mark: marks of this utterance that are dealt with once it is answered.
        before: the same before it was asked.
        again: whether it failed once already.
    """

    start: int
    end: int
    reason: str
    mark: int
    before: int
    again: bool = False

    @property
    def last(self) -> bool:
        """Whether everything becomes final."""
        return self.reason != ""


class UpdatePolicy(ABC):
    """Marks, stops, failures and refusals; what is said and committed is up to the subclass.

    Args:
        context: the call's.
        step: samples between two marks.
    """

    def __init__(self, context: CallContext, step: int) -> None:
        self._context = context
        self._step = step
        self._pace = Pace()
        self._base: int | None = None  # where the utterance began
        self._mark = 0
        self._stops: deque[tuple[int, str]] = deque()
        self._over = False
        self._asked: Update | None = None
        self._failed: Update | None = None
        self._said = 0.0  # seconds up to which finals account for the audio

    # What a subclass does.

    @abstractmethod
    def _request(self, update: Update, audio: CallAudio, now: float) -> DecodeRequest:
        """Ask for the audio from ``update.start`` to ``update.end``."""

    @abstractmethod
    def _heard(self, update: Update, hypothesis: Hypothesis, audio: CallAudio) -> list[Event]:
        """The answer; afterwards ``audio`` must have room for one more step."""

    @abstractmethod
    def _lost(self, update: Update, line: str) -> Final:
        """The final that stands for a stop whose decode failed twice, with what was known."""

    @abstractmethod
    def _forget(self) -> None:
        """A new utterance begins: its hypotheses have nothing to do with those before."""

    # What the session sees.

    @property
    def done(self) -> bool:
        """Whether the call is over and all of it is committed."""
        return self._over and self.idle

    @property
    def idle(self) -> bool:
        """Whether no request is out and nothing must be made final."""
        return not self._stops and self._asked is None and self._failed is None

    def notice(self, audio: CallAudio, now: float) -> None:
        """Remember when audio came."""
        self._pace.note(audio.buffer.end, now)

    def next_request(self, audio: CallAudio, now: float) -> DecodeRequest | None:
        """The update at the next mark that the audio has reached, or the stop before it."""
        update = self._failed or self._due(audio, now)
        if update is None:
            return None
        self._failed, self._asked = None, update
        self._mark = update.mark
        return self._request(update, audio, now)

    def accept(self, hypothesis: Hypothesis, audio: CallAudio) -> list[Event]:
        """One partial, or finals; what they account for for good leaves the buffer."""
        update = self._take()
        events = [*self._skips(update), *self._heard(update, hypothesis, audio)]
        if update.last and self._failed is None:
            self._restart(update.end, audio)
        return events

    def fail(self, error: BaseException, audio: CallAudio) -> list[Event]:
        """An update is left out; a stop is tried once more, then its final says why.

        An update becomes a stop when the buffer would grow too long without it.
        """
        update = self._take()
        line = one_line(error)
        if not update.last and not self._has_room(update, audio):
            update = replace(update, reason="reset")
        if not update.last:
            end = update.end / SAMPLE_RATE
            skipped = Skipped(start=self._said, end=end, reason=f"error: {line}")
            return [*self._skips(update), skipped]
        if not update.again:
            self._ask_again(update)
            return []
        final = self._lost(update, line)
        self._restart(update.end, audio)
        return [*self._skips(update), final]

    def refuse(self) -> None:
        """The request never was."""
        update = self._take()
        self._mark = update.before
        if update.again:
            self._failed = update

    def begin(self, audio: CallAudio) -> None:
        """Marks count from here."""
        self._restart(audio.start, audio)

    def stop(self, audio: CallAudio, position: int, reason: str) -> None:
        """Commit everything up to ``position``."""
        if not self._stops or self._stops[-1][0] != position:  # twice in a row is once
            self._stops.append((position, reason))
        if self._asked is None and self._failed is None:
            self._pass_stops(audio)

    def finish(self, audio: CallAudio) -> None:
        """The last update ends here."""
        self._over = True
        self.stop(audio, audio.end, "hangup")

    # What is due.

    def _due(self, audio: CallAudio, now: float) -> Update | None:
        if self._base is None:
            self._base, self._said = audio.start, audio.start / SAMPLE_RATE
        stop = self._stops[0] if self._stops else None
        end = audio.end if stop is None else stop[0]
        passed = (end - self._base) // self._step
        if stop is not None and (end - self._base) % self._step < FRAME:
            passed -= 1  # the last mark is the stop, or so near to it that nothing is between
        if passed <= self._mark:
            return None if stop is None else self._update(audio, *stop, passed=self._mark)
        mark = self._mark + 1
        if self._pace.behind(self._base + mark * self._step, now):
            room = (audio.start + LONGEST - self._base) // self._step
            mark = max(mark, min(passed, room))
        return self._update(audio, self._base + mark * self._step, "", passed=mark)

    def _update(self, audio: CallAudio, end: int, reason: str, *, passed: int) -> Update:
        return Update(audio.start, end, reason, passed, self._mark)

    def _settle(self, update: Update, hypothesis: Hypothesis) -> None:
        """Keep the language of an answer that says something, once enough was heard for it."""
        if update.last or update.end - (self._base or 0) >= SETTLED:
            self._context.settle(hypothesis.language)

    def _ask_again(self, update: Update) -> None:
        """A stop is to be decoded once more."""
        self._failed = replace(update, again=True)

    def _has_room(self, update: Update, audio: CallAudio) -> bool:
        """Whether the audio up to one step behind an update can still be decoded at once."""
        return update.end + self._step + FRAME - audio.start <= LONGEST

    def _take(self) -> Update:
        update, self._asked = self._asked, None
        if update is None:
            raise RuntimeError("no request is out")
        return update

    def _skips(self, update: Update) -> list[Event]:
        """What to say of the marks that were left out before this update."""
        left_out = update.mark - update.before - 1
        if left_out <= 0 or self._base is None:
            return []
        start = self._base + update.before * self._step
        return [
            Skipped(
                start=start / SAMPLE_RATE,
                end=(start + left_out * self._step) / SAMPLE_RATE,
                reason="behind",
                windows=left_out,
            )
        ]

    def _restart(self, position: int, audio: CallAudio) -> None:
        """A new utterance begins at ``position``."""
        audio.drop_to(position)
        self._base, self._said = position, position / SAMPLE_RATE
        self._mark = 0
        self._forget()
        self._pass_stops(audio)

    def _pass_stops(self, audio: CallAudio) -> None:
        """Forget the stops that everything before is committed of."""
        begin = audio.start if self._base is None else self._base
        while self._stops and self._stops[0][0] - begin < FRAME:
            self._stops.popleft()
