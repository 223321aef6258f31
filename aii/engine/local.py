"""The engine in this process: one thread owns the model and decodes the windows of all calls.

Requests wait in a bounded queue; the earliest deadline joins first. Whoever has joined is encoded
in small batches, on a thread beside where there is more than one core, and decoded token by token
together with all others, leaving when it is done, when its call is cancelled, or when it fails,
which is its own affair. A window goes through the
functions that ``aii transcribe`` uses, so a call and a file give the same words. Sampling at a
temperature above 0 starts from the same random state for every request: the same request always
gets the same answer, whatever the engine did before.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from typing import Any

import torch

from aii.audio_context import default_audio_context
from aii.batch import Batch, Ticket
from aii.compute import settle
from aii.engine.batcher import Batcher, Entry, Turns
from aii.engine.beside import Beside
from aii.engine.hearing import hearing, rows_needed
from aii.engine.record import Record
from aii.errors import EngineClosedError, ServiceError
from aii.fallback import default_temperatures
from aii.fused import fuses
from aii.mel_memory import MelMemory
from aii.model import Whisper
from aii.types import DecodeRequest, Hypothesis, Timing

log = logging.getLogger(__name__)

ROWS = {"cpu": 16, "cuda": 128}
"""Rows of tokens that are decoded together, by device."""

LAST_STEP = 30.0
"""Seconds for the step under way when the process ends and nobody has closed the engine."""

LISTENING = {"cpu": 4, "cuda": 32}
"""Windows that are made ready for the encoder ahead of it; later ones may be more urgent."""


@dataclass(eq=False)
class _Job:
    """A request on its way through the engine."""

    request: DecodeRequest
    future: Future[Hypothesis]
    since: float
    begun: float = 0.0
    ticket: Ticket[dict[str, Any]] | None = None
    entry: Entry[_Job] | None = None


class LocalEngine:
    """An :class:`aii.engine.api.Engine` around one model.

    Options that a request may carry: the fields of ``DecodingOptions`` and ``WindowOptions``,
    ``initial_prompt`` (text before the prompt), ``keep_tail`` (also give the unfinished text after
    the last whole segment, which a carrying reset leaves to the next window), and ``kv_cache``
    (False: read everything again for each token, to compare with; the result is the same).

    Args:
        model: whose thread this becomes; nothing else may use it while the engine runs.
        queue_size: requests that may wait.
        threads: CPU threads of torch; 0 leaves them as they are.
        options: for requests that do not say otherwise.
        rows: rows of tokens decoded together (a beam is a row); None for what suits the device.
        objective: seconds within which answers should come; only counted.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        model: Whisper,
        *,
        queue_size: int = 1024,
        threads: int = 0,
        options: Mapping[str, object] | None = None,
        rows: int | None = None,
        objective: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        settle(model)
        fuses(model)  # so that what has to be compiled is, before the first call
        self._model = model
        self._threads = threads
        self._options = {
            "audio_context": default_audio_context(model),
            "temperatures": default_temperatures(model),
            **(options or {}),
        }
        self._clock = clock
        self._ahead = LISTENING.get(model.device.type, 4)
        self._batcher: Batcher[_Job] = Batcher(
            queue_size, rows or ROWS.get(model.device.type, ROWS["cpu"])
        )
        self._batch = Batch(model)
        self._memory = MelMemory(model.dims.n_mels, clock=clock)
        self._turns = Turns()
        self._beside: Beside | None = None  # of the engine's thread alone
        self._news = self._seen = 0  # requests that came or were withdrawn
        self._running: list[_Job] = []  # of the engine's thread alone
        self._changed = threading.Condition()
        self._closed = False
        self._abandoned = False
        self._record = Record(objective)
        self._thread = threading.Thread(target=self._run, name="aii-engine", daemon=True)
        self._thread.start()
        atexit.register(self._at_exit)

    # -- from other threads -------------------------------------------------------------------

    def submit(self, request: DecodeRequest) -> Future[Hypothesis]:
        """Queue a request; see :meth:`aii.engine.api.Engine.submit`."""
        now = self._clock()
        job = _Job(request, Future(), now)
        rows = rows_needed(request, self._options)
        with self._changed:
            if self._closed:
                raise EngineClosedError("the engine is shutting down")
            try:
                self._batcher.push(
                    job, call_id=request.call_id, deadline=request.deadline, now=now, rows=rows
                )
            except Exception:
                self._record.count("refused")
                raise
            self._news += 1
            self._changed.notify()
        return job.future

    def cancel(self, call_id: str) -> int:
        """Withdraw a call's requests, waiting or being decoded; how many there were."""
        with self._changed:
            waiting, running = self._batcher.cancel(call_id)
        # A future that is done already stays as it is. The thread drops the cancelled at its next
        # step.
        gone = sum(job.future.cancel() for job in (*waiting, *running))
        with self._changed:
            self._record.count("cancelled", gone)
            self._news += 1
            self._changed.notify()
        return gone

    def stats(self) -> dict[str, float]:
        """Counters and gauges; :class:`aii.engine.record.Record` says which."""
        with self._changed:
            return {
                **self._record.stats(self._clock()),
                "waiting": len(self._batcher),
                "running": self._batcher.running,
                "mel_frames": self._memory.frames,
                "mel_reused": self._memory.reused,
            }

    def close(self, timeout: float = 0.0) -> bool:
        """Finish what waits within ``timeout`` seconds, fail the rest; whether all is at rest.

        A callback may call it, too; the engine is not at rest then, as the callback runs on it.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._join(timeout)
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
            left = self._batcher.clear()
        for job in left:
            _settle(job.future, error=EngineClosedError("the engine was shut down"))
        self._join(min(timeout, 0.2))
        return not self._thread.is_alive()

    def _join(self, timeout: float) -> None:
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def _at_exit(self) -> None:
        """A thread that is still within PyTorch when the interpreter ends would abort it."""
        self.close()
        self._join(LAST_STEP)

    # -- the engine's thread ------------------------------------------------------------------

    def _run(self) -> None:
        if self._threads:
            torch.set_num_threads(self._threads)
        threads = torch.get_num_threads()
        if self._model.device.type == "cpu" and threads > 1:
            self._beside = Beside(self._model, threads, self._wake, self._clock)
            self._record.beside = True
        while self._wait():
            begin = self._clock()
            try:
                self._admit()
                self._advance()
                self._collect()
            except BaseException as error:  # whatever it is: all calls depend on this thread
                log.exception("all windows in the batch fail because of a mistake of ours")
                self._start_anew(error if isinstance(error, Exception) else _mistake(error))
            with self._changed:
                self._record.worked(begin, self._clock())
        self._start_anew(EngineClosedError("the engine was shut down"))
        if self._beside is not None:
            self._beside.close()
        atexit.unregister(self._at_exit)  # the end of the process need not wait any more

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _start_anew(self, error: Exception) -> None:
        """Fail whatever is in the batch."""
        for job in self._running:
            with self._changed:
                if job.entry is not None and self._batcher.finish(job.entry):
                    self._record.count("failed")
            _settle(job.future, error=error)
        self._running.clear()
        self._batch = Batch(self._model)
        if self._beside is not None:
            self._beside.forget()

    def _wait(self) -> bool:
        """Wait for something to do; whether there will be."""
        with self._changed:
            self._changed.wait_for(lambda: self._running or len(self._batcher) or self._closed)
            if self._abandoned:
                return False
            return bool(self._running) or len(self._batcher) > 0

    def _admit(self) -> None:
        """Let those join who are due first, as far as there is room."""
        self._seen = self._news
        while self._batch.listening < self._ahead:
            with self._changed:
                entry = self._batcher.start()
            if entry is None:
                return
            job = entry.item
            job.entry, job.begun = entry, self._clock()
            self._running.append(job)
            if not job.future.cancelled():
                steps = hearing(self._model, job.request, self._options, self._memory)
                job.ticket = self._batch.add(steps)

    def _advance(self) -> None:
        """One step of the decoder, and of the encoder before it or beside it."""
        for job in self._running:
            if job.ticket is not None and job.future.cancelled():
                self._batch.drop(job.ticket)
        if not len(self._batch):
            return
        if self._beside is not None:
            self._advance_both(self._beside)
        elif self._turns.encode_next(self._batch.listening, self._batch.asking):
            begin = self._clock()
            encoded = self._batch.encode()
            seconds = self._clock() - begin
            self._turns.encoded(seconds)
            self._record.encoded(encoded, seconds, begin + seconds, self._live)
        else:
            self._turns.decoded(self._decode())

    def _advance_both(self, beside: Beside) -> None:
        if (taken := beside.take()) is not None:
            encoding, seconds = taken
            self._batch.heard(encoding)
            self._record.encoded(len(encoding.tickets), seconds, self._clock(), self._live)
        asking = self._batch.asking
        if not beside.busy and (waiting := self._batch.listen()) is not None:
            beside.start(waiting, reading=asking > 0)
        if asking:
            beside.before_reading()
            self._decode()
        elif beside.busy:
            with self._changed:
                self._changed.wait_for(
                    lambda: beside.done or self._news != self._seen or self._abandoned
                )

    def _decode(self) -> float:
        """One step of the decoder; the seconds it took."""
        begin = self._clock()
        rows = self._batch.decode()
        seconds = self._clock() - begin
        self._record.decoded(rows, seconds, begin + seconds, self._live)
        return seconds

    @property
    def _live(self) -> float:
        """The share of what is in the batch that is of calls, not of recordings."""
        calls = sum(self._record.live(job.request.deadline - job.since) for job in self._running)
        return calls / max(len(self._running), 1)

    def _collect(self) -> None:
        """Answer those that are done, and let them leave."""
        for job in [job for job in self._running if job.ticket is None or job.ticket.done]:
            self._running.remove(job)
            # From here on nobody can withdraw it any more: it is either cancelled or answered.
            wanted = job.future.set_running_or_notify_cancel()
            with self._changed:
                assert job.entry is not None
                ours = self._batcher.finish(job.entry)
                self._record.count("cancelled", ours and not wanted)
            if wanted:
                self._answer(job)

    def _answer(self, job: _Job) -> None:
        ticket, now = job.ticket, self._clock()
        assert ticket is not None  # only a request that was cancelled before has none
        if ticket.error is not None:
            log.debug("request %d failed", job.request.request_id, exc_info=ticket.error)
            with self._changed:
                self._record.count("failed")
            _settle(job.future, error=ticket.error)
            return
        heard = ticket.result or {}
        timing = Timing(queued=job.begun - job.since, computed=now - job.begun)
        with self._changed:
            self._record.answered(
                job.request.duration,
                now - job.since,
                heard["passes"],
                wanted=job.request.deadline - job.since,
            )
        _settle(job.future, Hypothesis(**heard, timing=timing))


def _settle(
    future: Future[Hypothesis], result: Hypothesis | None = None, error: Exception | None = None
) -> None:
    """Give a future its end, unless it has been cancelled."""
    try:
        if error is not None:
            future.set_exception(error)
        elif result is not None:
            future.set_result(result)
    except InvalidStateError:
        pass
    except BaseException:  # of a callback, after the future has its end
        log.exception("what waited for an answer failed at taking it")


def _mistake(error: BaseException) -> ServiceError:
    """An error that may be handed to others, where ``error`` would end their threads."""
    return ServiceError(f"decoding was ended by {type(error).__name__} ({error}); see the log")
