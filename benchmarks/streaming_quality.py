"""How good the words of a live call are, and how soon: every policy on calls whose words are known.

    python -m benchmarks.streaming_quality --report     # all of it; table and plot in README.md
    python -m benchmarks.streaming_quality --quick      # one short call per set, in a few minutes

The calls are put together as ``spoken_calls.py`` says, played in frames of 20 ms by a simulated
clock (``simulated_call.py``), decoded greedily at temperature 0, and judged as
``streaming_figures.py`` says. Each case runs twice: with answers that take no time, which leaves
the policy's own latency, and with answers that take as long as they took here.

The rivals are WhisperStreaming's LocalAgreement and SimulStreaming's AlignAtt as WhisperLiveKit
packages them, on the same audio and weights, greedy as well, in a Python environment of their own
(``rivals/whisperlivekit.txt`` says how to make it). They always pad to 30 s.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from aii.audio.vad import VadBatcher, load_detector
from aii.evaluation import WordErrors, word_errors
from aii.streaming.endpointing import EndpointSettings, SpeechEnd, SpeechStart
from aii.streaming.settings import CallSettings
from aii.streaming.voice import VoiceTrack
from benchmarks.common import machine, note, percentile, result
from benchmarks.rivals import livekit
from benchmarks.simulated_call import Played, Shown, play
from benchmarks.spoken_calls import SpokenCall, digit_calls, jfk_call, phrase_calls
from benchmarks.streaming_figures import Figures, spread

NAME = "streaming_quality"
OFFLINE = "offline"
OFFLINE_VAD = "offline, each utterance by itself"
SETS = ("digits", "phrases", "stranger", "jfk")
DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
LIVEKIT = Path(__file__).resolve().parent.parent / ".venv-livekit" / "bin" / "python"

Lines = list[dict[str, Any]]
Heard = Played | livekit.Told


@dataclass(frozen=True)
class Case:
    """A policy in one setting; ``change`` makes its settings from the defaults."""

    name: str
    change: Callable[[CallSettings], CallSettings]
    quick: bool = False


def _case(name: str, *, quick: bool = False, **settings: str) -> Case:
    return Case(name, lambda base: base.changed(settings), quick)


def _padded(name: str, **settings: str) -> Case:
    """A policy as the rivals have it: no voice activity, every window padded to 30 s."""

    def change(base: CallSettings) -> CallSettings:
        options = {**base.options, "audio_context": "full"}
        return replace(base.changed(settings), options=options)

    return Case(name, change)


def _alignatt(name: str, **fields: object) -> Case:
    """AlignAtt with voice activity and with fields that have no name in text."""

    def change(base: CallSettings) -> CallSettings:
        inner = replace(base.alignatt, **fields)  # type: ignore[arg-type]
        return replace(base, policy="alignatt", alignatt=inner, endpointing=EndpointSettings())

    return Case(name, change)


CASES = (
    _case("window 5 s", policy="window"),
    _case("window 5 s, vad", quick=True, policy="window", vad="true"),
    _case("local-agreement 1 s", policy="local-agreement"),
    _case("local-agreement 1 s, vad", quick=True, policy="local-agreement", vad="true"),
    _case("local-agreement 0.5 s, vad", policy="local-agreement", vad="true", agreement_step="0.5"),
    _case("alignatt 0.5 s", policy="alignatt"),
    _case("alignatt 0.5 s, vad", quick=True, policy="alignatt", vad="true"),
    _case("alignatt 1 s, vad", policy="alignatt", vad="true", alignatt_step="1"),
    _alignatt("alignatt 0.5 s, vad, threshold 10", threshold=10),
    _alignatt("alignatt 0.5 s, vad, 3 beams", beams=3),
    _padded("local-agreement 1 s, padded", policy="local-agreement"),
    _padded("alignatt 0.5 s, padded", policy="alignatt"),
)


@dataclass
class Account:
    """What a case came to over some calls."""

    figures: Figures = field(default_factory=Figures)
    timed: Figures = field(default_factory=Figures)  # with computing
    against: WordErrors = field(default_factory=WordErrors)  # offline text as reference
    seconds: float = 0.0
    passes: int = 0
    decode: float = 0.0

    def add(
        self,
        call: SpokenCall,
        free: Sequence[Shown],
        timed: Sequence[Shown],
        offline: str,
        passes: int,
        decode: float,
    ) -> None:
        """One call, played on both clocks."""
        self.figures.add(call, free)
        self.timed.add(call, timed)
        self.against += word_errors(offline, free[-1].final if free else "")
        self.seconds += call.seconds
        self.passes += passes
        self.decode += decode


class Bench:
    """The model, the engine, the detector and the calls.

    Args:
        model: name or path of the model.
        threads: CPU threads; 0 leaves them to torch.
        calls: what is played.
    """

    def __init__(self, model: str, threads: int, calls: Sequence[SpokenCall]) -> None:
        from aii.checkpoints import load_model
        from aii.cli.calls import vocabulary_of
        from aii.engine.local import LocalEngine
        from aii.streaming.factory import Sessions

        self.model = load_model(model)
        self.calls = calls
        detector = load_detector("auto")
        assert detector is not None
        self.voice = VadBatcher(detector)
        self.offline = {
            OFFLINE: {call.name: self._whole(call.samples) for call in calls},
            OFFLINE_VAD: {call.name: self._by_utterance(call) for call in calls},
        }
        # From here on the engine's thread owns the model.
        self.engine = LocalEngine(self.model, threads=threads, options={"temperatures": (0.0,)})
        language = None if self.model.metadata.get("language") else "en"
        settings = CallSettings(language=language)
        self.sessions = Sessions(settings, vocabulary_of(self.model), voice=True)

    def _whole(self, samples: np.ndarray) -> str:
        """The text of a recording."""
        from aii.transcribe import transcribe

        told = transcribe(self.model, samples, language="en", temperature=0.0, fp16=False)
        return str(told["text"])

    def _by_utterance(self, call: SpokenCall) -> str:
        """The texts of its utterances, each decoded by itself, as voice activity finds them."""
        found = utterances(call.samples, self.voice)
        return " ".join(self._whole(call.samples[start:end]) for start, end in found)

    def run(self, case: Case) -> Iterable[tuple[SpokenCall, Played, Played]]:
        """Each call, played without and with time for computing."""
        settings = case.change(self.sessions.settings)
        for call in self.calls:
            free, timed = (
                play(
                    call.samples,
                    self.sessions.make(call.name, settings=settings),
                    lambda request: self.engine.submit(request).result(),
                    voice=self.voice,
                    computing=computing,
                )
                for computing in (False, True)
            )
            yield call, free, timed


def utterances(samples: np.ndarray, voice: VadBatcher) -> list[tuple[int, int]]:
    """Where each utterance begins and ends, in samples."""
    track = VoiceTrack("offline", EndpointSettings())
    track.feed(samples)
    track.finish()
    marks = track.drain()
    while (request := track.next_request()) is not None:
        marks += track.accept(voice.run([request])[0])
    starts = [mark.at for mark in marks if isinstance(mark, SpeechStart)]
    ends = [mark.at for mark in marks if isinstance(mark, SpeechEnd)]
    return list(zip(starts, ends, strict=True))


def offline_errors(bench: Bench) -> tuple[dict[str, WordErrors], Lines]:
    """The errors of the better of both ways of decoding offline, by set and "all"."""
    best: dict[str, WordErrors] = {}
    lines: Lines = []
    for case, texts in bench.offline.items():
        errors: dict[str, WordErrors] = {}
        for call in bench.calls:
            here = word_errors(call.text, texts[call.name])
            for key in (_set_of(call), "all"):
                errors[key] = errors.get(key, WordErrors()) + here
        for key, value in errors.items():
            lines.append(result(NAME, case, "word error rate", 100 * value.rate, "%", set=key))
            if key not in best or value.rate < best[key].rate:
                best[key] = value
    return best, lines


def tell(
    case: str, accounts: dict[str, Account], offline: dict[str, WordErrors], rival: str | None
) -> Lines:
    """Print the figures of a case, one line each, by set and over all."""
    lines: Lines = []
    for key, account in accounts.items():
        figures = account.figures
        rate = figures.errors.rate
        told: list[tuple[str, float, str]] = [
            ("word error rate", 100 * rate, "%"),
            ("word error rate above offline", 100 * (rate - offline[key].rate), "points"),
            ("difference from offline", 100 * account.against.rate, "%"),
        ]
        for clock, some in (("", figures), (", computing", account.timed)):
            for what, values in (("first appearance", some.first), ("final", some.last)):
                spreads = spread(values).items()
                told += [(f"{what} {name}{clock}", value, "s") for name, value in spreads]
        told += [
            ("unstable", 100 * figures.unstable, "%"),
            ("erasure", figures.erasure, "words per word"),
            ("decoder passes", account.passes / account.seconds, "per second"),
            ("real-time factor", account.decode / account.seconds, ""),
        ]
        for edge, offs in (("start", figures.starts), ("end", figures.ends)):
            if offs:
                off = [abs(value) for value in offs]
                told.append((f"word {edge} late", 1000 * percentile(offs, 0.5), "ms"))
                told += [
                    (f"word {edge} off {name}", 1000 * percentile(off, share), "ms")
                    for name, share in (("p50", 0.5), ("p90", 0.9))
                ]
        for metric, value, unit in told:
            lines.append(result(NAME, case, metric, value, unit, rival=rival, set=key))
    return lines


def account(
    bench: Bench, accounts: dict[str, Account], call: SpokenCall, free: Heard, timed: Heard
) -> None:
    """Count a call that was played on both clocks, in its set and in all."""
    for key in (_set_of(call), "all"):
        counted = accounts.setdefault(key, Account())
        offline = bench.offline[OFFLINE][call.name]
        counted.add(call, free.shown, timed.shown, offline, free.passes, free.decode)
        if isinstance(free, Played):
            counted.figures.add_times(call, free.words)


def run_ours(bench: Bench, cases: Sequence[Case], offline: dict[str, WordErrors]) -> Lines:
    """All cases of ours, printed as they come."""
    lines: Lines = []
    for case in cases:
        accounts: dict[str, Account] = {}
        for call, free, timed in bench.run(case):
            account(bench, accounts, call, free, timed)
            note(f"{case.name}: {call.name}: {free.text.strip()}")
        lines += tell(case.name, accounts, offline, None)
    return lines


def run_rivals(
    bench: Bench, args: argparse.Namespace, weights: Path, offline: dict[str, WordErrors]
) -> Lines:
    """The rivals' policies on the same calls, printed as they come."""
    lines: Lines = []
    for policy, step in livekit.CASES:
        accounts: dict[str, Account] = {}
        both = [
            livekit.run(args.livekit, weights, policy, step, bench.calls, timed, args.threads)
            for timed in (False, True)
        ]
        for call, free, timed in zip(bench.calls, *both, strict=True):
            account(bench, accounts, call, free, timed)
            note(f"{livekit.NAME} {policy}: {call.name}: {free.text.strip()}")
        lines += tell(f"{policy} {step:g} s", accounts, offline, livekit.NAME)
    return lines


