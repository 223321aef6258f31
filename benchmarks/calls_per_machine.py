"""How many real-time calls this machine holds while 95 % of their windows are answered in 1 s.

    python -m benchmarks.calls_per_machine            # all servers, at most 12 minutes
    python -m benchmarks.calls_per_machine --minutes 40    # nearer bounds
    python -m benchmarks.calls_per_machine --device cuda --model large-v3
    python -m benchmarks.calls_per_machine --quick    # two calls, seconds: only to see it work

The servers, all on the embedded model, English, greedy without fallback, no word times:

``aii``                the product, windows of 5 s, hard reset at 30 s
``openai-whisper``     ``benchmarks/rivals/locked_server.py``: a thread per call, one locked model
``faster-whisper``     the same with faster-whisper; also with two windows side by side on a thread
                       each, without the lock
``aii-alignatt``       the product, AlignAtt with an update every second

aii and faster-whisper compute in that of their types which is fastest on this model and machine:
each decodes a few windows of the sample call first, in turns (metric ``window``).

Each call plays the sample call in real time from another place of it, in frames of 20 ms. Calls are
spread evenly over the 30 s of a reset and over the 5 s of a window, as those that began at any time
are: each comes with 0 to 25 s of audio at once, within 5 s; these and the next ``SETTLE`` seconds
do not count, then windows count for ``SECONDS``. A window is answered when a result that reaches
its mark is at the client within 1 s of the mark's last byte being sent; skipped ones are not.
(AlignAtt has no marks: its requests are timed inside the server, from audio to answer.)

The servers take turns, a trial each, until the most calls that held and the fewest that did not are
within 6 % (one call where there are few), or the minutes are over: ``calls`` is the former,
``failed`` the latter. Our server accepts whatever comes (``--when-full accept``), so that it is
measured where it fails, too.
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
from typing import Any

from aii.resources import asset
from aii.servers.lifecycle import raise_file_limit
from benchmarks.bounds import Search
from benchmarks.common import machine, note, percentile, result
from benchmarks.decode_speed import OURS, Entry, fastest, our_compute_types, rival_entries
from benchmarks.load import Call, Load
from benchmarks.servers import ServerProcess

NAME = "calls_per_machine"
FRAME = 640
PERIOD = 0.02
WINDOW = 5.0
CYCLE = 30.0
SETTLE = 4.0
"""Seconds for the answers to what the calls came with."""

SECONDS = 15.0
"""Seconds that count: three windows of each call."""

GOLDEN = (5.0**0.5 - 1.0) / 2.0
"""Multiples of it lie evenly between whole numbers, however many there are."""

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
            self.take(call, json.loads(line), now)

    def take(self, call: Call, event: dict[str, Any], now: float) -> None:
        """One event of a call."""
        if event["type"] in ("partial", "final"):
            self.reached.setdefault(call.number, []).append((float(event["end"]), now))

    def delay(self, call: Call, mark: float, sent: float) -> float | None:
        """Seconds from the mark's last byte to the first result that reaches it, or None."""
        for end, now in self.reached.get(call.number, ()):
            if end >= mark - 0.01:
                return now - sent
        return None


def try_calls(
    server: Server,
    count: int,
    folder: Path,
    *,
    settle: float,
    seconds: float,
    cycle: float = CYCLE,
    patience: float = 0.0,
) -> Trial:
    """Start the server, play ``count`` calls into it, and judge its answers.

    Args:
        settle: seconds after the last call's beginning that do not count.
        seconds: after that, that count.
        cycle: seconds over which the calls' places in their 30 s are spread.
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
                earlier = cycle * number / count // WINDOW
                call.delay = min(cycle, WINDOW) * (number * GOLDEN % 1.0)
                call.ahead = round(earlier * WINDOW / PERIOD)
            load.run(min(cycle, WINDOW) + settle)
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
    first = call.began - (call.ahead + 1) * PERIOD
    while call.began and (sent := first + number * WINDOW) < end:
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


def most_calls(
    chosen: Sequence[Server], folder: Path, *, minutes: float, cores: int
) -> dict[str, Search]:
    """Bounds for each server; each trial is a result."""
    end = time.monotonic() + 60 * minutes
    searches = {server.name: Search(server.first) for server in chosen}
    slowest = 0.0
    while open_ones := [server for server in chosen if not searches[server.name].done]:
        for server in open_ones:
            begin = time.monotonic()
            if begin + slowest > end:
                return searches
            search = searches[server.name]
            try:
                trial = try_calls(server, search.count, folder, settle=SETTLE, seconds=SECONDS)
            except RuntimeError as error:
                note(f"{server.name}: {error}")
                del searches[server.name]
                chosen = [other for other in chosen if other is not server]
                continue
            slowest = max(slowest, time.monotonic() - begin)
            result(
                NAME, server.name, "windows_in_time", trial.share * 100, "%", calls=search.count,
                windows=trial.windows, p50=percentile(trial.delays, 0.5),
                p95=percentile(trial.delays, 0.95), cpu=trial.cpu, sender_late=trial.late,
            )  # fmt: skip
            if trial.late > LATE:
                note(f"{server.name}, {search.count} calls: the sender was {trial.late:.2f} s late")
                continue
            search.learn(trial.holds, trial.cpu, cores)
    return searches


def ours(
    threads: int, compute_type: str, *more: str, device: str = "cpu"
) -> Callable[[Path, Path], list[str]]:
    """Arguments of the product's server."""
    return lambda folder, times: [
        "aii_server.py", "--host", "127.0.0.1", "--port", "0", "--model", str(folder / "openai.pt"),
        "--language", "en", "--reply", "jsonl", "--reset", "hard", "--words", "none", "--condition",
        "false", "--vad", "none", "--temperature", "0", "--threads", str(threads),
        "--compute-type", compute_type, "--device", device, "--max-calls", "5000",
        "--when-full", "accept", *more,
    ]  # fmt: skip


