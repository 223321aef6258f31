"""Asterisk's media WebSocket (``chan_websocket``): audio as binary messages, control as text.

Asterisk connects for a channel and sends ``MEDIA_START`` with the channel's codec, then audio of
that codec in pieces of any size, and ``DTMF_END`` for keys. Control is one line of plain text or
JSON, as ``f(json)`` of the dial string says; we answer in the form that came. Texts to Asterisk may
have 128 bytes at most and cannot be transcripts: those go to the sinks.

``docs.asterisk.org/Configuration/Channel-Drivers/WebSocket``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aii.protocols.codecs import CODECS, Codec
from aii.protocols.frames import Dtmf, Frame, Hangup
from aii.protocols.messages import MessageProtocol
from aii.protocols.metadata import metadata

KEYS = "0123456789*#ABCD"

QUIET = (
    "MEDIA_BUFFERING_COMPLETED",
    "MEDIA_MARK_PROCESSED",
    "MEDIA_XOFF",
    "MEDIA_XON",
    "QUEUE_DRAINED",
    "STATUS",
)
"""Events about audio that is sent to Asterisk; we send none."""

OF_THE_WIRE = ("codec", "rate", "connection_id", "optimal_frame_size", "ptime")
"""What is said about the connection and not about the call."""


class AsteriskMediaProtocol(MessageProtocol):
    """One media channel of Asterisk.

    The call's id is the URI parameter ``call_id``, else the channel's unique id. Audio without a
    ``MEDIA_START`` before it is taken for the codec that the URI names, else for ``slin16``.
    """

    name = "asterisk-media"
    subprotocols = ("media",)

    def __init__(self, parameters: Mapping[str, str] | None = None) -> None:
        super().__init__(parameters)
        self._wire: Codec | None = None
        self._json = False  # the form of control messages

    def _finish(self) -> None:
        """We end the call: the channel is to end with it, so that the dialplan goes on."""
        self._say('{"command":"HANGUP"}' if self._json else "HANGUP")

    def _text(self, message: str) -> list[Frame]:
        self._json = message.lstrip().startswith("{")
        values = self._object(message) if self._json else _plain(message)
        event = (values or {}).pop("event", None)
        if values is None or not isinstance(event, str) or not event:
            return self._notice(f"a control message that is none: {message[:40]!a}")
        if event == "MEDIA_START":
            return self._start(values)
        if event == "DTMF_END":
            digit = str(values.get("digit", "")).upper()
            if len(digit) == 1 and digit in KEYS:
                return [Dtmf(digit)]
            return self._notice(f"no key of a telephone: {digit[:8]!a}")
        if event == "ERROR":
            return self._notice(f"Asterisk reports: {values.get('error_text', message)}")
        return [] if event in QUIET else self._notice(f"events {event[:40]!a} are not known")

    def _start(self, values: dict[str, Any]) -> list[Frame]:
        if self._wire is not None:
            return self._notice("a second MEDIA_START is ignored")
        name = str(values.pop("format", "")).lower()
        codec = CODECS.get(name)
        if codec is None:
            known = ", ".join(CODECS)
            self._finish()
            refusal = self._notice(
                f"codec {name[:20]!a} is not understood; dial with c() of {known}"
            )
            return [*refusal, Hangup("refused")]
        variables = values.pop("channel_variables", None)
        values["call_id"] = values.pop("channel_id", "")
        return self._begin(codec, values, variables if isinstance(variables, dict) else {})

    def _begin(
        self, codec: Codec, values: Mapping[str, Any], variables: Mapping[str, Any]
    ) -> list[Frame]:
        """What the URI says counts most, then the event, then the channel's variables."""
        self._wire = codec
        said = metadata({**self._parameters, **_new(values, self._parameters)}).values
        said = metadata({**said, **_new(variables, said)}).values
        about = {name: text for name, text in said.items() if name not in OF_THE_WIRE}
        return [*self._about(about), *self._format(codec)]

    def _binary(self, message: bytes) -> list[Frame]:
        frames: list[Frame] = []
        if self._wire is None:
            name = self._parameters.get("codec", "slin16")
            frames = self._notice(f"audio before MEDIA_START is taken for {name[:20]}")
            frames += self._begin(CODECS.get(name, CODECS["slin16"]), {}, {})
        assert self._wire is not None
        return frames + self._audio(self._wire, message)


def _new(values: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, str]:
    """``values``, cleaned, without the names that are in ``known``."""
    cleaned = metadata(values).values
    return {name: text for name, text in cleaned.items() if name not in known}


def _plain(message: str) -> dict[str, Any]:
    """``NAME key:value key:value`` as the JSON form would have it; values hold no spaces."""
    name, *pairs = message.split()[:64] or [""]
    values: dict[str, Any] = dict(pair.split(":", 1) for pair in pairs if ":" in pair)
    return {**values, "event": name}


def control(event: str, *, form: str = "plain-text", **values: object) -> str:
    """The other direction, for clients and tests: the text message that Asterisk sends."""
    if form == "json":
        return json.dumps({"event": event, **values}, separators=(",", ":"))
    return " ".join([event, *(f"{name}:{value}" for name, value in values.items())])
