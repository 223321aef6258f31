"""/ws, /ws/optimized, /ws/standard and /ws/transcription, over real sockets."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import websockets
from fake_engine import floats, speech, spoken
from server_rig import WAIT, wait_until
from web_rig import END, FLUSH, WebRig, closed, messages, npy, pieces, say

from aii.streaming.events import CallStarted

LIVE = ("/ws", "/ws/optimized", "/ws/standard")


@pytest.fixture(scope="module")
def rig():
    with WebRig() as rig:
        yield rig


def words(text: str) -> list[str]:
    return text.split()


def numbered(seconds: float, first: int, seed: int = 0) -> np.ndarray:
    """Speech whose words are ``w<first>`` and following."""
    samples = speech(seconds, seed, longest=0.8, shortest=0.4)
    return np.where(samples > 0, samples + (first - 1), 0).astype(np.int16)


@pytest.mark.parametrize("path", LIVE)
def test_the_words_come_while_they_are_spoken(rig, path):
    samples = speech(4, seed=3, longest=1.0)
    with rig.ws(path) as ws:
        heard = []
        for piece in pieces(
            floats(samples), 8000
        ):  # one window each: the answers can be waited for
            ws.send(piece.astype("<f4").tobytes())
            heard.append(json.loads(ws.recv(timeout=WAIT)))
        ws.send(END)
        heard += messages(ws)
    assert [set(item) for item in heard] == [{"text", "latency"}] * len(heard)
    assert len(heard) == 8 + 1  # every 0.5 s, and the last words
    assert words(heard[-1]["text"]) == words(spoken(samples))
    so_far = [words(item["text"]) for item in heard]
    assert all(words(spoken(samples))[: len(item)] == item for item in so_far)
    assert len(so_far[1]) < len(so_far[-1])
    assert all(item["latency"] == 10.0 for item in heard[:8])  # what the fake engine says it took


def test_standard_is_decoded_without_cache_and_drafts_the_others_with():
    with WebRig() as rig:
        samples = floats(speech(2, seed=1))
        for path in LIVE:
            say(rig, path + "?call_id=" + path.split("/")[-1], samples)
        options = {r.call_id: r.options.get("kv_cache", True) for r in rig.engine.requests}
        drafts = {r.call_id for r in rig.engine.requests if r.draft}
    assert options == {"ws": True, "optimized": True, "standard": False}
    assert drafts == {"ws", "optimized"}


def test_the_text_is_that_of_the_last_thirty_seconds(rig):
    samples = speech(70, seed=5, longest=2.0)
    heard = say(rig, "/ws", floats(samples), size=16000)
    everything = words(spoken(samples))
    last = words(heard[-1]["text"])
    assert last == everything[-len(last) :]
    kept = int(last[0][1:])  # the number of the first word that is still shown
    ends = np.flatnonzero(samples == kept)[-1] / 16000
    assert 70 - 30 - 2 <= ends <= 70
    assert all(len(words(item["text"])) <= 60 for item in heard)


def test_what_a_call_holds_does_not_grow_with_it():
    held = []
    with WebRig() as rig, rig.ws("/ws") as ws:
        for piece in pieces(floats(speech(100, seed=2, longest=2.0)), 8000):
            ws.send(piece.astype("<f4").tobytes())
            ws.recv(timeout=WAIT)
            held.append(rig.services.budget.total)
        ws.send(END)
        messages(ws)
        assert max(held) <= 31
        assert max(held[100:]) <= max(held[:61]) + 1  # one piece more or less may be on its way
        rig.wait_for_no_sessions()
        assert rig.services.budget.total == pytest.approx(0, abs=1e-9)
        assert max(len(r.samples) for r in rig.engine.requests) <= 30 * 16000


def test_detail_tells_more(rig):
    heard = say(rig, "/ws?detail=true&call_id=told", floats(speech(1.5, seed=9)))
    assert {"text", "latency", "final", "queued", "start", "end", "words", "call_id"} == set(
        heard[-1]
    )
    assert heard[-1]["final"] is True
    assert heard[-1]["call_id"] == "told"
    assert heard[-1]["words"][0]["text"] == " w1"


def test_flush_makes_what_was_said_final(rig):
    samples = floats(speech(1.3, seed=4))
    with rig.ws("/ws?detail=true") as ws:
        ws.send(samples.astype("<f4").tobytes())
        ws.send(FLUSH)
        found = [json.loads(ws.recv(timeout=WAIT)) for _ in range(1)]
        while not found[-1]["final"]:
            found.append(json.loads(ws.recv(timeout=WAIT)))
        assert words(found[-1]["text"]) == words(spoken(speech(1.3, seed=4)))
        ws.send(END)
        assert closed(ws) == (1000, "")


def test_a_client_that_just_leaves_loses_nothing_of_the_transcript():
    samples = speech(3, seed=8, longest=1.0)
    with WebRig() as rig:
        with rig.ws("/ws?call_id=left") as ws:
            ws.send(floats(samples).astype("<f4").tobytes())
        (end,) = rig.listener.ended()
        assert (end.call_id, end.reason) == ("left", "eof")
        assert words(rig.listener.text("left")) == words(spoken(samples))


@pytest.mark.parametrize(
    "message, code, reason",
    [
        (b"abc", 1007, "a message has 3 bytes; float32 comes in multiples of 4"),
        (np.array([0, np.nan], "<f4").tobytes(), 1007, "a sample is no finite number; wanted are"),
        (np.array([0, -31000], "<f4").tobytes(), 1007, "a sample is 3.1e+04; wanted are float32"),
        ("hello", 1003, "wanted are binary messages"),
        ("[" * 5000, 1003, "wanted are binary messages"),
    ],
)
def test_what_is_no_audio_ends_the_call_with_a_reason(rig, message, code, reason):
    with rig.ws("/ws") as ws:
        ws.send(np.zeros(1600, "<f4").tobytes())
        ws.send(message)
        found = closed(ws)
    assert found[0] == code
    assert found[1].startswith(reason)


@pytest.mark.parametrize("path", ["/ws", "/ws/transcription"])
def test_settings_that_make_no_sense_are_refused(rig, path):
    for query, reason in (
        ("language=klingon", "klingon"),
        ("polcy=window", "no setting of a call is called 'polcy'; did you mean policy?"),
    ):
        with rig.ws(f"{path}?{query}") as ws:
            code, said = closed(ws)
        assert code == 1008
        assert reason in said


# -- /ws/transcription ----------------------------------------------------------------------------


def transcripts(rig, client_id: str, samples: np.ndarray) -> list[dict]:
    path = f"/ws/transcription?client_id={client_id}"
    return say(rig, path, floats(samples), size=8000, form=npy)


def test_npy_in_transcripts_out(rig):
    samples = numbered(8, 1)
    before = time.time()
    found = transcripts(rig, "anna", samples)
    assert {(item["type"], item["client_id"]) for item in found} == {("transcript", "anna")}
    assert all(set(item) == {"type", "client_id", "text", "timestamp"} for item in found)
    assert all(before - 1 <= item["timestamp"] <= time.time() + 1 for item in found)
    assert len(found) > 1  # the words come as they are sure, not only at the end
    assert words(" ".join(item["text"] for item in found)) == words(spoken(samples))


def test_the_policy_is_alignatt_unless_another_is_asked_for():
    with WebRig() as rig:
        transcripts(rig, "a", numbered(3, 1))
        assert all(request.stop is not None for request in rig.engine.requests)
        say(rig, "/ws/transcription?policy=window", floats(numbered(2, 1)), form=npy)
        assert rig.engine.requests[-1].stop is None


def test_without_a_client_id_one_is_the_guest(rig):
    found = say(rig, "/ws/transcription", floats(numbered(2, 1)), form=npy)
    assert {item["client_id"] for item in found} == {"guest"}


def test_a_client_id_in_use_is_refused_with_1008(rig):
    with rig.ws("/ws/transcription?client_id=bob") as first:
        first.send(npy(np.zeros(1600, np.float32)))
        with rig.ws("/ws/transcription?client_id=bob") as second:
            assert closed(second) == (1008, "client id bob is in use; choose another")
        first.send(npy(floats(numbered(2, 7))))
        first.send(END)
        assert "w7" in " ".join(item["text"] for item in messages(first))
    wait_until(lambda: "bob" not in rig.web.client_ids)
    assert transcripts(rig, "bob", numbered(2, 1))  # and free again


def test_a_client_id_comes_back_as_it_was_given(rig):
    samples = speech(2, seed=4)
    found = transcripts(rig, "J%C3%B3zef%20%F0%9F%98%80", samples)
    assert {item["client_id"] for item in found} == {"Józef \N{GRINNING FACE}"}


@pytest.mark.parametrize("client_id", ["x" * 65, "a%00b", "a%0Ab"])
def test_a_client_id_that_cannot_come_back_is_refused(rig, client_id):
    with rig.ws(f"/ws/transcription?client_id={client_id}") as ws:
        code, reason = closed(ws)
    assert (code, reason) == (
        1008, "a client id has at most 64 printable characters; choose another"
    )  # fmt: skip


def test_a_client_that_only_sends_gets_its_last_words_and_goes_on(rig, monkeypatch):
    """It knows neither flush nor end; its audio simply stops for a while."""
    monkeypatch.setattr("aii.servers.web.live.QUIET", 0.1)
    with rig.ws("/ws/transcription?client_id=quiet") as ws:
        for first in (1, 50):
            samples = numbered(2, first)
            ws.send(npy(floats(samples)))
            wanted, heard = words(spoken(samples)), []
            while len(heard) < len(wanted):
                heard += words(json.loads(ws.recv(timeout=WAIT))["text"])
            assert heard == wanted


def test_the_comparing_endpoints_draw_nothing_by_chance():
    """Above temperature 0 the smallest difference of a sum would become other words."""
    with WebRig() as rig:
        for path in LIVE:
            say(rig, path, floats(speech(1.2, seed=1)))
        transcripts(rig, "other", speech(1.2, seed=1))
        heard = {
            (r.call_id.split("-")[0], r.options.get("temperatures")) for r in rig.engine.requests
        }
    assert heard == {("ws", (0.0,)), ("optimized", (0.0,)), ("standard", (0.0,)), ("other", None)}


@pytest.mark.parametrize("path", ["/ws/nothing", "/wss", "/ws/"])
def test_a_wrong_path_is_told_the_right_ones(rig, path):
    with rig.ws(path) as ws:
        code, reason = closed(ws)
    assert code == 1008
    assert reason.startswith(f"no WebSocket at {path}; there are /ws, /ws/transcription")


def test_voices_are_listened_for_wherever_that_can_be_done(monkeypatch):
    """Also where the server's own --vad is none; a client may still say that it wants none."""
    asked = []

    async def look(websocket, protocol, *, settings, **options):
        asked.append(settings.endpointing is not None)
        await websocket.accept()
        await websocket.close(1000)

    monkeypatch.setattr("aii.servers.web.live.bridge", look)
    with WebRig() as rig:
        current = rig.models.current
        rig.models._current = replace(current, sessions=replace(current.sessions, voice=True))
        for query in ("", "?vad=false"):
            with rig.ws("/ws/transcription" + query) as ws:
                assert closed(ws)[0] == 1000
    assert asked == [True, False]


