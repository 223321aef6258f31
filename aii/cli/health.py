"""``aii health``: is the server ready? For containers, supervisors and scripts.

Exit code 0: ready; 1: it is not, or does not answer.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

from aii.errors import ConfigError, ServiceError

PATH = "/health/ready"
LONGEST_ANSWER = 65_536
"""Bytes of the answer that are read."""


def add_parser(subparsers: Any) -> None:
    """Add ``health`` to the commands of ``aii``."""
    parser = subparsers.add_parser(
        "health",
        help="ask whether the server is ready",
        description="Ask the server of this machine whether it is ready; the exit code says it: "
        "0 for ready, 1 for anything else.",
    )
    parser.add_argument(
        "--server",
        metavar="URL",
        help="its web address (default: this machine, with the port and the TLS that the "
        "environment's AII_WEB_PORT and AII_TLS_CERT say)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=4.0,
        metavar="S",
        help="seconds to wait for the answer (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    """0 when the server is ready; ServiceError says why not."""
    address = args.server or default_address(os.environ)
    print(f"{address} is {ask(address, args.timeout)}")
    return 0


def default_address(environ: Mapping[str, str]) -> str:
    """The server that was started with this environment, asked from the same machine.

    Raises:
        ConfigError: it has no web listener that could be asked.
    """
    port = environ.get("AII_WEB_PORT", "auto")
    if port in ("0", "none"):
        raise ConfigError(f"AII_WEB_PORT is {port}, so nobody can be asked; give --server")
    encrypted = environ.get("AII_TLS_CERT") and environ.get("AII_TLS", "both") != "tcp"
    host = environ.get("AII_WEB_HOST") or environ.get("AII_HOST") or "127.0.0.1"
    if host in ("0.0.0.0", "::", "none"):
        host = "127.0.0.1"
    shown = f"[{host}]" if ":" in host else host
    return f"http{'s' if encrypted else ''}://{shown}:{8000 if port == 'auto' else port}"


def ask(address: str, timeout: float) -> str:
    """What the server says of itself, "ready" or the like.

    Raises:
        ServiceError: it is not ready, or gives no answer.
        ConfigError: the address is none.
    """
    # Its certificate is for its public name. We only ask whether it lives, and tell it nothing.
    tls = ssl.create_default_context()
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=tls))
    try:
        with opener.open(f"{address.rstrip('/')}{PATH}", timeout=timeout) as response:
            answer = json.loads(response.read(LONGEST_ANSWER))
    except HTTPError as error:
        raise ServiceError(f"{address} is not ready: status {error.code}") from None
    except URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise ServiceError(f"{address} does not answer: {reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise ServiceError(f"{address} does not answer: {error or type(error).__name__}") from None
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError):
            raise ServiceError(f"{address} answers, but is no aii server") from None
        raise ConfigError(f"{address!r} is no address; give one as http://127.0.0.1:8000") from None
    if not isinstance(answer, dict) or answer.get("ready") is not True:
        raise ServiceError(f"{address} is not ready")
    return "ready"
