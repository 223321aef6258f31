"""The web listener: FastAPI on uvicorn, over the engine, sessions and events of the TCP server.

application.py  routes behind the gate          listener.py  uvicorn on a thread, beside TCP
bridge.py       a call behind a WebSocket       wire.py      what uvicorn's connections lack
live.py         /ws...                          rest.py      OpenAI's REST interface
status.py       health, calls, events, metrics  settings.py  /config
board.py        the live list                   gate.py      who may come in
door.py         how many, before TLS

``uvicorn aii.servers.web:app`` serves it alone, set up by the environment.
"""

from __future__ import annotations

import sys
from typing import Any

from aii.errors import InputError


def __getattr__(name: str) -> Any:
    """``app``, made when somebody asks for it."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from aii.servers.web.standalone import make_app, one_line

    try:
        globals()["app"] = app = make_app()
    except InputError as error:  # whoever imports it is a server's command line
        print(one_line(error), file=sys.stderr)
        raise SystemExit(2) from None
    return app
