"""The application that another server runs: how it starts, or says why not, and what is logged."""

from __future__ import annotations

import asyncio
import logging

import pytest

import aii.servers.web
from aii.errors import AiiError
from aii.servers.web.standalone import make_app

TOKEN = "correct-horse.battery"


@pytest.fixture(autouse=True)
def _loggers():
    """What make_app sets up is undone."""
    names = ("uvicorn.error", "uvicorn.access", "uvicorn.asgi")
    level = logging.getLogger("aii").level
    kept = {name: list(logging.getLogger(name).filters) for name in names}
    yield
    logging.getLogger("aii").setLevel(level)
    for name, filters in kept.items():
        logging.getLogger(name).filters[:] = filters


def started(environ: dict[str, str]) -> list[dict]:
    """What the application answers to a server that starts it."""
    said: list[dict] = []

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        said.append(message)

    async def start():
        with pytest.raises(AiiError):
            await make_app(environ)({"type": "lifespan", "asgi": {}, "state": {}}, receive, send)

    asyncio.run(start())
    return said


@pytest.mark.parametrize(
    "name, value, line",
    [
        ("WHISPER_MODEL_PATH", "/no/such/turbo.pt", "no model and no file is called /no/such/tur"),
        ("WHISPER_LAN", "klingon", "language 'klingon' is unknown; give a code such as en"),
    ],
)
def test_a_start_that_fails_is_one_line(name, value, line):
    (message,) = started({name: value})
    assert message["type"] == "lifespan.startup.failed"
    assert message["message"].startswith(f"aii: error: {line}")
    assert "\n" not in message["message"]


@pytest.mark.parametrize(
    "name, value, line",
    [
        ("WHISPER_LOG_LEVEL", "loud", "WHISPER_LOG_LEVEL is 'loud'; wanted is one of debug, info"),
        ("AII_MODLE", "tiny", "environment variable AII_MODLE is unknown; did you mean AII_MODEL?"),
        ("AII_TOKEN", "short secret", "AII_TOKEN is no token; wanted are 8 to 256 letters"),
    ],
)
def test_a_bad_variable_is_one_line(name, value, line, monkeypatch, capsys):
    monkeypatch.setenv(name, value)
    monkeypatch.delitem(vars(aii.servers.web), "app", raising=False)
    with pytest.raises(SystemExit) as info:
        _ = aii.servers.web.app
    assert info.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"aii: error: {line}")
    assert "secret" not in said


def test_what_only_the_server_can_do_is_told(caplog):
    environ = {"AII_TLS_CERT": "cert.pem", "AII_TRUSTED_PROXIES": "10.0.0.1", "AII_PING": "1"}
    make_app({**environ, "AII_MAX_PER_ADDRESS": "2", "AII_SLOW_READER": "3"})
    assert caplog.messages == [
        "AII_TLS_CERT has no effect here; give uvicorn --ssl-certfile",
        "AII_TRUSTED_PROXIES has no effect here; give uvicorn --forwarded-allow-ips",
        "AII_PING has no effect here; give uvicorn --ws-ping-interval and --ws-ping-timeout",
        "AII_MAX_PER_ADDRESS has no effect here; give uvicorn a proxy that has such a limit",
    ]


@pytest.mark.parametrize(
    "name, line, args",
    [
        ("uvicorn.error", "< %s: %s", ("authorization", f"Bearer {TOKEN}")),
        ("uvicorn.error", "< %s: %s", ("Authorization", f"Basic {TOKEN}")),
        ("uvicorn.error", "< GET %s HTTP/1.1", (f"/ws?a=1&token={TOKEN}",)),
        ("uvicorn.access", '%s - "%s"', ("127.0.0.1", f"/calls?token={TOKEN}&a=1")),
        ("uvicorn.asgi", "Started scope=%s", ({"query_string": f"token={TOKEN}".encode()},)),
    ],
)
def test_no_token_is_in_the_lines_of_the_server(name, line, args, caplog):
    """uvicorn and websockets log addresses, at debug headers, and at trace everything."""
    make_app({"AII_TOKEN": TOKEN})
    caplog.set_level("DEBUG", logger=name)
    logging.getLogger(name).debug(line, *args)
    logging.getLogger(name).debug("%s is left as it is", "a=1")
    hidden, left = caplog.messages
    assert TOKEN not in hidden
    assert "..." in hidden
    assert left == "a=1 is left as it is"
