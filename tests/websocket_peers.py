"""Telephone systems as clients of a WebSocket, each by its own source's rules.

Threads of the sync client of ``websockets``: what a peer sends and what it bears is what the C and
Python sources of Asterisk, Vosk and FreeSWITCH send and bear.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlencode

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from aii.protocols.asterisk_media import control
from aii.protocols.codecs import CODECS

COMMANDS = ("ANSWER", "HANGUP", "GET_STATUS", "FLUSH_MEDIA", "PAUSE_MEDIA", "CONTINUE_MEDIA")
LONGEST_TEXT = 128
WAIT = 100.0
_numbers = itertools.count(1)


def opened(
    uri: str, protocol: str | None = None, query: dict[str, str] | None = None, **more: Any
) -> ClientConnection:
    """A connection with the one subprotocol that the peer insists on."""
    target = uri + ("?" if "?" not in uri else "&") + urlencode(query) if query else uri
    connection: ClientConnection = connect(
        target,
        subprotocols=[protocol] if protocol else None,
        open_timeout=WAIT,
        close_timeout=WAIT,
        **more,
    ).__enter__()  # it stays open beyond this function
    if protocol is not None:
        assert connection.subprotocol == protocol
    return connection


def frames(audio: bytes, size: int) -> Iterator[bytes]:
    for place in range(0, len(audio), size):
        yield audio[place : place + size]


class MediaChannel:
    """A channel of ``chan_websocket``, dialled as ``WebSocket/conn/c(CODEC)f(FORM)v(QUERY)``."""

    def __init__(
        self, uri: str, codec: str = "slin16", form: str = "plain-text", **query: str
    ) -> None:
        number = next(_numbers)  # no two channels of a telephone system have the same
        self.channel_id = f"1753812345.{number}"
        self.commands: list[str] = []
        self.close_code: int | None = None
        self._form = form
        self._codec = CODECS[codec]
        self._socket: ClientConnection = opened(uri, "media", query, compression=None)
        self._size = self._codec.rate // 50 * (2 if self._codec.encoding == "s16" else 1)
        self._event(
            "MEDIA_START",
            connection_id="aii",
            channel=f"WebSocket/aii/0x{number:x}",
            channel_id=self.channel_id,
            format=codec,
            optimal_frame_size=self._size,
            ptime=20,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _event(self, name: str, **values: object) -> None:
        self._socket.send(control(name, form=self._form, **values))

    def _read(self) -> None:
        try:
            for message in self._socket:
                assert isinstance(message, str), "audio that nobody asked for"
                assert 0 < len(message.encode()) <= LONGEST_TEXT
                is_json = self._form == "json"
                command = json.loads(message)["command"] if is_json else message.split()[0]
                assert command in COMMANDS
                self.commands.append(command)
                if command == "HANGUP":
                    break
        except ConnectionClosed:
            pass
        self._socket.close()
        self.close_code = self._socket.close_code

    def play(self, audio: bytes, pace: float = 0.0) -> None:
        """What the channel hears, until its audio or the connection is over."""
        for frame in frames(audio, self._size):
            try:
                self._socket.send(frame)
            except ConnectionClosed:
                return
            time.sleep(pace)

    def key(self, digit: str) -> None:
        self._event("DTMF_END", digit=digit, channel_id=self.channel_id)

    def hang_up(self) -> None:
        """The channel ends: Asterisk closes."""
        self._socket.close(1000)
        self._reader.join(WAIT)

    def wait(self) -> None:
        """Until the server has ended the call."""
        self._reader.join(WAIT)
        assert not self._reader.is_alive()


class SpeechObject:
    """``SpeechCreate`` on an engine of ``aeap.conf``, then ``SpeechBackground``."""

    def __init__(self, uri: str, codec: str = "ulaw", **params: str) -> None:
        self.texts: list[tuple[str, int]] = []
        self.grammar = ""  # of the last result
        self._ids = 0
        self.codec = CODECS[codec]
        self._socket = opened(uri, "speech_to_text", compression=None)
        # All rates of SLIN have one codec name.
        self._name = "slin" if codec.startswith("slin") else codec
        answer = self._ask(
            "setup", version="0.1.0", codecs=[{"name": self._name}], params=dict(params)
        )
        assert answer["codecs"][0]["name"] == self._name, "setup codec unsupported"

    def _ask(self, name: str, **values: Any) -> dict:
        """A transaction: a request and, within a second, its response."""
        self._ids += 1
        request = {"request": name, "id": f"{self._ids:08x}-0000", **values}
        self._socket.send(json.dumps(request))
        until = time.monotonic() + WAIT  # Asterisk waits one second; a test machine may be slow
        while True:
            message = json.loads(self._socket.recv(timeout=until - time.monotonic()))
            if "request" in message:
                self._request(message)
                continue
            assert (message["response"], message["id"]) == (name, request["id"])
            return message

    def _request(self, message: dict) -> None:
        assert message["request"] == "set", "Asterisk takes no other request"
        assert list(message["params"]) == ["results"], "can only set 'results'"
        for result in message["params"]["results"]:
            assert isinstance(result["text"], str)
            assert isinstance(result["score"], int)
            self.texts.append((result["text"], result["score"]))
            self.grammar = result.get("grammar", "")
        self._socket.send(json.dumps({"response": "set", "id": message["id"]}))

    def background(self, audio: bytes, timeout: float = WAIT) -> str:
        """``SpeechBackground``: audio, then silence, until there is a result; its text."""
        size = self.codec.rate // 50 * (2 if self.codec.encoding == "s16" else 1)
        silence = self.codec.silence(20)
        heard, until = len(self.texts), time.monotonic() + timeout
        queue: Iterable[bytes] = frames(audio, size)
        pending = iter(queue)
        while len(self.texts) == heard:
            assert time.monotonic() < until, "no result came"
            self._socket.send(next(pending, silence))
            try:
                message = json.loads(self._socket.recv(timeout=0.002))
            except TimeoutError:
                continue
            self._request(message)
        return self.texts[-1][0]

    def key(self, digit: str) -> None:
        self._ask("set", params={"dtmf": digit})

    def setting(self, name: str, value: str) -> None:
        self._ask("set", params={name: value})

    def get(self, name: str) -> dict:
        return self._ask("get", params=[name])

    def destroy(self) -> None:
        self._socket.close()


def vosk_client(uri: str, audio: bytes, rate: int) -> list[dict]:
    """vosk-server's own ``test.py``: a config, 0.2 s at a time, one answer read for each."""
    answers = []
    with opened(uri) as socket:
        socket.send(f'{{ "config" : {{ "sample_rate" : {rate} }} }}')
        for piece in frames(audio, rate // 5 * 2):
            socket.send(piece)
            answers.append(json.loads(socket.recv(timeout=WAIT)))
        socket.send('{"eof" : 1}')
        answers.append(json.loads(socket.recv(timeout=WAIT)))
        try:
            extra = socket.recv(timeout=WAIT)
        except ConnectionClosed:
            extra = None
        assert extra is None, "one answer for each message"
        assert socket.close_code == 1000
    return answers


def vosk_module(uri: str, audio: bytes, timeout: float = WAIT) -> str:
    """``res_speech_vosk``: 3,200 bytes of 8 kHz at a time and silence after it, until a text."""
    with opened(uri, "ws") as socket:
        pieces, until = frames(audio, 3_200), time.monotonic() + timeout
        while time.monotonic() < until:
            socket.send(next(pieces, b"").ljust(3_200, b"\0"))
            answer = json.loads(socket.recv(timeout=WAIT))
            if answer.get("text"):
                socket.send('{"eof" : 1}')
                return answer["text"]
            assert "partial" in answer
    raise AssertionError("no result came")


def audio_stream(
    uri: str, audio: bytes, metadata: str | None, size: int, **query: str
) -> list[dict]:
    """``uuid_audio_stream UUID start URI ...`` to the end of the audio, then ``stop``."""
    events: list[dict] = []
    socket = opened(uri, None, query)  # the module compresses, as does this client

    def read() -> None:
        try:
            for message in socket:
                events.append(json.loads(message))
        except ConnectionClosed:
            pass

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    if metadata is not None:
        socket.send(metadata)
    for frame in frames(audio, size):
        socket.send(frame)
    socket.close(1000)
    reader.join(WAIT)
    return events
