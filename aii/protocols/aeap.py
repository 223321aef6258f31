"""Asterisk's speech API over a WebSocket (AEAP, ``res_speech_aeap``): speech to text.

Asterisk connects when the dialplan calls ``SpeechCreate``, asks for a codec (``setup``, to be
answered within a second), then sends audio while ``SpeechBackground`` listens. A final text goes to
it as the request ``set`` with ``results``; that ends ``SpeechBackground``, and the dialplan reads
``${SPEECH_TEXT(0)}`` and ``${SPEECH_SCORE(0)}``. So a result must be a whole utterance: this
protocol wants a call whose finals come at the end of what is spoken.

The setting ``collect`` asks a question (``aii.question``): ``SPEECH_ENGINE(collect)=digits:4`` in a
dialplan, ``@collect=digits:4`` in ``aeap.conf``. Then the result is its answer, whose status is
the ``${SPEECH_GRAMMAR(0)}``. Answers by keys are left to Asterisk, which makes results of keys.

``docs.asterisk.org/Configuration/Interfaces/Asterisk-External-Application-Protocol-AEAP``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aii.errors import ConfigError
from aii.protocols.codecs import CODECS, Codec
from aii.protocols.frames import Ask, Dtmf, Frame, Hangup
from aii.protocols.messages import MessageProtocol
from aii.protocols.metadata import metadata, sample_rate
from aii.protocols.utterance import Utterance
from aii.question import Question

KEYS = "0123456789*#ABCD"

MOST_RESULTS = 100
"""Results kept for a ``get`` that asks for them; Asterisk mostly has them from our ``set``."""

BEST = 100
"""The score of a text whose words have no probabilities."""


class AeapProtocol(MessageProtocol):
    """One speech object of Asterisk.

    All sample rates of SLIN have the one name ``slin`` in a setup: 8 kHz unless the URI or a
    parameter of ``aeap.conf`` (``@rate=16000``) says otherwise.
    """

    name = "aeap"
    subprotocols = ("speech_to_text",)
    wishes = {"vad": "true"}

    def __init__(self, parameters: Mapping[str, str] | None = None) -> None:
        super().__init__(parameters)
        self._wire: Codec | None = None
        self._settings: dict[str, str] = dict(self._parameters)
        self._utterance = Utterance()
        self._results: list[dict[str, Any]] = []
        self._requests = 0
        self._asking = False  # a question is open, so that finals are no results

    def _text(self, message: str) -> list[Frame]:
        values = self._object(message)
        if values is None:
            return self._notice(f"a message that is no JSON object: {message[:40]!a}")
        if "response" in values:
            error = values.get("error_msg")
            return self._notice(f"Asterisk refuses a result: {error}") if error else []
        name, params = values.get("request"), values.get("params")
        if not isinstance(name, str):
            return self._notice(f"a message that is neither request nor response: {message[:40]!a}")
        if name == "setup":
            return self._setup(values)
        if self._wire is None:
            self._answer(values, error_msg="the first request must be 'setup'")
            return self._notice(f"request {name[:20]!a} before the setup")
        if name == "set" and isinstance(params, dict):
            return self._set(values, params)
        if name == "get" and isinstance(params, list):
            self._get(values, params)
            return []
        self._answer(values, error_msg=f"request '{name[:40]}' is not understood")
        return self._notice(f"request {name[:20]!a} is not understood")

    def _setup(self, request: dict[str, Any]) -> list[Frame]:
        params = request.get("params")
        if self._wire is not None:
            self._answer(request, error_msg="the setup is done")
            return self._notice("a second setup is refused")
        if isinstance(params, dict):
            self._settings = {**self._settings, **metadata(params).values}
        offered = request.get("codecs")
        names = [
            item["name"].lower()
            for item in (offered if isinstance(offered, list) else [])
            if isinstance(item, dict) and isinstance(item.get("name"), str)
        ]
        chosen = next((name for name in names if name in CODECS), None)
        if chosen is None:
            known = ", ".join(CODECS)
            error = f"none of the codecs offered is understood; in aeap.conf: codecs=!all,{known}"
            self._answer(request, error_msg=error)
            return [*self._notice(f"{error} (offered: {names[:10]})"), Hangup("refused")]
        asked = self._ask(request, self._settings.pop("collect", None))
        if asked is None:
            return [*self._notice("the question of the setup makes no sense"), Hangup("refused")]
        self._wire = self._codec_of(chosen)
        self._answer(request, codecs=[{"name": chosen}])
        about = {k: v for k, v in self._settings.items() if k not in ("codec", "rate")}
        return [*self._about({**self.wishes, **about}), *self._format(self._wire), *asked]

    def _ask(self, request: dict[str, Any], wanted: object) -> list[Frame] | None:
        """The question that a request asks, if it does; None: it was refused."""
        if not isinstance(wanted, str | Mapping):
            return []
        try:
            question = Question.parse(wanted)
        except ConfigError as error:
            self._answer(request, error_msg=str(error))
            return None
        self._asking = True
        return [Ask(question)]

    def _codec_of(self, name: str) -> Codec:
        rate = sample_rate(self._settings.get("rate"))
        return Codec("s16", rate) if name == "slin" and rate else CODECS[name]

    def _set(self, request: dict[str, Any], params: dict[str, Any]) -> list[Frame]:
        asked = self._ask(request, params.get("collect"))
        if asked is None:
            return self._notice("a question makes no sense")
        self._answer(request)
        values = dict(metadata(params).values)
        values.pop("collect", None)
        keys = values.pop("dtmf", "").upper()
        frames: list[Frame] = [Dtmf(key) for key in keys[:32] if key in KEYS]
        self._settings.update(values)
        while len(self._settings) > 100:  # of a client that sets on and on, the oldest go
            del self._settings[next(iter(self._settings))]
        return [*frames, *self._about({k: v for k, v in values.items() if k != "call_id"}), *asked]

    def _get(self, request: dict[str, Any], params: list[Any]) -> None:
        wanted = [name for name in params[:16] if isinstance(name, str)]
        values: dict[str, Any] = {}
        for name in wanted:
            if name == "results":
                values[name] = self._results or self._so_far()
                self._results = []
            elif name in self._settings:
                values[name] = self._settings[name]
        if wanted and len(values) == len(set(wanted)):
            self._answer(request, params=values)
        else:
            self._answer(request, error_msg="no such setting")

    def _so_far(self) -> list[dict[str, Any]]:
        text = self._utterance.so_far
        return [{"text": text, "score": _score(self._utterance.words)}] if text else []

    def _binary(self, message: bytes) -> list[Frame]:
        if self._wire is None:
            return self._notice("audio before the setup is dropped: its codec is not known")
        return self._audio(self._wire, message)

    def _event(self, event: Mapping[str, Any]) -> None:
        whole = self._utterance.take(event)
        result: dict[str, Any] = {}
        if event.get("type") == "answer" and event.get("status") not in ("replaced", "ended"):
            self._asking = False
            if event.get("source") != "keys":
                result = _result(event)
        elif whole and not self._asking:
            result = {"text": self._utterance.text, "score": _score(self._utterance.words)}
        if whole:
            self._utterance.clear()
        if not result:
            return
        self._results = [*self._results, result][-MOST_RESULTS:]
        self._requests += 1
        request = {"request": "set", "id": f"aii-{self._requests}"}
        self._say(json.dumps({**request, "params": {"results": [result]}}))

    def _answer(self, request: dict[str, Any], **values: Any) -> None:
        """The response that echoes a request's name and id."""
        head = {"response": str(request["request"])[:64], "id": str(request.get("id", ""))[:256]}
        self._say(json.dumps({**head, **values}), droppable=True)


def _result(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a question as a result: its value, what the model thinks of it, its status."""
    score = round(100 * (answer.get("confidence") or 0.0))
    return {"text": answer.get("value") or "", "score": score, "grammar": answer.get("status")}


def _score(words: Any) -> int:
    """0 to 100: the mean probability of the words."""
    known = [word["probability"] for word in words if word.get("probability") is not None]
    return round(100 * sum(known) / len(known)) if known else BEST
