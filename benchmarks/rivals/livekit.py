"""WhisperLiveKit's policies, run by the Python that has them (``whisperlivekit_worker.py``)."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.simulated_call import Shown
from benchmarks.spoken_calls import SpokenCall

NAME = "WhisperLiveKit 0.2.26"
WORKER = Path(__file__).with_name("whisperlivekit_worker.py")

CASES = (("local-agreement", 1.0), ("alignatt", 0.5))
"""Policies and their steps, as ours in the cases of the same name."""

THRESHOLD = 25
"""Frames that AlignAtt keeps off the end: WhisperLiveKit's default and ours."""


@dataclass(frozen=True)
class Told:
    """What came of a call."""

    shown: list[Shown]
    passes: int
    decode: float

    @property
    def text(self) -> str:
        """The transcript."""
        return self.shown[-1].final if self.shown else ""


@contextmanager
def saved(calls: Sequence[SpokenCall]) -> Iterator[list[dict[str, str]]]:
    """The calls as files, and how the worker is told of them."""
    with tempfile.TemporaryDirectory() as folder:
        told = []
        for number, call in enumerate(calls):
            path = Path(folder) / f"{number}.npy"
            np.save(path, call.samples)
            told.append({"name": call.name, "samples": str(path)})
        yield told


def run(
    python: Path,
    weights: Path,
    policy: str,
    step: float,
    calls: Sequence[SpokenCall],
    computing: bool,
    threads: int,
) -> list[Told]:
    """Play the calls into one of the policies.

    Args:
        python: of an environment with WhisperLiveKit.
        weights: in OpenAI's format.
        policy: "local-agreement" or "alignatt".
        step: seconds of audio per update.
        calls: what is played.
        computing: whether updates take as long as they do.
        threads: of torch; 0 leaves them to it.

    Raises:
        RuntimeError: the worker failed; the message has its last lines.
    """
    with saved(calls) as files:
        wish = {
            "weights": str(weights),
            "policy": policy,
            "step": step,
            "computing": computing,
            "threads": threads,
            "frame_threshold": THRESHOLD,
            "calls": files,
        }
        # -I: a script's own folder must not come before the packages.
        done = subprocess.run(
            [str(python), "-I", str(WORKER)],
            input=json.dumps(wish),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        last = "\n".join(done.stderr.splitlines()[-8:])
        raise RuntimeError(f"{NAME}, {policy}: {last}")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if [answer["name"] for answer in answers] != [call.name for call in calls]:
        raise RuntimeError(f"{NAME}, {policy}: not every call was answered")
    return [
        Told([Shown(*moment) for moment in answer["shown"]], answer["passes"], answer["decode"])
        for answer in answers
    ]
