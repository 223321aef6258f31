"""What all benchmarks share: the result line, interleaved timing, and what the machine is.

A result is one JSON object per line on standard output::

    {"benchmark": "decode_speed", "case": "tiny", "metric": "latency", "value": 81.2, "unit": "ms",
     "rival": "openai-whisper", "ratio": 4.1}

``rival`` and ``ratio`` are there for comparisons only. ``ratio`` is ours over the rival's for what
should be high, and the rival's over ours for what should be low: above 1 is good for us.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any


def result(
    benchmark: str,
    case: str,
    metric: str,
    value: float,
    unit: str,
    *,
    rival: str | None = None,
    ratio: float | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """Print a result as one JSON line, and return it.

    Args:
        benchmark: which one.
        case: what was measured, as in "tiny" or "1000 calls".
        metric: which of its figures, as in "latency".
        value: the figure.
        unit: its unit.
        rival: whose figure it is or whom it is compared with.
        ratio: how many times better we are than ``rival``.
        extra: further keys, for what is needed to understand the figure.
    """
    line: dict[str, Any] = {
        "benchmark": benchmark,
        "case": case,
        "metric": metric,
        "value": _rounded(value),
        "unit": unit,
    }
    if rival is not None:
        line["rival"] = rival
    if ratio is not None:
        line["ratio"] = _rounded(ratio)
    line |= {key: _rounded(item) for key, item in extra.items()}
    print(json.dumps(line, ensure_ascii=False), flush=True)
    return line


def note(text: str) -> None:
    """Say something to the person who watches; results alone go to standard output."""
    print(text, file=sys.stderr, flush=True)


def interleaved(
    cases: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Seconds that each case takes, ``rounds`` times, in turns: A B C A B C ...

    What the machine does besides falls on all of them alike that way.

    Args:
        cases: what is to be timed, by name.
        rounds: runs of each that count.
        warmup: runs of each before, that do not.
    """
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(warmup + rounds):
        for name, run in cases.items():
            begin = time.perf_counter()
            run()
            elapsed = time.perf_counter() - begin
            if number >= warmup:
                taken[name].append(elapsed)
    return taken


def median(values: list[float]) -> float:
    """The middle of ``values``; nan for none."""
    return statistics.median(values) if values else float("nan")


def percentile(values: list[float], share: float) -> float:
    """The smallest of ``values`` that ``share`` (0 to 1) of them do not exceed; nan for none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[
        min(len(ordered) - 1, max(0, -(-round(share * 1e6) * len(ordered) // 10**6) - 1))
    ]


def machine(device: str = "cpu") -> dict[str, Any]:
    """Which machine it was: processor, cores that this process may use, system, Python; its GPU."""
    gpu = {}
    if device != "cpu":
        import torch

        gpu = {"gpu": torch.cuda.get_device_name(device)}
    return {
        **gpu,
        "processor": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _rounded(value: Any) -> Any:
    """Four significant digits are more than a benchmark knows."""
    if isinstance(value, float) and value == value and abs(value) != float("inf"):
        return float(f"{value:.4g}")
    return value if not isinstance(value, float) else None
