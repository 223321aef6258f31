"""Which framing a connection speaks, found out once from its first bytes.

In this order: AudioSocket, an HTTP request, a WAV file, a call id (and a WAV file after it), and
after a call id or without one 641-byte frames or raw SLIN. Everything held while deciding goes
through the framing decided on, read by read, so nothing is lost.

Audio can begin like a call id (loud printable bytes, then 13). Measured with every sample as the
start of a call: 5e-6 of the samples of 2,500 spoken digits at 8 kHz, 7e-5 of 11 s of a loud speech
and of synthesised speech, 5e-6 of white noise with an RMS of 3000, 3e-4 with one of 9000, none of
silence and of noise up to an RMS of 400. None of the 2,500 recordings begins so; calls begin
quietly.
"""

from __future__ import annotations

from abc import abstractmethod
from enum import Enum

from aii.protocols import audiosocket, http_refusal, wav
from aii.protocols.audiosocket import AudioSocketFraming, AudioSocketOptions, may_follow_uuid
from aii.protocols.base import Framing
from aii.protocols.callid import SHORTEST_CALL_ID, CallIdFraming, Found, find_call_id
from aii.protocols.cr641 import FRAME, HITS, STRIDE, Cr641Framing
from aii.protocols.frames import Frame
from aii.protocols.hold import DECIDE, PATIENCE, Hold
from aii.protocols.http_refusal import HttpRefusal
from aii.protocols.slin import CR, RawFraming
from aii.protocols.wav import WavFraming


class Kind(Enum):
    """How a connection begins."""

    AUDIOSOCKET = 1
    HTTP = 2
    WAV = 3
    CALL_ID = 4
    AUDIO = 5


def sniff(data: bytes | bytearray, final: bool) -> Kind | None:
    """How a connection begins whose first bytes are ``data``.

    Args:
        data: at least 129 bytes always give an answer.
        final: no more bytes are waited for.

    Returns:
        The first kind that fits, or None while more bytes could make one fit.
    """
    size = len(data)
    start = bytes(data[: audiosocket.FIRST + audiosocket.HEADER])
    if start.startswith(audiosocket.START) and size >= audiosocket.FIRST:
        if may_follow_uuid(start[audiosocket.FIRST :]):
            whole = audiosocket.FIRST + audiosocket.HEADER
            return Kind.AUDIOSOCKET if final or size >= whole else None
    elif _begins(start, audiosocket.START) and not final:
        return None
    if start.startswith(http_refusal.START):
        return Kind.HTTP
    if _begins(start[:4], wav.RIFF) and _begins(start[8:12], wav.WAVE):
        if size >= wav.SIGNATURE:
            return Kind.WAV
        if not final:
            return None
    found = find_call_id(data, SHORTEST_CALL_ID)[0]
    if found is Found.ID:
        return Kind.CALL_ID
    if found is Found.UNFINISHED and not final:
        return None
    return Kind.AUDIO


def _begins(data: bytes | bytearray, mark: bytes) -> bool:
    """Whether ``data`` begins with ``mark``, as far as there is any."""
    return data[: len(mark)] == mark[: len(data)]


