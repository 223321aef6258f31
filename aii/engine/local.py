"""The engine in this process: one thread owns the model, requests wait in a bounded queue.

The loop is: take the request with the earliest deadline, transcribe its window, resolve its future.
A window goes through the functions that ``aii transcribe`` uses, so a call and a file give the same
words. Sampling at a temperature above 0 starts from the same random state for every request: the
same request always gets the same answer, whatever the engine did before.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from aii.decoding import DecodingOptions, detect_language
from aii.engine.batcher import DeadlineQueue
from aii.errors import EngineClosedError, InputError
from aii.mel import N_SAMPLES, log_mel_spectrogram, pad_or_trim
from aii.model import Whisper
from aii.tokenizer import Tokenizer, get_tokenizer
from aii.transcribe import (
    Window,
    WindowOptions,
    audio_context_frames,
    default_audio_context,
    transcribe_window,
)
from aii.types import DecodeRequest, Hypothesis, Segment, Timing, Token, Word

log = logging.getLogger(__name__)

SEED = 0
TIMESTAMP = 0.02  # seconds per timestamp token

_DECODING = {item.name for item in fields(DecodingOptions)} - {
    "task", "language", "prompt", "prefix", "temperature",
}  # fmt: skip
_WINDOW = {item.name for item in fields(WindowOptions)} - {"decoding"}
_OURS = {"initial_prompt", "keep_tail"}


@dataclass
class _Job:
    request: DecodeRequest
    future: Future[Hypothesis]
    since: float


class LocalEngine:
    """An :class:`aii.engine.api.Engine` around one model.

    Options that a request may carry: the fields of ``DecodingOptions`` and ``WindowOptions``,
    ``initial_prompt`` (text before the prompt), and ``keep_tail`` (also give the unfinished text
    after the last whole segment, which a carrying reset leaves to the next window).

    Args:
        model: whose thread this becomes; nothing else may use it while the engine runs.
        queue_size: requests that may wait.
        threads: CPU threads of torch; 0 leaves them as they are.
        options: for requests that do not say otherwise.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        model: Whisper,
        *,
        queue_size: int = 1024,
        threads: int = 0,
        options: Mapping[str, object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._threads = threads
        self._options = {"audio_context": default_audio_context(model), **(options or {})}
        self._clock = clock
        self._queue: DeadlineQueue[_Job] = DeadlineQueue(queue_size)
        self._changed = threading.Condition()
        self._closed = False
        self._counts = dict.fromkeys(("done", "failed", "cancelled", "refused"), 0)
        self._sums = dict.fromkeys(("audio_seconds", "decode_seconds", "passes"), 0.0)
        self._thread = threading.Thread(target=self._run, name="aii-engine", daemon=True)
        self._thread.start()

    def submit(self, request: DecodeRequest) -> Future[Hypothesis]:
        """Queue a request; see :meth:`aii.engine.api.Engine.submit`."""
        job = _Job(request, Future(), self._clock())
        with self._changed:
            if self._closed:
                raise EngineClosedError("the engine is shutting down")
            try:
                self._queue.push(job, call_id=request.call_id, deadline=request.deadline)
            except Exception:
                self._counts["refused"] += 1
                raise
            self._changed.notify()
        return job.future

    def cancel(self, call_id: str) -> int:
        """Withdraw a call's waiting requests; how many there were."""
        with self._changed:
            jobs = self._queue.cancel(call_id)
            self._counts["cancelled"] += len(jobs)
        for job in jobs:
            job.future.cancel()
        return len(jobs)

    def stats(self) -> dict[str, float]:
        """Requests done, failed, cancelled, refused and waiting; seconds of audio and of work."""
        with self._changed:
            return {**self._counts, **self._sums, "waiting": len(self._queue)}

    def close(self, timeout: float = 0.0) -> bool:
        """Finish what waits within ``timeout`` seconds, fail the rest; whether all is at rest."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout)
        with self._changed:
            left = self._queue.clear()
        for job in left:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(EngineClosedError("the engine was shut down"))
        self._thread.join(min(timeout, 0.2))
        return not self._thread.is_alive()

    def _run(self) -> None:
        if self._threads:
            torch.set_num_threads(self._threads)
        while (job := self._next()) is not None:
            self._step(job)

    def _next(self) -> _Job | None:
        """The next job that nobody has withdrawn; None once closed and empty."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: len(self._queue) > 0 or self._closed)
                job = self._queue.pop()
                if job is None:
                    return None
                if job.future.set_running_or_notify_cancel():
                    return job
                self._counts["cancelled"] += 1

    def _step(self, job: _Job) -> None:
        """One request; whatever goes wrong with it stays with it."""
        begin = self._clock()
        try:
            heard = hear(self._model, job.request, self._options)
        except Exception as error:
            with self._changed:
                self._counts["failed"] += 1
            log.debug("request %d failed", job.request.request_id, exc_info=True)
            job.future.set_exception(error)
            return
        timing = Timing(queued=begin - job.since, computed=self._clock() - begin)
        with self._changed:
            self._counts["done"] += 1
            self._sums["audio_seconds"] += job.request.duration
            self._sums["decode_seconds"] += timing.computed
            self._sums["passes"] += heard["passes"]
        job.future.set_result(Hypothesis(**heard, timing=timing))


def hear(model: Whisper, request: DecodeRequest, defaults: Mapping[str, object]) -> dict[str, Any]:
    """Transcribe the window of a request.

    Returns:
        The fields of its :class:`Hypothesis` but for ``timing``.

    Raises:
        InputError: options that do not exist or do not fit the model.
    """
    options = {**defaults, **request.options}
    wanted = _window_options(request, options)
    language = request.language or _language(model, request.samples, wanted)
    wanted = replace(wanted, decoding=replace(wanted.decoding, language=language))
    tokenizer = get_tokenizer(
        model.is_multilingual,
        num_languages=model.num_languages,
        language=language,
        task=request.task,
    )
    text = str(options.get("initial_prompt") or "").strip()
    prompt = [*(tokenizer.encode(" " + text) if text else ()), *request.prompt]
    window = transcribe_window(model, request.samples, wanted, prompt=prompt)
    pieces = [_segment(item, request) for item in window.segments]
    if options.get("keep_tail"):
        pieces += _tail(window, tokenizer, request)
    result = window.result
    return {
        "request_id": request.request_id,
        "tokens": tuple(Token(token) for token in result.tokens),
        "segments": tuple(pieces),
        "language": language,
        "no_speech_prob": result.no_speech_prob,
        "avg_logprob": result.avg_logprob,
        "compression_ratio": result.compression_ratio,
        "advance": window.advance / 100,
        "passes": result.passes,
        "temperature": result.temperature,
    }


def _window_options(request: DecodeRequest, options: Mapping[str, Any]) -> WindowOptions:
    """The options of a request, sorted into those of the decoder and those of the window."""
    if unknown := sorted(set(options) - _DECODING - _WINDOW - _OURS):
        raise InputError(f"no option of a request is called {unknown[0]!r}")
    decoding = {name: options[name] for name in options.keys() & _DECODING}
    window = {"seed": SEED, **{name: options[name] for name in options.keys() & _WINDOW}}
    prefix = list(request.prefix) or None
    return WindowOptions(DecodingOptions(task=request.task, prefix=prefix, **decoding), **window)


def _language(model: Whisper, samples: np.ndarray, wanted: WindowOptions) -> str:
    """The language of a call whose first window this is, found as for a file of these samples."""
    if not model.is_multilingual:
        return "en"
    mel = log_mel_spectrogram(samples, model.dims.n_mels, padding=N_SAMPLES)
    mel = pad_or_trim(mel, audio_context_frames(model, len(samples), wanted.audio_context))
    half = wanted.decoding.fp16 and model.device.type != "cpu"
    mel = mel.to(model.device, torch.float16 if half else torch.float32)
    _, probs = detect_language(model, mel)
    return max(probs, key=probs.__getitem__)


def _segment(item: Mapping[str, Any], request: DecodeRequest) -> Segment:
    """A segment as a value; an empty one stays, emptied, as in a file's transcript."""
    tokens = item["tokens"]
    begin, end = _span(item, request)
    instant = len(tokens) > 1 and tokens[0] == tokens[-1]  # word times may have moved its ends
    if instant or not item["text"].strip():
        return Segment(begin, end, "")
    words = tuple(
        Word(word["word"], *_span(word, request), word["probability"])
        for word in item.get("words", ())
    )
    return Segment(begin, end, item["text"], tuple(tokens), words)


def _span(item: Mapping[str, Any], request: DecodeRequest) -> tuple[float, float]:
    """Start and end within the request's audio: the model may place speech in the padding."""
    times = (min(max(item[key], 0.0), request.duration) for key in ("start", "end"))
    begin, end = (request.start + time for time in times)
    return begin, max(begin, end)


def _tail(window: Window, tokenizer: Tokenizer, request: DecodeRequest) -> list[Segment]:
    """The unfinished text behind the last whole segment, which goes on to the window's end."""
    used = sum(len(item["tokens"]) for item in window.segments)
    tokens = [] if window.silent else window.result.tokens[used:]
    text = tokenizer.decode([token for token in tokens if token < tokenizer.eot])
    if not text.strip():
        return []
    first = tokens[0] - tokenizer.timestamp_begin
    span = {"start": max(first, 0) * TIMESTAMP, "end": request.duration}
    return [Segment(*_span(span, request), text, tuple(tokens))]
