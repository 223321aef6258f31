"""A seeded share of benchmarks/fuzz_protocols.py, which does ten million bytes per protocol."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # benchmarks/ is not installed with the package
    sys.path.insert(0, str(ROOT))

from aii.protocols import Audio, Hangup  # noqa: E402
from aii.protocols.slin import RawFraming  # noqa: E402
from benchmarks import fuzz_protocols  # noqa: E402

TARGETS = {target.name: target for target in fuzz_protocols.targets()}


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_bytes_do_no_harm(name: str) -> None:
    counts = fuzz_protocols.fuzz(TARGETS[name], 300_000, seed=1)
    assert counts["bytes"] >= 300_000
    assert counts["connections"] > 10
    assert counts["beside"] > 1


def test_every_protocol_is_there() -> None:
    from aii.protocols import FRAMINGS, MESSAGE_PROTOCOLS

    assert {*FRAMINGS, *(protocol.name for protocol in MESSAGE_PROTOCOLS)} <= set(TARGETS)


class _Broken(RawFraming):
    """Forgets to end, or tells one call of another, as ``mistake`` says."""

    mistake = ""
    calls = 0

    def _feed(self, data, idle):
        type(self).calls += 1
        if self.mistake == "shared" and self.calls % 50 == 0:
            return [Audio(b"somebody else's")]
        if self.mistake == "raises" and b"\xff\xff" in data:
            raise ValueError
        if self.mistake == "holds":
            self._everything = getattr(self, "_everything", b"") + data * 100
        return super()._feed(data, idle)

    def eof(self):
        return [*super().eof(), *([Hangup("again")] if self.mistake == "ends" else [])]


@pytest.mark.parametrize("mistake", ["shared", "raises", "holds", "ends"])
def test_mistakes_are_found(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Broken, "mistake", mistake)
    raw = TARGETS["raw"]
    broken = fuzz_protocols.Target("broken", _Broken, raw.good, raw.pieces)
    with pytest.raises((AssertionError, ValueError)):
        fuzz_protocols.fuzz(broken, 1_000_000, seed=1)
