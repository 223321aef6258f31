"""OpenAI's speech-to-text REST interface: ``/v1/audio/transcriptions`` and ``/translations``.

What it takes and gives is that of OpenAI's API reference, so that its clients work unchanged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from aii.audio.files import RAW_FORMATS, Bounds, load_slin
from aii.errors import AudioError, InputError, ServiceError
from aii.languages import LANGUAGES
from aii.servers.address import shown
from aii.servers.web.recordings import Heard, Recording, settings_of
from aii.servers.web.state import Web, web_of
from aii.servers.web.transcript import FORMATS, as_file, result_of
from aii.streaming.settings import LONGEST_PROMPT, CallSettings
from aii.types import SAMPLE_RATE

log = logging.getLogger(__name__)
router = APIRouter(prefix="/v1")

SHAPES = ("json", "text", "srt", "verbose_json", "vtt")
GRANULARITIES = ("word", "segment")

ANY_MODEL = ("whisper-1",)
"""Names under which clients know OpenAI's models; they get the one in service."""


@dataclass(frozen=True)
class Wanted:
    """What a request asks for, checked."""

    settings: CallSettings
    shape: str
    granularities: frozenset[str]
    stream: bool
    task: str


class RequestError(InputError):
    """A request that makes no sense.

    Args:
        line: what is wrong.
        param: which parameter is.
        status: of the answer.
        code: OpenAI's word for it.
    """

    def __init__(
        self, line: str, param: str | None = None, status: int = 400, code: str | None = None
    ) -> None:
        super().__init__(line)
        self.param = param
        self.status = status
        self.code = code


# -- the routes -----------------------------------------------------------------------------------


@router.get("/models")
async def models(request: Request) -> dict[str, Any]:
    """The model in service, also under the name that OpenAI's clients ask for."""
    names = [web_of(request).models.current.name, *ANY_MODEL]
    return {"object": "list", "data": [_model_object(name) for name in names]}


@router.get("/models/{name:path}")
async def model(request: Request, name: str) -> Response:
    """One of them."""
    try:
        _check_model(web_of(request), name)
    except RequestError as error:
        return _refused(error)
    return JSONResponse(_model_object(name))


def _model_object(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "aii"}


@router.post("/audio/transcriptions")
async def transcriptions(
    request: Request,
    file: Annotated[UploadFile, File(description="the recording")],
    model: Annotated[str, Form()] = "whisper-1",
    language: Annotated[str | None, Form()] = None,
    prompt: Annotated[str, Form()] = "",
    response_format: Annotated[str, Form()] = "json",
    temperature: Annotated[float, Form()] = 0.0,
    granularities: Annotated[list[str] | None, Form(alias="timestamp_granularities[]")] = None,
    granularities_too: Annotated[list[str] | None, Form(alias="timestamp_granularities")] = None,
    stream: Annotated[bool, Form()] = False,
) -> Response:
    """Transcribe a recording, in the language spoken."""
    fields = {
        "model": model,
        "language": language,
        "prompt": prompt,
        "temperature": temperature,
        "response_format": response_format,
        "granularities": [*(granularities or ()), *(granularities_too or ())],
        "stream": stream,
        "task": "transcribe",
    }
    return await _serve(request, file, fields)


@router.post("/audio/translations")
async def translations(
    request: Request,
    file: Annotated[UploadFile, File(description="the recording")],
    model: Annotated[str, Form()] = "whisper-1",
    prompt: Annotated[str, Form()] = "",
    response_format: Annotated[str, Form()] = "json",
    temperature: Annotated[float, Form()] = 0.0,
) -> Response:
    """Translate a recording into English."""
    fields: dict[str, Any] = {
        "model": model,
        "language": None,
        "prompt": prompt,
        "temperature": temperature,
        "response_format": response_format,
        "granularities": [],
        "stream": False,
        "task": "translate",
    }
    return await _serve(request, file, fields)


async def _serve(request: Request, file: UploadFile, fields: dict[str, Any]) -> Response:
    web = web_of(request)
    try:
        wanted = _wanted(web, fields)
        if web.stopping:
            web.refused("stopping")
            raise RequestError("the server is stopping; try again later", status=503)
        samples = await _read(web, file)
        client = request.client
        caller = "web" if client is None else shown((client.host, client.port))
        if wanted.stream:
            deltas = _deltas(web, samples, wanted, caller)
            return StreamingResponse(
                deltas, media_type="text/event-stream", headers={"cache-control": "no-store"}
            )
        found = await _unless_gone(request, _hear(web, samples, wanted, caller))
        return _answer(wanted, found, len(samples) / SAMPLE_RATE)
    except RequestError as error:
        return _refused(error)
    except AudioError as error:
        return _refused(RequestError(str(error), "file"))
    except InputError as error:
        return _refused(RequestError(str(error)))
    except ServiceError as error:
        return _refused(RequestError(str(error), status=503))


# -- what is asked for ----------------------------------------------------------------------------


def _wanted(web: Web, fields: dict[str, Any]) -> Wanted:
    """The fields of a form, checked.

    Raises:
        InputError: they make no sense.
    """
    _check_model(web, fields["model"])
    shape, given = fields["response_format"], frozenset(fields["granularities"])
    if shape not in SHAPES:
        raise RequestError(
            f"response_format is {shape[:40]!a}; choose from {', '.join(SHAPES)}", "response_format"
        )
    if unknown := sorted(given - set(GRANULARITIES)):
        raise RequestError(
            f"timestamp_granularities are word and segment, not {unknown[0][:40]!a}",
            "timestamp_granularities[]",
        )
    if given and shape != "verbose_json":
        raise RequestError(
            "timestamp_granularities need response_format verbose_json",
            "timestamp_granularities[]",
        )
    if fields["stream"] and shape not in ("json", "text"):
        raise RequestError("a stream has response_format json or text", "response_format")
    if not 0 <= fields["temperature"] <= 1:
        raise RequestError("temperature is a number from 0 to 1", "temperature")
    _check_language(web, fields["language"])
    settings = settings_of(
        web,
        language=fields["language"],
        task=fields["task"],
        prompt=fields["prompt"][-LONGEST_PROMPT:],
        temperature=fields["temperature"],
        words="word" in given,
    )
    asked = given or frozenset({"segment"})
    return Wanted(settings, shape, asked, fields["stream"], fields["task"])