def cut_off(samples: int) -> bytes:
    return npy(np.zeros(samples, np.float32))[:-1]


def huge_header() -> bytes:
    text = (
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999,), }".ljust(117) + b"\n"
    )
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    "message, code, reason",
    [
        (b"RIFF", 1003, "this is no .npy file; send what np.save writes"),
        (np.zeros(400, "<f4").tobytes(), 1003, "this is no .npy file"),
        (cut_off(400), 1007, "the header announces 1600 bytes, 1599 came"),
        (huge_header(), 1007, "the header announces 3999999999996 bytes, 0 came"),
        (pickled(), 1007, "the header of this .npy file is none of a row of samples"),
        (npy(np.zeros((2, 400), np.float32)), 1003, "an array of shape (2, 400); wanted is one"),
        (npy(np.zeros(4, np.complex64)), 1003, "samples are of kind <c8; wanted is <f4, float32"),
        (npy(np.full(4, np.inf, np.float32)), 1007, "a sample is no finite number"),
        (npy(np.full(4, 1e300)), 1007, "a sample is no finite number"),
    ],
)
def test_damaged_and_huge_arrays_are_refused_with_a_reason(rig, message, code, reason):
    with rig.ws("/ws/transcription?client_id=bad") as ws:
        ws.send(message)
        found = closed(ws)
    assert found[0] == code
    assert found[1].startswith(reason)
    wait_until(lambda: "bad" not in rig.web.client_ids)


