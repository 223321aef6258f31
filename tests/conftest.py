"""Fixtures for all tests: small networks, the embedded model, recordings."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("AII_TEST_DATA", ROOT.parent / "shared" / "data"))

# What a shell starts in the background ignores SIGINT, and so does all that a test starts then.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small models run fastest, and most evenly, on one thread."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_chance() -> None:
    """Every test starts from the same random numbers."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(params=["loops", "operations"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes of the decoder by compiled loops, and without them."""
    from aii import attention, compiled, compute, fused, ragged, search

    if request.param == "operations":
        for module in (attention, compute, fused, ragged, search):
            monkeypatch.setattr(module, "kernels", lambda: None)
    elif compiled.kernels() is None:
        pytest.skip("numba is not installed: aii[fast]")


@pytest.fixture
def no_gradients():
    """Nothing is trained, and chance is the same each time."""
    import torch

    torch.manual_seed(3)
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def embedded_model():
    """The model that aii ships."""
    from aii.checkpoints import load_model

    return load_model("embedded", device="cpu")


@pytest.fixture(scope="session")
def tiny_model():
    """A multilingual network of random weights, too small to be slow."""
    import torch

    from aii.model import ModelDimensions, Whisper

    torch.manual_seed(1)
    dims = ModelDimensions(
        n_mels=80,
        n_audio_ctx=1500,
        n_audio_state=32,
        n_audio_head=2,
        n_audio_layer=1,
        n_vocab=51865,
        n_text_ctx=448,
        n_text_state=32,
        n_text_head=2,
        n_text_layer=2,
    )
    return Whisper(dims).eval()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings; tests that need it skip without it."""
    if not DATA.is_dir():
        pytest.skip(f"real recordings are not at {DATA}; set AII_TEST_DATA to their folder")
    return DATA


@pytest.fixture(scope="session")
def jfk(shared_data: Path) -> Path:
    """11 s of real speech, openai-whisper's own test file."""
    path = shared_data / "jfk.flac"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    return path
