"""What telephone systems come to on the web port: WebSocket protocols, and the call registry.

    WS   /media           Asterisk's chan_websocket
    WS   /aeap            Asterisk's speech API
    WS   /vosk, /         Vosk's clients, many of which know no path
    WS   /audio-stream    FreeSWITCH's mod_audio_stream and mod_audio_fork
    POST /calls/{id}      what is known about a call before it comes
    DELETE /calls/{id}    forget it
    POST /calls/{id}/collect    ask the caller of a running call for digits or words

What the URI's query says is the call's metadata. A plan comes as JSON or, as Asterisk's CURL sends
it, as a form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket

from aii.errors import ConfigError, ServiceError
from aii.protocols import (
    AeapProtocol,
    AsteriskMediaProtocol,
    FreeswitchProtocol,
    MessageProtocol,
    VoskProtocol,
)
from aii.protocols.metadata import SECRET
from aii.question import Question
from aii.servers.registry import CallPlan, parse_plan
from aii.servers.web.bridge import bridge
from aii.servers.web.state import web_of

router = APIRouter()

LONGEST_PLAN = 16_384
"""Bytes of what is said about one call."""

MOST_FIELDS = 128
"""Fields of a form."""


@router.websocket("/media")
async def media(websocket: WebSocket) -> None:
    """A channel of Asterisk's chan_websocket."""
    await _serve(websocket, AsteriskMediaProtocol)


@router.websocket("/aeap")
async def aeap(websocket: WebSocket) -> None:
    """A speech object of Asterisk."""
    await _serve(websocket, AeapProtocol)


@router.websocket("/")
@router.websocket("/vosk")
async def vosk(websocket: WebSocket) -> None:
    """A Vosk client."""
    await _serve(websocket, VoskProtocol)


@router.websocket("/audio-stream")
async def audio_stream(websocket: WebSocket) -> None:
    """A stream of a FreeSWITCH channel."""
    await _serve(websocket, FreeswitchProtocol)


async def _serve(websocket: WebSocket, protocol: type[MessageProtocol]) -> None:
    await bridge(websocket, protocol(dict(websocket.query_params)))


@router.post("/calls/{call_id:path}/collect", status_code=202)
async def collect(call_id: str, request: Request) -> Response:
    """Ask the caller of a running call; the answer comes as an event."""
    try:
        values = {**_fields(request.url.query), **_values(await _body(request))}
        question = Question.parse(values)
    except ConfigError as error:
        return _refused(400, str(error), "invalid_request_error")
    if not web_of(request).services.running.ask(call_id, question):
        return _refused(404, "no call of this id is running", "invalid_request_error")
    return JSONResponse({"call_id": call_id, "asked": str(question.grammar)}, 202)


@router.post("/calls/{call_id:path}", status_code=201)
async def register(call_id: str, request: Request) -> Response:
    """Say ahead what is known about a call: caller, callee, language, prompt, policy, sinks ..."""
    try:
        values = {**_fields(request.url.query), **_values(await _body(request))}
        services = web_of(request).services
        if services.outlets is not None:
            for sink in parse_plan(call_id, values).sinks:
                services.outlets.allowed(sink)
        plan = services.registry.put(call_id, values)
    except ConfigError as error:
        return _refused(400, str(error), "invalid_request_error")
    except ServiceError as error:
        return _refused(503, str(error), "server_error")
    return JSONResponse(_shown(call_id, plan), 201)


@router.delete("/calls/{call_id:path}")
async def forget(call_id: str, request: Request) -> Response:
    """Forget what was said about a call that has not come."""
    try:
        known = web_of(request).services.registry.remove(call_id)
    except ConfigError as error:
        return _refused(400, str(error), "invalid_request_error")
    if not known:
        return _refused(404, "nothing is registered under this id", "invalid_request_error")
    return Response(status_code=204)


async def _body(request: Request) -> str:
    """The request's body, as long as it is short.

    Raises:
        ConfigError: it is long, or no text.
    """
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > LONGEST_PLAN:
            raise ConfigError(f"the body has more than {LONGEST_PLAN} bytes; say less about a call")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigError("the body is no UTF-8 text; send JSON or a form") from None


def _values(body: str) -> Mapping[str, Any]:
    """What a body says, be it JSON or a form, whatever its content type claims."""
    if not body.lstrip().startswith("{"):
        return _fields(body)
    try:
        values: dict[str, Any] = json.loads(body)
    except (ValueError, RecursionError):
        raise ConfigError("the body begins like a JSON object and is none") from None
    return values


def _fields(form: str) -> dict[str, Any]:
    """A form's fields or a query's; one that is there several times is a list."""
    try:
        pairs = parse_qsl(form, keep_blank_values=False, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise ConfigError(f"a form has at most {MOST_FIELDS} fields") from None
    fields: dict[str, Any] = {}
    value: Any
    for name, value in pairs:
        if name.lower() in SECRET:
            continue
        if name in fields:
            before = fields[name]
            value = [*(before if isinstance(before, list) else [before]), value]
        fields[name] = value
    return fields


def _shown(call_id: str, plan: CallPlan) -> dict[str, Any]:
    """What was understood; where its events go is nobody's business."""
    return {
        "call_id": plan.call_id or call_id,
        "caller": plan.caller,
        "callee": plan.callee,
        "settings": dict(plan.wishes),
        "sinks": len(plan.sinks),
        "end_on": sorted(plan.end_on),
        "details": dict(plan.details),
    }


def _refused(status: int, line: str, kind: str) -> JSONResponse:
    error = {"message": line, "type": kind, "param": None, "code": None}
    return JSONResponse({"error": error}, status)