def test_thirty_two_clients_at_once_get_their_own_words_only():
    """Each says words that no other says; all are connected before the first sends."""
    clients, found = 32, {}
    start = threading.Barrier(clients)

    def client(rig: WebRig, number: int) -> None:
        samples = numbered(4, 1 + 1000 * number % 30_000 + 10 * number, seed=number)
        with rig.ws(f"/ws/transcription?client_id=c{number}") as ws:
            start.wait(WAIT)
            for piece in pieces(floats(samples), 8000):
                ws.send(npy(piece))
            ws.send(END)
            found[number] = samples, messages(ws)

    with WebRig() as rig:
        threads = [threading.Thread(target=client, args=(rig, n)) for n in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        started = {e.call_id for e in rig.listener.events if isinstance(e, CallStarted)}
    assert len(found) == clients
    assert started == {f"c{number}" for number in range(clients)}
    every = [word for samples, _ in found.values() for word in words(spoken(samples))]
    assert len(every) == len(set(every))  # no two say the same word
    for number, (samples, heard) in found.items():
        assert {item["client_id"] for item in heard} == {f"c{number}"}
        assert words(" ".join(item["text"] for item in heard)) == words(spoken(samples))


# -- by the table alone ---------------------------------------------------------------------------


def test_a_client_made_from_the_table_alone_works(rig):
    """What the table of the endpoints says, with the public ``websockets`` package and nothing
    of ours: audio at the pace of speech's pieces, answers as JSON, the default client id."""
    samples = speech(2.5, seed=6, longest=0.8)

    async def live(url: str) -> list:
        heard = []
        async with websockets.connect(url, open_timeout=WAIT) as socket:
            for piece in pieces(floats(samples)):
                await socket.send(piece.astype("<f4").tobytes())
            while (
                len(heard) == 0 or len(words(heard[-1]["text"])) < len(words(spoken(samples))) - 1
            ):
                heard.append(json.loads(await asyncio.wait_for(socket.recv(), WAIT)))
        return heard

    async def transcribe(url: str) -> tuple[list, int]:
        heard = []
        async with (
            websockets.connect(url, open_timeout=WAIT) as socket,
            websockets.connect(url, open_timeout=WAIT) as second,
        ):
            with pytest.raises(websockets.ConnectionClosed):
                await asyncio.wait_for(second.recv(), WAIT)
            for piece in pieces(floats(numbered(6, 1))):
                file = io.BytesIO()
                np.save(file, piece, allow_pickle=False)
                await socket.send(file.getvalue())
            heard.append(json.loads(await asyncio.wait_for(socket.recv(), WAIT)))
            return heard, second.close_code

    base = rig.url.replace("http", "ws")
    for path in LIVE:
        heard = asyncio.run(live(base + path))
        assert all(isinstance(item["text"], str) and item["latency"] >= 0 for item in heard)
    heard, code = asyncio.run(transcribe(base + "/ws/transcription"))
    assert code == 1008
    assert heard[0]["type"] == "transcript"
    assert heard[0]["client_id"] == "guest"
    assert heard[0]["text"].startswith("w1")
