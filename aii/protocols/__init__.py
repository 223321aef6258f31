"""Framings: the bytes of a connection to frames and back, without sockets, threads or torch.

    receive(bytes), tick(idle), eof() -> [Frame]      send() -> bytes to write back

``make_framing`` gives one per connection; ``wrap`` makes what a caller would send. The WebSocket
protocols of telephone systems are their like for messages: ``messages`` has the interface,
``MESSAGE_PROTOCOLS`` the list.
"""

from __future__ import annotations

from aii.errors import ConfigError
from aii.protocols.aeap import AeapProtocol
from aii.protocols.asterisk_media import AsteriskMediaProtocol
from aii.protocols.audiosocket import AudioSocketFraming, AudioSocketOptions
from aii.protocols.base import Framing
from aii.protocols.callid import CallIdFraming
from aii.protocols.cr641 import Cr641Framing
from aii.protocols.detect import AutoFraming
from aii.protocols.frames import (
    Audio,
    CallId,
    Dtmf,
    Flush,
    Format,
    Frame,
    Hangup,
    Metadata,
    Notice,
)
from aii.protocols.freeswitch import FreeswitchProtocol
from aii.protocols.messages import MessageProtocol
from aii.protocols.slin import RawFraming
from aii.protocols.vosk import VoskProtocol
from aii.protocols.wrap import WRAPPINGS, Packet, wrap

FRAMINGS = ("auto", "raw", "callid", "cr641", "audiosocket")
"""Values of ``--framing``; all but ``auto`` fix the framing and guess nothing."""


MESSAGE_PROTOCOLS: tuple[type[MessageProtocol], ...] = (
    AsteriskMediaProtocol,
    AeapProtocol,
    VoskProtocol,
    FreeswitchProtocol,
)
"""What telephone systems speak over a WebSocket."""


def make_framing(
    name: str, *, web_port: int | None = None, audiosocket: AudioSocketOptions | None = None
) -> Framing:
    """A fresh machine for one connection.

    Args:
        name: one of ``FRAMINGS``.
        web_port: where ``auto`` sends a browser that comes to the audio port, or None.
        audiosocket: how AudioSocket is spoken; None: as it is meant to be.

    Raises:
        ConfigError: there is no such framing.
    """
    if name == "auto":
        return AutoFraming(web_port, audiosocket)
    if name == "raw":
        return RawFraming()
    if name == "callid":
        return CallIdFraming()
    if name == "cr641":
        return Cr641Framing()
    if name == "audiosocket":
        return AudioSocketFraming(audiosocket)
    raise ConfigError(f"unknown framing {name!r}; choose one of {', '.join(FRAMINGS)}")


__all__ = [
    "FRAMINGS",
    "MESSAGE_PROTOCOLS",
    "WRAPPINGS",
    "AeapProtocol",
    "AsteriskMediaProtocol",
    "Audio",
    "AudioSocketFraming",
    "AudioSocketOptions",
    "AutoFraming",
    "CallId",
    "Dtmf",
    "Flush",
    "Format",
    "Frame",
    "Framing",
    "FreeswitchProtocol",
    "Hangup",
    "MessageProtocol",
    "Metadata",
    "Notice",
    "Packet",
    "VoskProtocol",
    "make_framing",
    "wrap",
]
