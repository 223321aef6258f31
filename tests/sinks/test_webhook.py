from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest
from sink_peers import WAIT, Post, Receiver, wait_until

from aii.errors import ConfigError
from aii.sinks.post import Http, client_tls, key_of, signature
from aii.sinks.spool import Spool
from aii.sinks.webhook import REFUSALS, WebhookSink
from aii.streaming.events import CallEnded, CallStarted, Dtmf, Event, Final, Partial
from aii.types import Segment

ROOT = Path(__file__).resolve().parent.parent.parent
VECTOR = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def final(call: str, seq: int, text: str = "hello", leg: str = "", start: float = 0.0) -> Final:
    segments = (Segment(start, start + 1, f" {text}"),)
    return Final(call, seq, start, start + 1, segments, reason="reset", leg=leg)


def call(name: str, finals: int = 3) -> list[Event]:
    body = [final(name, n + 2, f"{name} {n}") for n in range(finals)]
    return [CallStarted(name, 1, "1.2.3.4:5"), *body, CallEnded(name, finals + 2, "eof", 9.0)]


def sink(url: str, folder: Path, *, limit: int = 1 << 20, **options) -> WebhookSink:
    spool = Spool(folder, url, limit=limit)
    return WebhookSink(url, spool, **{"first": 0.01, "most": 0.05, **options})


def send(to: WebhookSink, *events: Event) -> None:
    for event in events:
        to.emit(event)


def seqs(posts: list[Post], name: str) -> list[int]:
    return [p.event["seq"] for p in posts if p.event["call_id"] == name]


def test_the_signature_is_that_of_the_specification():
    key, body = key_of(VECTOR), b'{"test": 2432232314}'
    made = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert key_of("plain") == b"plain"
    with pytest.raises(ConfigError, match="base64"):
        key_of("whsec_???")


def test_each_event_arrives_signed_in_order_and_without_partials(tmp_path):
    with Receiver() as receiver:
        to = sink(receiver.url + "/in?x=1", tmp_path, key=b"key")
        send(to, *call("a"), Partial("a", 9), Dtmf("b", 1, "5", 1.0))
        assert to.close(WAIT)
    assert seqs(receiver.taken, "a") == [1, 2, 3, 4, 5]
    assert seqs(receiver.taken, "b") == [1]
    assert len({post.id for post in receiver.taken}) == 6
    for post in receiver.taken:
        assert post.path == "/in?x=1"
        assert post.headers["content-type"] == "application/json"
        moment = post.headers["webhook-timestamp"]
        assert abs(int(moment) - time.time()) < 60
        signed = f"{post.id}.{moment}.".encode() + post.body
        mac = base64.b64encode(hmac.new(b"key", signed, hashlib.sha256).digest()).decode()
        assert post.headers["webhook-signature"] == f"v1,{mac}"
        assert abs(post.event["time"] - time.time()) < 60
    texts = [post.event["text"] for post in receiver.taken if post.event["type"] == "final"]
    assert texts == [" a 0", " a 1", " a 2"]
    assert to.counts["sent"] == 6
    assert to.pending == 0


def test_without_a_key_nothing_is_signed_and_partials_come_if_wanted(tmp_path):
    with Receiver() as receiver:
        to = sink(receiver.url, tmp_path, partials=True)
        send(to, Partial("a", 1))
        assert to.close(WAIT)
    assert [post.event["type"] for post in receiver.taken] == ["partial"]
    assert "webhook-signature" not in receiver.taken[0].headers


def test_a_receiver_that_is_down_gets_everything_once_it_is_back(tmp_path, caplog):
    with Receiver() as receiver:
        receiver.down()
        to = sink(receiver.url, tmp_path, workers=1)  # or one could fail behind another's success
        for n in range(20):
            send(to, *call(f"c{n}"))
        wait_until(lambda: to.counts["failed"] >= 3)
        receiver.up()
        wait_until(lambda: to.pending == 0)
        assert to.close(WAIT)
        for n in range(20):
            assert seqs(receiver.taken, f"c{n}") == [1, 2, 3, 4, 5]
    assert caplog.text.count("cannot be reached") == 1
    assert caplog.text.count("is reached again") == 1


