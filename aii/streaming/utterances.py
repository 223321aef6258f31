"""Which stretches of a call a policy hears, where voice activity is watched.

The voice track judges the audio a little behind its arrival. While somebody speaks, the policy
hears what is sure to be part of the utterance, so that what it hears does not depend on when the
judgements come; at the end of an utterance everything becomes final. Silence is never decoded, and
only its last second is kept, for an utterance that is backdated into it. What is passed over is
told, once per silence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from aii.audio.vad import VoiceAnswer, VoiceRequest
from aii.streaming.endpointing import Mark, NoSpeech, SpeechEnd, SpeechStart
from aii.streaming.events import Event, Skipped, SpeechEnded, SpeechStarted
from aii.streaming.events import NoSpeech as NobodySpoke
from aii.streaming.policy import CallAudio, Policy
from aii.types import SAMPLE_RATE


class Track(Protocol):
    """What is needed of ``aii.streaming.voice.VoiceTrack``."""

    @property
    def settled(self) -> int: ...
    @property
    def keep_from(self) -> int: ...
    @property
    def caught_up(self) -> bool: ...
    def feed(self, samples: np.ndarray) -> None: ...
    def finish(self) -> None: ...
    def next_request(self) -> VoiceRequest | None: ...
    def accept(self, answer: VoiceAnswer) -> list[Mark]: ...
    def fail(self, request_id: int) -> list[Mark]: ...
    def drain(self) -> list[Mark]: ...


@dataclass
class _Utterance:
    """From ``start`` to ``end``, None while it goes on; ``reason`` is that of its last final."""

    start: int
    end: int | None = None
    reason: str = ""
    flushes: list[int] = field(default_factory=list)


class Utterances:
    """Turns the marks of a voice track into what the policy hears, and into events.

    Args:
        track: judges the audio.
        audio: the call's.
        policy: hears it.
    """

    def __init__(self, track: Track, audio: CallAudio, policy: Policy) -> None:
        self.track = track
        self._audio = audio
        self._policy = policy
        self._now: _Utterance | None = None  # the one that the policy hears
        self._next: deque[_Utterance] = deque()
        self._spoken = audio.start  # from when on, since the last utterance, nobody has spoken
        self._began = 0  # position of the last start that was told
        self._goes_on = False  # an utterance was cut for its length, nobody has paused
        self._finished = False
        audio.limit = audio.start

    @property
    def hearing(self) -> bool:
        """Whether the policy has an utterance to hear, or something left of one."""
        return self._now is not None or not self._policy.idle

    def apply(self, marks: Iterable[Mark]) -> list[Event]:
        """Take new marks, and move the policy on as far as it is ready for it."""
        events: list[Event] = []
        for mark in marks:
            if isinstance(mark, SpeechStart):
                self._next.append(_Utterance(mark.at))
                if not self._goes_on:
                    self._began = mark.at
                    events.append(SpeechStarted(start=_time(mark.at), decided=_time(mark.decided)))
                self._goes_on = False
            elif isinstance(mark, SpeechEnd):
                events += self._ended(mark)
            elif isinstance(mark, NoSpeech):
                events.append(NobodySpoke(start=_time(mark.start), end=_time(mark.at)))
        return [*events, *self.advance()]

    def _ended(self, mark: SpeechEnd) -> list[Event]:
        utterance = self._next[-1] if self._next else self._now
        if utterance is None:
            return []
        utterance.end = mark.at
        reasons = {"longest": "reset", "end": "hangup"}
        utterance.reason = reasons.get(mark.reason, "endpoint")
        if utterance is self._now:
            self._close(utterance)
        self._goes_on = mark.reason == "longest"
        if self._goes_on:
            return []
        start, end, decided = _time(self._began), _time(mark.at), _time(mark.decided)
        return [SpeechEnded(start=start, end=end, decided=decided)]

    def advance(self) -> list[Event]:
        """Give the policy the next utterance once it has nothing left of the one before."""
        events: list[Event] = []
        self._leave()
        while self._now is None and self._next:
            events += self._enter(self._next.popleft())
            self._leave()
        if self._now is None:
            self._wait()
        elif self._now.end is None:
            self._audio.limit = self.track.settled
        if self.track.caught_up and self._now is None and not self._finished:
            events += self._silence(self._audio.buffer.end)
            self._pass_over(self._audio.buffer.end)
            self._finish()
        return events

    def flush(self) -> None:
        """The words of everything so far are wanted."""
        utterance = self._next[-1] if self._next else self._now
        if utterance is None or utterance.end is not None:
            return
        if utterance is self._now:
            self._policy.stop(self._audio, self._audio.buffer.end, "flush")
        elif self._audio.buffer.end not in utterance.flushes[-1:]:
            utterance.flushes.append(self._audio.buffer.end)

    def _enter(self, utterance: _Utterance) -> list[Event]:
        """The policy begins to hear an utterance."""
        events = self._silence(utterance.start)
        self._pass_over(utterance.start)
        self._audio.limit = self.track.settled if utterance.end is None else utterance.end
        self._now = utterance
        self._policy.begin(self._audio)
        for position in utterance.flushes:
            self._policy.stop(self._audio, position, "flush")
        if utterance.end is not None:
            self._close(utterance)
        return events

    def _close(self, utterance: _Utterance) -> None:
        """All of it is wanted as finals."""
        assert utterance.end is not None
        end = max(utterance.end, self._audio.start)
        self._audio.limit = end
        if utterance.reason == "hangup":
            self._finish()
        else:
            self._policy.stop(self._audio, end, utterance.reason)

    def _leave(self) -> None:
        """Done with an utterance whose last final was given."""
        if self._now is None or self._now.end is None or not self._policy.idle:
            return
        self._spoken = max(self._now.end, self._audio.start)
        self._now = None

    def _wait(self) -> None:
        """Nobody speaks: nothing is heard, and what can be no part of an utterance goes."""
        audio = self._audio
        self._pass_over(min(max(self.track.keep_from, audio.start), audio.buffer.end))
        audio.limit = audio.start

    def _pass_over(self, position: int) -> None:
        """Nothing before ``position`` is heard any more."""
        if position > self._audio.start:
            self._audio.drop_to(position)
            self._audio.limit = position
            self._policy.begin(self._audio)

    def _silence(self, end: int) -> list[Event]:
        """What to say of the audio since the last utterance."""
        start, self._spoken = self._spoken, end
        if end <= start:
            return []
        return [Skipped(start=_time(start), end=_time(end), reason="silence", windows=0)]

    def _finish(self) -> None:
        self._finished = True
        self._policy.finish(self._audio)


def _time(position: int) -> float:
    return position / SAMPLE_RATE
