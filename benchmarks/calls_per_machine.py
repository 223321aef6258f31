"""How many real-time calls this machine holds while 95 % of their windows are answered in 1 s.

    python -m benchmarks.calls_per_machine            # all servers; the better part of an hour
    python -m benchmarks.calls_per_machine --quick    # two calls, seconds: only to see it work

The servers, all on the embedded model, English, greedy without fallback, no word times:

``aii``                the product, windows of 5 s, hard reset at 30 s
``openai-whisper``     ``benchmarks/rivals/locked_server.py``: a thread per call, one locked model
``faster-whisper``     the same with faster-whisper, in the compute type that does best; also with
                       two windows side by side on a thread each, without the lock
``aii-alignatt``       the product, AlignAtt with an update every second

Each call plays the sample call in real time from another place of it, in frames of 20 ms; the calls
begin evenly spread over the first 30 s, and the next 30 s count. A window is answered when a result
that reaches its mark is at the client within 1 s of the mark's last byte being sent; skipped ones
are not. (AlignAtt has no marks: its requests are timed inside the server, from audio to answer.)
The number of calls grows until that fails, and the last number that held is searched between.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aii.resources import asset
from aii.servers.lifecycle import raise_file_limit
from benchmarks.common import machine, note, percentile, result
from benchmarks.load import Call, Load
from benchmarks.servers import ServerProcess

NAME = "calls_per_machine"
FRAME = 640
PERIOD = 0.02
WINDOW = 5.0
CYCLE = 30.0
OBJECTIVE = 1.0
SHARE = 0.95
LATE = 0.1
"""Seconds by which our own frames may leave late before a trial counts for nothing."""


@dataclass(frozen=True)
class Server:
    """A server that can be tried.

    Attributes:
        name: of the case.
        arguments: of Python, from the folder of weights and a file for times.
        first: calls to begin with.
        threads: of its engine.
        timed: whether it writes times instead of answering at marks.
    """

    name: str
    arguments: Callable[[Path, Path], list[str]]
    first: int
    threads: int
    timed: bool = False


@dataclass
class Trial:
    """What became of some calls.

    Attributes:
        windows: marks that were due while it counted.
        within: those answered within the objective.
        delays: of those that were answered at all, seconds.
        late: seconds by which the sender itself was late.
        cpu: cores that the server used.
    """

    windows: int
    within: int
    delays: list[float]
    late: float
    cpu: float

    @property
    def share(self) -> float:
        """Of the windows that were answered in time."""
        return self.within / self.windows if self.windows else 0.0

    @property
    def holds(self) -> bool:
        """Whether these calls meet the objective."""
        return self.share >= SHARE


class Ear:
    """Takes the lines that come back and notes which mark they reach, and when."""

    def __init__(self) -> None:
        self.reached: dict[int, list[tuple[float, float]]] = {}

    def __call__(self, call: Call, now: float) -> None:
        *lines, rest = bytes(call.received).split(b"\n")
        call.received[:] = rest
        for line in lines:
            event = json.loads(line)
            if event["type"] in ("partial", "final"):
                self.reached.setdefault(call.number, []).append((float(event["end"]), now))

    def delay(self, call: Call, mark: float, sent: float) -> float | None:
        """Seconds from the mark's last byte to the first result that reaches it, or None."""
        for end, now in self.reached.get(call.number, ()):
            if end >= mark - 0.01:
                return now - sent
        return None


def try_calls(
    server: Server, count: int, folder: Path, *, ramp: float, seconds: float, patience: float = 0.0
) -> Trial:
    """Start the server, play ``count`` calls into it, and judge its answers.

    Args:
        ramp: seconds over which the calls begin.
        seconds: after that, that count.
        patience: seconds more for answers that come later than wanted, so that there are some.
    """
    audio = asset("sample_call.slin").read_bytes()
    ear = Ear()
    with tempfile.TemporaryDirectory() as temporary:
        times = Path(temporary) / "times"
        process = ServerProcess(server.arguments(folder, times), threads=server.threads)
        with process, Load(process.address, frame=FRAME, period=PERIOD, on_reply=ear) as load:
            for number in range(count):
                shift = len(audio) * number // count // FRAME * FRAME
                call = load.add(b"call-%d\r\n" % number, audio[shift:] + audio[:shift])
                call.delay = ramp * number / count
            load.run(ramp)
            load.latest, cpu, begin = 0.0, process.cpu, time.monotonic()
            load.run(seconds)
            end = time.monotonic()
            cpu = (process.cpu - cpu) / (end - begin)
            load.run(OBJECTIVE + 0.2)  # the last marks have their time too
            late, until = load.latest, time.monotonic() + patience
            while time.monotonic() < until and not ear.reached:
                load.run(0.1)
            if server.timed:
                delays = timed(times, begin, end)
                within = sum(delay <= OBJECTIVE for delay in delays)
                return Trial(expected(load, begin, end), within, delays, late, cpu)
            found = [
                ear.delay(call, mark, sent)
                for call in load.calls
                for mark, sent in marks(call, begin, end)
            ]
    delays = [delay for delay in found if delay is not None]
    return Trial(len(found), sum(d <= OBJECTIVE for d in delays), delays, late, cpu)


