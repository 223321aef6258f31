"""The options of telephone protocols, a part of :class:`aii.config.ServerConfig`."""

from __future__ import annotations

from dataclasses import dataclass

from aii.config.options import number, one_of, option, optional_whole

AUDIOSOCKET_PAYLOADS = (
    "auto",
    "slin",
    "slin12",
    "slin16",
    "slin24",
    "slin32",
    "slin44",
    "slin48",
    "slin96",
    "slin192",
    "ulaw",
    "alaw",
)
"""What can be said about AudioSocket's kind 0x10 (``aii.protocols.audiosocket.PAYLOADS``)."""


@dataclass(frozen=True)
class TelephonyOptions:
    """How telephone systems are spoken to."""

    audiosocket_port: int | None = option(
        None, "further TCP port, for AudioSocket alone (9092 is usual); 0 picks a free one, none "
        "means that --port alone takes it", optional_whole(0, 65535),
    )  # fmt: skip
    audiosocket_payload: str = option(
        "auto", "what AudioSocket messages carry that are marked as 8 kHz SLIN: auto believes the "
        "mark, slin16, ulaw, alaw and so on do not", one_of(*AUDIOSOCKET_PAYLOADS),
        metavar="CODEC",
    )  # fmt: skip
    audiosocket_keepalive: float = option(
        0.0, "seconds without a byte after which an AudioSocket client is sent 20 ms of silence, "
        "so that it does not give up; 0 is never", number(0, 3600), metavar="SECONDS",
    )  # fmt: skip
