"""A web listener (and a TCP one, if asked for) on free ports with a fake engine; its clients."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from fake_engine import VOCABULARY, FakeEngine, call_settings, floats, speech, spoken
from server_rig import WAIT, Listener, wait_until
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from aii.config import ServerConfig
from aii.errors import CheckpointError
from aii.protocols import make_framing
from aii.servers.budget import Budget
from aii.servers.listeners import Listeners
from aii.servers.models import Loaded, Models
from aii.servers.services import Services
from aii.servers.web.state import Web
from aii.streaming.factory import Sessions

CALM = {"rate_limit": None, "ping": 0.0}
"""Options with which a test is not disturbed."""


def no_other_model(name: str, language: str | None, kept: Loaded | None) -> Loaded:
    """Another language is fine, another model is not there."""
    if kept is None:
        raise CheckpointError(f"there is no model {name}")
    settings = call_settings(language=language)
    return Loaded(name, kept.engine, Sessions(settings, VOCABULARY, kept.sessions.ids), kept.about)


class WebRig:
    """Running listeners; leaving the ``with`` block stops them."""

    def __init__(self, *, engine=None, load=no_other_model, settings=None, budget=None, **options):
        self.config = ServerConfig(**{"port": None, "web_port": 0, **CALM, **options})
        self.engine = engine or FakeEngine()
        self.web = Web(self.config)
        self.listener = Listener()
        sessions = Sessions(call_settings(**(settings or {})), VOCABULARY)
        self.models = Models(Loaded("fake", self.engine, sessions, {"device": "none"}), load)
        self.services = Services(
            engine=self.models,
            make_session=self.models.make_session,
            make_framing=lambda: make_framing("auto"),
            bind=self.models.bind,
            unbind=self.models.release,
            defaults=self.models.settings,
            no_room=self.models.no_room,
            sinks=[*self.web.sinks, self.listener],
            max_backlog=self.config.max_backlog,
            budget=budget or Budget(),
            first_byte_timeout=self.config.first_byte_timeout,
            idle_timeout=self.config.idle_timeout,
        )
        self.listeners = Listeners(
            self.config,
            self.services,
            self.models,
            audiosocket=lambda: make_framing("audiosocket"),
            web=self.web,
            version="9",
        )
        self.web_listener = self.listeners._web
        self.thread = threading.Thread(target=self.listeners.serve)

    def __enter__(self) -> WebRig:
        self.thread.start()
        wait_until(lambda: self.web_listener._started.is_set())
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self, timeout: float = 10.0) -> bool:
        """Stop and say whether all calls finished in time."""
        self.listeners.stop()
        self.thread.join(WAIT)
        assert not self.thread.is_alive()
        in_time = self.listeners.finish(timeout)
        self.models.close(5)
        return in_time

    @property
    def address(self) -> tuple[str, int]:
        return self.web_listener.address

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}"

    def ws(self, path: str, **options: Any) -> ClientConnection:
        """A WebSocket; its limits are ours, not the test's."""
        url = f"ws://127.0.0.1:{self.address[1]}{path}"
        defaults = {"open_timeout": WAIT, "close_timeout": WAIT, "max_size": None, "proxy": None,
                    "ping_interval": None, "compression": None}  # fmt: skip
        return connect(url, **{**defaults, **options})

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> http.client.HTTPResponse:
        """An HTTP request; the answer, its body read into ``.content``."""
        client = http.client.HTTPConnection(*self.address, timeout=WAIT)
        with contextlib.closing(client):
            client.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = client.getresponse()
            answer.content = answer.read()  # type: ignore[attr-defined]
        return answer

    def get(self, path: str, **headers: str) -> Any:
        """The JSON that a path gives."""
        answer = self.ask("GET", path, **headers)
        assert answer.status == 200, answer.content  # type: ignore[attr-defined]
        return json.loads(answer.content)  # type: ignore[attr-defined]

    def wait_for_no_sessions(self) -> None:
        wait_until(lambda: self.web.sessions == 0)


def npy(samples: np.ndarray) -> bytes:
    """What ``np.save`` writes."""
    file = io.BytesIO()
    np.save(file, samples)
    return file.getvalue()


def pieces(samples: np.ndarray, size: int = 4000) -> Iterator[np.ndarray]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def messages(ws: ClientConnection) -> list[dict[str, Any]]:
    """All messages until the server closes."""
    found = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            found.append(json.loads(ws.recv(timeout=WAIT)))
    return found


def closed(ws: ClientConnection) -> tuple[int | None, str]:
    """How the server closes, whatever comes before."""
    messages(ws)
    return ws.close_code, ws.close_reason or ""


END = json.dumps({"type": "end"})
FLUSH = json.dumps({"type": "flush"})


def say(rig: WebRig, path: str, samples: np.ndarray, *, size: int = 4000, form=None) -> list:
    """Send samples (float32), end, and return what comes back."""
    form = form or (lambda piece: piece.astype("<f4").tobytes())
    with rig.ws(path) as ws:
        for piece in pieces(samples, size):
            ws.send(form(piece))
        ws.send(END)
        found = messages(ws)
        assert (ws.close_code, ws.close_reason) == (1000, "")
    return found


@contextlib.contextmanager
def call_beside(rig: WebRig, path: str = "/ws?call_id=beside"):
    """A call that goes on while the block runs, and is found whole at its end."""
    samples = speech(6, seed=11, longest=1.0)
    parts = list(pieces(floats(samples), 8000))
    with rig.ws(path) as ws:
        for piece in parts[:6]:
            ws.send(piece.astype("<f4").tobytes())
            ws.recv(timeout=WAIT)
        yield
        for piece in parts[6:]:
            ws.send(piece.astype("<f4").tobytes())
            ws.recv(timeout=WAIT)
        ws.send(END)
        found = messages(ws)
        assert (ws.close_code, ws.close_reason) == (1000, "")
    assert found[-1]["text"].split() == spoken(samples).split()


def refused(rig: WebRig) -> dict[str, float]:
    """The metric of those refused, by why."""
    lines = rig.web.metrics.text()[0].decode().splitlines()
    found = (line.rsplit(maxsplit=1) for line in lines if line.startswith("aii_refused_total{"))
    return {name.split('"')[1]: float(value) for name, value in found}
