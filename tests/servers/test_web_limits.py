"""Strangers at the web port: what is refused or cut, with which reason, beside a call that goes on.

Each test has a call running on the same server, which must not notice anything.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import json
import socket

import numpy as np
import pytest
from fake_engine import FakeEngine, floats, speech, spoken
from server_rig import WAIT, read_all, wait_until
from web_rig import END, WebRig, call_beside, closed, messages, npy, refused, say
from websockets.exceptions import ConnectionClosed, InvalidStatus

from aii.config import ServerConfig
from aii.errors import ConfigError
from aii.servers.web.rates import Rates

TOKEN = "correct-horse.battery"
SILENCE = np.zeros(8000, "<f4").tobytes()


# -- tokens ---------------------------------------------------------------------------------------


def test_a_token_opens_and_nothing_else_does():
    basic = "Basic " + base64.b64encode(f"asterisk:{TOKEN}".encode()).decode()
    good = [({"Authorization": f"Bearer {TOKEN}"}, ""), ({}, f"?token={TOKEN}"),
            ({"Authorization": basic}, "")]  # fmt: skip
    bad = [({}, ""), ({"Authorization": f"Bearer {TOKEN}x"}, ""), ({}, "?token="),
           ({"Authorization": f"Bearer {TOKEN[:-1]}"}, ""), ({}, f"?token={TOKEN[:-1]}"),
           ({"Authorization": "Basic !!"}, ""), ({}, "?tok=" + TOKEN),
           ({}, "?" + "&".join(f"a{n}=1" for n in range(200)) + "&token=" + TOKEN)]  # fmt: skip
    with WebRig(token=TOKEN) as rig, call_beside(rig, f"/ws?token={TOKEN}"):
        for headers, query in good:
            assert rig.ask("GET", "/calls" + query, **headers).status == 200
            path = "/ws/events" + query
            with rig.ws(path, additional_headers=headers) as ws:
                assert json.loads(ws.recv(timeout=WAIT))["type"] == "snapshot"
        for headers, query in bad:
            answer = rig.ask("GET", "/calls" + query, **headers)
            assert answer.status == 401
            assert json.loads(answer.content)["error"]["code"] == "invalid_api_key"
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert TOKEN.encode() not in answer.content
            for path in ("/ws", "/ws/transcription", "/ws/events", "/", "/vosk", "/health"):
                with pytest.raises(InvalidStatus) as info:
                    rig.ws(path + query, additional_headers=headers)
                assert info.value.response.status_code == 401
                assert b"a token is needed" in info.value.response.body
        assert rig.ask("POST", "/config?lan=en").status == 401
        assert rig.ask("POST", "/v1/audio/transcriptions", b"x").status == 401
        assert refused(rig)["token"] >= 4 * len(bad)


def test_a_token_of_any_signs_opens_as_it_stands():
    """An address has a plus for a space, which no token has."""
    token = "~a.b_c-d+e/f+g=="
    quoted = token.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    with WebRig(token=token) as rig:
        for given in (token, quoted):
            assert rig.ask("GET", f"/calls?token={given}").status == 200
            with rig.ws(f"/ws/events?token={given}") as ws:
                assert json.loads(ws.recv(timeout=WAIT))["type"] == "snapshot"
        assert rig.ask("GET", f"/calls?token={token.replace('+', 'x')}").status == 401


def test_a_refused_handshake_is_no_mistake_of_ours(caplog):
    """uvicorn would log an error for each, at the will of any stranger."""
    with WebRig(token=TOKEN) as rig:
        for _ in range(3):
            with pytest.raises(InvalidStatus):
                rig.ws("/ws")
        wait_until(lambda: not rig.web_listener._server.server_state.connections)
    assert not [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]


def test_what_needs_no_token_tells_nothing():
    with WebRig(token=TOKEN) as rig:
        for path in ("/", "/health", "/health/live", "/health/ready"):
            assert rig.ask("GET", path).status == 200
        assert rig.get("/health") == {"status": "ok", "ready": True}
        for path in ("/load", "/metrics", "/calls", "/config", "/docs", "/openapi.json", "/events",
                     "/v1/models", "/healthy/../calls", "//calls"):  # fmt: skip
            assert rig.ask("GET", path).status == 401, path


def test_no_token_is_in_any_log(caplog):
    caplog.set_level("DEBUG")
    with WebRig(token=TOKEN) as rig:
        say(rig, f"/ws?token={TOKEN}&call_id=x", np.zeros(8000, np.float32))
        assert rig.ask("GET", f"/calls?token={TOKEN}").status == 200
        assert TOKEN not in json.dumps([e.to_dict() for e in rig.listener.events])
        assert TOKEN not in rig.ask("GET", f"/calls?token={TOKEN}").content.decode()
    ours = [r for r in caplog.records if not r.name.startswith("websockets")]  # the client's own
    assert ours
    assert not [r.getMessage() for r in ours if TOKEN in r.getMessage()]


# -- origins and hosts ----------------------------------------------------------------------------


def test_pages_of_other_origins_are_refused():
    with WebRig(origins=("https://good.example",)) as rig, call_beside(rig):
        own = rig.url
        for origin, welcome in (
            (own, True),
            ("https://good.example", True),
            ("https://evil.example", False),
            ("http://good.example", False),
            ("https://good.example.evil.example", False),
            ("null", False),
            (own + "0", False),
        ):
            status = 200 if welcome else 403
            assert rig.ask("GET", "/calls", Origin=origin).status == status, origin
            assert rig.ask("POST", "/config", Origin=origin).status == status, origin
            if welcome:
                with rig.ws("/ws/events", origin=origin) as ws:
                    ws.recv(timeout=WAIT)
            else:
                with pytest.raises(InvalidStatus) as info:
                    rig.ws("/ws", origin=origin)
                assert info.value.response.status_code == 403
                assert b"may not use this server" in info.value.response.body
        assert refused(rig)["origin"] == 15


def test_cors_is_closed_unless_an_origin_is_named():
    ask = {"Access_Control_Request_Method": "POST"}
    with WebRig() as rig:
        answer = rig.ask("OPTIONS", "/config", Origin="https://a.example", **ask)
        assert answer.status == 403
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
        assert "Access-Control-Allow-Origin" not in rig.ask("GET", "/calls").headers
    with WebRig(origins=("https://a.example",), token=TOKEN) as rig:
        answer = rig.ask("OPTIONS", "/config", Origin="https://a.example", **ask)
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == "https://a.example"
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        answer = rig.ask(
            "GET", "/calls", Origin="https://a.example", Authorization=f"Bearer {TOKEN}"
        )
        assert answer.headers["Access-Control-Allow-Origin"] == "https://a.example"
        assert "Origin" in answer.headers["Vary"]
        assert answer.headers["Access-Control-Allow-Credentials"] is None


@pytest.mark.parametrize(
    "host, ours",
    [
        ("127.0.0.1:1", True),
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("[::1]:80", True),
        ("a.localhost", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil.example:80@127.0.0.1", False),
        ("192.0.2.1", False),
        ("", False),
    ],
)
def test_a_page_whose_name_leads_to_this_machine_is_refused(host, ours):
    """DNS rebinding: the browser believes that the page is ours, its Host says that it is not."""
    with WebRig() as rig:
        origin = {"Origin": f"http://{host}"} if host else {}
        answer = rig.ask("GET", "/calls", Host=host, **origin)
        assert answer.status == (200 if ours else 403)
        if not ours:
            assert b"is no name of this server" in answer.content


@pytest.mark.parametrize(
    "host, ours",
    [
        ("aii:8000", True),
        ("localhost", True),
        ("192.0.2.1:8000", True),
        ("[2001:db8::1]", True),
        ("evil.example", False),
        ("192.0.2.1.evil.example", False),
        ("", False),
    ],
)
def test_only_by_its_names_where_these_are_given(host, ours):
    """As in a container, whose addresses do not tell who has come from within."""
    with WebRig(hosts=("aii",)) as rig:
        assert rig.ask("GET", "/calls", Host=host).status == (200 if ours else 403)
    with WebRig(hosts=("aii",), token=TOKEN) as rig:
        answer = rig.ask("GET", "/calls", Host=host, Authorization=f"Bearer {TOKEN}")
        assert answer.status == 200, "a page elsewhere does not know the token"


def test_names_are_names():
    assert ServerConfig.load({"hosts": "PBX.example.org, aii"}, {}).hosts == (
        "pbx.example.org", "aii",
    )  # fmt: skip
    assert ServerConfig.load({"hosts": "none"}, {}).hosts == ()
    for wrong in ("http://aii", "aii:8000", "*", "a b"):
        with pytest.raises(ConfigError, match="wanted are names"):
            ServerConfig.load({"hosts": wrong}, {})


@pytest.mark.parametrize("options", [{"trusted_proxies": ("127.0.0.1",)}, {}])
def test_a_page_behind_a_proxy_is_ours(options):
    """The proxy speaks TLS with the browser and passes the name on, some with the port."""
    named = {} if options else {"origins": ("https://aii.example:443",)}
    with WebRig(token=TOKEN, **options, **named) as rig:
        for host in ("aii.example", "aii.example:443"):
            headers = {"Authorization": f"Bearer {TOKEN}", "Host": host,
                       "Origin": "https://aii.example", "X-Forwarded-Proto": "https"}  # fmt: skip
            assert rig.ask("GET", "/calls", **headers).status == 200
            assert rig.ask("GET", "/calls", **{**headers, "Origin": "null"}).status == 403
            other = {**headers, "Origin": "https://aii.example:8443"}
            assert rig.ask("GET", "/calls", **other).status == 403


def test_with_a_token_any_host_will_do_for_one_who_knows_it():
    with WebRig(token=TOKEN) as rig:
        for query, status in ((f"?token={TOKEN}", 200), ("", 401)):
            assert rig.ask("GET", "/calls" + query, Host="proxy.example").status == status


# -- how much and how often -----------------------------------------------------------------------


def test_messages_that_are_too_big_are_refused():
    with WebRig(max_message=0.1) as rig, call_beside(rig):
        most = rig.config.max_message_bytes
        good = {"/ws": b"\0" * 4, "/ws/transcription": npy(np.zeros(320, "<f4")), "/ws/events": b""}
        for path, before in good.items():
            with rig.ws(path) as ws:
                if before:
                    ws.send(before)
                with contextlib.suppress(ConnectionClosed):
                    ws.send(b"\0" * (most + 4))
                code, reason = closed(ws)
            assert code == 1009, path
            assert "message" in reason or "frame" in reason
        assert refused(rig)["message size"] == 3


def test_a_body_that_is_too_big_is_refused():
    with WebRig(max_upload=0.01) as rig, call_beside(rig):
        big = b"x" * 200_000
        for headers in ({"Content_Type": "multipart/form-data; boundary=b"}, {}):
            answer = rig.ask("POST", "/v1/audio/transcriptions", big, **headers)
            assert answer.status == 413
            error = json.loads(answer.content)["error"]
            assert "larger than" in error["message"]
            assert error["param"] == "file"
        answer = rig.ask("POST", "/config", b"x" * 2_000_000)
        assert answer.status in (200, 413)  # it needs no body, and may not wait for this one
        part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + big
        assert chunked(rig, part) == 413


def chunked(rig: WebRig, body: bytes) -> int:
    """Send a body of unannounced length; the status."""
    head = (
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(rig.address, timeout=WAIT) as client:
        client.sendall(head.encode())
        with contextlib.suppress(OSError):
            for start in range(0, len(body), 10_000):
                piece = body[start : start + 10_000]
                client.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        return int(client.recv(4096).split()[1])


def test_too_many_sessions_are_refused():
    with WebRig(max_sessions=2) as rig, call_beside(rig):
        with rig.ws("/ws") as one, rig.ws("/ws/events") as watcher:
            one.send(SILENCE)
            watcher.recv(timeout=WAIT)  # who only listens is no call, and takes no call's place
            for path in ("/ws", "/ws/transcription", "/vosk", "/media"):
                with rig.ws(path) as third:
                    code, reason = closed(third)
                assert (code, reason) == (1013, "too many sessions are open; try again later")
            assert refused(rig)["sessions"] == 4
            one.send(END)
            closed(one)
        wait_until(lambda: rig.web.sessions == 1)
        assert say(rig, "/ws", np.zeros(8000, np.float32))


def test_those_who_follow_events_have_a_limit_of_their_own():
    with WebRig(max_sessions=2, max_watchers=2) as rig, call_beside(rig):
        with contextlib.closing(http.client.HTTPConnection(*rig.address, timeout=WAIT)) as stream:
            stream.request("GET", "/events")
            assert stream.getresponse().readline().startswith(b"data: ")
            with rig.ws("/ws/events") as second:
                second.recv(timeout=WAIT)
                with rig.ws("/ws/events") as third:
                    code, reason = closed(third)
                assert (code, reason) == (1013, "too many follow the events; try again later")
                answer = rig.ask("GET", "/events")
                assert answer.status == 503
                assert "too many follow the events" in answer.content.decode()
                assert refused(rig)["watchers"] == 2
                assert say(rig, "/ws", np.zeros(8000, np.float32))  # calls have room all the same
        wait_until(lambda: rig.web.watchers == 0)
        with rig.ws("/ws/events") as again:
            assert json.loads(again.recv(timeout=WAIT))["type"] == "snapshot"


class Crowded(FakeEngine):
    """An engine that says whether it is full."""

    full = 0.0

    def stats(self) -> dict[str, float]:
        return {**super().stats(), "full": self.full}


def test_a_full_machine_takes_no_more_calls():
    engine = Crowded()
    with WebRig(engine=engine) as rig, rig.ws("/ws") as first:
        first.send(np.zeros(8000, np.float32).tobytes())
        wait_until(lambda: rig.models._bound)
        assert rig.get("/load")["full"] is False
        engine.full = 1.0
        assert rig.get("/load")["full"] is True
        for path in ("/ws", "/ws/transcription", "/vosk", "/media", "/aeap", "/audio-stream"):
            with rig.ws(path) as second:
                code, reason = closed(second)
            assert (code, reason) == (
                1013,
                "this machine is full: its answers come too late already; try again later",
            )
        with rig.ws("/ws/events") as watcher:  # who only watches costs nothing
            watcher.recv(timeout=WAIT)
        assert refused(rig)["full"] == 6
        first.send(END)
        closed(first)
        wait_until(lambda: not rig.models._bound)
        assert say(rig, "/ws", np.zeros(8000, np.float32))


def test_an_address_has_only_so_many_connections():
    with WebRig(max_per_address=4) as rig, call_beside(rig):
        held = [socket.create_connection(rig.address, timeout=WAIT) for _ in range(3)]
        with socket.create_connection(rig.address, timeout=WAIT) as one_more:
            said = read_all(one_more)
        assert said.startswith("HTTP/1.1 503 ")
        assert said.endswith("too many connections from this address; close some")
        for sock in held:
            sock.close()
        wait_until(lambda: rig.ask("GET", "/health").status == 200)


def test_a_proxy_has_the_connections_of_many():
    options = {"max_per_address": 2, "trusted_proxies": ("127.0.0.0/8",)}
    with WebRig(**options) as rig, contextlib.ExitStack() as held:
        for _ in range(5):
            held.enter_context(socket.create_connection(rig.address, timeout=WAIT))
        assert rig.ask("GET", "/health").status == 200


def test_an_address_may_ask_only_so_often(monkeypatch):
    at_one_moment = functools.partial(Rates, clock=lambda: 100.0)
    monkeypatch.setattr("aii.servers.web.application.Rates", at_one_moment)
    with WebRig(rate_limit=30) as rig, call_beside(rig):
        statuses = [rig.ask("GET", "/health").status for _ in range(40)]
        assert statuses == [200] * 29 + [429] * 11  # the call has had one
        answer = rig.ask("GET", "/calls")
        assert answer.headers["Retry-After"] == "2"
        with pytest.raises(InvalidStatus) as info:
            rig.ws("/ws")
        assert info.value.response.status_code == 429
        assert rig.ask("GET", "/health/live").status == 200


def test_a_session_may_last_only_so_long():
    samples = speech(2, seed=4)
    with WebRig(session_seconds=5) as rig:
        with rig.ws("/ws") as ws:
            ws.send(floats(samples).astype("<f4").tobytes())
            found = messages(ws)
            assert ws.close_code == 1008
            assert ws.close_reason == "a session may last 5 s; connect anew"
        assert found[-1]["text"].split() == spoken(samples).split()  # the last words came first
        assert rig.listener.ended()[0].reason == "session too long"
