"""Voice activity: how probable it is that somebody speaks, per 32 ms, for many calls at once.

A call asks with a plain :class:`VoiceRequest` and is answered with a :class:`VoiceAnswer`; what the
detector remembers of the call travels in both, so a detector serves any number of calls and keeps
nothing of them. :class:`VadBatcher` steps all calls that ask in one pass. The detectors:

``SileroDetector`` (``aii.audio.vad_silero``)
    the network of the ``silero-vad`` package, which the extra ``vad`` installs.
``EnergyDetector``
    ours, without any package: loudness above the noise floor of the line. It takes music, coughs
    and a ringing telephone for speech.

Only numpy here: the threads that read calls import this without torch.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from aii.errors import AiiError, ConfigError
from aii.types import SAMPLE_RATE

log = logging.getLogger(__name__)

STEP = 512
"""Samples per step: 32 ms at 16 kHz."""

CONTEXT = 64
"""Samples before a step that a detector sees again with it (zeros before the call's first)."""

STEPS_PER_SECOND = SAMPLE_RATE / STEP

LARGEST_BATCH = 64
"""Steps computed at once; more no longer fit the processor's cache and cost more per step."""

KINDS = ("none", "auto", "silero", "energy")
"""What :func:`load_detector` understands."""


@dataclass(frozen=True, eq=False)
class VoiceRequest:
    """Ask whether somebody speaks in one or more successive steps of a call.

    Attributes:
        request_id: unique within the call.
        call_id: whose audio it is.
        samples: (CONTEXT + n * STEP,) float32 at 16 kHz: n steps behind the samples before them.
        lead: so many of the n steps only lead up to those that are asked about.
        state: (S,) float32 from the answer before, or None at the call's first step and after a
            silence that the detector was not asked about.
    """

    request_id: int
    call_id: str
    samples: np.ndarray
    state: np.ndarray | None = None
    lead: int = 0

    def __post_init__(self) -> None:
        if len(self.samples) != CONTEXT + self.steps * STEP or not 0 <= self.lead < self.steps:
            raise ValueError(
                f"{len(self.samples)} samples are not {CONTEXT} of context and steps of {STEP}, "
                f"more than {self.lead}"
            )

    @property
    def steps(self) -> int:
        """n, how many steps there are."""
        return (len(self.samples) - CONTEXT) // STEP


@dataclass(frozen=True, eq=False)
class VoiceAnswer:
    """The answer to the request with the same id.

    Attributes:
        request_id: see :class:`VoiceRequest`.
        probabilities: (n - lead,) float32, 0 to 1, one per step that was asked about.
        state: (S,) float32, what the call's next request is to bring along.
    """

    request_id: int
    probabilities: np.ndarray
    state: np.ndarray


class Detector(Protocol):
    """Two stages: one that sees steps alone, one that remembers. Neither keeps anything itself."""

    @property
    def name(self) -> str:
        """What it is called in configuration and log."""

    @property
    def rest(self) -> np.ndarray:
        """(S,) float32: what is remembered after a long silence, and when a call begins."""

    def features(self, samples: np.ndarray) -> np.ndarray:
        """(N, CONTEXT + STEP) samples to (N, F), each row for itself."""

    def recur(self, features: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, F) features and (N, S) states to (N,) probabilities and the new (N, S) states."""


class Voice(Protocol):
    """Where calls send their requests; one for a whole server."""

    def submit(self, request: VoiceRequest, done: Callable[[VoiceAnswer | None], None]) -> None:
        """Never waits; ``done`` is called once, on any thread; with None if it failed."""

    def close(self, timeout: float = 0.0) -> bool:
        """Answer no more; whether everything has come to rest within ``timeout`` seconds."""


class EnergyDetector:
    """Loudness above the noise floor, as a probability; the stand-in where Silero is missing.

    The level is the power between 150 and 3400 Hz, the band of a telephone, in dB of full scale.
    The floor follows a quieter step at once, and a louder one slowly, more slowly still while
    somebody speaks; so it finds the noise of a line within the first pauses. A probability of 0.5
    lies ``MARGIN`` above the floor, and never below ``LEAST``.
    """

    name = "energy"

    MARGIN = 9.0  # dB
    SLOPE = 2.0  # dB per unit of the logistic curve
    LEAST = -58.0  # dB
    START = -60.0  # dB: a call that begins with speech must not take it for noise
    RISE = 10.0 / STEPS_PER_SECOND  # dB per step
    RISE_SPEAKING = 2.0 / STEPS_PER_SECOND

    def __init__(self) -> None:
        hertz = np.arange(STEP // 2 + 1) * STEPS_PER_SECOND
        self._band = slice(*np.searchsorted(hertz, [150.0, 3400.0]))
        self._window = np.hanning(STEP).astype(np.float32)
        self._scale = 2 / (STEP * float(np.square(self._window).sum()))

    @property
    def rest(self) -> np.ndarray:
        """The floor in dB, as assumed of a line that has not been heard."""
        return np.array([self.START], np.float32)

    def features(self, samples: np.ndarray) -> np.ndarray:
        """(N, CONTEXT + STEP) samples to (N, 1), dB of full scale."""
        waves = np.fft.rfft(samples[:, CONTEXT:] * self._window, axis=1)[:, self._band]
        power = (np.square(waves.real) + np.square(waves.imag)).sum(axis=1) * self._scale
        return 10 * np.log10(np.maximum(power, 1e-10))[:, None]

    def recur(self, features: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Detector`."""
        level, floor = features[:, 0], states[:, 0]
        above = (level - np.maximum(floor + self.MARGIN, self.LEAST)) / self.SLOPE
        rise = np.where(above >= 0, self.RISE_SPEAKING, self.RISE)
        after = np.minimum(level, floor + rise)
        probabilities = 0.5 * np.tanh(0.5 * above) + 0.5
        return probabilities.astype(np.float32), after.astype(np.float32)[:, None]


class EnergyGate:
    """Which steps are worth asking a detector about: those not in the middle of silence.

    A step is silent when its power is below ``level``. The gate closes with the ``HOLD``-th silent
    step in a row and opens with the first that is not silent; the detector is then also shown the
    ``LEAD`` steps before, so that it hears how the sound set in. What it decides depends on the
    samples alone, not on how they came in pieces.

    Args:
        level: dB of full scale (a full square wave has 0); None never closes.
    """

    HOLD = 4
    LEAD = 4

    def __init__(self, level: float | None = -60.0) -> None:
        self._power = -1.0 if level is None else 10.0 ** (level / 10)
        self._silent = 0  # silent steps in a row

    def judge(self, steps: np.ndarray) -> list[bool]:
        """(n, STEP) samples: for each step whether the detector should hear it."""
        power = np.einsum("ij,ij->i", steps, steps) / STEP
        judged = []
        for silent in (power < self._power).tolist():
            self._silent = self._silent + 1 if silent else 0
            judged.append(self._silent < self.HOLD)
        return judged


class VadBatcher:
    """Answers the requests of many calls in one pass of the detector.

    The result is what :meth:`one` gives for each request alone, up to the rounding of float32
    (another order of additions: 1e-5).

    Args:
        detector: what judges the steps.
        largest: steps computed at once.
    """

    def __init__(self, detector: Detector, largest: int = LARGEST_BATCH) -> None:
        self.detector = detector
        self._largest = largest

    def run(self, requests: Sequence[VoiceRequest]) -> list[VoiceAnswer]:
        """One answer per request, in the same order."""
        if not requests:
            return []
        order = sorted(requests, key=lambda request: -request.steps)
        lengths = [request.steps for request in order]
        firsts: list[int] = list(itertools.accumulate(lengths, initial=0))
        features = self._features(order, firsts)
        states = np.stack([self._state(request) for request in order])
        told = np.empty(len(features), np.float32)
        begins, active = np.array(firsts[:-1]), len(order)
        for t in range(lengths[0]):
            while lengths[active - 1] <= t:  # those with fewer steps come last
                active -= 1
            for a in range(0, active, self._largest):
                some = slice(a, min(a + self._largest, active))
                at = begins[some] + t
                told[at], states[some] = self.detector.recur(features[at], states[some])
        answers = {
            id(request): VoiceAnswer(
                request.request_id, told[a + request.lead : b].copy(), state.copy()
            )
            for request, (a, b), state in zip(
                order, itertools.pairwise(firsts), states, strict=True
            )
        }
        return [answers[id(request)] for request in requests]

    def one(self, request: VoiceRequest) -> VoiceAnswer:
        """The slow twin of :meth:`run`: one request, step by step."""
        rows, state = _clean(_steps(request)), self._state(request)[None]
        told = np.empty(len(rows), np.float32)
        for t in range(len(rows)):
            now = slice(t, t + 1)
            told[now], state = self.detector.recur(self.detector.features(rows[now]), state)
        return VoiceAnswer(request.request_id, told[request.lead :], state[0])

    def _state(self, request: VoiceRequest) -> np.ndarray:
        if request.state is None:
            return self.detector.rest
        return request.state

    def _features(self, requests: Sequence[VoiceRequest], firsts: Sequence[int]) -> np.ndarray:
        """The features of all steps, in one array."""
        rows = np.empty((firsts[-1], CONTEXT + STEP), np.float32)
        for request, (a, b) in zip(requests, itertools.pairwise(firsts), strict=True):
            rows[a:b] = _steps(request)
        parts = range(0, len(rows), self._largest)
        return np.concatenate(
            [self.detector.features(_clean(rows[a : a + self._largest])) for a in parts]
        )


def _steps(request: VoiceRequest) -> np.ndarray:
    """The request's steps, each with its context: (n, CONTEXT + STEP)."""
    samples, steps = request.samples, request.steps
    if steps == 1:
        return samples[None]
    return np.lib.stride_tricks.sliding_window_view(samples, CONTEXT + STEP)[::STEP]


def _clean(rows: np.ndarray) -> np.ndarray:
    """Finite and -1 to 1: what is not a sample must not spoil a call's state for good."""
    if not np.isfinite(rows).all():
        rows = np.nan_to_num(rows, nan=0.0)
    return np.clip(rows, -1.0, 1.0)


class DetectorOnDemand:
    """The detector that ``load_detector`` gives, loaded when it is first used.

    For a server that watches no calls by itself, where a call may still ask to be watched. One that
    cannot be loaded is replaced by the energy detector, which is said in the log.
    """

    def __init__(self, kind: str = "auto") -> None:
        self._kind = kind
        self._loaded: Detector | None = None

    @property
    def name(self) -> str:
        """What it is called in configuration and log."""
        return self._kind if self._loaded is None else self._loaded.name

    @property
    def rest(self) -> np.ndarray:
        """As :class:`Detector` says."""
        return self._detector().rest

    def features(self, samples: np.ndarray) -> np.ndarray:
        """As :class:`Detector` says."""
        return self._detector().features(samples)

    def recur(self, features: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As :class:`Detector` says."""
        return self._detector().recur(features, states)

    def _detector(self) -> Detector:
        if self._loaded is None:
            try:
                self._loaded = load_detector(self._kind)
            except AiiError as error:
                log.error("%s; voice activity is judged by loudness alone", error)
            self._loaded = self._loaded or EnergyDetector()
        return self._loaded


def load_detector(kind: str = "auto") -> Detector | None:
    """The detector called ``kind``; None for "none".

    "auto" is Silero where the extra ``vad`` is installed and the energy detector where it is not,
    which is said in the log, once per call of this function.

    Raises:
        ConfigError: there is no such kind.
        MissingExtraError: "silero" is wanted and its package is not installed.
        CheckpointError: the package's network is not the one we know.
    """
    if kind not in KINDS:
        raise ConfigError(f"there is no voice detector {kind!r}; choose one of {', '.join(KINDS)}")
    if kind == "none":
        return None
    if kind == "energy":
        return EnergyDetector()
    if kind == "auto" and find_spec("silero_vad") is None:
        log.warning(
            "voice activity is judged by loudness alone; for Silero's network: "
            "pip install 'aii[vad]'"
        )
        return EnergyDetector()
    from aii.audio.vad_silero import SileroDetector

    return SileroDetector.load()
