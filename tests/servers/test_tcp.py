"""Whole calls over loopback, with an engine that hears without a model."""

from __future__ import annotations

import json
import logging
import random
import re
import socket
import threading
import time

import pytest
from fake_engine import floats, slin, speech, spoken
from server_rig import WAIT, Rig, delivered, lines, read_all, reset, wait_until

from aii.audio.pcm import SlinDecoder
from aii.errors import ConfigError
from aii.servers.tcp import TcpServer
from aii.streaming.events import CallStarted, Dtmf, Final

S = 16_000


def test_half_closing_gives_the_transcript_back():
    samples = speech(47)
    with Rig() as rig:
        assert "".join(lines(rig.call(slin(samples)))) == spoken(samples)
        (ended,) = rig.listener.ended()
    assert (ended.reason, ended.end) == ("eof", 47.0)


@pytest.mark.parametrize("framing", ["raw", "callid", "cr641", "wav"])
@pytest.mark.parametrize("seed", [1, 2])
def test_every_framing_in_random_pieces(framing, seed):
    samples = speech(12, seed)
    data = slin(samples)
    wire = {
        "raw": data,
        "callid": b"call-77\r" + data,
        "cr641": b"".join(data[i : i + 640] + b"\r" for i in range(0, len(data), 640)),
        "wav": _wav(data),
    }[framing]
    chance = random.Random(seed)
    with Rig() as rig, rig.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while wire:
            count = chance.randint(1, 5000)
            client.sendall(wire[:count])
            wire = wire[count:]
        client.shutdown(socket.SHUT_WR)
        assert "".join(lines(read_all(client))) == spoken(samples)
        if framing == "callid":
            assert {event.call_id for event in rig.listener.events} == {"call-77"}


def _wav(data: bytes) -> bytes:
    head = b"WAVEfmt " + (16).to_bytes(4, "little")
    head += b"\x01\0\x01\0" + S.to_bytes(4, "little") + (2 * S).to_bytes(4, "little")
    head += b"\x02\0\x10\0data" + len(data).to_bytes(4, "little")
    return b"RIFF" + (len(head) + len(data)).to_bytes(4, "little") + head + data


def test_audiosocket_gets_no_text_and_its_keys_are_events():
    samples = speech(3)
    wire = b"\x01\0\x10" + bytes(range(16)) + b"\x03\0\x017"
    data = slin(samples)
    wire += b"".join(
        b"\x12" + len(data[i : i + 640]).to_bytes(2, "big") + data[i : i + 640]
        for i in range(0, len(data), 640)
    )
    with Rig(reply="text") as rig:
        reply = rig.call(wire)
        rig.listener.ended()
    assert "w1" not in reply
    assert rig.listener.text("00010203-0405-0607-0809-0a0b0c0d0e0f") == spoken(samples)
    assert [event.digit for event in rig.listener.events if isinstance(event, Dtmf)] == ["7"]


def test_eight_kilohertz_is_resampled_the_same_however_it_is_cut():
    data = slin(speech(4, seed=5))
    decoder = SlinDecoder(8000)
    expected = len(decoder.feed(data)) + len(decoder.flush())
    with Rig(rate=8000) as rig:
        rig.call(data)
        texts = [rig.listener.text()]
        rig.call(data[:1], data[1:777], data[777:])
        ended = rig.listener.ended(2)
    assert [round(event.end * S) for event in ended] == [expected, expected]
    finals = [event for event in rig.listener.events if isinstance(event, Final)]
    assert finals[1].text == texts[0] == finals[0].text != ""


