"""Live audio as blocks of samples: a microphone, what the machine plays, or a file in their place.

A source is an iterator of blocks (N,) float32 at 16 kHz that ends when ``stop`` is called or its
audio is over. Device threads hand blocks over through a bounded queue; if its reader falls so far
behind that it is full, the source ends with an error instead of leaving audio out.
"""

from __future__ import annotations

import queue
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from aii.audio.resampler import Resampler
from aii.errors import AudioError, InputError, MissingExtraError, ServiceError
from aii.types import SAMPLE_RATE

BLOCK_SECONDS = 0.1
"""Audio per block."""

MOST_WAITING = 60.0
"""Seconds of audio that may wait between a device and its reader."""

_BLOCK = round(BLOCK_SECONDS * SAMPLE_RATE)
_WAIT = 0.1


class Source(Protocol):
    """Where live audio comes from."""

    name: str

    def __iter__(self) -> Iterator[np.ndarray]: ...

    def stop(self) -> None: ...


class FileSource:
    """A recording in place of a device.

    Args:
        path: anything that ``aii.audio.files.load_audio`` reads.
        realtime: each block when its time has come; False: at once.
        clock, sleep: seconds, for the schedule; None: a sleep that ``stop`` interrupts.

    Raises:
        AudioError: the file cannot be read.
    """

    def __init__(
        self,
        path: str,
        *,
        realtime: bool = True,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        from aii.audio.files import load_audio

        self.name = path
        self._samples = load_audio(path)
        self._realtime = realtime
        self._clock = clock
        self._stop = threading.Event()
        self._sleep = sleep or self._stop.wait

    def __iter__(self) -> Iterator[np.ndarray]:
        start = self._clock()
        for place in range(0, len(self._samples), _BLOCK):
            block = self._samples[place : place + _BLOCK]
            # A device gives a block when it has been heard, so at its end.
            early = start + (place + len(block)) / SAMPLE_RATE - self._clock()
            if self._realtime and early > 0:
                self._sleep(early)
            if self._stop.is_set():
                return
            yield block

    def stop(self) -> None:
        """No further block."""
        self._stop.set()


class _Handover:
    """Blocks from a device's thread to whoever iterates."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._queue: queue.Queue[np.ndarray] = queue.Queue(round(MOST_WAITING / BLOCK_SECONDS))
        self._error: Exception | None = None
        self._over = threading.Event()

    def put(self, block: np.ndarray) -> bool:
        """Hand over a block; False once there is no use in further ones."""
        if self._over.is_set():
            return False
        try:
            self._queue.put_nowait(block)
        except queue.Full:
            self.end(
                ServiceError(
                    f"{self.name}: the server took no audio for {MOST_WAITING:g} s; "
                    "is it overloaded?"
                )
            )
            return False
        return True

    def end(self, error: Exception | None = None) -> None:
        """No further block; ``error`` says why, if something went wrong."""
        if not self._over.is_set():
            self._error = error
            self._over.set()

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            over = self._over.is_set()  # asked first: what was put before is still given
            try:
                yield self._queue.get(timeout=0.0 if over else _WAIT)
            except queue.Empty:
                if not over:
                    continue
                if self._error is not None:
                    raise self._error from None
                return


class Microphone:
    """A recording device through sounddevice (PortAudio), mono, resampled where it must be.

    Args:
        device: its number or a part of its name; None is the system's default.

    Raises:
        MissingExtraError: sounddevice is not installed.
        InputError: there is no such device, or none that records.
        ServiceError: PortAudio is missing or the device cannot be opened.
    """

    def __init__(self, device: str | None = None) -> None:
        self._sd = _sounddevice()
        try:
            found = self._sd.query_devices(_number_or_name(device), "input")
        except (ValueError, self._sd.PortAudioError) as error:
            raise _no_device("microphone", device, error) from None
        self.name = str(found["name"])
        self._rate = self._rate_of(found)
        self._resampler = Resampler(self._rate)
        self._blocks = _Handover(self.name)
        self._overflows = 0
        try:
            self._stream = self._sd.InputStream(
                samplerate=self._rate,
                blocksize=round(self._rate * BLOCK_SECONDS),
                device=found["index"],
                channels=1,
                dtype="float32",
                callback=self._heard,
                finished_callback=self._blocks.end,
            )
            self._stream.start()
        except self._sd.PortAudioError as error:
            raise ServiceError(f"cannot record from {self.name}: {_line(error)}") from None

    def _rate_of(self, device: Any) -> int:
        """16 kHz where the device has it, else its own rate."""
        try:
            self._sd.check_input_settings(
                device=device["index"], channels=1, dtype="float32", samplerate=SAMPLE_RATE
            )
        except self._sd.PortAudioError:
            return round(device["default_samplerate"])
        return SAMPLE_RATE

    def _heard(self, block: np.ndarray, frames: int, times: object, status: Any) -> None:
        """PortAudio's thread has (frames, 1) samples."""
        if status.input_overflow:
            self._overflows += 1
        if not self._blocks.put(self._resampler.feed(block[:, 0])):
            raise self._sd.CallbackAbort

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            if self._overflows:
                self._overflows = 0
                warnings.warn(
                    f"{self.name}: the system lost audio before it got here; is the machine too "
                    "busy?",
                    stacklevel=2,
                )
            yield block
        yield self._resampler.flush()

    def stop(self) -> None:
        """End the recording; what was recorded is still given."""
        self._stream.stop()
        self._stream.close()


class SoundcardSource:
    """A microphone, or what the machine plays, through soundcard.

    Args:
        kind: "microphone" or "speaker"; of a speaker, what it plays is recorded.
        device: a part of its name; None is the system's default.

    Raises:
        MissingExtraError: soundcard is not installed.
        InputError: there is no such device.
        ServiceError: the sound system cannot be reached.
    """

    def __init__(self, kind: str, device: str | None = None) -> None:
        sc = _soundcard()
        try:
            if kind == "speaker":
                speaker = sc.default_speaker() if device is None else sc.get_speaker(device)
                self._device = _loopback(sc, speaker)
            else:
                self._device = (
                    sc.default_microphone() if device is None else sc.get_microphone(device)
                )
        except (LookupError, RuntimeError, TypeError, AttributeError, re.error) as error:
            raise _no_device(kind, device, error) from None
        self.name = str(self._device.name)
        self._blocks = _Handover(self.name)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._record, name=f"aii {kind}", daemon=True)
        self._thread.start()

    def _record(self) -> None:
        """Our thread: soundcard's calls wait for the device."""
        try:
            with self._device.recorder(samplerate=SAMPLE_RATE, channels=1) as recorder:
                while not self._stop.is_set():
                    block = np.asarray(recorder.record(numframes=_BLOCK), np.float32).reshape(-1)
                    if not self._blocks.put(block):
                        return
            self._blocks.end()
        except Exception as error:
            self._blocks.end(ServiceError(f"cannot record from {self.name}: {_line(error)}"))

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self._blocks)

    def stop(self) -> None:
        """End the recording; what was recorded is still given."""
        self._stop.set()


