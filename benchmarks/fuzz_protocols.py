"""Hostile bytes for every protocol: nothing is raised, nothing grows, no call beside is touched.

    python -m benchmarks.fuzz_protocols            # ten million bytes for each protocol
    python -m benchmarks.fuzz_protocols --quick    # a fiftieth of it

Each connection is one of: noise; a valid conversation with bytes changed, left out, doubled; valid
pieces in any order. What is drawn depends on the seed alone. Beside each hostile connection a good
one of the same protocol runs, read by read; it must give what it gives alone.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from aii.protocols import (
    MESSAGE_PROTOCOLS,
    Audio,
    AudioSocketOptions,
    Frame,
    Framing,
    Hangup,
    MessageProtocol,
    Notice,
    make_framing,
    wrap,
)
from aii.protocols.asterisk_media import control
from aii.protocols.audiosocket import message
from aii.protocols.base import MOST_NOTICES
from aii.protocols.wav import WavFraming
from aii.protocols.wrap import wav_header
from aii.streaming.events import CallEnded, CallStarted, Final, Partial
from aii.types import Segment, Word
from benchmarks import common

BYTES = 10_000_000
MOST_HELD = 1 << 20
"""Bytes that a machine may hold; only a WAV header is allowed so many."""

MOST_SENT = 1 << 16
"""Bytes that one read of hostile input may make us write."""

Piece = str | bytes
Make = Callable[[], Framing | MessageProtocol]


@dataclass(frozen=True)
class Target:
    """A protocol: how to make its machine, a good conversation, and pieces of conversations."""

    name: str
    make: Make
    good: tuple[Piece, ...]
    pieces: tuple[Piece, ...]


def _speech(count: int) -> bytes:
    """Something like SLIN, the same every time."""
    chance, value, out = random.Random(7), 0, bytearray()
    for _ in range(count):
        value = max(-20_000, min(20_000, value + chance.randint(-700, 700)))
        out += value.to_bytes(2, "little", signed=True)
    return bytes(out)


SPEECH = _speech(4_000)

STREAM_PIECES = (
    b"call-1\r",
    b"call-1\r\n",
    b"x" * 140,
    b"abc\0" * 10,
    b"\r",
    b"GET / HTTP/1.1\r\n\r\n",
    (SPEECH[:640] + b"\r") * 5,
    message(0x01, bytes(range(16))),
    message(0x10, SPEECH[:320]),
    message(0x12, SPEECH[:640]),
    message(0x03, b"5"),
    message(0xFF, b"\x01"),
    message(0x18, SPEECH[:7_000]),
    b"\x10\xff\xff",
    wav_header(8_000, 500),
    wav_header(44_100),
    b"RIFF\xff\xff\xff\xffWAVEfmt \xff\xff\xff\x7f",
    SPEECH[:333],
)

TEXT_PIECES = (
    control("MEDIA_START", channel="c", channel_id="1.1", format="ulaw", ptime=20),
    control("MEDIA_START", form="json", channel_id="1.1", format="slin16"),
    control("DTMF_END", digit=5),
    control("DTMF_END", form="json", digit="#"),
    '{"request":"setup","id":"1","codecs":[{"name":"ulaw"}],"params":{"language":"de"}}',
    '{"request":"set","id":"2","params":{"dtmf":"5"}}',
    '{"request":"get","id":"3","params":["results"]}',
    '{"response":"set","id":"aii-1"}',
    '{"config":{"sample_rate":16000,"phrase_list":["a","b"],"max_alternatives":2}}',
    '{"eof" : 1}',
    '{"uuid":"c-1","channels":"stereo","rate":"16k","dtmf":"1"}',
    "[" * 5_000,
    '{"a":' * 2_000,
    '"\\ud800"',
    "1e999",
    '{"request":"set","id":"\\ud800","params":{"\\ud801":"\\u0000"}}',
    "\x00\x1b[2J",
)


def _stream(framing: str) -> tuple[Piece, ...]:
    """A good conversation in a framing."""
    call_id = {"audiosocket": "0f2b1c5e-8a53-4a4f-9a8e-0d8f6a3c2b10", "raw": None, "wav": None}
    chosen = call_id.get(framing, "call-1")
    return tuple(packet.data for packet in wrap([SPEECH], framing, call_id=chosen))


def targets() -> list[Target]:
    """Every protocol that a stranger can speak to us."""
    override = AudioSocketOptions(payload="ulaw", keepalive=0.5)
    streams: dict[str, tuple[Make, str]] = {
        "auto": (lambda: make_framing("auto", web_port=8000), "audiosocket"),
        "raw": (lambda: make_framing("raw"), "raw"),
        "callid": (lambda: make_framing("callid"), "callid"),
        "cr641": (lambda: make_framing("cr641"), "cr641"),
        "audiosocket": (lambda: make_framing("audiosocket"), "audiosocket"),
        "audiosocket-ulaw": (
            lambda: make_framing("audiosocket", audiosocket=override),
            "audiosocket",
        ),
        "wav": (WavFraming, "wav"),
    }
    found = [
        Target(name, make, _stream(framing), STREAM_PIECES)
        for name, (make, framing) in streams.items()
    ]
    openings = {"asterisk-media": 0, "aeap": 4, "vosk": 8, "freeswitch": 10}
    for protocol in MESSAGE_PROTOCOLS:
        opening = TEXT_PIECES[openings[protocol.name]]
        audio = tuple(SPEECH[i : i + 320] for i in range(0, len(SPEECH), 320))
        make: Make = lambda protocol=protocol: protocol({"call_id": "c"})  # noqa: E731
        found.append(Target(protocol.name, make, (opening, *audio), (*TEXT_PIECES, SPEECH[:320])))
    return found


def _spoiled(piece: Piece, chance: random.Random) -> Piece:
    """``piece`` with a few bytes changed, left out or doubled."""
    data = bytearray(piece.encode("utf-8", "surrogatepass") if isinstance(piece, str) else piece)
    for _ in range(chance.randint(1, 5)):
        place = chance.randrange(len(data) + 1)
        kind = chance.randrange(4)
        if kind == 0:
            data[place:place] = chance.randbytes(chance.randint(1, 8))
        elif kind == 1:
            del data[place : place + chance.randint(1, 8)]
        elif kind == 2:
            data[place : place + 1] = chance.randbytes(1)
        else:
            data[place:place] = data[place : place + chance.randint(1, 40)]
    return data.decode("utf-8", "replace") if isinstance(piece, str) else bytes(data)


def _hostile(target: Target, chance: random.Random) -> Iterator[Piece]:
    """One connection's input."""
    kind = chance.randrange(4)
    if kind == 0:
        size = chance.choice([1, 3, 40, 300, 3_000])
        for _ in range(chance.randint(1, 12)):
            noise = chance.randbytes(chance.randint(1, size))
            as_text = isinstance(target.pieces[0], str) and chance.random() < 0.5
            yield noise.decode("latin-1") if as_text else noise
    elif kind == 1:
        for piece in target.good:
            yield _spoiled(piece, chance) if chance.random() < 0.2 else piece
    else:
        for _ in range(chance.randint(1, 25)):
            piece = chance.choice(target.pieces)
            yield _spoiled(piece, chance) if chance.random() < 0.5 else piece


