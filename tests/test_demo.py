"""scripts/demo.py: the whole product in one run, and the sample call that it plays."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import wave
from pathlib import Path
from types import ModuleType

import pytest

from aii.evaluation import words_of
from aii.resources import asset

ROOT = Path(__file__).resolve().parent.parent


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    return _script("demo")


def test_the_demo_hears_the_sample_call(
    demo: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    assert demo.main(["--fast"]) == 0
    said, heard = capfd.readouterr()
    assert heard == ""
    lines = said.splitlines()
    assert re.fullmatch(r"aii: listening on 127\.0\.0\.1:\d+", lines[2])
    assert lines[4] == "Playing sample_call.slin: 37.5 s, call id demo-call"
    finals = [m[1] for line in lines if (m := re.match(r" +[\d.]+ - [\d.]+ s  (.*)", line))]
    assert len(finals) >= 2  # the 30 s reset and the end of the call
    reference = " ".join(asset("sample_call.txt").read_text().split())
    assert f"Said:  {reference}" in lines
    assert f"Heard: {' '.join(' '.join(finals).split())}" in lines
    rate = re.match(r"word error rate ([\d.]+)%", lines[-1])
    assert rate is not None
    assert float(rate[1]) <= 5.0, lines[-1]


def test_a_model_that_is_not_there(demo: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--model", "nothing.pt"]) == 1
    assert "demo: error: the server did not start: " in capfd.readouterr().err


def test_audio_that_is_not_there(demo: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--audio", "nothing.slin"]) == 1
    assert "nothing.slin" in capfd.readouterr().err


def test_how_events_are_shown(demo: ModuleType) -> None:
    partial = {"type": "partial", "start": 0.0, "end": 5.0, "text": " press five"}
    assert demo.line_of(partial) == "    5.0 s  ... press five"
    final = {"type": "final", "start": 30.0, "end": 37.54, "text": " thank you"}
    assert demo.line_of(final) == "   30.0 - 37.5 s  thank you"
    skipped = {"type": "skipped", "start": 5.0, "end": 25.0, "reason": "behind"}
    assert demo.line_of(skipped) == "   25.0 s  (skipped: behind)"
    assert demo.line_of({"type": "ended"}) is None


def test_sample_call_is_long_enough_for_a_reset() -> None:
    slin = asset("sample_call.slin").read_bytes()
    assert 33 < len(slin) / 32_000 < 40
    with wave.open(str(asset("sample_call.wav"))) as file:
        assert file.getparams()[:3] == (1, 2, 16_000)
        assert file.readframes(file.getnframes()) == slin
    assert 40 < len(words_of(asset("sample_call.txt").read_text())) < 100


def test_sample_call_can_be_made_again(tmp_path: Path) -> None:
    if shutil.which("flite") is None or shutil.which("espeak-ng") is None:
        pytest.skip("the two synthesisers are not installed: apt install espeak-ng flite")
    script = str(ROOT / "scripts" / "make_sample_call.py")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        command = [sys.executable, script, "--output", str(tmp_path / folder)]
        environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
        subprocess.run(command, check=True, capture_output=True, timeout=200, env=environment)
    for name in ("sample_call.slin", "sample_call.wav", "sample_call.txt"):
        made = (tmp_path / "a" / name).read_bytes()
        assert made == (tmp_path / "b" / name).read_bytes()
        if name.endswith(".txt"):
            assert made == asset(name).read_bytes()