def _check_model(web: Web, name: str) -> None:
    serving = web.models.current.name
    if name not in (*ANY_MODEL, serving):
        raise RequestError(
            f"model {name[:80]!a} is not in service; {serving} is, also as {ANY_MODEL[0]}",
            "model",
            404,
            "model_not_found",
        )


def _check_language(web: Web, language: str | None) -> None:
    try:
        web.models.current.sessions.vocabulary.language(language or None)
    except InputError as error:
        raise RequestError(str(error), "language") from None


async def _read(web: Web, file: UploadFile) -> np.ndarray:
    """The samples (N,) int16 of what was uploaded, which is then let go."""
    bounds = Bounds(web.config.max_recording)
    name = os.path.basename(file.filename or "recording")[:100]
    async with web.readers:
        try:
            return await run_in_threadpool(_load, file, name, bounds)
        finally:
            await file.close()


def _load(file: UploadFile, name: str, bounds: Bounds) -> np.ndarray:
    suffix = os.path.splitext(name)[1].lower()
    suffix = suffix if suffix in RAW_FORMATS else ""  # all others are known by their contents
    with tempfile.NamedTemporaryFile(prefix="aii-", suffix=suffix) as copy:
        file.file.seek(0)
        shutil.copyfileobj(file.file, copy)
        copy.flush()
        if not copy.tell():
            raise AudioError(f"{name} is empty; send a recording")
        try:
            return load_slin(copy.name, bounds=bounds)
        except AudioError as error:
            raise AudioError(str(error).replace(copy.name, name)) from None


# -- hearing --------------------------------------------------------------------------------------


async def _hear(web: Web, samples: np.ndarray, wanted: Wanted, caller: str) -> list[Heard]:
    recording = Recording(web, samples, wanted.settings, caller)
    with web.hearing.with_guest(recording):
        try:
            return [heard async for heard in recording.finals()]
        finally:
            recording.leave()


async def _unless_gone(request: Request, work: Any) -> Any:
    """Do the work, unless the client leaves before it is done."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ServiceError("the client has left")
        return task.result()
    finally:
        for item in (task, gone):
            item.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _deltas(web: Web, samples: np.ndarray, wanted: Wanted, caller: str) -> AsyncIterator[str]:
    """A transcript as server-sent events, a piece as soon as it is final."""
    recording = Recording(web, samples, wanted.settings, caller)
    text = ""
    with web.hearing.with_guest(recording):
        try:
            async with contextlib.aclosing(recording.finals()) as finals:
                async for heard in finals:
                    for segment in heard.final.segments:
                        delta = segment.text if text else segment.text.lstrip()
                        text += delta
                        yield _event({"type": "transcript.text.delta", "delta": delta})
            usage = _usage(len(samples) / SAMPLE_RATE)
            yield _event({"type": "transcript.text.done", "text": text, "usage": usage})
        except ServiceError as error:
            yield _event({"error": _error_object(RequestError(str(error), status=503))})
        finally:
            recording.leave()


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


# -- answers --------------------------------------------------------------------------------------


def _answer(wanted: Wanted, found: list[Heard], duration: float) -> Response:
    finals = [heard.final for heard in found]
    result = result_of(finals)
    text = result["text"].strip()
    if wanted.shape == "text":
        return PlainTextResponse(text + "\n")
    if wanted.shape in ("srt", "vtt"):
        return Response(as_file(result, wanted.shape), media_type=FORMATS[wanted.shape])
    body: dict[str, Any] = {"text": text}
    if wanted.shape == "verbose_json":
        language = "en" if wanted.task == "translate" else result["language"]
        body = {
            "task": wanted.task,
            "language": LANGUAGES.get(language, language or "unknown"),
            "duration": round(duration, 3),
            "text": text,
        }
        if "segment" in wanted.granularities:
            body["segments"] = _segments(found)
        if "word" in wanted.granularities:
            body["words"] = [
                {
                    "word": word.text.strip(),
                    "start": round(word.start, 3),
                    "end": round(word.end, 3),
                }
                for final in finals
                for word in final.words
            ]
    return JSONResponse({**body, "usage": _usage(duration)})


def _segments(found: list[Heard]) -> list[dict[str, Any]]:
    segments: list[dict[str, Any]] = []
    for heard in found:
        final, said = heard.final, heard.hypothesis
        for item in result_of([final])["segments"]:
            segments.append(
                {
                    **item,
                    "id": len(segments),
                    "seek": round(final.start * 100),
                    "temperature": said.temperature,
                    "avg_logprob": _finite(said.avg_logprob),
                    "compression_ratio": _finite(said.compression_ratio),
                    "no_speech_prob": _finite(said.no_speech_prob),
                }
            )
    return segments


def _finite(value: float) -> float | None:
    """JSON has no other numbers."""
    return value if math.isfinite(value) else None


def _usage(duration: float) -> dict[str, Any]:
    return {"type": "duration", "seconds": int(-(-duration // 1))}


def _error_object(error: RequestError) -> dict[str, Any]:
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {"message": str(error), "type": kind, "param": error.param, "code": error.code}


def _refused(error: RequestError) -> Response:
    return JSONResponse({"error": _error_object(error)}, error.status)