@pytest.mark.parametrize("how", ["close", "reset"])
def test_hanging_up_at_any_byte_gives_the_finals_of_a_clean_end(how):
    data = slin(speech(9, seed=4, longest=0.5))
    chance = random.Random(9)
    with Rig(framing="raw") as rig:
        for number in range(12):
            count = chance.randrange(len(data))
            with rig.connect() as client:
                client.sendall(data[:count])
                if how == "reset":
                    wait_until(lambda: delivered(client))
                    reset(client)
            ended = rig.listener.ended(number + 1)[-1]
            expected = spoken(speech(9, seed=4, longest=0.5)[: count // 2 // 160 * 160])
            assert rig.listener.text(ended.call_id) == expected
            assert ended.reason == ("connection reset" if how == "reset" else "eof")


def test_text_and_json_come_while_the_client_still_sends():
    samples = speech(33, seed=6)
    for reply in ("text", "jsonl"):
        with Rig(reply=reply) as rig, rig.connect() as client:
            client.sendall(slin(samples))
            file = client.makefile("r")
            if reply == "text":
                assert file.readline() == "w1\n"
            else:
                assert json.loads(file.readline())["type"] == "started"
                while (event := json.loads(file.readline()))["type"] != "final":
                    pass
                assert event["text"].startswith(" w1")
            client.shutdown(socket.SHUT_WR)
            rest = file.read()
            assert rest


@pytest.mark.parametrize("reply", ["auto", "none"])
def test_a_recorder_hears_nothing_while_it_sends(reply):
    with Rig(reply=reply) as rig, rig.connect() as client:
        client.sendall(slin(speech(36)))
        rig.listener.wait(lambda events: any(isinstance(e, Final) for e in events))
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)


def test_a_client_that_never_reads_loses_replies_and_nothing_else(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("aii.servers.line.LINGER", 0.05)
    monkeypatch.setattr("aii.servers.connection.Outbox", lambda reply: _small(reply))
    samples = speech(600, seed=7, longest=0.3)
    with Rig(reply="jsonl", framing="raw") as rig:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(rig.server.address)
        rig.connections += 1
        client.sendall(slin(samples))
        client.shutdown(socket.SHUT_WR)
        rig.listener.ended()
        rig.wait_for_no_calls()
        client.close()
        assert rig.listener.text() == spoken(samples)
    assert caplog.text.count("the client does not read") == 1
    assert re.search(r", \d+ replies dropped", caplog.text)


def _small(reply: str):
    from aii.sinks.socket import Outbox

    return Outbox(reply, bound=2000)


def test_garbage_stalls_resets_and_dribbles_disturb_nobody():
    samples = speech(20, seed=8)
    data = slin(samples)
    chance = random.Random(0)
    with Rig() as rig:
        stalled = rig.connect()
        stalled.sendall(b"half-a-call-id")
        for number in range(10):
            with rig.connect() as client:
                client.sendall(chance.randbytes(chance.randrange(1, 9000)))
                if number % 2:
                    reset(client)
        with rig.connect() as browser:
            browser.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_all(browser).startswith("HTTP/1.1 4")
        dribble = rig.connect()
        dribble.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        small = slin(speech(0.1, seed=3))
        for byte in small[:700]:
            dribble.sendall(bytes([byte]))
        assert "".join(lines(rig.call(b"good-one\r", data))) == spoken(samples)
        dribble.sendall(small[700:])
        dribble.shutdown(socket.SHUT_WR)
        assert "".join(lines(read_all(dribble))) == spoken(speech(0.1, seed=3))
        dribble.close()
        stalled.close()
        rig.wait_for_no_calls()


def test_fifty_calls_at_once_lose_no_audio():
    calls = {f"call-{n:02d}": speech(20 + n / 2, seed=n) for n in range(50)}
    with Rig() as rig:
        replies: dict[str, str] = {}

        def play(name: str) -> None:
            data = slin(calls[name])
            cuts = [data[i : i + 6400] for i in range(0, len(data), 6400)]
            replies[name] = rig.call(name.encode() + b"\r", *cuts)

        threads = [threading.Thread(target=play, args=(name,)) for name in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        ended = {event.call_id: event for event in rig.listener.ended(50)}
        for name, samples in calls.items():
            assert "".join(lines(replies[name])) == spoken(samples)
            assert round(ended[name].end * S) == len(samples)
        heard = [e for e in rig.listener.events if isinstance(e, Final)]
        assert sum(e.end - e.start for e in heard) == pytest.approx(
            sum(len(samples) for samples in calls.values()) / S
        )
    for name in calls:
        mine = [event for event in rig.listener.events if event.call_id == name]
        assert [event.seq for event in mine] == list(range(1, len(mine) + 1))


def test_a_taken_call_id_gets_a_number(caplog):
    with Rig() as rig, rig.connect() as first:
        first.sendall(b"same\r" + slin(speech(1)))
        rig.listener.wait(lambda events: bool(events))
        rig.call(b"same\r", slin(speech(1)))
        ids = {e.call_id for e in rig.listener.events if isinstance(e, CallStarted)}
        assert ids == {"same", "same~2"}
        first.close()
        rig.listener.ended(2)
        rig.call(b"same\r", slin(speech(1)))
    assert rig.listener.ended(3)[-1].call_id == "same"
    assert "this id is taken" in caplog.text


def test_a_port_that_is_taken_is_one_line():
    with (
        Rig() as rig,
        pytest.raises(
            ConfigError,
            match="^cannot listen on 127.0.0.1:[0-9]+: Address already in use; .*--port$",
        ),
    ):
        TcpServer("127.0.0.1", rig.server.address[1], None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cannot listen on no.such.host.invalid"):
        TcpServer("no.such.host.invalid", 0, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["eof", "reset"])
@pytest.mark.parametrize("framing", ["auto", "raw", "callid", "cr641", "audiosocket"])
def test_a_connection_without_a_byte_is_no_call(how, framing, caplog):
    caplog.set_level(logging.INFO)
    with Rig(framing=framing) as rig:
        if how == "eof":
            rig.call()
        else:
            reset(rig.connect())
        wait_until(lambda: rig.server.counts["accepted"] == 1)
        rig.wait_for_no_calls()
        assert rig.listener.events == []
    assert [record.message.partition(": ")[2] for record in caplog.records] == [
        "no call: nothing was sent" + (" (Connection reset by peer)" if how == "reset" else "")
    ]


def test_a_lone_return_flushes():
    samples = speech(2)
    with Rig(framing="raw", reply="text") as rig, rig.connect() as client:
        client.sendall(slin(samples))
        rig.listener.wait(lambda events: bool(events))
        time.sleep(1.0)  # the framing's own rule: 100 ms of idle around the byte
        client.sendall(b"\r")
        assert client.makefile("r").readline() == "w1\n"
        assert next(e for e in rig.listener.events if isinstance(e, Final)).reason == "flush"


def test_the_engine_gets_floats_of_the_samples():
    samples = speech(3)
    with Rig() as rig:
        rig.call(slin(samples))
        request = rig.engine.requests[-1]
    assert request.audio.dtype == "float32"
    assert (request.audio == floats(samples)).all()
