"""The real engine behind the telephone protocols: the words that a file of the same audio gives."""

from __future__ import annotations

import queue
import random

import numpy as np
import pytest
from tone_speech import encoded

from aii.audio.pcm import PcmDecoder, PcmFormat, slin_to_float
from aii.engine.local import LocalEngine
from aii.protocols import (
    AeapProtocol,
    AsteriskMediaProtocol,
    AudioSocketOptions,
    FreeswitchProtocol,
    VoskProtocol,
    make_framing,
)
from aii.protocols.asterisk_media import control
from aii.protocols.audiosocket import message
from aii.resources import asset
from aii.servers.call import Call
from aii.servers.services import Services
from aii.streaming.events import Event, Final
from aii.streaming.factory import Sessions
from aii.streaming.settings import CallSettings
from aii.streaming.window import WindowSettings
from aii.transcribe import default_audio_context, transcribe

SECONDS = 4


@pytest.fixture(scope="module")
def engine(embedded_model):
    engine = LocalEngine(embedded_model, options={"temperatures": (0.0,)})
    yield engine
    engine.close(5)


def wires(encoding: str, rate: int, audio: bytes) -> dict:
    """Machines and what they are fed, for each protocol that has this codec."""
    name = {"ulaw": "ulaw", "alaw": "alaw", "s16": "slin16" if rate == 16_000 else "slin"}[encoding]
    setup = f'{{"request":"setup","id":"1","codecs":[{{"name":"{name}"}}],"params":{{"vad":"no"}}}}'
    start = control("MEDIA_START", form="json", channel_id="1", format=name)
    found = {
        "chan_websocket": (AsteriskMediaProtocol(), [start], audio),
        "aeap": (AeapProtocol(), [setup], audio),
    }
    if encoding == "s16":
        vosk = f'{{"config":{{"sample_rate":{rate},"vad":"no"}}}}'
        found["vosk"] = (VoskProtocol(), [vosk], audio)
        found["freeswitch"] = (FreeswitchProtocol({"rate": str(rate)}), [], audio)
    options = AudioSocketOptions(payload=name)
    wire = [message(0x10, audio[i : i + 320]) for i in range(0, len(audio), 320)]
    machine = make_framing("auto", audiosocket=options)
    found["audiosocket"] = (machine, [], message(0x01, bytes(16)) + b"".join(wire))
    return found


def play(engine: LocalEngine, machine, opening: list[str], audio: bytes) -> str:
    """The call's text, with the audio cut at random."""
    rung: queue.SimpleQueue[None] = queue.SimpleQueue()
    events: list[Event] = []
    settings = CallSettings(language="en", window=WindowSettings(window=30.0))
    services = Services(
        engine=engine,
        make_session=Sessions(settings).make,
        make_framing=lambda: make_framing("auto"),
        defaults=lambda call_id: settings,
    )
    call = Call(services, "peer", wake=lambda: rung.put(None), tell=events.append)
    chance = random.Random(len(audio))
    for text in opening:
        call.take(machine.receive(text))
    while audio:
        size = chance.randint(1, 3_000)
        call.take(machine.receive(audio[:size]))
        call.step()
        audio = audio[size:]
    call.take(machine.eof())
    call.step()
    while not call.finished:
        rung.get(timeout=60)
        call.step()
    call.close()
    return "".join(event.text for event in events if isinstance(event, Final))


@pytest.mark.parametrize(
    "encoding, rate", [("ulaw", 8_000), ("alaw", 8_000), ("s16", 8_000), ("s16", 16_000)]
)
def test_every_protocol_has_the_words_of_the_file(engine, embedded_model, encoding, rate) -> None:
    recording = slin_to_float(asset("sample_call.slin").read_bytes())[: SECONDS * 16_000]
    audio = encoded(recording, encoding, rate)
    decoder = PcmDecoder(PcmFormat(encoding, rate))
    samples = np.concatenate([decoder.feed(audio), decoder.flush()])
    offline = transcribe(
        embedded_model,
        samples,
        language="en",
        temperature=0.0,
        audio_context=default_audio_context(embedded_model),
        fp16=False,
    )["text"]
    assert offline.split()
    heard = {name: play(engine, *wire) for name, wire in wires(encoding, rate, audio).items()}
    assert heard == dict.fromkeys(heard, offline)
