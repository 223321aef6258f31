"""One call: its audio, its policy, its counters; the state that no other call sees.

The owner (whoever has the call's connection) feeds samples, asks for a request, hands it to the
engine, and hands the answer back; at most one request is out at a time. With voice activity the
same goes on beside it with requests to the voice detector. All of it happens on one thread, with
the time passed in, so a session holds no lock, no socket and no clock.

Memory does not grow with the call: the buffer holds what is not final, the policy what it needs of
the text before it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from aii.audio.vad import VoiceAnswer, VoiceRequest
from aii.question import Question
from aii.streaming.collect import Collector
from aii.streaming.events import (
    CallEnded,
    CallStarted,
    Dtmf,
    Event,
    Final,
    Heard,
    Partial,
    Skipped,
)
from aii.streaming.policy import CallAudio, Policy
from aii.streaming.redaction import Redactor
from aii.streaming.utterances import Track, Utterances
from aii.streaming.vocabulary import Vocabulary
from aii.types import SAMPLE_RATE, DecodeRequest, Hypothesis

RETRY = 0.05
"""Seconds after which a request that the engine had no room for is made again."""


@dataclass
class Counters:
    """What a call came to. ``skipped`` counts windows; ``lost`` samples that were never decoded."""

    samples: int = 0
    partials: int = 0
    finals: int = 0
    skipped: int = 0
    failed: int = 0
    lost: int = 0


class Session:
    """One call, or one leg of it.

    Args:
        call_id: the id that goes into every event.
        policy: when to decode and what to commit.
        caller: where the call comes from, for the first event.
        leg: the channel that this is, for every event; "" where there is only one.
        start: seconds from the start of the call to the first sample.
        voice: judges when somebody speaks; None hears everything.
        redact: digits in a row from which on they are masked in every event; 0 masks none.
        vocabulary: of the engine's model, for questions (``collect``).
    """

    def __init__(
        self,
        call_id: str,
        policy: Policy,
        *,
        caller: str = "",
        leg: str = "",
        start: float = 0.0,
        voice: Track | None = None,
        redact: int = 0,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        self.call_id = call_id
        self.leg = leg
        self.counters = Counters()
        self._policy = policy
        self._caller = caller
        self._audio = CallAudio(round(start * SAMPLE_RATE))
        self._utterances = None if voice is None else Utterances(voice, self._audio, policy)
        self._redactor = Redactor(redact) if redact else None
        self._vocabulary = vocabulary or Vocabulary()
        self._collector: Collector | None = None  # of the question that is open
        self._shown: Partial | None = None  # what is shown and not final
        self._told = start  # seconds up to which finals and partials account for the audio
        self._seq = 0
        self._out: int | None = None  # id of the request that the engine has
        self._not_before = float("-inf")
        self._reason: str | None = None  # of the end, once the caller is gone
        self._ended = False

    @property
    def done(self) -> bool:
        """Whether the call's last event has been given."""
        return self._ended

    @property
    def waiting(self) -> bool:
        """Whether a request is out."""
        return self._out is not None

    @property
    def reason(self) -> str:
        """Why the call ended, "" while it has not."""
        return self._reason or ""

    @property
    def redacts(self) -> bool:
        """Whether digits are masked: then its audio must not be recorded either."""
        return self._redactor is not None

    @property
    def finishing(self) -> bool:
        """Whether the caller is gone."""
        return self._reason is not None

    @property
    def backlog(self) -> float:
        """Seconds of audio held."""
        return self._audio.buffer.seconds

    @property
    def position(self) -> float:
        """Seconds from the start of the call to the end of the audio so far."""
        return self._audio.buffer.end / SAMPLE_RATE

    @property
    def wake_at(self) -> float | None:
        """When ``tick`` and ``next_request`` should be asked again even if nothing comes; None: no
        need."""
        again = None if self.waiting or self._not_before == float("-inf") else self._not_before
        asked = None if self._collector is None or self.finishing else self._collector.wake_at
        return min((moment for moment in (again, asked) if moment is not None), default=None)

    def start(self) -> list[Event]:
        """The call's first event."""
        return self._stamped([CallStarted(caller=self._caller)])

    # What comes from the call.

    def feed(self, samples: np.ndarray) -> None:
        """Take the next samples (N,), float32 at 16 kHz; ``check`` says what follows at once.

        Raises:
            RuntimeError: the call is over.
        """
        if self.finishing:
            raise RuntimeError("the call is over")
        self._audio.buffer.append(samples)
        self.counters.samples += len(samples)
        if self._utterances is not None:
            self._utterances.track.feed(samples)

    def check(self) -> list[Event]:
        """What has become clear by the audio that came alone; to be asked after each feed."""
        return self._stamped([*self._judged(), *self._due()])

    def tick(self, now: float, *, reading: bool = True) -> list[Event]:
        """What has become clear by the clock's ``now`` (seconds); to be asked at each step.

        Args:
            reading: whether audio is taken as it comes.
        """
        if self._collector is None or self.finishing:
            return []
        self._collector.note(self.position, now, reading=reading)
        events = self._due()
        return self._stamped(events) if events else []

    def _due(self) -> list[Event]:
        """The answer to the question that is open, if nothing more is waited for."""
        if self._collector is None or self.finishing:
            return []
        answer, look = self._collector.due(self.position, busy=self._busy)
        if look:
            self.flush()
            answer, _ = self._collector.due(self.position, busy=self._busy)
        return [] if answer is None else [answer]

    @property
    def _busy(self) -> bool:
        """Whether something is still to be heard of what was asked for."""
        return self.waiting or not self._policy.idle

    def collect(self, question: Question) -> list[Event]:
        """Ask the caller; an ``Answer`` comes once. Takes the place of a question that is open."""
        if self.finishing:
            return []
        answer = None if self._collector is None else self._collector.replaced(self.position)
        self.flush()  # what was said before it is no answer, and not in its grammar
        voiced = self._utterances is not None
        self._collector = Collector(question, self.position, self._vocabulary, voiced=voiced)
        return self._stamped([] if answer is None else [answer])

    def dtmf(self, digit: str) -> list[Event]:
        """A key was pressed at the end of the audio so far."""
        return self._stamped([Dtmf(digit=digit, start=self.position)])

    def flush(self) -> None:
        """The words of everything so far are wanted as finals now."""
        if self._utterances is None:
            self._policy.stop(self._audio, self._audio.end, "flush")
        else:
            self._utterances.flush()

    def finish(self, reason: str) -> list[Event]:
        """The caller is gone, because of ``reason``. Further calls change nothing."""
        if self.finishing:
            return []
        self._reason = reason
        if self._utterances is None:
            self._policy.finish(self._audio)
        else:
            self._utterances.track.finish()
        return self._stamped(self._judged())

    # Between the session and the engine.

    def next_request(self, now: float) -> DecodeRequest | None:
        """What the engine should decode now, or None. It must be answered, failed or refused.

        ``now`` is the clock in seconds, whether a request is out or not: it tells when audio came.
        """
        if self._ended:
            return None
        self._policy.notice(self._audio, now)
        if self.waiting or now < self._not_before:
            return None
        self._not_before = float("-inf")
        if self._utterances is not None and not self._utterances.hearing:
            return None
        request = self._policy.next_request(self._audio, now)
        self._out = None if request is None else request.request_id
        if request is not None and self._collector is not None:
            return self._collector.constrain(request)
        return request

    def accept(self, hypothesis: Hypothesis) -> list[Event]:
        """The engine's answer; one that is not waited for (any more) is ignored."""
        if self._ended or hypothesis.request_id != self._out:
            return []
        self._out = None
        if self._collector is not None:
            self._collector.weigh(hypothesis)
        events = self._policy.accept(hypothesis, self._audio)
        return self._stamped([*events, *self._judged()])

    def fail(self, request_id: int, error: BaseException) -> list[Event]:
        """The engine could not answer."""
        if self._ended or request_id != self._out:
            return []
        self._out = None
        self.counters.failed += 1
        events = self._policy.fail(error, self._audio)
        return self._stamped([*events, *self._judged()])

    def refuse(self, request_id: int, now: float) -> None:
        """The engine had no room: the audio stays, the request is made again a little later."""
        if request_id != self._out:
            return
        self._out = None
        self._not_before = now + RETRY
        self._policy.refuse()

    # Between the session and the voice detector.

    def next_voice(self) -> VoiceRequest | None:
        """What the voice detector should judge now, or None; at most one is out."""
        if self._ended or self._utterances is None:
            return None
        return self._utterances.track.next_request()

    def heard(self, answer: VoiceAnswer) -> list[Event]:
        """The voice detector's answer."""
        if self._ended or self._utterances is None:
            return []
        return self._stamped(self._utterances.apply(self._utterances.track.accept(answer)))

    def voice_failed(self, request_id: int) -> list[Event]:
        """The voice detector could not answer: what it was asked about counts as speech."""
        if self._ended or self._utterances is None:
            return []
        return self._stamped(self._utterances.apply(self._utterances.track.fail(request_id)))

    def _judged(self) -> list[Event]:
        """What needed no detector, and what the policy is ready for."""
        if self._ended or self._utterances is None:
            return []
        return self._utterances.apply(self._utterances.track.drain())

    # The end.

    def abort(self, reason: str) -> list[Event]:
        """End the call now. What it shows becomes final as it is, with reason ``error``; audio
        that was not decoded is named in a ``Skipped`` event."""
        if self._ended:
            return []
        self._reason = reason
        self._out = None
        events: list[Event] = [*self._last_words(reason)]
        self._ended = True
        buffer = self._audio.buffer
        start = max(buffer.start, round(self._told * SAMPLE_RATE))
        if start < buffer.end:
            self.counters.lost += buffer.end - start
            span = start / SAMPLE_RATE, buffer.end / SAMPLE_RATE
            events.append(Skipped(start=span[0], end=span[1], reason=reason, lost=True))
        buffer.drop_to(buffer.end)
        return self._stamped([*events, self._end()])

    def _last_words(self, reason: str) -> list[Final]:
        """The final of what is shown; an empty one where audio waits that nothing was said of."""
        shown, audio = self._shown, self._audio
        if shown is None and audio.end <= round(self._told * SAMPLE_RATE):
            return []
        start = max(self._told, audio.start / SAMPLE_RATE)
        if shown is None:
            return [Final(start=start, end=start, reason="error", error=reason)]
        return [
            Final(
                start=shown.start,
                end=shown.end,
                segments=shown.segments,
                language=shown.language,
                reason="error",
                error=reason,
            )
        ]

    def _note(self, events: list[Event]) -> None:
        """Remember what is shown, and how far."""
        for event in events:
            if isinstance(event, Heard):
                self._shown = event if isinstance(event, Partial) else None
                self._told = max(self._told, event.end)

    def _end(self) -> CallEnded:
        return CallEnded(reason=self.reason, end=self.position)

    def _stamped(self, events: list[Event]) -> list[Event]:
        """``events`` with call id, number and leg, and the last one if nothing is left to do."""
        if self.finishing and not self._ended and self._policy.done:
            self._ended = True
            events = [*events, self._end()]
        self._note(events)
        if self._collector is not None:
            events = self._answered(events, self._collector)
        if self._redactor is not None:
            decided = self._audio.start / SAMPLE_RATE
            events = [*self._redactor(events), *self._redactor.due(decided)]
        stamped = []
        for event in events:
            self._count(event)
            self._seq += 1
            own = dataclasses.replace(event, call_id=self.call_id, seq=self._seq, leg=self.leg)
            stamped.append(own)
        return stamped

    def _answered(self, events: list[Event], collector: Collector) -> list[Event]:
        """``events`` with the answer that one of them completes."""
        out: list[Event] = []
        for event in events:
            answer = collector.see(event)
            found = [] if answer is None else [answer]
            out += [*found, event] if isinstance(event, CallEnded) else [event, *found]
            if collector.wants_flush(event):
                self.flush()
        if collector.done:
            self._collector = None
        return out

    def _count(self, event: Event) -> None:
        if isinstance(event, Partial):
            self.counters.partials += 1
        elif isinstance(event, Final):
            self.counters.finals += 1
        elif isinstance(event, Skipped) and not event.lost:
            self.counters.skipped += event.windows
