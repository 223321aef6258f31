"""More calls than the machine holds: what becomes of those that it takes.

    python -m benchmarks.overload --held 24    # 24: less than calls_per_machine found; 5 minutes
    python -m benchmarks.overload --quick      # three calls where two are held, seconds

Calls begin one after the other, ``--every`` seconds apart, ``--calls`` of them, each with its share
of 30 s of audio at once so that they do not all have their marks together; for ``--seconds`` after
the last of them windows count, then all hang up at once. Three times, with the server of
``calls_per_machine`` on the embedded model:

``accept``     it takes them all: windows in between are skipped, finals are late
``refuse``     ``--when-full refuse``: it refuses while its answers come too late
``max-calls``  ``--max-calls HELD``: it refuses above what the machine is known to hold

``in_time`` are the windows of the calls taken that were answered within 1 s, ``skipped`` those that
were left out meanwhile and told so, ``refused`` calls that were turned away with a line.
``last_words`` are seconds from hanging up to a call's end. Finals must cover all audio of every
call that was taken: ``uncovered`` and ``lost`` are seconds, ``failed`` finals that could not be
decoded, and the exit code says whether there were any. ``sender_late`` is by how much our own
frames were late.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aii.resources import asset
from aii.servers.lifecycle import raise_file_limit
from benchmarks.calls_per_machine import (
    CYCLE,
    FRAME,
    GOLDEN,
    LATE,
    OBJECTIVE,
    PERIOD,
    WINDOW,
    Ear,
    cores,
    marks,
    ours,
    prepare,
)
from benchmarks.common import machine, note, percentile, result
from benchmarks.load import Call, Load
from benchmarks.long_call import Told, covered
from benchmarks.servers import ServerProcess

NAME = "overload"
LONGEST = 600.0
"""Seconds that the calls get to end."""


class Calls(Ear):
    """The lines that come back, call by call, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[int, Told] = {}
        self.refused: dict[int, str] = {}

    def take(self, call: Call, event: dict[str, Any], now: float) -> None:
        """One event of a call."""
        if event["type"] == "error":
            self.refused[call.number] = event["error"]
            return
        super().take(call, event, now)
        self.of(call).events.append((now, event))

    def of(self, call: Call) -> Told:
        """What a call was told."""
        return self.told.setdefault(call.number, Told())

    def ended(self, call: Call) -> float | None:
        """When the call was told to be over."""
        events = self.of(call).events
        return events[-1][0] if events and events[-1][1]["type"] == "ended" else None


def play(arguments: list[str], args: argparse.Namespace) -> dict[str, tuple[float, str]]:
    """The figures of one server: values and units by metric."""
    audio = asset("sample_call.slin").read_bytes()
    calls = Calls()
    with (
        ServerProcess(arguments, threads=args.threads) as process,
        Load(process.address, frame=FRAME, period=PERIOD, on_reply=calls) as load,
    ):
        for number in range(args.calls):
            shift = len(audio) * number // args.calls // FRAME * FRAME
            call = load.add(b"call-%d\r\n" % number, audio[shift:] + audio[:shift])
            call.ahead = round(CYCLE * (number * GOLDEN % 1.0) / PERIOD) if args.spread else 0
            load.run(args.every)
        load.run(WINDOW)
        load.latest, begin = 0.0, time.monotonic()
        load.run(args.seconds)
        end = time.monotonic()
        load.run(OBJECTIVE + 0.2)
        late = load.latest
        hung_up = time.monotonic()
        load.finish(LONGEST)
        taken = [call for call in load.calls if call.number not in calls.refused]
        found = figures(calls, taken, begin, end, hung_up)
        return {"offered": (len(load.calls), "calls"), **found, "sender_late": (late, "s")}


def figures(
    calls: Calls, taken: Sequence[Call], begin: float, end: float, hung_up: float
) -> dict[str, tuple[float, str]]:
    """What became of the calls that were taken."""
    found = [calls.delay(call, *mark) for call in taken for mark in marks(call, begin, end)]
    delays = [delay for delay in found if delay is not None]
    uncovered = lost = 0.0
    skipped, failed, ends = 0, 0, []
    for call in taken:
        told = calls.of(call)
        uncovered += covered(told, call.sent * PERIOD)[0]
        gaps: list[dict[str, Any]] = list(told.of("skipped"))
        lost += sum(event["end"] - event["start"] for event in gaps if event["lost"])
        failed += sum(event["reason"] == "error" for event in told.of("final"))
        skipped += sum(
            event["windows"]
            for at, event in told.events
            if begin <= at < end and event["type"] == "skipped" and event["reason"] == "behind"
        )
        ended = calls.ended(call)
        uncovered += 0.0 if ended is not None else call.sent * PERIOD
        ends += [] if ended is None else [ended - hung_up]
    in_time = sum(delay <= OBJECTIVE for delay in delays)
    return {
        "taken": (len(taken), "calls"),
        "refused": (len(calls.refused), "calls"),
        "in_time": (100 * in_time / max(len(found), 1), "%"),
        "windows": (len(found), "windows"),
        "skipped": (skipped, "windows"),
        "latency_p95": (percentile(delays, 0.95), "s"),
        "last_words_p95": (percentile(ends, 0.95), "s"),
        "failed": (failed, "finals"),
        "uncovered": (uncovered, "s"),
        "lost": (lost, "s"),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small run that takes seconds")
    parser.add_argument("--held", type=int, default=24, help="calls that the machine holds")
    parser.add_argument("--calls", type=int, default=60, help="calls that come")
    parser.add_argument("--every", type=float, default=0.5, help="seconds from one to the next")
    parser.add_argument("--seconds", type=float, default=30.0, help="that count")
    parser.add_argument("--model", default="embedded", help="a name or a .pt file")
    parser.add_argument("--threads", type=int, help="of the engine (default: one per core)")
    args = parser.parse_args(argv)
    args.spread = not args.quick
    if args.quick:
        args.held, args.calls, args.every, args.seconds = 2, 3, 0.1, 5.2
    args.threads = args.threads or (1 if args.quick else cores())
    raise_file_limit()
    note(f"{machine()}")
    ways = {
        "accept": ["--when-full", "accept"],
        "refuse": ["--when-full", "refuse"],
        "max-calls": ["--max-calls", str(args.held)],
    }
    sound = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = prepare(args.model, Path(temporary), [])
        for way, more in ways.items():
            if args.quick and way != "max-calls":
                continue
            arguments = ours(args.threads, "auto", *more)(folder, folder / "times")
            found = play(arguments, args)
            for metric, (value, unit) in found.items():
                result(NAME, way, metric, value, unit)
            sound &= found["uncovered"][0] == found["lost"][0] == found["failed"][0] == 0
            if found["sender_late"][0] > LATE:
                note(f"{way}: the sender itself was late; its delays count as the server's")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
