"""The interface of a WebSocket protocol: a machine from messages to frames and back.

A server uses one per connection::

    protocol = VoskProtocol(parameters)        # what the URI's query says, as text by name
    while not over:
        frames = protocol.receive(message)     # text or bytes, as they come
               | protocol.eof()                # the client is gone, or we end the call
        write protocol.event(event)            # each event of the call, in order, to the last
        write protocol.send()                  # after each of these

As with a ``Framing``, the frames hold every byte of audio as SLIN, the last one is one ``Hangup``,
and nothing is raised for bad input: it is said in a ``Notice``. What the client says about the call
comes as ``Metadata`` before the call begins. Nothing here waits, so what is written back is what is
known at that moment.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from aii.protocols.base import MOST_NOTICES
from aii.protocols.codecs import Codec
from aii.protocols.frames import Audio, CallId, Format, Frame, Hangup, Metadata, Notice
from aii.protocols.metadata import metadata

if TYPE_CHECKING:
    from aii.streaming.events import Event

LONGEST_TEXT = 65_536
"""Characters of a text message that are read as JSON; a longer one is refused."""

MOST_HELD = 1_000
"""Messages that wait to be written; beyond that partial results are left out."""


Message = str | bytes
"""What is written to the client."""


class MessageProtocol(ABC):
    """One WebSocket connection of a telephone system.

    Attributes:
        name: for the log.
        subprotocols: of those that a client offers, the first of these is chosen.
        wishes: settings that a call of this protocol needs unless somebody says otherwise.
    """

    name: ClassVar[str]
    subprotocols: ClassVar[tuple[str, ...]] = ()
    wishes: ClassVar[Mapping[str, str]] = {}

    def __init__(self, parameters: Mapping[str, str] | None = None) -> None:
        self._parameters = metadata(parameters or {}).values
        self._over = False
        self._legs = 0  # that have begun and not ended
        self._codec: Codec | None = None
        self._outbox: list[Message] = []
        self._notices = 0
        self._said: set[str] = set()

    def receive(self, message: str | bytes) -> list[Frame]:
        """Take the next message."""
        if self._over:
            return []
        if isinstance(message, str):
            return self._checked(self._text(message))
        return self._checked(self._binary(message) if message else [])

    def eof(self) -> list[Frame]:
        """Nothing more comes: what was held, then ``Hangup``. Later calls: nothing."""
        return [] if self._over else self._checked([*self._drain(), Hangup("eof")])

    def event(self, event: Event) -> list[Message]:
        """What the client is told of an event of its call."""
        self._event(event.to_dict())
        if event.type == "started":
            self._legs += 1
        elif event.type == "ended":
            self._legs -= 1
            if not self._legs:
                self._finish()
        return self.send()

    def send(self) -> list[Message]:
        """Messages to write now; each is handed out once."""
        out, self._outbox = self._outbox, []
        return out

    # For those who fill this in.

    @abstractmethod
    def _text(self, message: str) -> list[Frame]:
        """``receive`` for text."""

    @abstractmethod
    def _binary(self, message: bytes) -> list[Frame]:
        """``receive`` for at least one byte."""

    def _drain(self) -> list[Frame]:
        """What is still held at the end."""
        return []

    def _event(self, event: Mapping[str, Any]) -> None:
        """``event``, as ``Event.to_dict`` gives it; mostly nothing goes back."""
        return

    def _finish(self) -> None:
        """The call's last event was given."""
        return

    def _say(self, message: Message, *, droppable: bool = False) -> None:
        """Put a message into ``send``."""
        if not (droppable and len(self._outbox) >= MOST_HELD):
            self._outbox.append(message)

    def _audio(self, codec: Codec, payload: bytes) -> list[Frame]:
        """Audio in ``codec``, with a ``Format`` before it where that is news."""
        frames = self._format(codec)
        return [*frames, Audio(codec.to_slin(payload))]

    def _format(self, codec: Codec, channels: int = 1) -> list[Frame]:
        if codec == self._codec:
            return []
        self._codec = codec
        return [Format(codec.rate, codec.encoding, channels)]

    def _about(self, values: Mapping[str, str]) -> list[Frame]:
        """What a client says about the call; its id goes last, for with it the call begins."""
        rest = {name: value for name, value in values.items() if name != "call_id"}
        frames: list[Frame] = [Metadata(rest)] if rest else []
        return [*frames, CallId(values["call_id"])] if "call_id" in values else frames

    def _object(self, message: str) -> dict[str, Any] | None:
        """The JSON object that a text message is, or None."""
        if len(message) > LONGEST_TEXT:
            return None
        try:
            value = json.loads(message)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    def _notice(self, text: str) -> list[Frame]:
        """A notice, once for each text and at most ``MOST_NOTICES`` in all."""
        if text in self._said or self._notices > MOST_NOTICES:
            return []
        self._said.add(text)
        self._notices += 1
        last = "; further notices of this call are dropped"
        return [Notice(f"{self.name}: {text}" + (last if self._notices > MOST_NOTICES else ""))]

    def _checked(self, frames: list[Frame]) -> list[Frame]:
        """``frames`` up to the first ``Hangup``, after which the machine is deaf."""
        for number, frame in enumerate(frames):
            if isinstance(frame, Hangup):
                self._over = True
                return frames[: number + 1]
        return frames
