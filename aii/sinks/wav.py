"""Recordings of calls: ``CALL ID.wav``, 16 kHz, 16 bits, mono, as the model hears the call.

A call with legs gets a file for each (``CALL ID.LEG.wav``). The header is brought up to date every
few seconds, so that a file is playable whatever happens to the server. Audio that the disk is too
slow for is replaced by silence of the same length, and counted; it never delays the call.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from aii.sinks.files import file_stem, open_new
from aii.streaming.events import CallEnded, CallStarted, Event
from aii.types import SAMPLE_RATE

log = logging.getLogger(__name__)

HELD = 64 << 20
"""Bytes of samples that wait for the disk, of all calls: some 17 minutes of one call."""

PATCH = 5.0
"""Seconds between updates of a header."""

LARGEST = (1 << 32) - (1 << 20)
"""Bytes of samples in one file: its header has no room for more. The call goes on in another."""

_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")

Key = tuple[str, str]


def wav_header(data: int) -> bytes:
    """The header of a file with so many bytes of 16 kHz SLIN."""
    return _HEADER.pack(
        b"RIFF", 36 + data, b"WAVE", b"fmt ", 16, 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16,
        b"data", data,
    )  # fmt: skip


@dataclass
class _Recording:
    """One open file."""

    path: Path
    file: BinaryIO
    size: int = 0
    patched: float = 0.0


class WavSink:
    """See the module.

    Args:
        folder: made if it is not there.
        held: see ``HELD``.

    Raises:
        OSError: the folder cannot be made.
    """

    def __init__(self, folder: str | Path, *, held: int = HELD) -> None:
        self.lost = 0  # samples
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._room = held
        self._held: deque[tuple[Key, np.ndarray | int | None]] = deque()  # samples, how many, end
        self._known: set[Key] = set()
        self._files: dict[Key, _Recording] = {}
        self._broken: set[Key] = set()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="aii-wav", daemon=True)
        self._thread.start()

    def audio(self, call_id: str, leg: str, samples: np.ndarray) -> None:
        """Record (N,) float32 samples at 16 kHz, which nobody changes any more."""
        key = (call_id, leg)
        with self._changed:
            if self._closing or key not in self._known or not len(samples):
                return
            if self._room >= samples.nbytes:
                self._room -= samples.nbytes
                self._held.append((key, samples))
                self._changed.notify()
                return
            self.lost += len(samples)
            first = self.lost == len(samples)
            if self._held and self._held[-1][0] == key and isinstance(self._held[-1][1], int):
                self._held[-1] = (key, self._held[-1][1] + len(samples))
            else:
                self._held.append((key, len(samples)))
        if first:
            log.error("%s is too slow: silence is recorded in place of audio", self._folder)

    def emit(self, event: Event) -> None:
        """A call's recording begins and ends with the call."""
        key = (event.call_id, event.leg)
        if isinstance(event, CallStarted):
            with self._changed:
                self._known.add(key)
        elif isinstance(event, CallEnded):
            with self._changed:
                self._known.discard(key)
                self._held.append((key, None))
                self._changed.notify()

    @property
    def pending(self) -> int:
        """Pieces that are not written yet."""
        with self._changed:
            return len(self._held)

    def close(self, timeout: float = 0.0) -> bool:
        """Write what is held within ``timeout`` seconds; whether all of it is written."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)
        if self.lost:
            log.warning(
                "%s: %.1f s of recordings are silence", self._folder, self.lost / SAMPLE_RATE
            )
        if self._thread.is_alive():
            log.error("%s takes no more: recordings are cut short", self._folder)
        return not self._thread.is_alive()

    # The thread.

    def _run(self) -> None:
        while (item := self._next()) is not None:
            key, what = item
            try:
                self._take(key, what)
            except Exception as error:  # a recording that fails harms neither call nor server
                why = getattr(error, "strerror", None) or str(error) or type(error).__name__
                log.error("the recording of %s ends here: %s", "/".join(filter(None, key)), why)
                self._broken.add(key)
                self._finish(key)
            if what is None:
                self._broken.discard(key)
        for key in list(self._files):
            self._finish(key)

    def _next(self) -> tuple[Key, np.ndarray | int | None] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._held or self._closing)
            if not self._held:
                return None
            key, what = self._held.popleft()
            if isinstance(what, np.ndarray):
                self._room += what.nbytes
        return key, what

    def _take(self, key: Key, what: np.ndarray | int | None) -> None:
        if what is None:
            self._finish(key)
        elif key in self._broken:
            return
        elif isinstance(what, int):
            for _ in range(0, what, SAMPLE_RATE):
                self._write(key, np.zeros(min(what, SAMPLE_RATE), np.float32))
                what -= SAMPLE_RATE
        else:
            self._write(key, what)

    def _write(self, key: Key, samples: np.ndarray) -> None:
        recording = self._files.get(key)
        if recording is not None and recording.size >= LARGEST:
            self._finish(key)
            recording = None
        if recording is None:
            name = file_stem(key[0]) + ("." + file_stem(key[1]) if key[1] else "")
            recording = self._files[key] = _Recording(*_opened(self._folder, name))
        data = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2").tobytes()
        _all(recording.file, data)
        recording.size += len(data)
        now = time.monotonic()
        if now - recording.patched >= PATCH:
            recording.patched = now
            _patch(recording)

    def _finish(self, key: Key) -> None:
        recording = self._files.pop(key, None)
        if recording is not None:
            with contextlib.suppress(OSError):
                _patch(recording)
            recording.file.close()


def _opened(folder: Path, name: str) -> tuple[Path, BinaryIO]:
    """A new file with the header of an empty recording; none where the disk takes none."""
    path, file = open_new(folder, name, "wav")
    try:
        _all(file, wav_header(0))
    except OSError:
        file.close()
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return path, file


def _all(file: BinaryIO, data: bytes) -> None:
    """Write all of ``data`` to a file without a buffer."""
    view = memoryview(data)
    while view:
        count = file.write(view)
        if not count:
            raise OSError("nothing was taken")
        view = view[count:]


def _patch(recording: _Recording) -> None:
    """Bring the header up to date."""
    recording.file.seek(0)
    _all(recording.file, wav_header(recording.size))
    recording.file.seek(0, 2)
