"""The encoder on a thread of its own, so that calls that are read need not wait for those heard.

A window takes the encoder many times as long as the decoder takes for a token. One thread can only
do one after the other; two leave no core idle, and PyTorch's operations do not hold Python's lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue

import torch

from aii.batch import Encoding
from aii.model import Whisper

SMALL = 256
"""Width of a decoder below which its steps are too small for a second thread."""


class Beside:
    """Runs one encoding at a time, and shares out the processor's threads.

    Args:
        model: whose threads these are.
        threads: for encoder and decoder together, at least 2.
        ready: called from the encoder's thread whenever it is done.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        model: Whisper,
        threads: int,
        ready: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threads = threads
        self._few = max(1, threads // 4)
        self._alone = threads if model.dims.n_text_state >= SMALL else self._few
        self._ready = ready
        self._clock = clock
        self._given: SimpleQueue[tuple[Encoding, int, Future[float]] | None] = SimpleQueue()
        self._ended = False
        # Not an executor's thread: that one takes nothing more once the interpreter begins to end.
        self._thread = threading.Thread(target=self._work, name="aii-encoder", daemon=True)
        self._thread.start()
        self._running: tuple[Encoding, Future[float]] | None = None
        self._reading = 0  # threads that the decoder has

    @property
    def busy(self) -> bool:
        """Whether an encoding is under way, or waits to be taken."""
        return self._running is not None

    @property
    def done(self) -> bool:
        """Whether there is one to be taken."""
        return self._running is not None and self._running[1].done()

    def start(self, encoding: Encoding, *, reading: bool) -> None:
        """Begin; ``reading`` says whether the decoder has work in the meantime."""
        threads = self._threads - self._few if reading else self._threads
        future: Future[float] = Future()
        self._running = encoding, future
        self._given.put((encoding, threads, future))

    def take(self) -> tuple[Encoding, float] | None:
        """The encoding that is done and the seconds it took."""
        if self._running is None or not self._running[1].done():
            return None
        encoding, future = self._running
        self._running = None
        return encoding, future.result()

    def forget(self) -> None:
        """Whatever is under way is of no use any more."""
        self._running = None

    def before_reading(self) -> None:
        """The decoder is next, on the calling thread: give it its share."""
        wanted = self._few if self.busy else self._alone
        if wanted != self._reading:
            torch.set_num_threads(wanted)
            self._reading = wanted

    def close(self) -> None:
        """Wait for what is under way, and end the thread."""
        self._ended = True
        self._given.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (given := self._given.get()) is not None and not self._ended:
            encoding, threads, future = given
            try:
                future.set_result(self._run(encoding, threads))
            except BaseException as error:  # for whoever takes it
                future.set_exception(error)
            del given, encoding, future  # not held while nothing is to be done
            self._ready()

    def _run(self, encoding: Encoding, threads: int) -> float:
        begin = self._clock()
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        encoding.run()
        return self._clock() - begin
