"""TCP, AudioSocket and web listeners over one set of parts, with an engine of tones."""

from __future__ import annotations

import io
import json
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from server_rig import WAIT, Listener
from tone_speech import ToneEngine

from aii.audio.vad import EnergyDetector
from aii.config import ServerConfig
from aii.protocols import make_framing
from aii.servers.call_ids import CallIds
from aii.servers.registry import CallRegistry
from aii.servers.services import Services
from aii.sinks.build import Maker, build_outlets
from aii.sinks.spec import SinkSpec
from aii.streaming.factory import Sessions
from aii.streaming.settings import CallSettings

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'aii[web]'")
pytest.importorskip("websockets", reason="websockets is not installed: pip install 'aii[web]'")


class _Models:
    """What the web wants to know of a model."""

    engines = 1

    def stats(self) -> dict[str, float]:
        return {}


class WebRig:
    """Listeners on free ports; leaving the ``with`` block stops them.

    Attributes:
        tcp: host and port for whatever comes by TCP.
        audiosocket: for AudioSocket alone.
        ws: the web listener's address, as a WebSocket's.
    """

    def __init__(self, **settings: Any) -> None:
        from aii.engine.voice import VoiceThread
        from aii.servers.listeners import Listeners
        from aii.servers.web.state import Web

        self.listener = Listener()
        self.engine = ToneEngine()
        self.voice = VoiceThread(EnergyDetector())
        self.sessions = Sessions(CallSettings(**{"words": "all", **settings}), voice=True)
        self.registry = CallRegistry()
        config = ServerConfig(port=0, audiosocket_port=0, web_port=0, rate_limit=None)
        web = Web(config)
        services = Services(
            engine=self.engine,
            make_session=self.sessions.make,
            make_framing=lambda: make_framing("auto"),
            ids=CallIds(),
            registry=self.registry,
            defaults=lambda call_id: self.sessions.settings,
            voice=self.voice,
            sinks=[self.listener, *web.sinks],
            outlets=build_outlets(
                [],
                [SinkSpec.parse("jsonl:calls/", whole=False)],
                Maker(io.StringIO(), Path("nowhere"), {}),
            ),
        )
        self.listeners = Listeners(
            config,
            services,
            _Models(),  # type: ignore[arg-type]
            audiosocket=lambda: make_framing("audiosocket"),
            web=web,
        )
        self.audiosocket, self.tcp = (server.address for _, server in self.listeners._tcp)
        web_listener = self.listeners._web
        assert web_listener is not None
        self.web_port = web_listener.address[1]
        self.ws = f"ws://127.0.0.1:{self.web_port}"
        self.thread = threading.Thread(target=self.listeners.serve)

    def __enter__(self) -> WebRig:
        self.thread.start()
        until = time.monotonic() + WAIT
        while self._status("/health") != 200:
            assert time.monotonic() < until
            time.sleep(0.01)
        return self

    def _status(self, path: str) -> int:
        try:
            return self.request("GET", path)[0]
        except OSError:
            return 0

    def __exit__(self, *error: object) -> None:
        self.listeners.stop()
        self.thread.join(WAIT)
        assert not self.thread.is_alive()
        assert self.listeners.finish(WAIT)
        self.voice.close(5)

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Status and JSON, or else text, of an HTTP request."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.web_port}{path}", body, headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=WAIT) as answer:
                status, data = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, data = error.code, error.read()
        try:
            return status, json.loads(data) if data else None
        except ValueError:
            return status, data.decode()
