"""Calls through sockets, framing, session and the real engine: the words that a file gives."""

from __future__ import annotations

import functools
import itertools
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from server_rig import WAIT, Rig, delivered, lines, read_all, reset, wait_until

from aii.audio.pcm import SlinDecoder, float_to_slin, slin_to_float
from aii.audio.resampler import Resampler
from aii.engine.local import LocalEngine
from aii.languages import LANGUAGES
from aii.resources import asset
from aii.streaming.events import Final
from aii.transcribe import default_audio_context, transcribe

S = 16_000
# One temperature: the ladder above it draws at random, which is no basis for comparing words.
OPTIONS = {"temperatures": (0.0,)}


@pytest.fixture(scope="module")
def call() -> np.ndarray:
    """The sample call; what follows its first 30 s comes early, so that few seconds reach it."""
    return slin_to_float(asset("sample_call.slin").read_bytes())


def offline(model, samples: np.ndarray) -> str:
    result = transcribe(
        model, samples, temperature=0.0, audio_context=default_audio_context(model), fp16=False
    )
    return result["text"]


def wires(data: bytes, rate: int, number: int) -> dict[str, bytes]:
    """A call's SLIN in every framing; a message holds 20 ms. ``number`` tells calls apart."""
    step = rate // 50 * 2
    messages = [data[i : i + step] for i in range(0, len(data), step)]
    kind = {8_000: b"\x10", 16_000: b"\x12"}[rate]
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
    head += b"data" + struct.pack("<I", len(data))
    return {
        "raw": data,
        "callid": b"call-%d\r" % number + data,
        "cr641": b"".join(data[i : i + 640] + b"\r" for i in range(0, len(data), 640)),
        "audiosocket": b"\x01\0\x10"
        + number.to_bytes(16, "big")
        + b"".join(kind + len(m).to_bytes(2, "big") + m for m in messages),
        "wav": b"RIFF" + struct.pack("<I", len(head) + len(data)) + head + data,
    }


