"""What a change of the model leaves behind, looked at in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from aii.model import ModelDimensions, Whisper

ROOT = Path(__file__).resolve().parent.parent.parent

SCRIPT = """
import json, sys, threading, time
from pathlib import Path
from aii.cli.parts import build
from aii.config import ServerConfig

def resident():  # MB, without the pages of files
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1e3

def change(name):  # on a thread that goes again, as the web listener does it
    thread = threading.Thread(target=parts.models.change, args=(name, "en"))
    thread.start()
    thread.join()

def wait_for(count):
    until = time.monotonic() + 60
    retiring = lambda: "aii-retire" in [thread.name for thread in threading.enumerate()]
    while parts.models.engines != count or retiring():
        assert time.monotonic() < until, "the old model stays"
        time.sleep(0.02)

parts = build(ServerConfig(threads=1, sink=("none",)), sys.stderr)
change(sys.argv[1])
wait_for(1)
parts.models.bind("a call")  # stays with the large model
change("embedded")
wait_for(2)
during = resident()
parts.models.release("a call")
wait_for(1)
print(json.dumps({"during": during, "after": resident()}))
parts.close()
"""


def test_the_memory_of_a_model_is_given_back_when_its_last_call_ends(tmp_path: Path) -> None:
    """To the system, not only to the C library, which would keep it."""
    dims = ModelDimensions(80, 1500, 512, 8, 4, 51865, 448, 512, 8, 4)
    weights = Whisper(dims).half().state_dict()
    size = sum(value.numel() for value in weights.values()) * 2 / 1e6
    path = tmp_path / "large.pt"
    torch.save({"dims": vars(dims), "model_state_dict": weights}, path)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert size > 100
    assert found["during"] - found["after"] > 0.8 * size, found
