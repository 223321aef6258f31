"""FreeSWITCH's ``mod_audio_stream`` and ``mod_audio_fork``: a text about the call, then L16.

The metadata that the dialplan gives comes first, as text (JSON, or a mere call id); then binary
messages of 16-bit little-endian PCM at 8 or 16 kHz: one channel (``mono``, ``mixed``) or two
(``stereo``, the caller left and the callee right), which become the legs of one call. What is sent
back, one JSON object per event, arrives as a FreeSWITCH event ``mod_audio_stream::json``.

The wire says neither rate nor channels: the URI does (``?rate=16000&channels=stereo``) or the JSON,
under these names or those of the modules' commands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aii.protocols.codecs import Codec
from aii.protocols.frames import Audio, Dtmf, Frame
from aii.protocols.messages import MessageProtocol
from aii.protocols.metadata import metadata, sample_rate

RATE = 8_000
"""Samples per second where nobody says anything; FreeSWITCH's own default."""

LEGS = ("caller", "callee")
"""Whose audio the two channels are, in this order."""

SIDES = {"1": 1, "mono": 1, "mixed": 1, "2": 2, "stereo": 2}
"""Channels by the names of the modules' mix types."""

FRAME = 4
"""Bytes of one sample of both channels."""


class FreeswitchProtocol(MessageProtocol):
    """One stream of a FreeSWITCH channel. Holds at most three bytes of audio."""

    name = "freeswitch"
    subprotocols = ("audio.drachtio.org",)

    def __init__(self, parameters: Mapping[str, str] | None = None) -> None:
        super().__init__(parameters)
        self._about_call = dict(self._parameters)
        self._begun = False
        self._channels = 1
        self._rate = RATE
        self._rest = b""

    def _text(self, message: str) -> list[Frame]:
        values = self._object(message)
        if values is None:
            word = message.strip()
            if self._begun or not 0 < len(word) <= 128 or len(word.split()) != 1:
                return self._notice(f"text that is no JSON object: {message[:40]!a}")
            values = {"call_id": word}
        said = dict(metadata(values).values)
        if not self._begun:
            self._about_call = {**self._about_call, **said}
            return []
        keys = said.pop("dtmf", "").upper()
        frames: list[Frame] = [Dtmf(key) for key in keys[:32] if key in "0123456789*#ABCD"]
        return frames + self._about({k: v for k, v in said.items() if k not in _WIRE})

    def _begin(self) -> list[Frame]:
        """The first audio has come: what was said until now is what is known."""
        self._begun = True
        frames: list[Frame] = []
        said = self._about_call
        if "rate" in said:
            rate = sample_rate(said["rate"])
            if rate is None:
                frames = self._notice(
                    f"sample rate {said['rate'][:20]!a} makes no sense; {RATE} it is"
                )
            self._rate = rate or RATE
        if "channels" in said:
            channels = SIDES.get(said["channels"].lower())
            if channels is None:
                frames += self._notice(
                    f"channels {said['channels'][:20]!a} are not understood; mono"
                )
            self._channels = channels or 1
        about = {k: v for k, v in said.items() if k not in _WIRE}
        frames += self._about(about)
        return frames + self._format(Codec("s16", self._rate), self._channels)

    def _drain(self) -> list[Frame]:
        """A stream that had metadata and no audio was a call all the same."""
        return [] if self._begun or not self._about_call else self._begin()

    def _binary(self, message: bytes) -> list[Frame]:
        frames = [] if self._begun else self._begin()
        if self._channels == 1:
            return [*frames, Audio(message)]
        data = self._rest + message
        whole = len(data) - len(data) % FRAME
        self._rest = data[whole:]
        if not whole:
            return frames
        both = memoryview(data[:whole]).cast("H")
        return [*frames, *(Audio(both[side::2].tobytes(), leg) for side, leg in enumerate(LEGS))]

    def _event(self, event: Mapping[str, Any]) -> None:
        self._say(json.dumps(event), droppable=event.get("type") == "partial")


_WIRE = ("rate", "channels", "codec")