class _Choosing(Framing):
    """Holds what comes until a framing is chosen, then hands over to that."""

    def __init__(self) -> None:
        super().__init__()
        self._hold = Hold()
        self._waited = 0.0
        self._chosen: Framing | None = None

    @abstractmethod
    def _choose(self, idle: float) -> Framing | None:
        """The framing for what is held, to which nothing has come for ``idle`` seconds."""

    def _given_up(self) -> str:
        """What is held looked like the beginning of, when a stall makes it audio; "" is nothing."""
        return ""

    @property
    def name(self) -> str:
        return self._chosen.name if self._chosen else self._name

    @property
    def takes_text(self) -> bool:
        return self._chosen is not None and self._chosen.takes_text

    @property
    def tick_after(self) -> float | None:
        if self._chosen:
            return self._chosen.tick_after
        if not self._hold:
            return None
        return DECIDE if self._waited < DECIDE else PATIENCE

    def send(self) -> bytes:
        return super().send() + (self._chosen.send() if self._chosen else b"")

    def hang_up(self) -> None:
        if self._chosen:
            self._chosen.hang_up()

    def _feed(self, data: bytes, idle: float) -> list[Frame]:
        if self._chosen:
            return self._chosen.receive(data, idle)
        self._hold.add(data, idle)
        self._waited = 0.0
        return self._try(0.0)

    def _wait(self, idle: float) -> list[Frame]:
        frames: list[Frame] = []
        if not self._chosen and self._hold:
            self._waited = idle
            frames = self._try(idle)
        return frames + self._chosen.tick(idle) if self._chosen else frames

    def _drain(self) -> list[Frame]:
        frames = [] if self._chosen else self._try(float("inf"))
        return frames + self._chosen.eof() if self._chosen else frames

    def _try(self, idle: float) -> list[Frame]:
        self._chosen = chosen = self._choose(idle)
        if chosen is None:
            return []
        frames: list[Frame] = []
        if PATIENCE <= idle < float("inf") and (what := self._given_up()):
            start = bytes(self._hold.data[:16])
            frames = self._notice(
                f"began like {what} and stalled; it is taken for audio: {start!a}"
            )
        for data, pause in self._hold.pieces():
            frames += chosen.receive(data, pause)
        return frames


class AutoFraming(_Choosing):
    """Finds out what the connection speaks.

    Args:
        web_port: where a browser on this port is sent, or None where nothing serves the web.
        audiosocket: how AudioSocket is spoken.
    """

    _name = "auto"

    def __init__(
        self, web_port: int | None = None, audiosocket: AudioSocketOptions | None = None
    ) -> None:
        super().__init__()
        self._web_port = web_port
        self._audiosocket = audiosocket

    def _choose(self, idle: float) -> Framing | None:
        kind = sniff(self._hold.data, final=False)
        if kind is None and idle >= DECIDE:
            kind = sniff(self._hold.data, final=True)
            if kind is Kind.AUDIO and idle < PATIENCE:
                return None
        if kind is None:
            return None
        if kind is Kind.AUDIOSOCKET:
            return AudioSocketFraming(self._audiosocket)
        if kind is Kind.HTTP:
            return HttpRefusal(self._web_port)
        if kind is Kind.WAV:
            return WavFraming()
        return CallIdFraming(AfterId()) if kind is Kind.CALL_ID else SlinOrCr641()

    def _given_up(self) -> str:
        return "a call id or another preamble" if isinstance(self._chosen, SlinOrCr641) else ""


class AfterId(_Choosing):
    """What follows a call id: a WAV file, or what ``SlinOrCr641`` finds."""

    _name = "slin"

    @property
    def takes_text(self) -> bool:
        return True

    def _choose(self, idle: float) -> Framing | None:
        data = self._hold.data
        if _begins(data[:4], wav.RIFF) and _begins(data[8:12], wav.WAVE):
            if len(data) >= wav.SIGNATURE:
                return WavFraming()
            if idle < PATIENCE:
                return None
        return SlinOrCr641()


class SlinOrCr641(_Choosing):
    """641-byte frames if the first four all end in a carriage return, else raw SLIN."""

    _name = "slin"

    @property
    def takes_text(self) -> bool:
        return True

    def _choose(self, idle: float) -> Framing | None:
        data = self._hold.data
        places = range(FRAME, min(len(data), HITS * STRIDE), STRIDE)
        if any(data[place] != CR for place in places):
            return RawFraming()
        if len(places) == HITS:
            return Cr641Framing()
        return RawFraming() if idle >= PATIENCE else None

    def _given_up(self) -> str:
        return "641-byte frames" if len(self._hold) > FRAME else ""
