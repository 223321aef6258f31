"""Those whom sinks talk to, on loopback: an HTTP receiver, Asterisk's manager and its ARI."""

from __future__ import annotations

import base64
import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WAIT = 100.0


def wait_until(condition: Callable[[], object], what: str = "") -> None:
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError(f"what was waited for did not happen: {what}")


class Post:
    """One request that a receiver got."""

    def __init__(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.path, self.headers, self.body = path, headers, body

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        return json.loads(self.body)


class Receiver:
    """An HTTP server that keeps what it gets; ``answer`` says what each request is told.

    ``answer(post)`` gives a status, or a status and headers; raising ``ConnectionError`` closes the
    connection without an answer. It may be down and up again on the same port.
    """

    def __init__(self, answer: Callable[[Post], Any] = lambda post: 204, tls: Any = None) -> None:
        self.answer = answer
        self.got: list[Post] = []
        self.taken: list[Post] = []
        self._lock = threading.Lock()
        self._tls = tls
        self.port = 0
        self.up()

    def up(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                post = Post(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                with receiver._lock:
                    receiver.got.append(post)
                try:
                    answer = receiver.answer(post)
                except ConnectionError:
                    self.close_connection = True
                    return
                status, headers = answer if isinstance(answer, tuple) else (answer, {})
                if 200 <= status < 300:
                    with receiver._lock:
                        receiver.taken.append(post)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *args: object) -> None:
                pass

        self._server = Server(("127.0.0.1", self.port), Handler)
        if self._tls is not None:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()

    def down(self) -> None:
        self._server.shutdown()
        self._thread.join(WAIT)
        self._server.server_close()

    @property
    def url(self) -> str:
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}"

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *error: object) -> None:
        self.down()


class Asterisk:
    """Asterisk's manager as ``main/manager.c`` has it: greeting, login, actions, answers.

    Lines beyond 1,024 bytes are thrown away, as there. Channels have names and variables.
    """

    def __init__(self, secret: str = "secret", channels: tuple[str, ...] = ()) -> None:
        self.secret = secret
        self.variables: dict[str, dict[str, str]] = {name: {} for name in channels}
        self.set: list[tuple[str, str, str]] = []
        self.events: list[dict[str, str]] = []
        self.logins = 0
        self.dumped = 0
        self.chatty = False
        self.silent = False
        self.greeting = "Asterisk Call Manager/9.0.0"
        self._connections: list[socket.socket] = []
        asterisk = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                asterisk._serve(self.connection, self.rfile, self.wfile)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, *args: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address: tuple[str, int] = self._server.server_address
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()

    def _serve(self, connection: socket.socket, rfile: Any, wfile: Any) -> None:
        self._connections.append(connection)
        wfile.write(f"{self.greeting}\r\n".encode())
        allowed, message = False, {}
        while line := rfile.readline():
            if len(line) > 1024:
                self.dumped += 1
                continue
            text = line.decode().rstrip("\r\n")
            if text:
                key, _, value = text.partition(":")
                message[key.strip()] = value.strip()
                continue
            if self.silent:
                message = {}
                continue
            if self.chatty:
                wfile.write(b"Event: FullyBooted\r\nPrivilege: system,all\r\n\r\n")
            answer, more, allowed = self._act(message, allowed)
            lines = [f"Response: {answer}"]
            lines += [f"ActionID: {message['ActionID']}"] if "ActionID" in message else []
            wfile.write("".join(f"{item}\r\n" for item in [*lines, more, ""]).encode())
            if answer == "Goodbye":
                return
            message = {}

    def _act(self, message: dict[str, str], allowed: bool) -> tuple[str, str, bool]:
        action = message.get("Action", "").lower()
        if action == "login":
            if message.get("Secret") != self.secret:
                return "Error", "Message: Authentication failed", False
            self.logins += 1
            return "Success", "Message: Authentication accepted", True
        if action == "logoff":
            return "Goodbye", "Message: Thanks for all the fish.", False
        if not allowed:
            return "Error", "Message: Permission denied", False
        if action == "setvar":
            channel = self.variables.get(message.get("Channel", ""))
            if channel is None:
                return "Error", "Message: No such channel", True
            channel[message["Variable"]] = message.get("Value", "")
            self.set.append((message["Channel"], message["Variable"], message.get("Value", "")))
            return "Success", "Message: Variable Set", True
        if action == "userevent":
            self.events.append(message)
            return "Success", "Message: Event Sent", True
        return "Error", "Message: Invalid/unknown command", True

    def cut(self) -> None:
        """Break all connections."""
        while self._connections:
            sock = self._connections.pop()
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def __enter__(self) -> Asterisk:
        return self

    def __exit__(self, *error: object) -> None:
        self.cut()
        self._server.shutdown()
        self._thread.join(WAIT)
        self._server.server_close()


class Ari:
    """``POST /ari/channels/{id}/variable`` as Asterisk answers it; for ``Receiver(answer=...)``."""

    def __init__(self, stasis: tuple[str, ...] = (), other: tuple[str, ...] = ()) -> None:
        self.variables: dict[str, dict[str, str]] = {name: {} for name in stasis}
        self._other = other

    def __call__(self, post: Post) -> int:
        login = base64.b64encode(b"aii:secret").decode()
        if post.headers.get("authorization") != f"Basic {login}":
            return 401
        parts = post.path.split("/")
        if parts[:3] != ["", "ari", "channels"] or parts[4:] != ["variable"]:
            return 404
        if parts[3] not in self.variables:
            return 409 if parts[3] in self._other else 404
        if post.headers.get("content-type") != "application/json" or not post.event["variable"]:
            return 400
        self.variables[parts[3]][post.event["variable"]] = post.event["value"]
        return 204
