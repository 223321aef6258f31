"""Asterisk's manager interface (AMI): events for whoever listens there, variables for dialplans.

Both sides speak in lines of text, ``Key: value``; an empty line ends a message (Asterisk,
``main/manager.c``). For each final, answer, start and end of a call goes out::

    Action: UserEvent
    UserEvent: AiiFinal
    CallID: 4f2a
    Seq: 3
    Text: four seven one nine

and, where the call's channel is known, ``Setvar`` for it (:mod:`aii.sinks.pbx`). The manager user
needs the write classes ``user`` (UserEvent) and ``call`` (Setvar). Each action is answered before
the next one is sent. After a lost connection the last event may be told twice: ``Seq`` shows it.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Callable, Sequence

from aii.sinks.pbx import LONGEST, Channel, Channels, first_bytes, one_line, pieces
from aii.sinks.queued import QueuedSink
from aii.streaming.events import (
    Answer,
    CallEnded,
    CallStarted,
    Dtmf,
    Event,
    Final,
    Heard,
    Partial,
)

log = logging.getLogger(__name__)

Headers = Sequence[tuple[str, str]]

_LINE = 65_536
"""Bytes of the longest line that we read."""

_HEADERS = 1000
"""Lines of a message that are looked at."""

_NAMES = {
    CallStarted: "AiiStarted",
    Partial: "AiiPartial",
    Final: "AiiFinal",
    Answer: "AiiAnswer",
    Dtmf: "AiiDtmf",
    CallEnded: "AiiEnded",
}


class Manager:
    """One connection to Asterisk's manager; for one thread.

    Args:
        address: host and port.
        user, secret: of ``manager.conf``.
        timeout: seconds for each answer, however it drips in and whatever comes before it.
        tls: for a listener with TLS, else None.
        clock: seconds, monotonic.

    Raises (from all methods):
        OSError: the connection, or the login, failed.
    """

    def __init__(
        self,
        address: tuple[str, int],
        user: str,
        secret: str,
        *,
        timeout: float,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._number = 0
        self._timeout, self._clock = timeout, clock
        self._held = bytearray()
        sock = socket.create_connection(address, timeout=timeout)
        try:
            if tls is not None:
                sock = tls.wrap_socket(sock, server_hostname=address[0])
            self._sock = sock
            greeting = self._line(clock() + timeout)
            if not greeting.startswith("Asterisk Call Manager"):
                raise OSError(f"this is no Asterisk manager: it says {greeting[:60]!r}")
            login = [("Action", "Login"), ("Username", user), ("Secret", secret)]
            if refusal := self.act([*login, ("Events", "off")]):
                raise OSError(f"the login as {user} failed: {refusal}")
        except BaseException:
            sock.close()
            raise

    def act(self, headers: Headers) -> str:
        """Send an action and wait for its answer: "", or why Asterisk does not do it."""
        self._number += 1
        mine = f"aii-{self._number}"
        lines = [*headers, ("ActionID", mine)]
        data = "".join(f"{key}: {one_line(value)}\r\n" for key, value in lines)
        until = self._clock() + self._timeout
        self._sock.settimeout(self._timeout)
        self._sock.sendall((data + "\r\n").encode("utf-8", "replace"))
        while True:
            answer = self._message(until)
            if "Response" in answer and answer.get("ActionID", mine) == mine:
                break
        if answer["Response"] == "Success":
            return ""
        return answer.get("Message") or answer["Response"] or "no reason given"

    def _message(self, until: float) -> dict[str, str]:
        """The next message, which may be an event that nobody asked for."""
        found: dict[str, str] = {}
        while line := self._line(until):
            key, _, value = line.partition(":")
            if len(found) < _HEADERS:
                found[key.strip()] = value.strip()
        return found

    def _line(self, until: float) -> str:
        """The next line, if it comes in time."""
        while (end := self._held.find(b"\n")) < 0:
            left = until - self._clock()
            if left <= 0:
                raise TimeoutError
            self._sock.settimeout(left)
            if not (data := self._sock.recv(4096)):
                raise ConnectionError("the manager closed the connection")
            self._held += data
            if len(self._held) > _LINE:
                raise ConnectionError(f"the manager sends a line of more than {_LINE} bytes")
        line = self._held[:end].decode("utf-8", "replace").rstrip("\r")
        del self._held[: end + 1]
        return line

    def close(self) -> None:
        """Log off and close."""
        with contextlib.suppress(OSError):
            self._sock.sendall(b"Action: Logoff\r\n\r\n")
        with contextlib.suppress(OSError):
            self._sock.close()


class AmiSink(QueuedSink):
    """See the module.

    Args:
        address: host and port.
        user, secret: of ``manager.conf``.
        variable: what the names of variables begin with.
        partials: whether partials are told too (as ``AiiPartial``; they set no variable).
        timeout: seconds for each answer.
        tls: for a listener with TLS, else None.
        first, most, size: see :class:`QueuedSink`.
    """

    def __init__(
        self,
        address: tuple[str, int],
        user: str,
        secret: str,
        *,
        variable: str = "AII",
        partials: bool = False,
        timeout: float = 5.0,
        tls: ssl.SSLContext | None = None,
        first: float = 0.5,
        most: float = 30.0,
        size: int = 1000,
    ) -> None:
        name = f"the manager at {address[0]}:{address[1]}"
        super().__init__(name=name, size=size, first=first, most=most)
        self._address, self._user, self._secret = address, user, secret
        self._timeout, self._tls = timeout, tls
        self._kinds = tuple(kind for kind in _NAMES if partials or kind is not Partial)
        self._channels = Channels(variable)
        self._followed: tuple[Event, Channel] | None = None
        self._manager: Manager | None = None
        self._refused = 0
        self.start()

    def _wanted(self, event: Event) -> bool:
        return isinstance(event, self._kinds)

    def _deliver(self, event: Event) -> None:
        if self._followed is None or self._followed[0] is not event:  # not another attempt
            self._followed = (event, self._channels.follow(event))
        channel = self._followed[1]
        if self._manager is None:
            self._manager = Manager(
                self._address, self._user, self._secret, timeout=self._timeout, tls=self._tls
            )
        for name, value in self._channels.variables(event, channel):
            if channel.name:
                self._act([("Action", "Setvar"), ("Channel", channel.name), ("Variable", name),
                           ("Value", value)])  # fmt: skip
        self._act([("Action", "UserEvent"), *user_event(event, channel.name)])

    def _act(self, headers: Headers) -> None:
        assert self._manager is not None
        if refusal := self._manager.act(headers):  # a channel that has hung up, a missing right
            self._refused += 1
            if self._refused == 1:
                log.warning("%s refuses %s: %s", self._name, headers[0][1], refusal)

    def _hang_up(self) -> None:
        if self._manager is not None:
            self._manager.close()
            self._manager = None


def user_event(event: Event, channel: str = "") -> list[tuple[str, str]]:
    """The headers of a ``UserEvent``; a long text goes on in ``Text2``, ``Text3``..."""
    headers = [("UserEvent", _NAMES[type(event)]), ("CallID", first_bytes(event.call_id, 200))]
    if event.leg:
        headers.append(("Leg", first_bytes(event.leg, 200)))
    if channel:
        headers.append(("Channel", channel))
    headers.append(("Seq", str(event.seq)))
    body = event.to_dict()
    for key in ("caller", "start", "end", "language", "reason", "error", "digit", "status",
                "source", "question", "confidence"):  # fmt: skip
        if body.get(key) not in (None, ""):
            headers.append((key.capitalize(), first_bytes(one_line(str(body[key])))))
    if isinstance(event, Answer):
        headers.append(("Value", first_bytes(one_line(event.value or ""))))
    text = event.text if isinstance(event, Heard | Answer) else ""
    for number, piece in enumerate(pieces(one_line(text), LONGEST)[:100], start=1):
        headers.append((f"Text{number if number > 1 else ''}", piece))
    return headers