EVENTS = (
    CallStarted("c", 1, caller="x"),
    Partial("c", 2, segments=(Segment(0, 1, " a"),)),
    Final("c", 3, segments=(Segment(0, 1, " a", (), (Word(" a", 0, 1, 0.5),)),), reason="flush"),
    CallEnded("c", 4, reason="eof"),
)


def held_bytes(thing: object, depth: int = 4) -> int:
    """Bytes that a machine keeps, those of the machines and values within it too."""
    if isinstance(thing, str | bytes | bytearray):
        return len(thing)
    if isinstance(thing, dict):
        return sum(held_bytes(value, depth - 1) for value in thing.values())
    if isinstance(thing, list | tuple | set):
        return sum(held_bytes(value, depth - 1) for value in thing)
    if depth == 0 or not hasattr(thing, "__dict__"):
        return 0
    return sum(held_bytes(value, depth - 1) for value in vars(thing).values())


class _Feeder:
    """One connection: its machine, and what it gave."""

    def __init__(self, make: Make) -> None:
        self.machine = make()
        self.frames: list[Frame] = []
        self.sent: list[Piece] = []

    def feed(self, piece: Piece, idle: float = 0.001) -> None:
        machine = self.machine
        if isinstance(machine, Framing):
            data = piece if isinstance(piece, bytes) else piece.encode("utf-8", "replace")
            self.frames += machine.receive(data, idle)
            wait = machine.tick_after
            assert wait is None or wait > 0
            if idle > 0.1:
                self.frames += machine.tick(idle)
        else:
            self.frames += machine.receive(piece)
        self._take()

    def event(self, event: Any) -> None:
        if isinstance(self.machine, MessageProtocol):
            self.sent += self.machine.event(event)
            self._take()

    def end(self) -> None:
        self.frames += self.machine.eof()
        self.event(EVENTS[-1])
        self._take()

    def _take(self) -> None:
        sent = self.machine.send()
        for out in [sent] if isinstance(sent, bytes) else sent:
            assert len(out) <= MOST_SENT, "a long answer"
            (out if isinstance(out, str) else "").encode()  # a lone surrogate would raise
            self.sent.append(out)


