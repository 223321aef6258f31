"""Browsers and Python programs, live: ``/ws``, ``/ws/optimized``, ``/ws/standard`` and
``/ws/transcription``."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, WebSocket

from aii.errors import InputError
from aii.protocols.floats import FloatProtocol
from aii.protocols.frames import printable
from aii.protocols.npy import NpyProtocol
from aii.servers.web.bridge import bridge, turn_away
from aii.servers.web.state import web_of
from aii.servers.web.writer import POLICY
from aii.streaming.settings import CallSettings

router = APIRouter()

UPDATE = 0.5
"""Seconds of audio after which a window is decoded again."""

SHOWN = 30.0
"""Seconds after which the words of a window are final."""

OURS = ("token", "client_id", "detail", "call_id")
"""Parameters that are no settings of the call."""

ENDPOINTS = ("/ws", "/ws/transcription", "/ws/events")
"""Told to those who ask for what is not there."""

LONGEST_CLIENT_ID = 64

QUIET = 1.5
"""Seconds without a message after which a client of ``/ws/transcription`` gets its last words."""

GREEDY = (0.0,)
"""Temperatures of the comparing endpoints: a window is decoded anew twice a second, so there is no
time for further attempts, and text that is drawn by chance could not be compared."""


@router.websocket("/ws")
async def ws(websocket: WebSocket) -> None:
    """Float32 samples in, the words of the last 30 s out, twice a second of audio."""
    await _floats(websocket, "ws", cache=True)


@router.websocket("/ws/optimized")
async def ws_optimized(websocket: WebSocket) -> None:
    """The same as /ws."""
    await _floats(websocket, "optimized", cache=True)


@router.websocket("/ws/standard")
async def ws_standard(websocket: WebSocket) -> None:
    """The same with a decoder that has no KV cache, for comparison."""
    await _floats(websocket, "standard", cache=False)


@router.websocket("/ws/transcription")
async def ws_transcription(websocket: WebSocket) -> None:
    """``.npy`` files of float32 samples in, transcripts out; a client id is for one connection."""
    client_id = websocket.query_params.get("client_id") or "guest"
    web = web_of(websocket)
    reason = ""
    if len(client_id) > LONGEST_CLIENT_ID or not client_id.isprintable():
        reason = f"a client id has at most {LONGEST_CLIENT_ID} printable characters; choose another"
    elif client_id in web.client_ids:
        reason = f"client id {client_id} is in use; choose another"
    if reason:
        await turn_away(websocket, "client id", POLICY, reason)
        return
    web.client_ids.add(client_id)
    with contextlib.ExitStack() as held:  # until the client has gone, not until all is decoded
        held.callback(web.client_ids.discard, client_id)
        voice = {"vad": "true"} if web.models.current.sessions.voice else {}
        settings = await _settings(websocket, {"policy": "alignatt", **voice})
        if settings is not None:
            call_id = printable(client_id, first=0x21, limit=LONGEST_CLIENT_ID)
            parameters = {**websocket.query_params, "call_id": call_id}
            protocol = NpyProtocol(client_id, parameters)
            await bridge(websocket, protocol, settings=settings, quiet=QUIET, left=held.close)


@router.websocket("/{path:path}")
async def ws_elsewhere(websocket: WebSocket, path: str) -> None:
    """No endpoint: said in a way that a client sees."""
    reason = f"no WebSocket at /{path[:40]}; there are {', '.join(ENDPOINTS)}; see /docs"
    await turn_away(websocket, "path", POLICY, reason)


async def _floats(websocket: WebSocket, name: str, *, cache: bool) -> None:
    detail = websocket.query_params.get("detail", "") in ("true", "1", "yes")
    wishes = {
        "policy": "window",
        "window": UPDATE,
        "reset_seconds": SHOWN,
        "words": "all" if detail else "none",
    }
    settings = await _settings(websocket, wishes)
    if settings is None:
        return
    settings = replace(settings, options={**settings.options, "temperatures": GREEDY})
    if not cache:  # a draft is read in one pass, which is what a cache is for
        options = {**settings.options, "kv_cache": False}
        settings = replace(settings, drafts=False, options=options)
    parameters = dict(websocket.query_params)
    parameters.setdefault("call_id", f"{name}-{secrets.token_hex(3)}")
    await bridge(websocket, FloatProtocol(parameters), settings=settings)


async def _settings(websocket: WebSocket, wishes: Mapping[str, Any]) -> CallSettings | None:
    """The server's settings with ``wishes`` and those of the address; None: it was refused."""
    sessions = web_of(websocket).models.current.sessions
    asked = {
        {"lan": "language", "lang": "language"}.get(name, name): value
        for name, value in websocket.query_params.items()
        if name not in OURS
    }
    try:
        settings = sessions.settings.changed({**wishes, **asked})
        sessions.vocabulary.language(settings.language, settings.task)
    except InputError as error:
        await turn_away(websocket, "settings", POLICY, str(error))
        return None
    return settings