def test_while_a_receiver_is_down_it_is_asked_less_and_less_often(tmp_path):
    with Receiver() as receiver:
        receiver.down()
        to = sink(receiver.url, tmp_path, first=0.05, most=0.4, workers=4)
        waits = [to._backoff(n) for n in range(1, 12)]
        for n in range(40):
            send(to, *call(f"c{n}"))
        begin = time.monotonic()
        time.sleep(0.2)
        tried, seconds = to.counts["failed"], time.monotonic() - begin
        to.close(0.0)
        receiver.up()
    assert tried <= 10 + seconds / 0.3  # and not once for each of the 200 events
    assert all(0.8 * 0.05 * 2**n <= w <= 0.05 * 2**n for n, w in enumerate(waits[:3]))
    assert all(0.8 * 0.4 <= wait <= 0.4 for wait in waits[3:])


def test_within_a_call_nothing_overtakes_and_calls_do_not_wait_for_one_another(tmp_path):
    held = threading.Event()

    def answer(post: Post) -> int:
        if post.event["call_id"] == "slow" and not held.is_set():
            return 503
        return 200

    with Receiver(answer) as receiver:
        to = sink(receiver.url, tmp_path)
        send(to, *call("slow"))
        for n in range(10):
            send(to, *call(f"c{n}"))
        wait_until(lambda: len(receiver.taken) == 50)
        assert seqs(receiver.taken, "slow") == []
        assert set(seqs(receiver.got, "slow")) == {1}
        held.set()
        wait_until(lambda: to.pending == 0)
        assert to.close(WAIT)
    assert seqs(receiver.taken, "slow") == [1, 2, 3, 4, 5]


def test_what_is_never_taken_is_put_aside_and_holds_nothing_up(tmp_path, caplog):
    with Receiver(lambda post: 422 if post.event["seq"] == 2 else 200) as receiver:
        to = sink(receiver.url, tmp_path)
        send(to, *call("a"))
        wait_until(lambda: to.pending == 0)
        rejected = to._spool.rejected()
        assert to.close(WAIT)
    assert seqs(receiver.taken, "a") == [1, 3, 4, 5]
    assert seqs(receiver.got, "a").count(2) == REFUSALS
    assert [why for _, why in rejected] == ["422 Unprocessable Entity"]
    assert "what call a sends there is put aside" in caplog.text
    assert to.counts["rejected"] == 1


def test_a_redirection_is_not_followed(tmp_path, caplog):
    moved = [True]
    with Receiver(lambda p: (302, {"Location": "http://x/"}) if moved[0] else 200) as receiver:
        to = sink(receiver.url, tmp_path)
        send(to, final("a", 1))
        wait_until(lambda: "is not followed; give the new address" in caplog.text)
        moved[0] = False
        wait_until(lambda: to.pending == 0)
        assert to.close(WAIT)


def test_the_receiver_says_how_long_to_wait(tmp_path):
    first: list[float] = []

    def answer(post: Post):
        first.append(time.monotonic())
        return (429, {"Retry-After": "1"}) if len(first) == 1 else 200

    with Receiver(answer) as receiver:
        to = sink(receiver.url, tmp_path)
        send(to, final("a", 1))
        wait_until(lambda: to.pending == 0)
        assert to.close(WAIT)
    assert first[1] - first[0] >= 1.0


def test_partials_that_are_overtaken_are_not_sent(tmp_path):
    with Receiver() as receiver:
        receiver.down()
        to = sink(receiver.url, tmp_path, partials=True)
        for n in range(50):
            send(to, Partial("a", n))
        send(to, final("a", 50), Partial("a", 51), Partial("a", 52))
        wait_until(lambda: to.pending <= 3)
        receiver.up()
        wait_until(lambda: to.pending == 0)
        assert to.close(WAIT)
    sent = seqs(receiver.taken, "a")
    assert sent == sorted(sent)
    assert {50, 52} <= set(sent)
    assert len(sent) <= 4  # the very first one may be on its way, and stays


def test_one_post_per_call(tmp_path):
    with Receiver() as receiver:
        to = sink(receiver.url, tmp_path, per="call", partials=True)
        mixed = [e for pair in zip(call("a"), call("b"), strict=True) for e in pair]
        send(to, *mixed, Partial("a", 9))
        wait_until(lambda: len(receiver.taken) == 2)
        assert to.close(WAIT)
    [first] = [post.event for post in receiver.taken if post.event["call_id"] == "a"]
    assert (first["type"], first["call_id"], first["complete"]) == ("call", "a", True)
    assert first["text"] == " a 0 a 1 a 2"
    assert [event["type"] for event in first["events"]] == ["started", *["final"] * 3, "ended"]


