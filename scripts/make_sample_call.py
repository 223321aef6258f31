"""Make the sample call: assets/sample_call.slin, sample_call.wav and sample_call.txt.

A menu (flite's voice slt) and a caller (espeak-ng, American) talk for a good half minute, both on
one channel as a PBX records them, with a little noise on the line. They say what the embedded model
knows: digits and telephone phrases. The outcome is the same every time, given the same versions of
the two synthesisers (Debian 12: espeak-ng 1.51, flite 2.2).

    python scripts/make_sample_call.py [--output FOLDER]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aii.audio.files import load_audio
from aii.audio.pcm import float_to_slin
from aii.types import SAMPLE_RATE

ASSETS = Path(__file__).resolve().parent.parent / "assets"
PEAK = 0.6  # of full scale, for each utterance
NOISE = 0.0012  # standard deviation, about -58 dB of full scale
LEAD_IN = 0.6  # seconds of line noise before the first word


@dataclass(frozen=True)
class Turn:
    """One utterance and the seconds of silence after it."""

    speaker: str
    text: str
    pause: float


CALL = (
    Turn("menu", "hello", 0.7),
    Turn("menu", "your call is important to us", 0.8),
    Turn("menu", "press two for sales", 0.7),
    Turn("menu", "press five for billing", 0.9),
    Turn("caller", "five", 0.8),
    Turn("menu", "one moment please", 1.0),
    Turn("menu", "hello", 0.6),
    Turn("caller", "what is my balance", 0.8),
    Turn("menu", "what is your account number", 0.7),
    Turn("caller", "my account number is four seven one nine", 0.9),
    Turn("menu", "four seven one nine", 0.6),
    Turn("caller", "yes please", 0.9),
    Turn("caller", "the code is three nine zero six", 0.8),
    Turn("menu", "thank you", 0.7),
    Turn("caller", "cancel my order", 0.9),
    Turn("menu", "one moment please", 0.9),
    Turn("caller", "thank you", 0.6),
    Turn("menu", "goodbye", 0.7),
    Turn("caller", "goodbye", 0.6),
)


def speak(turn: Turn, folder: Path) -> np.ndarray:
    """(N,) float32 at 16 kHz: the utterance without silence around it, at the common loudness."""
    path = folder / "utterance.wav"
    commands = {
        "menu": ["flite", "-voice", "slt", "-t", turn.text, "-o", str(path)],
        "caller": ["espeak-ng", "-v", "en-us", "-s", "150", "-w", str(path), turn.text],
    }
    subprocess.run(commands[turn.speaker], check=True, timeout=60)
    samples = load_audio(str(path))
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    samples = samples[max(0, loud[0] - 320) : loud[-1] + 800]
    return samples * (PEAK / np.abs(samples).max())


def call(turns: tuple[Turn, ...] = CALL) -> np.ndarray:
    """(N,) float32 at 16 kHz: the whole conversation with noise on the line."""
    pieces = [np.zeros(int(LEAD_IN * SAMPLE_RATE), np.float32)]
    with tempfile.TemporaryDirectory() as folder:
        for turn in turns:
            silence = np.zeros(int(turn.pause * SAMPLE_RATE), np.float32)
            pieces += [speak(turn, Path(folder)), silence]
    samples = np.concatenate(pieces)
    noise = np.random.default_rng(8300).standard_normal(len(samples)) * NOISE
    return (samples + noise).astype(np.float32)


def main() -> int:
    """Write the three files."""
    parser = argparse.ArgumentParser(description="Make the sample call with espeak-ng and flite.")
    parser.add_argument("--output", type=Path, default=ASSETS, help="folder (default: assets)")
    folder = parser.parse_args().output
    for program in ("espeak-ng", "flite"):
        if shutil.which(program) is None:
            print(f"make_sample_call: run first: apt install {program}", file=sys.stderr)
            return 2
    slin = float_to_slin(call())
    (folder / "sample_call.slin").write_bytes(slin)
    with wave.open(str(folder / "sample_call.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(slin)
    (folder / "sample_call.txt").write_text("\n".join(turn.text for turn in CALL) + "\n")
    print(f"{len(slin) / 2 / SAMPLE_RATE:.1f} s in {folder}/sample_call.slin, .wav and .txt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
