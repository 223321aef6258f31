from __future__ import annotations

import pytest

from aii.protocols import Hangup, Notice
from aii.protocols.http_refusal import LONGEST_REQUEST, HttpRefusal

REQUEST = b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n"
REFUSED = [Notice("an HTTP request on the audio port; refused"), Hangup("refused")]


@pytest.mark.parametrize("step", [1, 2, 3, 7, len(REQUEST)])
def test_answers_at_the_end_of_the_request(step: int) -> None:
    machine = HttpRefusal(web_port=8000)
    frames = []
    for start in range(0, len(REQUEST), step):
        assert machine.send() == b""
        frames += machine.receive(REQUEST[start : start + step])
    assert frames == REFUSED
    head, _, body = machine.send().decode("ascii").partition("\r\n\r\n")
    lines = head.split("\r\n")
    assert lines[0] == "HTTP/1.1 400 Bad Request"
    assert f"Content-Length: {len(body)}" in lines
    assert "Connection: close" in lines
    assert "port 8000" in body


def test_answers_a_request_that_never_ends() -> None:
    machine = HttpRefusal()
    assert machine.tick_after == 0.2
    assert machine.receive(b"GET / HTTP/1.1\r\n") == []
    assert machine.tick(0.1) == []
    assert machine.tick(0.2) == REFUSED
    assert b"not served here" in machine.send()

    machine = HttpRefusal()
    assert machine.receive(b"GET " + b"x" * LONGEST_REQUEST) == REFUSED

    machine = HttpRefusal()
    machine.receive(b"GET /")
    assert machine.eof() == REFUSED
    assert machine.send().startswith(b"HTTP/1.1 400")