def make_calls(args: argparse.Namespace) -> list[SpokenCall]:
    """The calls of the wanted sets; one without its data is left out, which is said."""
    fsdd, jfk = args.data / "fsdd_5speakers.tar.gz", args.data / "jfk.flac"
    made: list[SpokenCall] = []
    for kind in args.sets:
        needed = {"digits": fsdd, "stranger": fsdd, "jfk": jfk}.get(kind)
        if needed is not None and not needed.is_file():
            note(f"{kind}: left out, {needed} is missing; say where it is with --data")
        elif kind == "jfk":
            made.append(jfk_call(jfk))
        elif kind == "phrases":
            made += phrase_calls(args.calls, args.seconds)
        else:
            made += digit_calls(fsdd, args.calls, args.seconds, stranger=kind == "stranger")
    return made


def _set_of(call: SpokenCall) -> str:
    return call.name.split()[0]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", default="embedded", help="name or path of the model")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["digits", "phrases"])
    parser.add_argument("--calls", type=int, default=3, help="calls per set")
    parser.add_argument("--seconds", type=float, default=45.0, help="length of a call")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch, for all")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the recordings")
    parser.add_argument("--cases", nargs="+", help="only those with one of these in their names")
    parser.add_argument("--livekit", type=Path, default=LIVEKIT, help="Python with WhisperLiveKit")
    parser.add_argument("--no-rivals", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a short look, without rivals")
    parser.add_argument("--report", action="store_true", help="write table and plot to README.md")
    args = parser.parse_args(argv)
    if args.quick:
        args.calls, args.seconds = 1, 15.0
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; the exit code."""
    from aii.hub import resolve

    args = parse(argv)
    calls = make_calls(args)
    if not calls:
        note("nothing to play")
        return 1
    bench = Bench(args.model, args.threads, calls)
    try:
        about = {"calls": len(calls), "model": args.model, "voice": bench.voice.detector.name}
        seconds = sum(call.seconds for call in calls)
        lines = [
            result(
                NAME, "calls", "length", seconds, "s", threads=args.threads, **about, **machine()
            )
        ]
        offline, told = offline_errors(bench)
        cases = [c for c in CASES if c.quick or not args.quick]
        if args.cases:
            cases = [c for c in cases if any(part in c.name for part in args.cases)]
        lines += told + run_ours(bench, cases, offline)
        if args.livekit.is_file() and not (args.no_rivals or args.quick):
            lines += run_rivals(bench, args, resolve(args.model), offline)
        else:
            note("rivals are left out; benchmarks/rivals/whisperlivekit.txt says what they need")
    finally:
        bench.engine.close(5.0)
    if args.report:
        from benchmarks.streaming_report import write

        write(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