def locked(engine: str, *more: str) -> Callable[[Path, Path], list[str]]:
    """Arguments of the rivals' server."""
    return lambda folder, times: [
        "-m", "benchmarks.rivals.locked_server", "--engine", engine, "--folder", str(folder), *more
    ]  # fmt: skip


def servers(
    count: int, ours_in: str = "auto", theirs_in: str = "int8", device: str = "cpu"
) -> list[Server]:
    """All servers, ours first, each with ``count`` threads, in these compute types."""
    threads = str(count)
    apart = ("--threads", "1", "--workers", threads)
    alignatt = ("--policy", "alignatt", "--alignatt-step", "1")
    timed_ours = ours(count, ours_in, *alignatt, device=device)
    there = ("--device", device)
    faster = ("--compute-type", theirs_in, *there)
    return [
        Server("aii", ours(count, ours_in, device=device), 60, count),
        Server("openai-whisper", locked("openai-whisper", "--threads", threads, *there), 3, count),
        Server(
            "faster-whisper", locked("faster-whisper", *faster, "--threads", threads), 12, count
        ),
        Server("faster-whisper side by side", locked("faster-whisper", *faster, *apart), 16, count),
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


def quick(folder: Path, threads: int, device: str) -> None:
    """Two calls of the product."""
    server = servers(threads, device=device)[0]
    trial = try_calls(server, 2, folder, settle=0.0, seconds=5.2, cycle=0.2, patience=30.0)
    result(NAME, server.name, "windows_in_time", trial.share * 100, "%", calls=2,
           windows=trial.windows, answered=len(trial.delays),
           p50=percentile(trial.delays, 0.5))  # fmt: skip


def report(found: dict[str, Search], kinds: dict[str, str], about: dict[str, Any]) -> None:
    """How many calls each server holds, and how many times as many as the others ours does.

    ``about`` says on which machine. ``at_least`` is the ratio to all but the fewest calls with
    which the rival failed.
    """
    for name, search in found.items():
        kind = kinds.get("aii" if name.startswith("aii") else name.split()[0], "float32")
        result(NAME, name, "calls", search.low, "calls", failed=search.high, compute_type=kind,
               **about)  # fmt: skip
    for name, search in found.items():
        own = found["aii"].low if "aii" in found else 0
        if name.startswith("aii") or not own:
            continue
        if not search.low and search.high != 1:
            note(f"{name} held in no trial; give it more --minutes to compare with")
        else:
            most = max((search.high or search.low + 1) - 1, search.low, 1)
            result(NAME, "aii", "ratio", own / max(search.low, 1), "x", rival=name,
                   ratio=own / max(search.low, 1), at_least=own / most)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small run that takes seconds")
    parser.add_argument("--minutes", type=float, default=11.0, help="after which no trial begins")
    parser.add_argument("--model", default="embedded", help="a name or a .pt file")
    parser.add_argument("--servers", nargs="+", metavar="NAME", help="as in the list above")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="of each engine (default: one per core)")
    args = parser.parse_args(argv)
    begin = time.monotonic()
    raise_file_limit()
    threads = args.threads or (1 if args.quick else cores())
    wanted = args.servers or [server.name for server in servers(threads)]
    names = {name.split()[0] for name in wanted}
    note(f"{machine(args.device)}")
    with tempfile.TemporaryDirectory() as temporary:
        faster = "faster-whisper" in names and not args.quick
        folder = prepare(args.model, Path(temporary), ["ctranslate2"] if faster else [])
        if args.quick:
            quick(folder, threads, args.device)
            return 0
        entries = [Entry(OURS, (kind,)) for kind in our_compute_types(args.device)]
        entries += rival_entries(["faster-whisper"], args.device) if faster else []
        kinds = fastest(NAME, entries, folder, threads, args.device)
        theirs = kinds.get("faster-whisper", "int8")
        known = servers(threads, kinds[OURS], theirs, args.device)
        chosen = [s for s in known if s.name in wanted or s.name.split()[0] in wanted]
        left = args.minutes - (time.monotonic() - begin) / 60
        report(most_calls(chosen, folder, minutes=left, cores=cores()), kinds, machine(args.device))
    return 0


if __name__ == "__main__":
    sys.exit(main())
