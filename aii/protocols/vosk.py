"""The WebSocket protocol of vosk-server, for its many clients and ``res_speech_vosk``.

A first text message may configure; then each binary message (SLIN) is answered by exactly one text
message: a ``result`` when a text has become final since the last answer, else the ``partial`` one.
Clients count on that, for they read once after each write. ``{"eof": 1}`` ends and gets the last
result. The rate is 8 kHz unless the configuration or the URI (``?rate=16000``) says otherwise, as
with vosk-server.

``github.com/alphacep/vosk-server``, ``websocket/asr_server.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aii.protocols.codecs import Codec
from aii.protocols.frames import Frame, Hangup
from aii.protocols.messages import MessageProtocol
from aii.protocols.metadata import metadata, sample_rate
from aii.protocols.utterance import Utterance, one_line

RATE = 8_000
"""Samples per second where nobody says anything."""


class VoskProtocol(MessageProtocol):
    """One connection of a Vosk client."""

    name = "vosk"
    subprotocols = ("ws",)
    wishes = {"vad": "true", "window": "1"}  # clients show the partial text as it grows

    def __init__(self, parameters: Mapping[str, str] | None = None) -> None:
        super().__init__(parameters)
        self._rate = RATE
        self._words = True
        self._alternatives = 0
        self._utterance = Utterance()
        self._whole: list[tuple[str, list[Mapping[str, Any]]]] = []  # utterances not yet sent
        self._known: dict[str, str] | None = {}  # said about the call, until it begins
        self._ending = False  # the client has said eof and waits for the last result
        self._opening = self._configured(self._parameters, "the URI's")

    def _begin(self) -> list[Frame]:
        """What was said until the first audio."""
        if self._known is None:
            return []
        known, self._known = self._known, None
        opening, self._opening = self._opening, []
        return [*opening, *self._about({**self.wishes, **known})]

    def _text(self, message: str) -> list[Frame]:
        values = self._object(message)
        if values is None:
            return self._notice(f"a message that is no JSON object: {message[:40]!a}")
        if isinstance(values.get("config"), dict):
            return self._configure(values["config"])
        if values.get("eof"):
            self._ending = True
            return [*self._begin(), Hangup("hangup")]
        return self._notice(f"a message that is neither config nor eof: {message[:40]!a}")

    def _configure(self, config: dict[str, Any]) -> list[Frame]:
        phrases = config.get("phrase_list")
        if isinstance(phrases, list):  # Vosk's sign for "anything else" is no word
            config = {**config, "phrase_list": [p for p in phrases if p != "[unk]"]}
        said = dict(metadata(config).values)
        self._words = said.pop("words", "true") not in ("false", "0")
        wanted = said.pop("max_alternatives", "0")
        self._alternatives = int(wanted) if wanted.isdecimal() else 0
        return self._configured(said, "sample")

    def _configured(self, said: Mapping[str, str], whose: str) -> list[Frame]:
        """Keep what is said about the call, and set the rate."""
        about = {name: text for name, text in said.items() if name not in ("rate", "codec")}
        frames: list[Frame] = []
        if "rate" in said:
            rate = sample_rate(said["rate"])
            if rate is None:
                line = f"{whose} rate {said['rate'][:20]!a} makes no sense; {self._rate} it stays"
                frames = self._notice(line)
            self._rate = rate or self._rate
        if self._known is None:
            return [*frames, *self._about(about)]
        self._known = {**self._known, **about}
        return frames

    def _binary(self, message: bytes) -> list[Frame]:
        frames = [*self._begin(), *self._audio(Codec("s16", self._rate), message)]
        if self._whole:
            self._result()
        else:
            self._say(json.dumps({"partial": self._utterance.so_far}))
        return frames

    def _event(self, event: Mapping[str, Any]) -> None:
        if self._utterance.take(event):
            self._keep()

    def hang_up(self) -> None:
        """We end the call: the client gets what it would have got for its eof."""
        self._ending = True

    def _keep(self) -> None:
        self._whole.append((self._utterance.text, self._utterance.words))
        self._utterance.clear()

    def _finish(self) -> None:
        if self._ending:
            self._keep()
            self._result()

    def _result(self) -> None:
        """All utterances that were not sent yet, as one result."""
        text = " ".join(text for text, _ in self._whole if text)
        words = [
            {
                "conf": 1.0 if word.get("probability") is None else word["probability"],
                "end": word["end"],
                "start": word["start"],
                "word": one_line(word["text"]),
            }
            for _, spoken in self._whole
            for word in spoken
        ]
        self._whole.clear()
        body: dict[str, Any] = {"text": text}
        if self._words and words:
            body = {"result": words, "text": text}
        if self._alternatives:
            total = sum(word["conf"] for word in words)
            body = {"alternatives": [{"confidence": total / len(words) if words else 1.0, **body}]}
        self._say(json.dumps(body))
