"""One recording over every protocol and codec: the same words, the same times, however cut."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from tone_speech import ToneEngine, encoded, hear, say, starts

from aii.protocols import (
    AeapProtocol,
    AsteriskMediaProtocol,
    AudioSocketOptions,
    Framing,
    FreeswitchProtocol,
    MessageProtocol,
    VoskProtocol,
    make_framing,
)
from aii.protocols.asterisk_media import control
from aii.protocols.audiosocket import AUDIO_RATES, message
from aii.protocols.codecs import CODECS
from aii.protocols.wrap import wav_header, wrap
from aii.servers.call import Call
from aii.servers.services import Services
from aii.streaming.events import Event, Final
from aii.streaming.factory import Sessions
from aii.streaming.settings import CallSettings
from aii.types import DecodeRequest

SPOKEN = "one five yes nine stop two"
RECORDING = say(SPOKEN)
UUID = bytes(range(16))

Piece = str | bytes
Machine = Framing | MessageProtocol


@dataclass(frozen=True)
class Case:
    """A protocol with a codec: a fresh machine, what comes before the audio, and the audio."""

    name: str
    make: Callable[[], Machine]
    opening: tuple[Piece, ...]
    audio: bytes
    rate: int = 16_000


def services(rate: int = 16_000) -> Services:
    return Services(
        engine=ToneEngine(),
        make_session=Sessions(CallSettings(words="all")).make,
        make_framing=lambda: make_framing("auto"),
        rate=rate,
    )


def framed(case: str, samples) -> bytes:
    """SLIN in one of our own framings."""
    call_id = "call-1" if case in ("callid", "cr641") else None
    packets = wrap([encoded(samples, "s16", 16_000)], case, call_id=call_id)
    return b"".join(packet.data for packet in packets)


def wav(samples, encoding: str, rate: int) -> bytes:
    if encoding == "s16":
        return wav_header(rate) + encoded(samples, encoding, rate)
    data, tag = encoded(samples, encoding, rate), {"alaw": 6, "ulaw": 7}[encoding]
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, tag, 1, rate, rate, 1, 8)
    head = b"WAVE" + fmt + struct.pack("<4sI", b"data", len(data))
    return struct.pack("<4sI", b"RIFF", len(head) + len(data)) + head + data


def audiosocket(samples, kind: int, encoding: str, rate: int) -> bytes:
    data, step = encoded(samples, encoding, rate), rate // 50 * (2 if encoding == "s16" else 1)
    messages = [message(kind, data[i : i + step]) for i in range(0, len(data), step)]
    return message(0x01, UUID) + b"".join(messages)


def streams() -> Iterator[Case]:
    """What comes over plain TCP."""
    for rate in (8_000, 16_000):
        audio = encoded(RECORDING, "s16", rate)
        for framing in ("auto", "raw"):
            yield Case(f"{framing} slin {rate}", lambda f=framing: make_framing(f), (), audio, rate)
    for framing in ("callid", "cr641"):
        for named in ("auto", framing):
            make = lambda named=named: make_framing(named)  # noqa: E731
            wire = framed(framing, RECORDING)
            if framing == named == "cr641":
                wire = wire.removeprefix(b"call-1\r")
            yield Case(f"{framing} by {named}", make, (), wire)
    for encoding, rate in (("s16", 8_000), ("s16", 44_100), ("ulaw", 8_000), ("alaw", 8_000)):
        wire = wav(RECORDING, encoding, rate)
        yield Case(f"wav {encoding} {rate}", lambda: make_framing("auto"), (), wire)
    for framing in ("auto", "audiosocket"):
        for kind, rate in AUDIO_RATES.items():
            make = lambda framing=framing: make_framing(framing)  # noqa: E731
            wire = audiosocket(RECORDING, kind, "s16", rate)
            yield Case(f"audiosocket by {framing} {rate}", make, (), wire)
    for payload in ("ulaw", "alaw", "slin16"):
        codec, options = CODECS[payload], AudioSocketOptions(payload=payload)
        wire = audiosocket(RECORDING, 0x10, codec.encoding, codec.rate)
        make = lambda options=options: make_framing("auto", audiosocket=options)  # noqa: E731
        yield Case(f"audiosocket marked wrongly {payload}", make, (), wire)


def messages() -> Iterator[Case]:
    """What comes over a WebSocket."""
    for name, codec in CODECS.items():
        audio = encoded(RECORDING, codec.encoding, codec.rate)
        for form in ("plain-text", "json"):
            start = control("MEDIA_START", form=form, channel_id="1.1", format=name)
            yield Case(f"chan_websocket {form} {name}", AsteriskMediaProtocol, (start,), audio)
    for name in ("ulaw", "alaw", "slin", "slin16"):
        codec = CODECS[name]
        setup = f'{{"request":"setup","id":"1","codecs":[{{"name":"{name}"}}]}}'
        audio = encoded(RECORDING, codec.encoding, codec.rate)
        yield Case(f"aeap {name}", AeapProtocol, (setup,), audio)
    yield Case("vosk", VoskProtocol, (), encoded(RECORDING, "s16", 8_000))
    for rate in (8_000, 16_000, 48_000):
        audio = encoded(RECORDING, "s16", rate)
        opening = f'{{"config":{{"sample_rate":{rate}}}}}'
        yield Case(f"vosk {rate}", VoskProtocol, (opening,), audio)
    for mix in ("mono", "mixed"):
        for rate in ("8k", "16k"):
            audio = encoded(RECORDING, "s16", 1000 * int(rate[:-1]))
            opening = f'{{"uuid":"u","mix":"{mix}","rate":"{rate}"}}'
            yield Case(f"freeswitch {mix} {rate}", FreeswitchProtocol, (opening,), audio)


def cut(audio: bytes, how: str) -> list[bytes]:
    """The audio in pieces: whole, of 20 ms or so, or of random sizes, odd ones too."""
    if how == "whole":
        return [audio]
    chance, pieces, place = random.Random(how), [], 0
    while place < len(audio):
        size = 640 if how == "frames" else chance.choice([1, 2, 3, 159, 640, 641, 5_000])
        pieces.append(audio[place : place + size])
        place += size
    return pieces


def finals(events: list[Event], leg: str = "") -> list[Final]:
    return [event for event in events if isinstance(event, Final) and event.leg == leg]


def play(machine: Machine, pieces: list[Piece], given: Services | None = None) -> list[Event]:
    """A whole call, without a socket."""
    events: list[Event] = []
    call = Call(given or services(), "peer", wake=lambda: None, tell=events.append)
    for piece in pieces:
        call.take(machine.receive(piece))
        call.step()
    call.take(machine.eof())
    for _ in range(100):
        call.step()
    assert call.finished
    call.close()
    return events


CASES = {case.name: case for case in [*streams(), *messages()]}


def test_the_words_are_there_to_be_heard() -> None:
    assert hear(DecodeRequest(1, "c", RECORDING)).text.split() == SPOKEN.split()
    assert len(CASES) > 60


@pytest.mark.parametrize("how", ["whole", "frames", "random 1"])
@pytest.mark.parametrize("name", CASES)
def test_the_same_words_at_the_same_times(name: str, how: str) -> None:
    case = CASES[name]
    events = play(case.make(), [*case.opening, *cut(case.audio, how)], services(case.rate))
    heard = finals(events)
    assert "".join(final.text for final in heard).split() == SPOKEN.split()
    times = [word.start for final in heard for word in final.words]
    assert times == pytest.approx(starts(len(times)), abs=0.021)
    assert events[-1].type == "ended"
    assert events[-1].end == pytest.approx(len(RECORDING) / 16_000, abs=0.001)


def test_random_cuttings_of_every_protocol() -> None:
    for number, case in enumerate(CASES.values()):
        pieces = [*case.opening, *cut(case.audio, f"random {number + 10}")]
        heard = finals(play(case.make(), pieces, services(case.rate)))
        assert "".join(final.text for final in heard).split() == SPOKEN.split(), case.name
