"""What the TCP server itself costs: many live calls, and an engine that costs nothing.

    python -m benchmarks.server_overhead            # 1,000 calls of 50 frames a second, 40 s
    python -m benchmarks.server_overhead --quick    # 20 calls, 1.5 s: only to see that it works

The server runs in a process of its own. Each call begins with a call id and sends 640-byte frames
of 20 ms in real time, evenly spread over the period. Every tenth call's frames carry the time at
which they were sent, which the server's session compares with the time at which it gets them: that
is the ingest delay. At the end every call hangs up, and the samples that arrived are counted.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from aii.servers.lifecycle import raise_file_limit
from benchmarks.common import machine, median, note, percentile, result
from benchmarks.load import Load

NAME = "server_overhead"
FRAME = 640
PERIOD = 0.02
STAMPED = 10
"""Every so many-th call is a measured one."""


class StubServer:
    """``benchmarks.stub_server`` as a process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.stub_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.hello = self._answer()
        self.address: tuple[str, int] = (self.hello["address"][0], self.hello["address"][1])

    def __enter__(self) -> StubServer:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # the server ends at the end of its commands
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def ask(self, command: str) -> dict[str, Any]:
        """Give a command, get its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        return dict(json.loads(self._process.stdout.readline()))


def measure(calls: int, seconds: float, *, warmup: float) -> dict[str, Any]:
    """Run the load; what the server says of it, with what was sent.

    Args:
        calls: how many at once.
        seconds: how long it is measured.
        warmup: seconds before that.
    """
    audio = random.Random(0).randbytes(50 * 60 * FRAME)
    with StubServer() as server, Load(server.address, frame=FRAME, period=PERIOD) as load:
        for number in range(calls):
            stamped = number % STAMPED == 0
            call_id = f"{'stamped' if stamped else 'plain'}-{number}"
            load.add(call_id.encode() + b"\r\n", audio, stamped=stamped)
        load.run(warmup)
        begin = server.ask("begin")
        sent = sum(call.sent for call in load.calls)
        load.latest = 0.0
        load.run(seconds)
        end = server.ask("end")
        sent = sum(call.sent for call in load.calls) - sent
        load.finish(30)
        total = server.ask("total")
        return {
            "hello": server.hello,
            "begin": begin,
            "end": end,
            "sent": sent,
            "frames": sum(call.sent for call in load.calls),
            "arrived": total["samples"] * 2 // FRAME,
            "ended": total["ended"],
            "broken": sum(bool(call.error) for call in load.calls),
            "late": load.latest,
        }


def report(case: str, calls: int, found: dict[str, Any]) -> None:
    """The figures as results."""
    end, seconds = found["end"], found["end"]["seconds"]
    delays = end["delays"]
    # At the full rate, also where the sender could not keep it up and the seconds are stretched.
    full = end["cpu"] / found["sent"] * calls / PERIOD
    result(NAME, case, "cpu", full, "cores", calls=calls, seconds=seconds, **machine())
    result(NAME, case, "cpu_per_frame", end["cpu"] / found["sent"] * 1e6, "us")
    result(NAME, case, "ingest_delay_p50", median(delays) * 1e3, "ms", frames=len(delays))
    result(NAME, case, "ingest_delay_p99", percentile(delays, 0.99) * 1e3, "ms")
    result(NAME, case, "sender_late_max", found["late"] * 1e3, "ms")
    grown = end["peak"] - found["hello"]["rss"]
    result(NAME, case, "memory_per_call", grown / calls / 1e6, "MB")
    lost = found["frames"] - found["arrived"]
    result(NAME, case, "frames_lost", lost, "frames", of=found["frames"], broken=found["broken"])


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 0 where no frame was lost."""
    parser = argparse.ArgumentParser(
        prog="server_overhead", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small run that takes seconds")
    parser.add_argument("--calls", type=int, default=None, metavar="N")
    parser.add_argument("--seconds", type=float, default=None, metavar="S")
    args = parser.parse_args(argv)
    calls = args.calls or (20 if args.quick else 1000)
    seconds = args.seconds or (1.0 if args.quick else 40.0)
    raise_file_limit()
    found = measure(calls, seconds, warmup=0.5 if args.quick else 4.0)
    report(f"{calls} calls", calls, found)
    lost = found["frames"] - found["arrived"]
    if lost or found["broken"] or found["ended"] != calls:
        note(
            f"{lost} frames lost, {found['broken']} calls broken, {found['ended']} of {calls} ended"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
