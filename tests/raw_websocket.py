"""A WebSocket by hand, for clients that do what no library does."""

from __future__ import annotations

import base64
import socket


def raw_websocket(
    address: tuple[str, int], path: str, *, wait: float, room: int, segment: int = 0
) -> socket.socket:
    """A WebSocket whose handshake is done, and which reads nothing that it is not made to.

    Args:
        wait: seconds that each operation on it may take.
        room: bytes that its own side of the way holds.
        segment: bytes of TCP's segments, by which the other side holds less; 0 for the usual.
    """
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    if segment:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
    sock.settimeout(wait)
    sock.connect(address)
    key = base64.b64encode(b"0123456789abcdef").decode()
    sock.sendall(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101 ")
    return sock
