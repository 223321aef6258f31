from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from aii.cli import main
from aii.cli.health import default_address
from aii.errors import ConfigError


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers with what the server object has."""

    def do_GET(self) -> None:
        assert self.path == "/health/ready"
        status, body = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[http.server.HTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        yield listener
        listener.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "answer, code, said",
    [
        ((200, b'{"status": "ok", "ready": true}'), 0, "is ready"),
        ((200, b'{"status": "ok", "ready": false}'), 1, "is not ready"),
        ((200, b"true"), 1, "is not ready"),
        ((200, b"<html>"), 1, "answers, but is no aii server"),
        ((503, b'{"ready": false}'), 1, "is not ready: status 503"),
    ],
)
def test_answers(answer, code: int, said: str, server, capsys) -> None:
    server.answer = answer
    assert main(["health", "--server", f"http://127.0.0.1:{server.server_port}/"]) == code
    out, err = capsys.readouterr()
    assert said in out + err
    assert (out + err).count("\n") == 1


def test_the_environment_of_the_server_says_where_to_ask(
    server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AII_WEB_PORT", str(server.server_port))
    monkeypatch.setenv("AII_HOST", "0.0.0.0")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # must not be asked
    server.answer = (200, b'{"ready": true}')
    assert main(["health"]) == 0
    server.answer = (503, b"")
    assert main(["health"]) == 1


@pytest.mark.parametrize(
    "environment, address",
    [
        ({}, "http://127.0.0.1:8000"),
        ({"AII_WEB_PORT": "auto", "AII_HOST": "10.0.0.7"}, "http://10.0.0.7:8000"),
        ({"AII_WEB_HOST": "::1", "AII_HOST": "0.0.0.0"}, "http://[::1]:8000"),
        ({"AII_WEB_PORT": "9000", "AII_TLS_CERT": "/c.pem"}, "https://127.0.0.1:9000"),
        ({"AII_TLS_CERT": "/c.pem", "AII_TLS": "tcp"}, "http://127.0.0.1:8000"),
    ],
)
def test_addresses(environment: dict[str, str], address: str) -> None:
    assert default_address(environment) == address


def test_a_server_without_web_cannot_be_asked() -> None:
    with pytest.raises(ConfigError, match="AII_WEB_PORT is none, so nobody can be asked"):
        default_address({"AII_WEB_PORT": "none"})


@pytest.mark.parametrize("address", ["nowhere", "http://127.0.0.1:x", "http://127.0.0.1:1"])
def test_nobody_there(address: str, capsys) -> None:
    assert main(["health", "--server", address]) in (1, 2)
    _, err = capsys.readouterr()
    assert err.startswith("aii: error: ")
    assert err.count("\n") == 1
