"""Clients of the real server processes, with the embedded model.

They know the table of endpoints and the public ``websockets`` package, and nothing of ours.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest
import websockets
from serve_rig import ROOT, WAIT, free_port

from aii.resources import asset

PAUSE = np.zeros(16_000 * 2, np.float32)
PARTS = {
    "greeting": (0.3, 3.9, {"your", "call", "important"}),
    "menu": (4.2, 8.2, {"press", "sales", "billing"}),
}
"""Seconds of the sample call, and words of them that the other part does not have."""

WAYS = {
    "aii serve": ("-m", "aii", "serve", "--port", "0", "--web-port", "{port}"),
    "aii_server.py": ("aii_server.py", "--web", "--port", "0", "--web-port", "{port}"),
    "uvicorn": ("-m", "uvicorn", "aii.servers.web:app", "--port", "{port}"),
}


def part(name: str) -> np.ndarray:
    """(N,) float32 of a part of the sample call, and quiet behind it."""
    start, end, _ = PARTS[name]
    samples = np.frombuffer(asset("sample_call.slin").read_bytes(), "<i2") / np.float32(32768)
    return np.concatenate((samples[round(start * 16_000) : round(end * 16_000)], PAUSE))


def npy(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, samples, allow_pickle=False)
    return file.getvalue()


@contextlib.contextmanager
def served(way: str = "aii serve", **environ: str) -> Iterator[str]:
    """A server process; its address without the scheme."""
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AII_")}
    fixed = {"AII_TEMPERATURE": "0", "AII_THREADS": "1", "WHISPER_LAN": "en", "AII_SINK": "none"}
    process = subprocess.Popen(
        [sys.executable, *(word.format(port=port) for word in WAYS[way])],
        cwd=ROOT, env={**clean, **fixed, **environ},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    killer = threading.Timer(8 * WAIT, process.kill)
    killer.start()
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stdout or ()))
    reader.start()
    try:
        until = time.monotonic() + 4 * WAIT
        while process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=WAIT).close()
                break
            time.sleep(0.05)
        assert process.poll() is None, "".join(said)
        yield f"127.0.0.1:{port}"
        process.send_signal(signal.SIGTERM)
        process.wait(WAIT)
    finally:
        process.kill()
        process.wait(WAIT)
        killer.cancel()
        reader.join(WAIT)
        assert process.stdout is not None
        process.stdout.close()
    assert "Traceback" not in "".join(said), "".join(said)


def connect(url: str, **more: object) -> websockets.connect:
    return websockets.connect(url, open_timeout=WAIT, close_timeout=WAIT, proxy=None, **more)


async def live(url: str, samples: np.ndarray, wanted: set[str]) -> list[dict]:
    """Samples in, a quarter of a second each; the answers until the words are among them."""
    heard: list[dict] = []
    async with connect(url) as socket:
        for start in range(0, len(samples), 4_000):
            await socket.send(samples[start : start + 4_000].astype("<f4").tobytes())
        while not heard or not wanted <= set(heard[-1]["text"].split()):
            heard.append(json.loads(await asyncio.wait_for(socket.recv(), WAIT)))
    return heard


async def transcribed(url: str, name: str, samples: np.ndarray) -> list[dict]:
    """``.npy`` files in, half a second each; transcripts until the words are among them."""
    heard: list[dict] = []
    async with connect(f"{url}?client_id={name}") as socket:
        for start in range(0, len(samples), 8_000):
            await socket.send(npy(samples[start : start + 8_000].astype(np.float32)))
        wanted = PARTS[name.partition("-")[0]][2]
        while not wanted <= words(heard):
            heard.append(json.loads(await asyncio.wait_for(socket.recv(), 2 * WAIT)))
    return heard


def words(heard: list[dict]) -> set[str]:
    return {word for item in heard for word in item["text"].split()}


def theirs_alone(name: str, heard: list[dict]) -> None:
    """A client's transcripts are its own, and none has a word of the others."""
    (other,) = {"greeting", "menu"} - {name.partition("-")[0]}
    assert {item["client_id"] for item in heard} == {name}
    assert {item["type"] for item in heard} == {"transcript"}
    assert all(abs(item["timestamp"] - time.time()) < 10 * WAIT for item in heard)
    assert not words(heard) & PARTS[other][2], heard


@pytest.mark.parametrize("way", WAYS)
def test_the_table_of_endpoints_as_it_stands(way: str) -> None:
    with served(way) as address:
        menu = part("menu")
        for path in ("/ws/standard", "/ws/optimized", "/ws"):
            heard = asyncio.run(live(f"ws://{address}{path}", menu, PARTS["menu"][2]))
            assert all(isinstance(item["text"], str) and item["latency"] >= 0 for item in heard)
        url = f"ws://{address}/ws/transcription"

        async def both() -> tuple[list[dict], list[dict]]:
            return tuple(await asyncio.gather(  # type: ignore[return-value]
                *(transcribed(url, name, part(name)) for name in PARTS)
            ))  # fmt: skip

        for name, heard in zip(PARTS, asyncio.run(both()), strict=True):
            theirs_alone(name, heard)
        request = urllib.request.Request(f"http://{address}/config?lan=en", method="POST")
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            assert json.load(answer)
        with urllib.request.urlopen(f"http://{address}/", timeout=WAIT) as answer:
            assert b"<title>aii" in answer.read()