def _check(feeder: _Feeder) -> None:
    """What holds for every connection, however hostile."""
    ends = [number for number, frame in enumerate(feeder.frames) if isinstance(frame, Hangup)]
    assert ends == [len(feeder.frames) - 1], "a call ends once, and last"
    notices = sum(isinstance(frame, Notice) for frame in feeder.frames)
    assert notices <= 3 * (MOST_NOTICES + 1), "a flood of notices"
    assert all(frame.payload for frame in feeder.frames if isinstance(frame, Audio))


def _alone(target: Target) -> tuple[list[Frame], list[Piece]]:
    """What the good conversation gives with nobody beside it."""
    good = _Feeder(target.make)
    for piece in target.good:
        good.feed(piece)
    good.end()
    return good.frames, good.sent


def fuzz(target: Target, most: int, seed: int = 0) -> dict[str, int]:
    """Feed ``most`` hostile bytes; counts of what was done.

    Raises:
        AssertionError: something that must hold does not.
    """
    chance = random.Random(f"{target.name} {seed}")
    expected = _alone(target)
    counts = {"bytes": 0, "connections": 0, "beside": 0, "held": 0}
    beside, place = _Feeder(target.make), 0
    while counts["bytes"] < most:
        hostile = _Feeder(target.make)
        for piece in _hostile(target, chance):
            hostile.feed(piece, chance.choice([0.0, 0.001, 0.15, 0.3, 3.0]))
            hostile.event(chance.choice(EVENTS[:3]))
            counts["bytes"] += len(piece)
            beside.feed(target.good[place])
            place += 1
            if place == len(target.good):
                beside.end()
                assert (beside.frames, beside.sent) == expected, "the call beside was touched"
                counts["beside"] += 1
                beside, place = _Feeder(target.make), 0
        counts["held"] = max(counts["held"], held_bytes(hostile.machine))
        assert counts["held"] <= MOST_HELD, "a machine holds too much"
        hostile.end()
        _check(hostile)
        counts["connections"] += 1
    return counts


def main() -> int:
    """Run all of it; one line per protocol."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the bytes")
    parser.add_argument("--bytes", type=int, default=BYTES, help="bytes for each protocol")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    most = args.bytes // 50 if args.quick else args.bytes
    for target in targets():
        fuzz(target, 20_000, args.seed)  # what is made once, tables and the like, is made now
        gc.collect()
        before, start = len(gc.get_objects()), time.perf_counter()
        counts = fuzz(target, most, args.seed)
        seconds = time.perf_counter() - start
        gc.collect()
        leaked = len(gc.get_objects()) - before
        common.result(
            "fuzz_protocols", target.name, "bytes", counts.pop("bytes"), "bytes",
            seconds=seconds, leaked_objects=leaked, **counts,
        )  # fmt: skip
        if leaked > 50:
            print(json.dumps({"error": f"{target.name}: {leaked} objects remain"}))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
