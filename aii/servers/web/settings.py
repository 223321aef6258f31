"""``/config``: which model and language serve, and their change while calls go on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from aii.errors import AiiError, InputError
from aii.hub import EMBEDDED, available_models, local_file
from aii.languages import language_code
from aii.servers.models import ChangeUnderWayError, Loaded
from aii.servers.web.state import Web, web_of

log = logging.getLogger(__name__)
router = APIRouter()

PARAMETERS = ("lan", "language", "model", "token")

MOST_FILES = 100
"""Files beside the configured model's that are offered."""


def offered(model: str) -> dict[str, str]:
    """What may be asked for by name, and what each name loads: models that are on this machine.

    The embedded one, the published ones that were downloaded, the one that the server was started
    with, and the files beside that. Nothing is downloaded for a stranger, and no path is taken
    from one.

    Args:
        model: the configured model, a name or a path.
    """
    names = {EMBEDDED: EMBEDDED}
    names |= {name: name for name in available_models() if local_file(name).is_file()}
    path = Path(model)
    if model not in names and path.exists():
        beside = sorted(path.parent.glob("*.pt"))[:MOST_FILES]
        names |= {item.name: str(item) for item in beside if item.is_file()}
    return {**names, model: model}


def described(web: Web, loaded: Loaded) -> dict[str, Any]:
    """What is told of the model in service."""
    return {
        "status": "ok",
        "model": loaded.name,
        "language": loaded.language or "auto",
        **loaded.about,
        "models": sorted(offered(web.config.model)),
        "models_in_memory": web.models.engines,
    }


@router.get("/config")
async def config(request: Request) -> dict[str, Any]:
    """The model and language for calls that begin now, and the models that can be asked for."""
    web = web_of(request)
    return described(web, web.models.current)


@router.post("/config")
async def change(
    request: Request,
    lan: str | None = None,
    language: str | None = None,
    model: str | None = None,
) -> Response:
    """Change the language or the model for calls that begin from now on. Calls in progress go on as
    they began; the memory of a model that was replaced is given back when the last of them ends."""
    web = web_of(request)
    try:
        await _check_form(request)
        wanted = _language(lan if language is None else language)
        name = None if model is None else _model(web, model)
        loaded = await run_in_threadpool(web.models.change, name, wanted)
    except ChangeUnderWayError as error:
        return _failed(409, error)
    except InputError as error:
        return _failed(400, error)
    except AiiError as error:
        return _failed(503, error)
    return JSONResponse(described(web, loaded))


async def _check_form(request: Request) -> None:
    """Refuse what would be passed over, so that nobody believes to have changed something."""
    if unknown := sorted(set(request.query_params) - set(PARAMETERS)):
        raise InputError(
            f"no parameter is called {unknown[0][:40]!a}; there are lan, language and model"
        )
    if await request.body():
        raise InputError("parameters go into the address, as /config?lan=de; send no body")


def _language(text: str | None) -> str | None:
    """A code, None to detect it, or "" where nothing was asked for."""
    if text is None or not text.strip():
        return ""
    return None if text.strip().lower() == "auto" else language_code(text.strip())


def _model(web: Web, name: str) -> str:
    names = offered(web.config.model)
    if name not in names:
        hint = ""
        if name in available_models():
            hint = f"; on the server's machine: aii models download {name}"
        raise InputError(
            f"model {name[:80]!a} is not on this machine{hint}; there are {', '.join(names)}"
        )
    return names[name]


def _failed(status: int, error: Exception) -> Response:
    line = " ".join(str(error).split())
    log.warning("the configuration was not changed: %s", line)
    return JSONResponse({"status": "error", "error": line}, status)
