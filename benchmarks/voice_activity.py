"""What voice activity costs per call, and how well and how soon it finds speech.

    python -m benchmarks.voice_activity            # both; a minute
    python -m benchmarks.voice_activity --quick

Cost: microseconds of processor time per step of 32 ms and call, for so many calls stepped at once,
on one thread, by Silero's network as we compute it (numpy), by the package's own TorchScript
network, and by the energy detector; and what a silent step costs that the energy gate answers.
Quality: digits said into silences of 0.25 to 2.5 s, at three loudnesses, over lines without noise
and with it.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from aii.audio.vad import (
    CONTEXT,
    STEP,
    STEPS_PER_SECOND,
    Detector,
    EnergyDetector,
    EnergyGate,
    VadBatcher,
    VoiceRequest,
    load_detector,
)
from aii.streaming.endpointing import EndpointSettings, Mark, SpeechEnd, SpeechStart
from aii.streaming.voice import VoiceTrack
from aii.types import SAMPLE_RATE
from benchmarks.common import machine, median, note, percentile, result
from benchmarks.spoken_calls import recordings

NAME = "voice_activity"
DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
CALLS = (1, 16, 64, 256, 1000)
GAPS = (0.25, 0.6, 1.0, 2.5)
LOUDNESSES = (-20, -30, -40)
NOISES: tuple[float | None, ...] = (None, -70.0, -50.0)


def seconds_of(run: Callable[[], object], rounds: int) -> float:
    """The median processor time of ``run``, in seconds: what else runs here hardly counts."""
    run()
    taken = []
    for _ in range(rounds):
        begin = time.process_time()
        run()
        taken.append(time.process_time() - begin)
    return median(taken)


def costs(detectors: Sequence[Detector], rounds: int) -> None:
    """Print the cost per step and call."""
    chance = np.random.default_rng(1)
    for calls in CALLS:
        noise = (chance.standard_normal((calls, CONTEXT + STEP)) * 0.1).astype(np.float32)
        network = package_network()
        theirs = None
        if network is not None:
            theirs = seconds_of(lambda x=noise, n=network: n(x), rounds) / calls  # type: ignore[misc]
            tell_cost("the package's network", calls, theirs, None)
        for detector in detectors:
            batcher = VadBatcher(detector)
            asked = [VoiceRequest(n, str(n), row, detector.rest) for n, row in enumerate(noise)]
            ours = seconds_of(lambda b=batcher, a=asked: b.run(a), rounds) / calls  # type: ignore[misc]
            tell_cost(detector.name, calls, ours, theirs if detector.name == "silero" else None)
    gate, silence = EnergyGate(), np.zeros((1, STEP), np.float32)
    taken = seconds_of(lambda: [gate.judge(silence) for _ in range(1000)], rounds) / 1000
    tell_cost("the gate, per silent step", 1, taken, None)


def tell_cost(case: str, calls: int, seconds: float, theirs: float | None) -> None:
    """One line, with the cores that 1,000 calls would take all the time."""
    rival = {} if theirs is None else {"rival": "the package's network", "ratio": theirs / seconds}
    cores = 1000 * STEPS_PER_SECOND * seconds
    result(NAME, f"{case}, {calls} calls", "cost per step", 1e6 * seconds, "us",
           cores_for_1000_calls=cores, **rival)  # type: ignore[arg-type]  # fmt: skip


def package_network() -> Callable[[np.ndarray], object] | None:
    """One step of many calls by the network as published, or None without the extra vad."""
    spec = find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        return None
    import torch

    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        path = f"{spec.submodule_search_locations[0]}/data/silero_vad.jit"
        network = torch.jit.load(path)._model

    def step(samples: np.ndarray) -> object:
        with torch.no_grad():
            return network(torch.from_numpy(samples), torch.zeros(2, len(samples), 128))

    return step


def line(
    takes: Sequence[np.ndarray], words: int, loudness: float, noise: float | None, seed: int
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """A call of single words, and where each of them is, in samples."""
    chance = np.random.default_rng(seed)
    parts: list[np.ndarray] = []
    spans: list[tuple[int, int]] = []
    position = 0
    for _ in range(words):
        gap = np.zeros(int(chance.choice(GAPS) * SAMPLE_RATE), np.float32)
        word = takes[int(chance.integers(len(takes)))]
        level = 10 ** (loudness / 20) / max(float(np.sqrt(np.square(word).mean())), 1e-5)
        spans.append((position + len(gap), position + len(gap) + len(word)))
        parts += [gap, word * level]
        position = spans[-1][1]
    parts.append(np.zeros(SAMPLE_RATE, np.float32))
    samples = np.concatenate(parts)
    if noise is not None:
        samples = samples + chance.standard_normal(len(samples)) * 10 ** (noise / 20)
    pcm = np.clip(np.rint(samples * 32768), -32768, 32767)
    return (pcm / 32768).astype(np.float32), spans


def marks_of(samples: np.ndarray, detector: Detector, gate: float | None) -> list[Mark]:
    """What the endpointer says of a call."""
    track = VoiceTrack("bench", EndpointSettings(), gate=gate, pace=1)
    batcher = VadBatcher(detector)
    track.feed(samples)
    track.finish()
    marks = track.drain()
    while (request := track.next_request()) is not None:
        marks += track.accept(batcher.run([request])[0])
    return marks


def quality(
    case: str, detector: Detector, gate: float | None, takes: Sequence[np.ndarray], words: int
) -> None:
    """Print how much of the words is found, how soon, and what is found besides."""
    missed = alarms = spoken = 0
    cut, delays = [], []
    for seed, (loudness, noise) in enumerate((x, y) for x in LOUDNESSES for y in NOISES):
        if noise is not None and loudness - noise < 20:
            continue
        samples, spans = line(takes, words, loudness, noise, seed)
        marks = marks_of(samples, detector, gate)
        starts = [mark for mark in marks if isinstance(mark, SpeechStart)]
        ends = [mark.at for mark in marks if isinstance(mark, SpeechEnd)]
        found = [(start.at, end) for start, end in zip(starts, ends, strict=True)]
        for a, b in spans:
            heard = sum(max(0, min(b, end) - max(a, start)) for start, end in found)
            missed += heard < 0.3 * (b - a)
            cut.append(1 - heard / (b - a))
        spoken += len(spans)
        for start, (begin, end) in zip(starts, found, strict=True):
            hit = [a for a, b in spans if a < end and b > begin]
            alarms += not hit
            delays += [(start.decided - hit[0]) / SAMPLE_RATE] if hit else []
    result(NAME, case, "words missed", 100 * missed / spoken, "%", words=spoken)
    result(NAME, case, "speech cut off", 100 * float(np.mean(cut)), "%")
    result(NAME, case, "false starts", alarms, "")
    result(NAME, case, "start told after, mean", 1000 * float(np.mean(delays)), "ms")
    result(NAME, case, "start told after, p95", 1000 * percentile(delays, 0.95), "ms")


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the recordings")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args(argv)
    note(str(machine()))
    found = load_detector("auto")
    assert found is not None
    detectors = [found] if found.name == "energy" else [found, EnergyDetector()]
    costs(detectors, 3 if args.quick else 30)
    archive = args.data / "fsdd_5speakers.tar.gz"
    if not archive.is_file():
        note(f"quality is left out: {archive} is missing; say where it is with --data")
        return 0
    voices = recordings(archive)
    takes = [take for voice in voices.values() for some in voice.values() for take in some]
    for detector in detectors:
        for gate in (None, -60.0):
            name = detector.name if gate is None else f"{detector.name} behind the gate"
            quality(name, detector, gate, takes, 10 if args.quick else 60)
    return 0


if __name__ == "__main__":
    sys.exit(main())
