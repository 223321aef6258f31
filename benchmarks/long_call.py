"""One long call on the real server: nothing lost, nothing doubled, nothing grows.

    python -m benchmarks.long_call           # 10 minutes, each policy with voice activity
    python -m benchmarks.long_call --vad off --policy window
    python -m benchmarks.long_call --quick   # 20 seconds

A call is put together from people saying digits and from synthetic phrases (``spoken_calls.py``;
the sample call again and again where their data is missing) and sent over TCP, ``--speed`` times as
fast as it was spoken, to a server process with the embedded model. Its events come back as JSON
lines.

Finals and silences must cover the call from its beginning to its end without a gap and without an
overlap, whatever the policy: ``uncovered`` and ``doubled`` are seconds, ``lost`` what the server
gave up. Word errors, seconds of computing per decode and memory are told for the first and the last
third of the call: what grows with the length of the call shows there. The exit code says whether
anything was lost or doubled.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aii.audio.pcm import SlinDecoder
from aii.evaluation import word_errors
from aii.resources import asset
from aii.streaming.settings import POLICIES
from aii.types import SAMPLE_RATE
from benchmarks.common import machine, median, note, result
from benchmarks.servers import ServerProcess
from benchmarks.spoken_calls import SpokenCall, SpokenWord, digit_calls, phrase_calls

NAME = "long_call"
DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
PIECE = 60.0
"""Seconds of call with one voice."""

FRAME = 640
"""Bytes sent at once: 20 ms."""

EXACT = 0.002
"""Seconds: events tell milliseconds."""


@dataclass
class Told:
    """What came back: events with the call's position when they came, and memory on the way."""

    events: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)

    def of(self, *kinds: str) -> Iterator[dict[str, Any]]:
        """The events of some kinds."""
        return (event for _, event in self.events if event["type"] in kinds)


def make_call(seconds: float, data: Path) -> SpokenCall:
    """Pieces of different voices one after the other, ``seconds`` in all."""
    archive, pieces = data / "fsdd_5speakers.tar.gz", round(max(seconds / PIECE, 1))
    length = seconds / pieces
    found: list[SpokenCall] = []
    try:
        digits = digit_calls(archive, -(-pieces // 2), length)
        phrases = phrase_calls(pieces // 2, length)
        for number in range(pieces):
            found.append((digits, phrases)[number % 2][number // 2])
    except OSError as error:
        note(f"the sample call, again and again: {error}")
        samples = SlinDecoder().feed(asset("sample_call.slin").read_bytes())
        return SpokenCall("sample", np.resize(samples, round(seconds * SAMPLE_RATE)), ())
    words: list[SpokenWord] = []
    at = 0.0
    for call in found:
        words += [SpokenWord(w.text, at + w.start, at + w.end) for w in call.words]
        at += call.seconds
    return SpokenCall("long", np.concatenate([call.samples for call in found]), tuple(words))


def play(call: SpokenCall, server: ServerProcess, speed: float) -> Told:
    """Send the call and take what comes back until the server closes."""
    data = np.rint(call.samples * 32768).astype("<i2").tobytes()
    told, sent = Told(), 0
    with socket.create_connection(server.address, timeout=600) as sock:

        def listen() -> None:
            with sock.makefile("rb") as lines:
                for line in lines:
                    told.events.append((sent / 2 / SAMPLE_RATE, json.loads(line)))

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        begin, looked = time.monotonic(), 0.0
        for place in range(0, len(data), FRAME):
            ahead = place / 2 / SAMPLE_RATE / speed - (time.monotonic() - begin)
            if ahead > 0:
                time.sleep(ahead)
            sock.sendall(data[place : place + FRAME])
            sent = place + FRAME
            if sent / 2 / SAMPLE_RATE >= looked:
                told.memory.append((looked, server.memory))
                looked += call.seconds / 60
        sock.shutdown(socket.SHUT_WR)
        listener.join(600)
        told.memory.append((call.seconds, server.memory))
    return told


def covered(told: Told, seconds: float) -> tuple[float, float]:
    """Seconds of the call that neither finals nor silences cover, and that they cover twice."""
    spans = [(e["start"], e["end"]) for e in told.of("final")]
    spans += [(e["start"], e["end"]) for e in told.of("skipped") if e["reason"] == "silence"]
    at = missing = twice = 0.0
    for start, end in sorted(spans):
        missing += max(start - at - EXACT, 0.0)
        twice += max(min(at, end) - start - EXACT, 0.0)
        at = max(at, end)
    return missing + max(seconds - at - 0.011, 0.0), twice  # less than a frame at the end is none


def errors(call: SpokenCall, told: Told, begin: float, end: float) -> float:
    """Word error rate of what was said in a part of the call."""
    said = " ".join(word.text for word in call.words if begin <= word.start < end)
    heard = (w for e in told.of("final") for w in e["words"])
    text = "".join(w["text"] for w in heard if begin <= (w["start"] + w["end"]) / 2 < end)
    return word_errors(said, text).rate


def tell(case: str, call: SpokenCall, told: Told) -> bool:
    """Print the figures; whether nothing was lost or doubled."""
    missing, twice = covered(told, call.seconds)
    lost = sum(e["end"] - e["start"] for e in told.of("skipped") if e["lost"])
    numbers = [event["seq"] for _, event in told.events]
    ended = bool(numbers) and told.events[-1][1]["type"] == "ended"
    whole = ended and numbers == list(range(1, len(numbers) + 1))
    for metric, value in (("uncovered", missing), ("doubled", twice), ("lost", lost)):
        result(NAME, case, metric, value, "s")
    result(NAME, case, "events missing", 0 if whole else 1, "", events=len(numbers))
    parts = {"first third": (0.0, call.seconds / 3), "last third": (call.seconds / 1.5, 1e9)}
    for part, (begin, end) in parts.items():
        work = [e["work"]["decode"] for e in told.of("partial", "final")
                if begin <= e["end"] < end and e["work"]["decode"]]  # fmt: skip
        late = [at - e["end"] for at, e in told.events
                if e["type"] == "final" and begin <= e["end"] < end]  # fmt: skip
        held = [size / 1e6 for at, size in told.memory if begin <= at < end]
        if call.words:
            rate = 100 * errors(call, told, begin, end)
            result(NAME, case, "word error rate", rate, "%", part=part)
        for metric, values, unit in (("decode p50", work, "s"), ("final after, in call time", late,
                                     "s"), ("memory", held, "MB")):  # fmt: skip
            if values:
                result(NAME, case, metric, median(values), unit, part=part, of=len(values))
    return whole and not (missing or twice or lost)


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{NAME}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="length of the call")
    parser.add_argument("--speed", type=float, default=8.0, help="how much faster than it was said")
    parser.add_argument("--policy", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--vad", default="auto", help="voice activity, as of the server")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the recordings")
    parser.add_argument("--quick", action="store_true", help="a small run that takes seconds")
    args = parser.parse_args(argv)
    call = make_call(20.0 if args.quick else args.seconds, args.data)
    note(f"{call.seconds:.0f} s, {len(call.words)} words, {machine()}")
    sound = True
    for policy in args.policy:
        arguments = ["-m", "aii", "serve", "--port", "0", "--web", "false", "--framing", "raw",
                     "--reply", "jsonl", "--policy", policy, "--vad", args.vad, "--threads",
                     str(args.threads), "--temperature", "0"]  # fmt: skip
        with ServerProcess(arguments, threads=args.threads) as server:
            told = play(call, server, args.speed)
        sound &= tell(f"{policy}, vad {args.vad}", call, told)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
