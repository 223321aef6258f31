"""The interface of a streaming policy, and what a policy knows about its call.

A policy decides which samples are decoded when, with which context, and what of the answer is
final. It owns no audio, no clock and no engine: the buffer and the time are handed to it, requests
and events come out. The session guarantees that at most one request is out at a time, and hands
each answer back exactly once, as ``accept``, ``fail`` or ``refuse``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from aii.audio.buffer import AudioBuffer
from aii.streaming.events import Event
from aii.types import SAMPLE_RATE, DecodeRequest, Hypothesis


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
    """

    call_id: str
    ids: Iterator[int]
    language: str | None = None
    task: str = "transcribe"
    options: Mapping[str, object] = field(default_factory=dict)
    objective: float = 1.0

    def request(
        self,
        samples: np.ndarray,
        start: int,
        now: float,
        *,
        prompt: tuple[int, ...] = (),
        options: Mapping[str, object] | None = None,
        urgent: bool = False,
    ) -> DecodeRequest:
        """A request for ``samples``, the first of which has position ``start`` in the call.

        ``urgent`` ones, the finals, go before all others: they are wanted ``now``.
        """
        return DecodeRequest(
            request_id=next(self.ids),
            call_id=self.call_id,
            samples=samples,
            start=start / SAMPLE_RATE,
            language=self.language,
            task=self.task,
            prompt=prompt,
            options={**self.options, **(options or {})},
            deadline=now if urgent else now + self.objective,
        )


class Policy(Protocol):
    """When to decode and what to commit. Events come without ``call_id`` and ``seq``."""

    @property
    def done(self) -> bool:
        """Whether the call has ended and nothing of its audio is left to decode."""

    def next_request(self, buffer: AudioBuffer, now: float) -> DecodeRequest | None:
        """What is to be decoded now, or None. Not called while a request is out."""

    def accept(self, hypothesis: Hypothesis, buffer: AudioBuffer) -> list[Event]:
        """The answer to the request that is out; drops from ``buffer`` what is committed."""

    def fail(self, error: BaseException, buffer: AudioBuffer) -> list[Event]:
        """The request that is out failed in the engine."""

    def refuse(self) -> None:
        """The engine had no room for the request; forget it, as if it had never been made."""

    def flush(self, buffer: AudioBuffer) -> None:
        """The words of everything up to here are wanted now, as finals."""

    def finish(self, buffer: AudioBuffer) -> None:
        """The call is over; no more audio comes."""
