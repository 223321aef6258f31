"""What goes on: health, load, metrics, the live list of calls and their events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, HTTPException, Query, Request, Response, WebSocket
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

from aii.errors import MissingExtraError
from aii.servers.web.board import Entry, Watcher
from aii.servers.web.bridge import peer, turn_away
from aii.servers.web.state import Web, web_of
from aii.servers.web.transcript import FORMATS, as_file, result_of
from aii.servers.web.writer import GOING_AWAY, TRY_LATER, Writer

router = APIRouter()

HEARTBEAT = 15.0
"""Seconds after which a stream of server-sent events says that it is still there."""


@router.get("/health")
@router.get("/health/ready")
async def health(request: Request) -> Response:
    """Whether calls are taken; 503 while they are not."""
    ready = web_of(request).ready
    status = "ok" if ready else "stopping"
    return JSONResponse({"status": status, "ready": ready}, 200 if ready else 503)


@router.get("/health/live")
async def live() -> dict[str, str]:
    """That the process lives."""
    return {"status": "ok"}


@router.get("/load")
async def load(request: Request) -> dict[str, Any]:
    """How busy the server is: model, latencies of the last windows (seconds), queue, calls, memory
    (bytes), share of all cores, uptime; ``tcp`` is the port for plain calls, where there is one."""
    web = web_of(request)
    loaded = web.models.current
    return {
        "model": loaded.name,
        "language": loaded.language,
        "device": loaded.about.get("device"),
        **web.load.report(),
        "queue": int(web.waiting()),
        "full": bool(web.services.no_room()),
        "calls": web.board.open,
        "max_calls": web.config.max_calls + web.config.max_sessions,
        "tcp": web.tcp_port,
        "version": request.app.version,
    }


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Counters, gauges and histograms for Prometheus."""
    found = web_of(request).metrics
    if found is None:
        line = str(MissingExtraError("prometheus_client", "metrics"))
        return PlainTextResponse(line + "\n", 501)
    text, kind = found.text()
    return Response(text, media_type=kind)


# -- calls ----------------------------------------------------------------------------------------


@router.get("/calls")
async def calls(request: Request) -> dict[str, Any]:
    """Open calls, then those that ended lately; without their texts."""
    return {"calls": web_of(request).board.calls(0)}


def _found(web: Web, call_id: str, leg: str | None) -> list[Entry]:
    entries = web.board.find(call_id, leg)
    if not entries:
        raise HTTPException(404, f"no call {call_id[:80]!a} is open or has ended lately")
    return entries


@router.get("/calls/{call_id:path}/transcript")
async def transcript(
    request: Request,
    call_id: str,
    format: str = Query("txt", pattern="^(txt|srt|vtt|tsv|json)$"),
    leg: str | None = None,
) -> Response:
    """What is final of a call, as a file."""
    web = web_of(request)
    finals = web.board.heard(_found(web, call_id, leg))
    text = as_file(result_of(finals, words=True), format)
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in call_id)[:80]
    headers = {"content-disposition": f'attachment; filename="{name}.{format}"'}
    return Response(text, media_type=FORMATS[format], headers=headers)


@router.get("/calls/{call_id:path}/answer")
async def answer(
    request: Request,
    call_id: str,
    format: str = Query("txt", pattern="^(txt|json)$"),
    leg: str | None = None,
) -> Response:
    """The last answer of a call that was asked something: its value, or as JSON the whole event."""
    answers = [entry.answer for entry in _found(web_of(request), call_id, leg) if entry.answer]
    if format == "json":
        return JSONResponse(answers[0].to_dict() if answers else None)
    return PlainTextResponse((answers[0].value or "") if answers else "")


@router.get("/calls/{call_id:path}")
async def call(request: Request, call_id: str, leg: str | None = None) -> dict[str, Any]:
    """A call with its texts; ``legs`` has one entry per channel that is heard apart."""
    web = web_of(request)
    legs = web.board.describe(_found(web, call_id, leg))
    return {**legs[0], "legs": legs} if len(legs) > 1 else legs[0]


# -- events as they happen ------------------------------------------------------------------------


class _Follower:
    """A watcher of the board for one task of the event loop; counts as one who watches."""

    def __init__(self, web: Web) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self.stopped = False
        self._board = web.board
        self.watcher: Watcher = web.board.watch(self._wake)

    def _wake(self) -> None:
        """From any thread."""
        if not self._changed.is_set():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._changed.set)

    def stop(self) -> None:
        """The server stops."""
        self.stopped = True
        self._changed.set()

    abort = stop

    def leave(self) -> None:
        """Watch no longer."""
        self._board.leave(self.watcher)

    async def next(self, patience: float | None = None) -> str | None:
        """The next event as JSON; None when there is none within ``patience`` seconds, when this
        one is to go, or the server stops."""
        while (line := self.watcher.take()) is None:
            if self.stopped or self.watcher.lagging:
                return None
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), patience)
            except asyncio.TimeoutError:
                return None
        return line


@router.websocket("/ws/events")
async def ws_events(websocket: WebSocket) -> None:
    """First a snapshot of the live list, then every event of every call."""
    web = web_of(websocket)
    if refusal := web.watcher_refusal():
        kind, why = refusal
        await turn_away(websocket, kind, TRY_LATER, f"{why}; try again later")
        return
    await websocket.accept()
    follower = _Follower(web)
    writer = Writer(
        websocket,
        web.config.slow_reader,
        lambda: web.refused("slow reader", peer(websocket), "it follows events and does not read"),
    )
    gone = asyncio.create_task(_until_gone(websocket, follower))
    with web.watching.with_guest(follower):
        try:
            while writer.open and (line := await follower.next()) is not None:
                writer.put([line])
                await writer.room()
            code = GOING_AWAY if web.stopping else TRY_LATER
            reason = "the server is stopping" if web.stopping else "events came faster than read"
            await writer.finish(code, reason)
        finally:
            follower.leave()
            gone.cancel()
            await writer.stop()
            await asyncio.gather(gone, return_exceptions=True)


async def _until_gone(websocket: WebSocket, follower: _Follower) -> None:
    """What a watcher sends is for nobody, but its going must be noticed."""
    with contextlib.suppress(RuntimeError):  # it is closed already
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass
    follower.stop()


@router.get("/events")
async def events(request: Request) -> Response:
    """The same as server-sent events, for ``curl -N``."""
    web = web_of(request)
    if refusal := web.watcher_refusal():
        kind, why = refusal
        web.refused(kind, peer(request), f"/events: {why}; try again later")
        raise HTTPException(503, f"{why}; try again later")
    return StreamingResponse(
        _stream(web), media_type="text/event-stream", headers={"cache-control": "no-store"}
    )


async def _stream(web: Web) -> AsyncIterator[str]:
    follower = _Follower(web)
    with web.watching.with_guest(follower):
        try:
            while True:
                line = await follower.next(HEARTBEAT)
                if line is None and (follower.stopped or follower.watcher.lagging):
                    return
                yield ": still here\n\n" if line is None else f"data: {line}\n\n"
        finally:
            follower.leave()