def test_thirty_two_clients_at_once_have_their_own_words() -> None:
    with served() as address:
        url = f"ws://{address}/ws/transcription"
        names = [f"{list(PARTS)[number % 2]}-{number}" for number in range(32)]

        async def everybody() -> list[list[dict]]:
            tasks = (transcribed(url, name, part(name.partition("-")[0])) for name in names)
            return await asyncio.gather(*tasks)

        for name, heard in zip(names, asyncio.run(everybody()), strict=True):
            theirs_alone(name, heard)


async def close_of(url: str, *messages: bytes, **more: object) -> tuple[int | None, str]:
    async with connect(url, **more) as socket:
        with contextlib.suppress(websockets.ConnectionClosed):
            for message in messages:
                await socket.send(message)
            await asyncio.wait_for(socket.recv(), WAIT)
    return socket.close_code, socket.close_reason or ""


async def status_of(url: str, **more: object) -> int:
    with pytest.raises(websockets.InvalidStatus) as info:
        async with connect(url, **more):
            pass
    return info.value.response.status_code


def half_open(address: str) -> list[socket.socket]:
    """Connections that have said half a request, and WebSockets that never read nor send."""
    host, port = address.split(":")
    key = base64.b64encode(bytes(16)).decode()
    lines = [b"", b"GET /ws HTTP/1.1\r\nHost: loc"]
    for path in ("/ws", "/ws/events"):
        head = (
            f"GET {path}?token=a-token-of-ours HTTP/1.1\r\nHost: localhost\r\n"
            f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n\r\n"
        )
        lines.append(head.encode())
    found = []
    for line in lines:
        found.append(socket.create_connection((host, int(port)), timeout=WAIT))
        found[-1].sendall(line)
    return found


def test_strangers_are_refused_with_a_reason_and_a_call_beside_them_goes_on() -> None:
    token = "a-token-of-ours"
    environ = {"AII_TOKEN": token, "AII_MAX_MESSAGE": "0.25", "AII_PING": "5"}
    with served(**environ) as address:
        url = f"ws://{address}/ws/transcription"
        good = {"additional_headers": {"Authorization": f"Bearer {token}"}}

        async def strangers() -> None:
            held = half_open(address)
            huge, samples = npy(np.zeros(100_000, np.float32)), npy(np.zeros(8_000, np.float32))
            async with connect(f"{url}?client_id=taken", **good) as first:
                await first.send(samples)
                code, reason = await close_of(f"{url}?client_id=taken", **good)
                assert (code, reason) == (1008, "client id taken is in use; choose another")
            for message, wanted in (
                (b"no array at all", 1003),
                (samples[:100], 1007),
                (samples[:-4], 1007),
                (npy(np.zeros((2, 400), np.float32)), 1003),
                (npy(np.full(8, np.nan, np.float32)), 1007),
                (huge, 1009),
            ):
                code, reason = await close_of(f"{url}?client_id=bad", message, **good)
                assert code == wanted, reason
                assert reason
            code, _ = await close_of(f"ws://{address}/ws", bytes(300_000), **good)
            assert code == 1009
            for headers in ({}, {"Authorization": "Bearer a-token-of-theirs"}):
                for path in ("/ws", "/ws/transcription", "/ws/events", "/"):
                    status = await status_of(f"ws://{address}{path}", additional_headers=headers)
                    assert status == 401
            assert await status_of(f"{url}", origin="https://evil.example", **good) == 403
            for sock in held:
                sock.close()

        async def beside() -> list[dict]:
            heard: list[dict] = []
            name, samples = "menu", part("menu")
            async with connect(f"{url}?client_id={name}&token={token}") as socket:
                half = len(samples) // 2
                await socket.send(npy(samples[:half].astype(np.float32)))
                await strangers()
                await socket.send(npy(samples[half:].astype(np.float32)))
                while not PARTS[name][2] <= words(heard):
                    heard.append(json.loads(await asyncio.wait_for(socket.recv(), WAIT)))
            return heard

        theirs_alone("menu", asyncio.run(beside()))
        query = urllib.parse.urlencode({"token": token})
        with urllib.request.urlopen(f"http://{address}/metrics?{query}", timeout=WAIT) as answer:
            text = answer.read().decode()
        for why in ("token", "origin", "client id", "message", "message size"):
            assert f'aii_refused_total{{why="{why}"}}' in text, why
