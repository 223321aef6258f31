"""One call's samples to marks: where somebody begins to speak, and where they have finished.

Samples are cut into steps, an energy gate answers for those in the middle of silence, the others go
out as requests (to whoever steps the detector for all calls), and the probabilities that come back
drive the endpointer, in order. At most one request is out; more steps gather meanwhile and go out
together. What is marked depends neither on how the samples came in pieces nor on when answers come.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from aii.audio.vad import CONTEXT, STEP, EnergyGate, VoiceAnswer, VoiceRequest
from aii.streaming.endpointing import Endpointer, EndpointSettings, Mark

MOST_STEPS = 64
"""Steps in one request (2 s): a call that is far behind must not hold up the others."""


class VoiceTrack:
    """See the module. Touched by one thread at a time; holds no clock and no thread.

    Args:
        call_id: whose requests they are.
        settings: when an utterance begins and ends.
        gate: level in dB of full scale below which silence is taken for granted, None never.
        start: position of the first sample in the call.
        pace: steps that gather before they go out. More of them cost less and tell later; 2 keep
            the start of speech well within 300 ms.
    """

    def __init__(
        self,
        call_id: str,
        settings: EndpointSettings | None = None,
        *,
        gate: float | None = -60.0,
        start: int = 0,
        pace: int = 2,
    ) -> None:
        self._call_id = call_id
        self._endpointer = Endpointer(settings, start)
        self._gate = EnergyGate(gate)
        self._pace = pace
        self._rest = np.zeros(0, np.float32)  # samples that do not fill a step yet
        self._steps: deque[tuple[bool, np.ndarray]] = deque()  # (ask the detector?, (STEP,))
        self._before: deque[np.ndarray] = deque([np.zeros(STEP, np.float32)], EnergyGate.LEAD + 1)
        self._state: np.ndarray | None = None
        self._running = False  # whether the detector has heard the step before
        self._asked = 0  # id of the last request
        self._out = 0  # steps that the request which is out asks about, 0: none is out
        self._short = STEP  # samples of the call's last step
        self._over = False
        self._ended = False
        self._marks: list[Mark] = []  # that needed no answer

    @property
    def position(self) -> int:
        """Samples judged so far, from the start of the call."""
        return self._endpointer.position

    @property
    def speaking(self) -> bool:
        """Whether, at ``position``, an utterance runs."""
        return self._endpointer.speaking

    @property
    def keep_from(self) -> int:
        """No utterance, running or to come, begins before this sample."""
        return self._endpointer.keep_from

    @property
    def settled(self) -> int:
        """The utterance that runs does not end before this sample."""
        return self._endpointer.settled

    @property
    def caught_up(self) -> bool:
        """Whether the call is over and all of it is judged."""
        return self._ended

    @property
    def waiting(self) -> bool:
        """Whether a request is out."""
        return self._out > 0

    def feed(self, samples: np.ndarray) -> None:
        """Take the next samples (N,), float32 at 16 kHz; then ask ``drain`` and ``next_request``.

        Raises:
            RuntimeError: the call is over.
        """
        if self._over:
            raise RuntimeError("the call is over")
        self._take(samples)

    def finish(self) -> None:
        """No more samples come. An utterance that runs ends once everything is judged."""
        if self._over:
            return
        self._over = True
        if len(self._rest):
            self._short = len(self._rest)
            self._take(np.zeros(STEP - self._short, np.float32))
        else:
            self._advance()

    def drain(self) -> list[Mark]:
        """The marks that have come since they were last asked for, and needed no answer."""
        marks, self._marks = self._marks, []
        return marks

    def next_request(self) -> VoiceRequest | None:
        """What the detector should judge now, or None; must be answered or failed."""
        if self._out or not self._steps:
            return None
        count = 0
        for ask, _ in self._steps:
            if not ask or count == MOST_STEPS:
                break
            count += 1
        if count < self._pace and count == len(self._steps) and not self._over:
            return None
        asked = [self._steps.popleft()[1] for _ in range(count)]
        lead = 0 if self._running else min(EnergyGate.LEAD, len(self._before) - 1)
        earlier = list(self._before)[len(self._before) - 1 - lead :]
        samples = np.concatenate([earlier[0][-CONTEXT:], *earlier[1:], *asked])
        self._asked += 1
        self._out = len(asked)
        self._before.extend(asked)
        state = self._state if self._running else None
        self._running = True
        return VoiceRequest(self._asked, self._call_id, samples, state, lead)

    def accept(self, answer: VoiceAnswer) -> list[Mark]:
        """The detector's answer; one that is not waited for (any more) is ignored."""
        if not self._out or answer.request_id != self._asked:
            return []
        self._state = answer.state
        return self._judge(answer.probabilities.tolist())

    def fail(self, request_id: int) -> list[Mark]:
        """The detector could not tell: what nobody judged counts as speech, and is transcribed."""
        if not self._out or request_id != self._asked:
            return []
        self._state = None
        self._running = False
        return self._judge([1.0] * self._out)

    def _take(self, samples: np.ndarray) -> None:
        """Cut what has come into steps."""
        joined = np.concatenate([self._rest, samples]) if len(self._rest) else samples
        whole = len(joined) // STEP
        self._rest = joined[whole * STEP :].astype(np.float32)
        if whole == 0:
            return
        # astype copies: the caller may use its array again.
        steps = joined[: whole * STEP].astype(np.float32).reshape(whole, STEP)
        self._steps.extend(zip(self._gate.judge(steps), steps, strict=True))
        self._advance()

    def _judge(self, probabilities: list[float]) -> list[Mark]:
        self._out = 0
        for index, probability in enumerate(probabilities):
            self._step(probability, last=index == len(probabilities) - 1)
        self._advance()
        return self.drain()

    def _advance(self) -> None:
        """Judge the steps that the gate answers for, up to the first that it does not."""
        while self._steps and not self._out and not self._steps[0][0]:
            self._before.append(self._steps.popleft()[1])
            self._running = False
            self._step(0.0, last=True)
        if self._over and not self._steps and not self._out and not self._ended:
            self._ended = True
            self._marks += self._endpointer.end()

    def _step(self, probability: float, *, last: bool) -> None:
        """One step is judged; ``last``: what it was judged with holds no further one."""
        short = last and self._over and not self._steps
        self._marks += self._endpointer.step(probability, self._short if short else STEP)
