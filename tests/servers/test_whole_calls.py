"""Calls through sockets, framing, session and the real engine: the words that a file gives."""

from __future__ import annotations

import itertools
import random
import threading

import numpy as np
import pytest
from server_rig import Rig, lines, read_all

from aii.audio.pcm import float_to_slin, slin_to_float
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


def test_any_framing_and_cut_gives_the_words_of_the_file(embedded_model, call):
    samples = call[: 13 * S]
    data = float_to_slin(samples)
    frames = [data[i : i + 640] for i in range(0, len(data), 640)]
    wires = [
        data,
        b"call-1\r" + data,
        b"".join(frame.ljust(640, b"\0") + b"\r" for frame in frames),
        b"\x01\0\x10"
        + bytes(16)
        + b"".join(b"\x12" + len(f).to_bytes(2, "big") + f for f in frames),
    ]
    expected = offline(embedded_model, samples)
    assert expected.split()
    chance = random.Random(1)
    with Rig(engine=LocalEngine(embedded_model, options=OPTIONS)) as rig:
        for number, wire in enumerate(wires):
            with rig.connect() as client:
                while wire:
                    count = chance.randint(1, 5000)
                    client.sendall(wire[:count])
                    wire = wire[count:]
            ended = rig.listener.ended(number + 1)[-1]
            assert rig.listener.text(ended.call_id) == expected


def test_a_long_call_carries_over_as_a_file_does(embedded_model, call):
    samples = np.concatenate([call, call[: 30 * S]])
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
            thread.join(60)
        ends = {event.call_id: event.end for event in rig.listener.ended(50)}
        finals = [event for event in rig.listener.events if isinstance(event, Final)]
    assert ends == {f"call-{n}": len(piece) / S for n, piece in enumerate(pieces)}
    assert all(event.error is None for event in finals)
    heard = sum(event.end - event.start for event in finals)
    assert heard == pytest.approx(sum(len(piece) for piece in pieces) / S)