def test_a_call_with_legs_is_one_post_with_both(tmp_path):
    with Receiver() as receiver:
        to = sink(receiver.url, tmp_path, per="call")
        send(to, CallStarted("a", 1, leg="caller"), CallStarted("a", 1, leg="callee"))
        send(to, final("a", 2, "hi", "callee", 1.0), final("a", 2, "hello", "caller", 0.5))
        send(to, final("a", 3, "", "callee", 2.0))
        send(to, CallEnded("a", 3, "eof", leg="caller"))
        time.sleep(0.05)
        assert receiver.got == []
        send(to, CallEnded("a", 4, "eof", leg="callee"))
        wait_until(lambda: receiver.taken)
        assert to.close(WAIT)
    assert receiver.taken[0].event["text"] == "caller: hello\ncallee: hi"


def test_a_call_that_a_restart_cut_off_is_sent_as_incomplete(tmp_path):
    with Receiver() as receiver:
        to = sink(receiver.url, tmp_path, per="call")
        send(to, *call("a")[:-1])
        assert to.close(WAIT)
        assert receiver.got == []
        to = sink(receiver.url, tmp_path, per="call")
        wait_until(lambda: receiver.taken)
        assert to.close(WAIT)
    event = receiver.taken[0].event
    assert (event["complete"], event["text"]) == (False, " a 0 a 1 a 2")


def test_calls_wait_for_a_disk_that_does_not_take_them_whole(tmp_path, caplog, monkeypatch):
    broken, tries = [True], [0]
    join = Spool.join

    def failing(self, entry):
        tries[0] += 1
        if broken[0]:
            raise OSError("disk full")
        return join(self, entry)

    monkeypatch.setattr(Spool, "join", failing)
    with Receiver() as receiver:
        to = sink(receiver.url, tmp_path, per="call")
        send(to, *call("a"))
        wait_until(lambda: "is not ready to be sent: disk full" in caplog.text)
        wait_until(lambda: tries[0] > 3)
        broken[0] = False
        wait_until(lambda: receiver.taken)
        assert to.close(WAIT)
    assert caplog.text.count("is not ready to be sent") == 1
    assert receiver.taken[0].event["complete"] is True
    assert len(receiver.taken[0].event["events"]) == 5


def test_a_call_of_which_something_is_lost_says_so(tmp_path, caplog):
    with Receiver() as receiver:
        to = sink(receiver.url, tmp_path, per="call", limit=4000)
        send(to, *call("a", 50))
        wait_until(lambda: receiver.taken)
        assert to.close(WAIT)
    assert receiver.taken[0].event["complete"] is False
    assert to.counts["lost"] > 10


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A certificate for 127.0.0.1 with its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    done = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("openssl cannot make a certificate here")
    whole = (folder / "key.pem").read_text() + (folder / "cert.pem").read_text()
    (folder / "both.pem").write_text(whole)
    return folder


def test_https_is_checked(tmp_path, certificate, caplog):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate / "both.pem")
    with Receiver(tls=tls) as receiver:
        to = sink(receiver.url, tmp_path / "a")
        send(to, final("a", 1))
        wait_until(lambda: "cannot be reached" in caplog.text)
        assert "certificate" in caplog.text
        assert receiver.got == []
        to.close(0.5)
        to = sink(receiver.url, tmp_path / "b", tls=client_tls(str(certificate / "cert.pem")))
        send(to, final("a", 1))
        wait_until(lambda: len(receiver.taken) == 1)
        assert to.close(WAIT)
    with pytest.raises(ConfigError, match="cannot read certificates from"):
        client_tls(str(tmp_path / "no.pem"))


def test_a_kept_connection_that_was_closed_is_opened_anew(tmp_path):
    with Receiver() as receiver:
        http = Http(receiver.url, timeout=WAIT)
        assert http.post(b"{}", {}).taken
        receiver.down()
        assert http._connection is not None
        http._connection.sock.shutdown(2)
        receiver.up()
        assert http.post(b"{}", {}).taken
        http.close()


def test_events_are_written_as_the_json_of_json_lines(tmp_path):
    with Receiver() as receiver:
        to = sink(receiver.url, tmp_path)
        event = final("a", 1, "grüße")
        send(to, event)
        assert to.close(WAIT)
    got = receiver.taken[0].event
    del got["time"]
    assert got == json.loads(json.dumps(event.to_dict()))
    assert "grüße" in receiver.taken[0].body.decode()
