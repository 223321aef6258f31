"""A call, heard: starts the server on the embedded model and plays the sample call into it.

The call goes in as a PBX sends it: the call id and a carriage return, then 640-byte frames of SLIN,
one every 20 ms. What the server makes of it is printed as it comes; at the end stands the word
error rate against what was really said.

    python scripts/demo.py [--model NAME] [--fast] [--audio FILE.slin --reference FILE.txt]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from aii.client import stream_call
from aii.errors import AiiError, ServiceError
from aii.evaluation import word_errors

ROOT = Path(__file__).resolve().parent.parent
CALL_ID = "demo-call"
STOP_SECONDS = 30.0


@contextlib.contextmanager
def server(model: str, log: IO[str]) -> Iterator[tuple[str, int]]:
    """A server of our own on a free port; gives its address, and stops it at the end."""
    command = [sys.executable, str(ROOT / "aii_server.py"), "--port", "0", "--model", model]
    command += ["--language", "en", "--reply", "jsonl", "--vad", "auto"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=log, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    assert process.stderr is not None
    try:
        yield _address(process.stderr)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _address(stderr: IO[str]) -> tuple[str, int]:
    """Pass on what the server says at its start, up to the line with its address."""
    said = ""
    for line in stderr:
        said = line.strip()
        print(said, flush=True)
        _, found, address = said.partition("listening on ")
        if found:
            host, _, port = address.rpartition(":")
            return host, int(port)
    raise ServiceError(f"the server did not start: {said or 'it said nothing'}")


def line_of(event: dict[str, Any]) -> str | None:
    """How an event is shown: a partial with "...", a final with its time, others not at all."""
    text = " ".join(event.get("text", "").split())
    if event["type"] == "partial":
        return f"  {event['end']:5.1f} s  ... {text}"
    if event["type"] == "final" and text:
        return f"  {event['start']:5.1f} - {event['end']:.1f} s  {text}"
    if event["type"] == "skipped" and event["reason"] != "silence":
        return f"  {event['end']:5.1f} s  (skipped: {event['reason']})"
    return None


def hear(address: tuple[str, int], audio: bytes, realtime: bool) -> str:
    """Play the call, print what comes back as it comes, and return the joined finals."""
    heard = ""
    for answer in stream_call(address, audio, call_id=CALL_ID, realtime=realtime):
        event = json.loads(answer)
        line = line_of(event)
        if line is not None:
            print(line, flush=True)
        if event["type"] == "final":
            heard += event["text"]
    return " ".join(heard.split())


def main(argv: list[str] | None = None) -> int:
    """Run the demo; the exit code."""
    parser = argparse.ArgumentParser(description="Hear a call: server, sample call, transcript.")
    parser.add_argument("--model", default="embedded", help="name or path (default: embedded)")
    parser.add_argument("--audio", type=Path, default=ROOT / "assets" / "sample_call.slin")
    parser.add_argument("--reference", type=Path, help="text (default: the audio's .txt)")
    parser.add_argument("--fast", action="store_true", help="do not wait for the real time")
    args = parser.parse_args(argv)
    try:
        audio = args.audio.read_bytes()
        reference = (args.reference or args.audio.with_suffix(".txt")).read_text("utf-8")
        with tempfile.TemporaryFile("w+") as log, server(args.model, log) as address:
            print(f"\nPlaying {args.audio.name}: {len(audio) / 32000:.1f} s, call id {CALL_ID}")
            heard = hear(address, audio, realtime=not args.fast)
    except (AiiError, OSError) as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"\nSaid:  {' '.join(reference.split())}\nHeard: {heard}")
    print(f"\n{word_errors(reference, heard)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
