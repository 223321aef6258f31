"""Framings: the bytes of a connection to frames and back, without sockets, threads or torch.

    receive(bytes), tick(idle), eof() -> [Frame]      send() -> bytes to write back

``make_framing`` gives one per connection; ``wrap`` makes what a caller would send.
"""

from __future__ import annotations

from aii.errors import ConfigError
from aii.protocols.audiosocket import AudioSocketFraming
from aii.protocols.base import Framing
from aii.protocols.callid import CallIdFraming
from aii.protocols.cr641 import Cr641Framing
from aii.protocols.detect import AutoFraming
from aii.protocols.frames import Audio, CallId, Dtmf, Flush, Format, Frame, Hangup, Notice
from aii.protocols.slin import RawFraming
from aii.protocols.wrap import WRAPPINGS, Packet, wrap

FRAMINGS = ("auto", "raw", "callid", "cr641", "audiosocket")
"""Values of ``--framing``; all but ``auto`` fix the framing and guess nothing."""


def make_framing(name: str, *, web_port: int | None = None) -> Framing:
    """A fresh machine for one connection.

    Args:
        name: one of ``FRAMINGS``.
        web_port: where ``auto`` sends a browser that comes to the audio port, or None.

    Raises:
        ConfigError: there is no such framing.
    """
    if name == "auto":
        return AutoFraming(web_port)
    if name == "raw":
        return RawFraming()
    if name == "callid":
        return CallIdFraming()
    if name == "cr641":
        return Cr641Framing()
    if name == "audiosocket":
        return AudioSocketFraming()
    raise ConfigError(f"unknown framing {name!r}; choose one of {', '.join(FRAMINGS)}")


__all__ = [
    "FRAMINGS",
    "WRAPPINGS",
    "Audio",
    "AutoFraming",
    "CallId",
    "Dtmf",
    "Flush",
    "Format",
    "Frame",
    "Framing",
    "Hangup",
    "Notice",
    "Packet",
    "make_framing",
    "wrap",
]