def send_in_pieces(client: socket.socket, wire: bytes, chance: random.Random) -> None:
    """Random pieces of 1 to 5,000 bytes, each on its way before the next."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while wire:
        count = chance.randint(1, 5000)
        client.sendall(wire[:count])
        wire = wire[count:]


def decoded(data: bytes, rate: int) -> np.ndarray:
    decoder = SlinDecoder(rate)
    return np.concatenate([decoder.feed(data), decoder.flush()])


@pytest.fixture(scope="module")
def rigs(embedded_model) -> Iterator[dict[int, Rig]]:
    """A server for raw audio of either rate; both have the one engine."""
    engine = LocalEngine(embedded_model, options=OPTIONS)
    with Rig(engine=engine, rate=16_000) as wide, Rig(engine=engine, rate=8_000) as narrow:
        yield {16_000: wide, 8_000: narrow}


@pytest.fixture(scope="module")
def heard(embedded_model, call) -> Callable[[int, int], tuple[bytes, str]]:
    """SLIN of the call's first milliseconds at a rate, and what a file of it says."""

    @functools.cache
    def hear(rate: int, milliseconds: int) -> tuple[bytes, str]:
        data = float_to_slin(call[: milliseconds * 16])
        if rate != S:
            resampler = Resampler(S, rate)
            data = float_to_slin(
                np.concatenate([resampler.feed(slin_to_float(data)), resampler.flush()])
            )
        data = data[: len(data) // 640 * 640]  # whole frames of every framing
        return data, offline(embedded_model, decoded(data, rate))

    return hear


FRAMINGS = ("raw", "callid", "cr641", "audiosocket", "wav")


@pytest.mark.parametrize("rate", [8_000, 16_000])
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("end", ["half-close", "close", "reset"])
def test_any_framing_and_cut_gives_the_words_of_the_file(rigs, heard, framing, rate, end):
    data, expected = heard(rate, 4000)
    assert expected.split()
    rig, chance = rigs[rate], random.Random(f"{framing} {rate} {end}")
    calls = rig.listener.count()
    with rig.connect() as client:
        send_in_pieces(client, wires(data, rate, calls)[framing], chance)
        if end == "half-close":
            client.shutdown(socket.SHUT_WR)
            reply = read_all(client)
            assert reply.split() == ([] if framing == "audiosocket" else expected.split())
        elif end == "reset":
            wait_until(lambda: delivered(client))
            reset(client)
    ended = rig.listener.ended(calls + 1)[-1]
    assert ended.reason == ("connection reset" if end == "reset" else "eof")
    assert rig.listener.text(ended.call_id) == expected


@pytest.mark.parametrize("end", ["close", "reset"])
def test_words_of_a_call_cut_off_anywhere_are_those_of_a_file_cut_there(
    rigs, embedded_model, call, end
):
    chance, rig = random.Random(end), rigs[16_000]
    for _ in range(3):
        data = float_to_slin(call[: 3 * S])[: chance.randrange(2 * S, 6 * S)]
        expected = offline(embedded_model, decoded(data[: len(data) // 2 * 2], S))
        calls = rig.listener.count()
        with rig.connect() as client:
            send_in_pieces(client, data, chance)
            if end == "reset":
                wait_until(lambda: delivered(client))
                reset(client)
        ended = rig.listener.ended(calls + 1)[-1]
        assert rig.listener.text(ended.call_id) == expected


def test_a_long_call_carries_over_as_a_file_does(embedded_model, call):
    # Little talk in much true silence: in half a minute of talk a weak model would hear what the
    # mirrored edges of a window change in its spectrogram.
    turn = np.concatenate([call[10 * S : round(13.5 * S)], np.zeros(9 * S, np.float32)])
    samples = slin_to_float(float_to_slin(np.tile(turn, 7)))
    expected = offline(embedded_model, samples)
    engine = LocalEngine(embedded_model, options=OPTIONS)
    with Rig(engine=engine, settings={"words": "none"}) as rig:
        reply = rig.call(float_to_slin(samples))
        rig.listener.ended()
        assert rig.listener.text() == expected
        assert "".join(lines(reply)).split() == expected.split()
        finals = [event for event in rig.listener.events if isinstance(event, Final)]
    assert len(finals) >= 3
    assert all(a.end == b.start for a, b in itertools.pairwise(finals))
    assert finals[0].language in LANGUAGES


@pytest.mark.parametrize("seconds", [29.98, 30.0, 30.02])
def test_a_call_about_as_long_as_a_window_says_what_a_file_says(embedded_model, call, seconds):
    talk, quiet = call[round(4.2 * S) : round(8.2 * S)], np.zeros(9 * S, np.float32)
    samples = np.concatenate([quiet, talk, quiet, talk, quiet])[: round(seconds * S)]
    samples = slin_to_float(float_to_slin(samples))
    expected = offline(embedded_model, samples)
    engine = LocalEngine(embedded_model, options=OPTIONS)
    with Rig(engine=engine, settings={"words": "none"}) as rig:
        rig.call(float_to_slin(samples))
        (ended,) = rig.listener.ended()
        assert rig.listener.text() == expected
    assert expected.split()
    assert ended.end == seconds


def test_fifty_calls_at_once_on_the_embedded_model(embedded_model, call):
    pieces = [call[n * 2000 : n * 2000 + (2 + n % 3) * S // 2] for n in range(50)]
    engine = LocalEngine(embedded_model, options={**OPTIONS, "audio_context": "auto"})
    settings = {"words": "none", "window": 1.0}
    with Rig(engine=engine, settings=settings, language="en", framing="callid") as rig:
        clients = [rig.connect() for _ in pieces]

        def play(n: int) -> None:
            clients[n].sendall(f"call-{n}\r".encode() + float_to_slin(pieces[n]))
            clients[n].shutdown(1)
            read_all(clients[n])
            clients[n].close()

        threads = [threading.Thread(target=play, args=(n,)) for n in range(len(pieces))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        ends = {event.call_id: event.end for event in rig.listener.ended(50)}
        finals = [event for event in rig.listener.events if isinstance(event, Final)]
    assert ends == {f"call-{n}": len(piece) / S for n, piece in enumerate(pieces)}
    assert all(event.error is None for event in finals)
    heard = sum(event.end - event.start for event in finals)
    assert heard == pytest.approx(sum(len(piece) for piece in pieces) / S)
