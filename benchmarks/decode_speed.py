"""How long one window takes: ours, openai-whisper, transformers, faster-whisper, whisper.cpp.

    python -m benchmarks.decode_speed             # tiny and base, exact and shortened; 6 minutes
    python -m benchmarks.decode_speed --quick     # one layer, one round, one rival
    python -m benchmarks.decode_speed --device cuda --sizes tiny small turbo large-v3

Random weights (``benchmarks/rivals/weights.py``), the same for all, converted; greedy, 30 tokens,
samples in, tokens out; equal threads; a process per engine, which take turns, for as many rounds as
the minutes allow. The figure is the median of the rounds; ``ratio`` says how many times longer the
rival takes than each of ours. ``cpu_time`` is the processor time of all of an engine's threads: on
a machine that others use too, and with one thread, it is the better measure.

Case ``30 s``: a whole window, the exact audio context. Case ``5 s``: five seconds of audio; the
rivals pad it to 30 s as Whisper does, ours sees the real length (``--audio-context auto``, which
for a whole window is the exact one).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import machine, median, note, result
from benchmarks.rivals.worker import PAUSE, Worker

NAME = "decode_speed"
TOKENS = 30
OURS = "aii"
CASES = {"30 s": 30.0, "5 s": 5.0}
"""Seconds of audio by name."""

FEWEST = 3
"""Rounds, however long they take."""

TURNS = 3
"""Windows by which the fastest compute type is found."""

SHARES = {"tiny": 1.2}
"""Shares of the time, where they are not 1."""

PACKAGES = {
    "openai-whisper": "whisper",
    "transformers": "transformers",
    "faster-whisper": "faster_whisper",
    "whisper.cpp": "pywhispercpp",
}

PYPI = {"whisper.cpp": "pywhispercpp"}
"""Names on PyPI where they are others."""


@dataclass(frozen=True)
class Entry:
    """An engine in one of its settings."""

    engine: str
    more: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.engine, *self.more))


def our_compute_types(device: str = "cpu") -> list[str]:
    """The compute types that aii supports on a device of this machine."""
    import torch

    from aii.compute import COMPUTE_TYPES, resolve
    from aii.errors import ConfigError

    found = []
    for kind in COMPUTE_TYPES:
        with contextlib.suppress(ConfigError):
            if resolve(kind, torch.device(device)) == kind:  # "auto" is one of the others
                found.append(kind)
    return found


def rival_entries(wanted: Sequence[str], device: str = "cpu") -> list[Entry]:
    """The rivals that are wanted and installed, in every compute type that they support here."""
    found = []
    whole = "float32" if device == "cpu" else "float16"
    for engine in wanted:
        package = PACKAGES[engine]
        if importlib.util.find_spec(package) is None:
            note(f"{engine} is not installed; see benchmarks/requirements.txt")
        elif engine == "transformers":
            found += [Entry(engine, (kind,)) for kind in (whole, "bfloat16")]
        elif engine == "faster-whisper":
            import ctranslate2

            kinds = ctranslate2.get_supported_compute_types(device)
            found += [Entry(engine, (kind,)) for kind in sorted(kinds)]
        elif engine == "whisper.cpp":
            found += [Entry(engine, ("float16",))] if device == "cpu" else []  # as its wheels are
        else:
            found.append(Entry(engine, (whole,)))
    return found


def prepare(size: str, folder: Path, formats: Sequence[str]) -> Path:
    """Random weights of a size in all formats; the folder that holds them."""
    from benchmarks.rivals.convert import convert
    from benchmarks.rivals.weights import random_checkpoint

    target = folder / size
    if not (target / "openai.pt").is_file():
        note(f"{size}: making weights in {target}")
        target.mkdir(parents=True, exist_ok=True)
        checkpoint = random_checkpoint(size, target / "openai.pt")
        convert(str(checkpoint), target, formats)
    return target


Taken = dict[Entry, list[tuple[float, float]]]
"""Seconds, and of processor time, of each round of each engine."""


def run(
    entries: Sequence[Entry],
    folder: Path,
    *,
    cases: Mapping[str, float],
    tokens: int,
    threads: int,
    rounds: int,
    until: float,
    device: str = "cpu",
) -> dict[str, Taken]:
    """What each case took, for each engine that could be started.

    Args:
        cases: seconds of audio by name.
        rounds: most rounds; after ``FEWEST``, none begins that would end after ``until``
            (monotonic clock).
    """
    workers: dict[Entry, Worker] = {}
    taken: dict[str, Taken] = {case: {} for case in cases}
    try:
        for entry in entries:
            try:
                workers[entry] = Worker(
                    entry.engine, folder, threads, entry.more, tokens=tokens, device=device
                )
            except RuntimeError as error:
                note(f"{entry} did not start: {error}")
        for number in range(rounds + 1):  # the first one warms up
            begin = time.monotonic()
            for case, seconds in cases.items():
                for entry, worker in workers.items():
                    time.sleep(PAUSE)
                    answer = worker.window(seconds)
                    if len(answer["tokens"]) != tokens:
                        raise RuntimeError(f"{entry} decoded {len(answer['tokens'])} tokens")
                    if number:
                        times = (answer["seconds"], answer["cpu"])
                        taken[case].setdefault(entry, []).append(times)
            now = time.monotonic()
            if number >= FEWEST and 2 * now - begin > until:
                break
    finally:
        for worker in workers.values():
            worker.close()
    return taken


def fastest(
    benchmark: str, entries: Sequence[Entry], folder: Path, threads: int, device: str = "cpu"
) -> dict[str, str]:
    """For each engine the compute type in which it is fastest on a window of the sample call."""
    best: dict[str, tuple[float, str]] = {}
    taken: dict[Entry, list[float]] = {}
    workers: dict[Entry, Worker] = {}
    try:
        for entry in entries:
            more = (entry.more[0], "auto") if entry.engine == OURS else entry.more
            try:
                workers[entry] = Worker(
                    entry.engine, folder, threads, more, tokens=40, sound="call", device=device
                )
            except RuntimeError as error:
                note(f"{entry} did not start: {error}")
        for number in range(TURNS + 1):  # the first one warms up
            for entry, worker in workers.items():
                time.sleep(PAUSE)
                seconds = worker.window(15.0)["seconds"]
                if number:
                    taken.setdefault(entry, []).append(seconds)
    finally:
        for worker in workers.values():
            worker.close()
    for entry, times in taken.items():
        result(benchmark, str(entry), "window", median(times) * 1e3, "ms", threads=threads)
        best[entry.engine] = min(
            best.get(entry.engine, (float("inf"), "")), (median(times), entry.more[0])
        )
    return {engine: kind for engine, (_, kind) in best.items()}


def report(case: str, taken: Taken, threads: int, device: str = "cpu") -> None:
    """Each engine's median, and each of ours against each rival."""
    wall = {entry: [seconds for seconds, _ in rounds] for entry, rounds in taken.items()}
    medians = {entry: median(values) for entry, values in wall.items()}
    work = {entry: median([cpu for _, cpu in rounds]) for entry, rounds in taken.items()}
    for entry, value in medians.items():
        rival = None if entry.engine == OURS else str(entry)
        spread = (max(wall[entry]) - min(wall[entry])) / value
        for metric, seconds in (("latency", value), ("cpu_time", work[entry])):
            result(NAME, case, metric, seconds * 1e3, "ms", rival=rival, engine=str(entry),
                   spread=spread, threads=threads, device=device,
                   rounds=len(wall[entry]))  # fmt: skip
    others = [entry for entry in medians if entry.engine != OURS]
    for entry in medians:
        if entry.engine != OURS:
            continue
        for other in others:
            for metric, seconds in (("speedup", medians), ("cpu_speedup", work)):
                ratio = seconds[other] / seconds[entry]
                result(NAME, case, metric, ratio, "x", engine=str(entry), rival=str(other),
                       ratio=ratio, device=device)  # fmt: skip
        for engine in dict.fromkeys(other.engine for other in others):
            same = [other for other in others if other.engine == engine]
            best = min(medians[other] for other in same) / medians[entry]
            least = min(work[other] for other in same) / work[entry]
            note(f"{case}: {entry}: {best:.2f} x {engine} at its best ({least:.2f} x by CPU time)")


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small run that takes seconds")
    parser.add_argument("--sizes", nargs="+", default=None, metavar="SIZE", help="as in tiny base")
    parser.add_argument("--rivals", nargs="*", default=None, choices=PACKAGES)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=None, help="at most")
    parser.add_argument("--minutes", type=float, default=5.5, help="of all sizes together")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--folder", type=Path, help="where to keep weights (default: nowhere)")
    args = parser.parse_args(argv)
    sizes = args.sizes or (["micro"] if args.quick else ["tiny", "base"])
    threads = args.threads or (1 if args.quick else len(os.sched_getaffinity(0)))
    rounds = args.rounds or (1 if args.quick else 15)
    tokens = 4 if args.quick else TOKENS
    kinds = ["float32"] if args.quick else our_compute_types(args.device)
    wanted = ["openai-whisper"] if args.quick else list(PACKAGES)
    rivals = rival_entries(wanted if args.rivals is None else args.rivals, args.device)
    names = {entry.engine: PYPI.get(entry.engine, entry.engine) for entry in rivals}
    versions = {name: importlib.metadata.version(pypi) for name, pypi in names.items()}
    note(f"{machine(args.device)}, {threads} threads, rivals: {versions}")
    left = sum(SHARES.get(size, 1.0) for size in sizes)
    end = time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory() as temporary:
        for size in sizes:
            engines = {entry.engine for entry in rivals}
            formats = [f for f, e in (("hf", "transformers"), ("ctranslate2", "faster-whisper"),
                                      ("ggml", "whisper.cpp")) if e in engines]  # fmt: skip
            now, share = time.monotonic(), SHARES.get(size, 1.0)
            folder = prepare(size, args.folder or Path(temporary), formats)
            found = run(
                [*(Entry(OURS, (kind, "auto")) for kind in kinds), *rivals], folder,
                cases={"5 s": CASES["5 s"]} if args.quick else CASES, tokens=tokens,
                threads=threads, rounds=rounds, until=now + (end - now) * share / left,
                device=args.device,
            )  # fmt: skip
            left -= share
            for case, taken in found.items():
                report(f"{size}, {case}", taken, threads, args.device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