def marks(call: Call, begin: float, end: float) -> list[tuple[float, float]]:
    """The call's marks whose last byte was due between two moments, and when it was."""
    found, number = [], 1
    while call.began and (sent := call.began + number * WINDOW - PERIOD) < end:
        if sent >= begin:
            found.append((number * WINDOW, sent))
        number += 1
    return found


def timed(file: Path, begin: float, end: float) -> list[float]:
    """Seconds that the requests made between two moments took."""
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return [line["seconds"] for line in lines if begin <= line["at"] < end]


def expected(load: Load, begin: float, end: float) -> int:
    """Updates that AlignAtt owes: one per call and second."""
    return round(sum(end - max(begin, call.began) for call in load.calls if call.began))


def most_calls(server: Server, folder: Path, *, first: int, ramp: float, seconds: float) -> int:
    """The greatest number of calls found that meets the objective; each trial is a result."""
    low, high, count = 0, None, first
    while high is None or (high - low > 1 and high > low * 1.06):
        trial = try_calls(server, count, folder, ramp=ramp, seconds=seconds)
        result(
            NAME, server.name, "windows_in_time", trial.share * 100, "%", calls=count,
            windows=trial.windows, p50=percentile(trial.delays, 0.5),
            p95=percentile(trial.delays, 0.95), cpu=trial.cpu, sender_late=trial.late,
        )  # fmt: skip
        if trial.late > LATE:
            note(f"{server.name}: with {count} calls the sender was {trial.late:.2f} s late")
        if trial.holds:
            low = count
        else:
            high = count
        if high is None:
            count = max(count + 1, round(count * 1.5))
        elif low == 0:
            count = high // 2
            if count == 0:
                break
        else:
            count = max(low + 1, min(high - 1, round((low * high) ** 0.5)))
    return low


def ours(threads: int, *more: str) -> Callable[[Path, Path], list[str]]:
    """Arguments of the product's server."""
    return lambda folder, times: [
        "aii_server.py", "--host", "127.0.0.1", "--port", "0", "--model", str(folder / "openai.pt"),
        "--language", "en", "--reply", "jsonl", "--reset", "hard", "--words", "none", "--condition",
        "false", "--vad", "none", "--temperature", "0", "--threads", str(threads),
        "--max-calls", "5000", *more,
    ]  # fmt: skip


def locked(engine: str, *more: str) -> Callable[[Path, Path], list[str]]:
    """Arguments of the rivals' server."""
    return lambda folder, times: [
        "-m", "benchmarks.rivals.locked_server", "--engine", engine, "--folder", str(folder), *more
    ]  # fmt: skip


def servers(count: int) -> list[Server]:
    """All servers, ours first, each with ``count`` threads."""
    threads = str(count)
    apart = ("--threads", "1", "--workers", threads)
    timed_ours = ours(count, "--policy", "alignatt", "--alignatt-step", "1")
    return [
        Server("aii", ours(count), 40, count),
        Server("openai-whisper", locked("openai-whisper", "--threads", threads), 4, count),
        *(
            Server(
                f"faster-whisper {kind}{name}",
                locked("faster-whisper", "--compute-type", kind, *more),
                16,
                count,
            )
            for kind in ("float32", "int8")
            for name, more in (("", ("--threads", threads)), (" side by side", apart))
        ),
        Server(
            "aii-alignatt",
            lambda folder, times: [
                "-m", "benchmarks.timed_serve", str(times), *timed_ours(folder, times)[1:]
            ],
            20,
            count,
            timed=True,
        ),
    ]  # fmt: skip


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def prepare(model: str, folder: Path, formats: Sequence[str]) -> Path:
    """The model's weights as they are, and in further ``formats``."""
    import shutil

    from aii.hub import resolve
    from benchmarks.rivals.convert import convert

    shutil.copyfile(resolve(model), folder / "openai.pt")
    if formats:
        convert(model, folder, formats)
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small run that takes seconds")
    parser.add_argument("--model", default="embedded", help="a name or a .pt file")
    parser.add_argument("--servers", nargs="+", metavar="NAME", help="as in the list above")
    parser.add_argument("--threads", type=int, help="of each engine (default: one per core)")
    args = parser.parse_args(argv)
    raise_file_limit()
    known = servers(args.threads or (1 if args.quick else cores()))
    wanted = args.servers or (["aii"] if args.quick else [server.name for server in known])
    chosen = [s for s in known if s.name in wanted or s.name.split()[0] in wanted]
    note(f"{machine()}")
    held: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as temporary:
        faster = any(server.name.startswith("faster-whisper") for server in chosen)
        folder = prepare(args.model, Path(temporary), ["ctranslate2"] if faster else [])
        for server in chosen:
            if args.quick:
                trial = try_calls(server, 2, folder, ramp=0.2, seconds=5.2, patience=30.0)
                result(NAME, server.name, "windows_in_time", trial.share * 100, "%", calls=2,
                       windows=trial.windows, answered=len(trial.delays),
                       p50=percentile(trial.delays, 0.5))  # fmt: skip
                continue
            held[server.name] = most_calls(
                server, folder, first=server.first, ramp=CYCLE, seconds=CYCLE
            )
            result(NAME, server.name, "calls", held[server.name], "calls", **machine())
    for name, calls in held.items():
        if not name.startswith("aii") and "aii" in held and calls:
            ratio = held["aii"] / calls
            result(NAME, "aii", "calls", held["aii"], "calls", rival=name, ratio=ratio)
    return 0


if __name__ == "__main__":
    sys.exit(main())
