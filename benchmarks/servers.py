"""Servers as processes: started, asked for their address, stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

START = 120.0
"""Seconds within which a server must listen."""


class ServerProcess:
    """A server that says "listening on HOST:PORT" on standard error.

    Args:
        arguments: of Python.
        threads: for OpenMP and MKL; 0 leaves them alone.

    Raises:
        RuntimeError: it ended, or did not listen in time; its last line says why.
    """

    def __init__(self, arguments: Sequence[str], *, threads: int = 0) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (a pipe that nobody reads would stop it)
        settings = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            env={**os.environ, **(settings if threads else {})},
        )
        try:
            self.address = self._wait()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def cpu(self) -> float:
        """Seconds of processor time so far."""
        fields = (
            Path(f"/proc/{self._process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        )
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory(self) -> int:
        """Bytes of memory held."""
        status = Path(f"/proc/{self._process.pid}/status").read_text("ascii")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        return int(found[1]) * 1024 if found else 0

    @property
    def said(self) -> str:
        """What it has written to standard error."""
        self._said.seek(0)
        return self._said.read().decode(errors="replace")

    def close(self) -> None:
        """Stop it, gently first."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._said.close()

    def _wait(self) -> tuple[str, int]:
        until = time.monotonic() + START
        while time.monotonic() < until:
            if found := re.search(r"listening on (?:tcp )?([\d.]+):(\d+)", self.said):
                return found[1], int(found[2])
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        last = self.said.strip().splitlines() or ["it said nothing"]
        raise RuntimeError(f"the server does not listen: {last[-1][:300]}")
