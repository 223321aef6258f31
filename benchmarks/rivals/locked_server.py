"""The server that everybody writes first: a thread per call, one model, a lock around it.

    python -m benchmarks.rivals.locked_server --engine faster-whisper --folder weights/embedded

It takes what our server takes (a call id and a return, then SLIN at 16 kHz), transcribes the
buffer at each 5 s mark, clears it at 30 s, and answers with one JSON line per window. A call that
has fallen behind skips to its newest mark. ``--workers`` above 1 (faster-whisper only) lets so many
windows be computed side by side instead of one after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import select
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

SAMPLE_RATE = 16_000
WINDOW = 5 * SAMPLE_RATE * 2
"""Bytes of SLIN between two marks."""

RESET = 6 * WINDOW

Transcribe = Callable[[np.ndarray], str]


def openai_whisper(folder: Path, threads: int, device: str = "cpu") -> Transcribe:
    """openai-whisper on ``openai.pt``: greedy, without fallback, English; float16 on a GPU."""
    import torch
    import whisper

    torch.set_num_threads(threads)
    model = whisper.load_model(str(folder / "openai.pt"), device=device)

    def transcribe(samples: np.ndarray) -> str:
        found = whisper.transcribe(
            model, samples, language="en", fp16=device != "cpu", condition_on_previous_text=False,
            temperature=0.0,
        )  # fmt: skip
        return str(found["text"])

    return transcribe


def faster_whisper(
    folder: Path, threads: int, compute_type: str, workers: int, device: str = "cpu"
) -> Transcribe:
    """faster-whisper on ``ctranslate2``: the same settings."""
    from faster_whisper import WhisperModel

    model = WhisperModel(
        str(folder / "ctranslate2"), device=device, compute_type=compute_type,
        cpu_threads=threads, num_workers=workers,
    )  # fmt: skip

    def transcribe(samples: np.ndarray) -> str:
        segments, _ = model.transcribe(
            samples, language="en", beam_size=1, condition_on_previous_text=False, temperature=0.0
        )
        return "".join(segment.text for segment in segments)

    return transcribe


class Server:
    """Listens from its creation on; ``serve`` accepts until the process ends."""

    def __init__(self, transcribe: Transcribe, workers: int = 1) -> None:
        self._transcribe = transcribe
        self._turn = threading.Semaphore(workers)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address: tuple[str, int] = self._listener.getsockname()

    def serve(self) -> None:
        """Give each caller a thread."""
        while True:
            sock, _ = self._listener.accept()
            threading.Thread(target=self._call, args=(sock,), daemon=True).start()

    def _call(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            data = b""
            while b"\n" not in data:
                if not (piece := sock.recv(4096)):
                    return
                data += piece
            buffer = bytearray(data[data.index(b"\n") + 1 :])
            origin, mark = 0, 0
            while piece := sock.recv(65536):
                buffer += piece
                reached = min(len(buffer), RESET) // WINDOW
                if reached <= mark:
                    continue
                while select.select([sock], [], [], 0)[0] and (more := sock.recv(65536)):
                    buffer += more  # a call that comes with much at once needs no window in between
                mark = min(len(buffer), RESET) // WINDOW
                size = mark * WINDOW
                with self._turn:
                    text = self._transcribe(_samples(buffer[:size]))
                final = size == RESET
                end = (origin + size) / 2 / SAMPLE_RATE
                line = {"type": "final" if final else "partial", "end": end, "text": text}
                sock.sendall(json.dumps(line).encode() + b"\n")
                if final:
                    del buffer[:RESET]
                    origin, mark = origin + RESET, 0


def _samples(slin: bytes | bytearray) -> np.ndarray:
    return np.frombuffer(bytes(slin), "<i2").astype(np.float32) / 32768.0


def main(argv: Sequence[str] | None = None) -> int:
    """The command: says where it listens, then serves until it is killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("openai-whisper", "faster-whisper"), required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--compute-type", default="int8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(argv)
    if args.engine == "openai-whisper":
        transcribe = openai_whisper(args.folder, args.threads, args.device)
    else:
        transcribe = faster_whisper(
            args.folder, args.threads, args.compute_type, args.workers, args.device
        )
    transcribe(np.zeros(SAMPLE_RATE, np.float32))  # the first call must not wait for this
    server = Server(transcribe, args.workers)
    print(f"listening on {server.address[0]}:{server.address[1]}", file=sys.stderr, flush=True)
    server.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
