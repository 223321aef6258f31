"""The dashboard's files, and ``/docs``: what there is to ask, on a page that needs nothing else."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import FileResponse, HTMLResponse

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).resolve().parent.parent.parent / "web"
"""Where the dashboard's files are installed."""

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
}
"""What is given out; files of other kinds are not."""

SOCKETS = (
    (
        "/ws, /ws/optimized",
        "Binary messages of little-endian float32, 16 kHz, mono. After each 0.5 s of audio: "
        '{"text", "latency"}: the words of the last 30 s, and the milliseconds that the engine '
        'computed. ?detail=true adds "final", "start", "end", "words", "queued", "call_id". '
        "?language=, ?prompt= and other settings of a call.",
    ),
    (
        "/ws/standard",
        "The same with a decoder that has no KV cache, for comparison. In float32 the words are "
        "the same; types that round may differ where two words were nearly as likely.",
    ),
    (
        "/ws/transcription?client_id=ID",
        "One .npy file (np.save, float32, 16 kHz, mono) per message. Back comes "
        '{"type": "transcript", "client_id", "text", "timestamp"} for each piece of text that has '
        "become final. A client id that is in use is refused with code 1008.",
    ),
    (
        "/ws/events",
        'First {"type": "snapshot", "calls"}, then every event of every call as JSON.',
    ),
)

CONTROL = (
    'On /ws and /ws/transcription, {"type": "flush"} as text makes everything so far final, and '
    '{"type": "end"} ends the call: its last words come, then the connection is closed with 1000. '
    "Why a connection was closed is in the reason of its close."
)


@router.get("/")
async def index() -> Response:
    """The dashboard."""
    return _file("index.html") if (FOLDER / "index.html").is_file() else HTMLResponse(_bare())


@router.get("/web/{path:path}")
async def page_file(path: str) -> Response:
    """One of its files."""
    return _file(path)


def _file(path: str) -> Response:
    target = (FOLDER / path).resolve()
    kind = TYPES.get(target.suffix)
    if kind is None or not target.is_relative_to(FOLDER) or not target.is_file():
        raise HTTPException(404, "there is no such file")
    return FileResponse(target, media_type=kind, headers={"cache-control": "no-cache"})


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Every route, its parameters and what it does."""
    return HTMLResponse(_docs(request.app.openapi()))


def _bare() -> str:
    return _page(
        "aii",
        "<p>The server runs. The dashboard's files are not installed; "
        '<a href="docs">what there is to ask</a>.</p>',
    )


def _docs(schema: dict[str, Any]) -> str:
    parts = [
        '<p>The HTTP routes as <a href="openapi.json">OpenAPI</a>. With a token: '
        "<code>Authorization: Bearer TOKEN</code>, or <code>?token=TOKEN</code>.</p><h2>HTTP</h2>"
    ]
    for path, methods in schema["paths"].items():
        parts += [_route(path, method, about) for method, about in methods.items()]
    parts.append("<h2>WebSocket</h2>")
    for path, about in SOCKETS:
        parts.append(f"<h3><code>{html.escape(path)}</code></h3><p>{html.escape(about)}</p>")
    parts.append(f"<p>{html.escape(CONTROL)}</p>")
    return _page("aii: what there is to ask", "\n".join(parts))


def _route(path: str, method: str, about: dict[str, Any]) -> str:
    said = html.escape(about.get("description", about.get("summary", "")))
    rows = [
        f"<li><code>{html.escape(item['name'])}</code> in the {html.escape(item['in'])}"
        f"{', needed' if item.get('required') else ''}</li>"
        for item in about.get("parameters", [])
    ]
    if "requestBody" in about:
        kinds = ", ".join(html.escape(kind) for kind in about["requestBody"]["content"])
        rows.append(f"<li>a body: {kinds}; its fields are in the OpenAPI description</li>")
    listed = f"<ul>{''.join(rows)}</ul>" if rows else ""
    return f"<h3><code>{method.upper()} {html.escape(path)}</code></h3><p>{said}</p>{listed}"


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title></head>\n"
        f"<body><main><h1>{html.escape(title)}</h1>\n{body}\n</main></body></html>\n"
    )
