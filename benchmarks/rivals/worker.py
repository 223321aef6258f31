"""An engine in a process of its own: it loads once, then decodes a window per line of input.

    python -m benchmarks.rivals.worker '{"engine": "aii", "folder": "...", ...}'

Engines that share a process disturb each other: the threads of one's OpenMP spin for a while after
its turn and take the cores from the next. (For that reason the parent leaves a pause between turns
as well.) One JSON line per answer: ``{"ready": true}``, then ``{"seconds": ..., "cpu": ...,
"tokens": [...]}``.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PAUSE = 0.3
"""Seconds between two turns; Intel's OpenMP spins for 0.2."""


def main() -> None:
    """Serve one engine on standard input and output."""
    wish = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what an engine prints is not an answer
    from benchmarks.rivals.engines import ENGINES, noise, speech

    engine = ENGINES[wish["engine"]](
        Path(wish["folder"]), wish["threads"], *wish["more"], device=wish["device"]
    )
    sound = functools.cache({"noise": noise, "call": speech}[wish["sound"]])
    _say(answers, {"ready": True})
    for line in sys.stdin:
        samples = sound(float(line))
        begin, cpu = time.perf_counter(), time.process_time()
        tokens = engine.window(samples, wish["tokens"])
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
        _say(answers, {"seconds": seconds, "cpu": cpu, "tokens": tokens})


def _say(file: Any, answer: dict[str, Any]) -> None:
    file.write(json.dumps(answer) + "\n")
    file.flush()


class Worker:
    """The other end: an engine's process.

    Args:
        engine: its name in ``engines.ENGINES``.
        folder: of its weights.
        threads: CPU threads.
        more: further arguments of the engine, as the compute type.
        tokens: to decode, at most.
        sound: what is in it, noise or the sample call.
        device: "cpu" or "cuda".

    Raises:
        RuntimeError: the engine did not start; its last line says why.
    """

    def __init__(
        self, engine: str, folder: Path, threads: int, more: tuple[str, ...], *,
        tokens: int, sound: str = "noise", device: str = "cpu",
    ) -> None:  # fmt: skip
        wish = {
            "engine": engine,
            "folder": str(folder),
            "threads": threads,
            "more": more,
            "tokens": tokens,
            "sound": sound,
            "device": device,
        }
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (a pipe that nobody reads would stop it)
        settings = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.rivals.worker", json.dumps(wish)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env={**os.environ, **settings},
        )
        try:
            self._answer()
        except RuntimeError:
            self.close()
            raise

    def window(self, seconds: float) -> dict[str, Any]:
        """One turn, over so many seconds of audio.

        Returns:
            ``seconds`` it took, ``cpu`` seconds of all its threads, and ``tokens``.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout, self._said):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return dict(json.loads(line))
        self._process.wait(10)
        self._said.seek(0)
        last = self._said.read().decode(errors="replace").strip().splitlines() or [
            "it said nothing"
        ]
        raise RuntimeError(last[-1][:300])


if __name__ == "__main__":
    main()
