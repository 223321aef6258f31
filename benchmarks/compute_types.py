"""What each compute type costs in accuracy: word error rates on the evaluation sets.

    python -m benchmarks.compute_types --data training/data           # the sets of the model card
    python -m benchmarks.compute_types --data training/data --quick   # two clips of each set

The sets are those of ``training.evaluate``, which nothing was trained on; ``training/README.md``
says how the recordings are made. Clips are heard as ``aii transcribe`` hears them, but without
sampling: a window that is decoded again at random would hide what the compute type does. ``ratio``
is float32's errors over the type's: 1 is as good.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aii.checkpoints import load_model
from aii.evaluation import total_word_errors
from aii.model import Whisper
from aii.transcribe import transcribe
from benchmarks.common import note, result
from benchmarks.decode_speed import our_compute_types
from training.dataset import Recordings
from training.evaluate import clean, telephone, test_sets

NAME = "compute_types"
EXACT = "float32"
CONDITIONS = {"clean": clean, "telephone": telephone}

Pairs = list[tuple[str, str]]


def heard(model: Whisper, samples: np.ndarray) -> str:
    """What the model hears in samples (N,) float32."""
    found = transcribe(
        model, samples, language="en", fp16=False, audio_context="auto", temperature=0.0
    )
    return str(found["text"]).strip()


def measure(
    models: dict[str, Whisper], clips: Sequence[tuple[np.ndarray, str]], condition: str
) -> dict[str, Pairs]:
    """What was said and what was heard, for each of the models."""
    rng = np.random.default_rng(3)
    pairs: dict[str, Pairs] = {kind: [] for kind in models}
    for samples, said in clips:
        changed = CONDITIONS[condition](samples, rng)
        for kind, model in models.items():
            pairs[kind].append((said, heard(model, changed)))
    return pairs


def report(case: str, pairs: dict[str, Pairs]) -> dict[str, float]:
    """Word error rates in percent as results, beside float32's."""
    rates = {kind: 100 * total_word_errors(found).rate for kind, found in pairs.items()}
    exact = pairs[EXACT]
    for kind, rate in rates.items():
        same = sum(a == b for (_, a), (_, b) in zip(pairs[kind], exact, strict=True)) / len(exact)
        more: dict[str, Any] = {"compute_type": kind, "clips": len(exact), "same_text": 100 * same}
        if kind != EXACT:
            more |= {"rival": EXACT, "ratio": rates[EXACT] / rate if rate else 1.0}
        result(NAME, f"{case}, {kind}", "word error rate", rate, "%", **more)
    return rates


def table(rows: dict[str, dict[str, float]]) -> str:
    """All rates in Markdown."""
    kinds = list(next(iter(rows.values())))
    lines = ["| word errors, % | " + " | ".join(kinds) + " |", "| --- |" + " ---: |" * len(kinds)]
    lines += [
        f"| {case} | " + " | ".join(f"{rates[kind]:.1f}" for kind in kinds) + " |"
        for case, rates in rows.items()
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="embedded", help="a name or a .pt file")
    parser.add_argument("--data", type=Path, default=Path("training/data"))
    parser.add_argument("--types", nargs="+", metavar="TYPE", help=f"besides {EXACT}")
    parser.add_argument("--share", type=float, default=1.0, help="share of the clips of each set")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--quick", action="store_true", help="two clips of each set")
    args = parser.parse_args(argv)
    if not (args.data / "index.json").is_file():
        raise SystemExit(f"{args.data} has no recordings; training/README.md says how to make them")
    torch.set_num_threads(args.threads or len(os.sched_getaffinity(0)))
    kinds = dict.fromkeys([EXACT, *(args.types or our_compute_types())])
    models = {kind: load_model(args.model, device="cpu", compute_type=kind) for kind in kinds}
    rows: dict[str, dict[str, float]] = {}
    for name, clips in test_sets(Recordings(args.data), args.share).items():
        for condition in CONDITIONS:
            case = f"{name}, {condition}"
            chosen = clips[:2] if args.quick else clips
            rows[case] = report(case, measure(models, chosen, condition))
            note(f"{case}: {rows[case]}")
    note(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