class Sources:
    """Several sources that are stopped together when the ``with`` block is left."""

    def __init__(self, *sources: Source) -> None:
        self._sources = sources

    def __enter__(self) -> tuple[Source, ...]:
        return self._sources

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for source in self._sources:
            source.stop()


def microphones() -> list[str]:
    """What sounddevice records from, a line each: number, name, default rate.

    Raises:
        MissingExtraError, ServiceError: as ``Microphone``.
    """
    sd = _sounddevice()
    default = sd.default.device[0]
    return [
        f"{'*' if number == default else ' '} {number:3d}  {device['name']}, "
        f"{device['default_samplerate']:.0f} Hz"
        for number, device in enumerate(sd.query_devices())
        if device["max_input_channels"] > 0
    ]


def soundcards() -> list[str]:
    """What soundcard records from, a line each; speakers are those whose sound can be recorded.

    Raises:
        MissingExtraError, ServiceError: as ``SoundcardSource``.
    """
    sc = _soundcard()
    lines = [f"microphone  {device.name}" for device in sc.all_microphones()]
    return lines + [f"speaker     {device.name}" for device in sc.all_speakers()]


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError:
        raise MissingExtraError("sounddevice", "mic") from None
    except OSError:
        raise ServiceError("PortAudio is not installed; run: apt install libportaudio2") from None
    return sounddevice


def _soundcard() -> Any:
    try:
        import soundcard
    except ImportError:
        raise MissingExtraError("soundcard", "mic") from None
    except (AssertionError, OSError):  # its import connects to PulseAudio
        raise ServiceError(
            "no sound system answers; start PulseAudio or PipeWire (with pipewire-pulse)"
        ) from None
    return soundcard


def _loopback(sc: Any, speaker: Any) -> Any:
    """The device that records what ``speaker`` plays."""
    found = [mic for mic in sc.all_microphones(include_loopback=True) if mic.isloopback]
    # Windows gives both the same id, PulseAudio calls it a monitor.
    same = [mic for mic in found if mic.id in (speaker.id, f"{speaker.id}.monitor")]
    same += [mic for mic in found if speaker.name in mic.name]
    if not same:
        raise LookupError(f"what {speaker.name} plays cannot be recorded on this system")
    return same[0]


def _number_or_name(device: str | None) -> int | str | None:
    return int(device) if device is not None and device.isdecimal() else device


def _no_device(kind: str, device: str | None, error: Exception) -> InputError:
    if device is None:
        return AudioError(f"this machine has no {kind} ({_line(error)}); give --file instead")
    return AudioError(f"{device!r} names no {kind}, or several ({_line(error)}); see --list")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
