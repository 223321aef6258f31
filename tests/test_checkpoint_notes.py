"""The notes of a checkpoint: what we act on is checked when it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from aii.checkpoints import describe, load_model
from aii.errors import CheckpointError
from aii.model import ModelDimensions, Whisper

DIMS = ModelDimensions(
    n_mels=80,
    n_audio_ctx=30,
    n_audio_state=16,
    n_audio_head=2,
    n_audio_layer=1,
    n_vocab=51864,
    n_text_ctx=20,
    n_text_state=16,
    n_text_head=4,
    n_text_layer=1,
)


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Any]:
    return {"dims": dict(vars(DIMS)), "model_state_dict": Whisper(DIMS).half().state_dict()}


@pytest.mark.parametrize(
    "note, expected",
    [
        ({"language": "klingon"}, "note 'language' is 'klingon'; it must be a language's code"),
        ({"language": "English"}, "note 'language' is 'English'"),
        ({"language": 5}, "note 'language' is 5"),
        ({"audio_context": "long"}, "note 'audio_context' is 'long'; it must be 'full', 'auto' or"),
        ({"audio_context": True}, "note 'audio_context' is True"),
        ({"audio_context": -1.0}, "note 'audio_context' is -1.0"),
        ({"audio_context": None}, "note 'audio_context' is None"),
        ({"fallback": 0}, "note 'fallback' is 0; it must be true or false"),
        (
            {"condition_on_previous_text": "no"},
            "note 'condition_on_previous_text' is 'no'; it must be true or false",
        ),
        ({"attention_back": "17"}, "note 'attention_back' is '17'; it must be a number of frames"),
        ({"attention_back": True}, "note 'attention_back' is True"),
        ({"attention_back": 0}, "note 'attention_back' is 0"),
    ],
)
def test_notes_that_make_no_sense(
    checkpoint: dict[str, Any], tmp_path: Path, note: dict[str, Any], expected: str
) -> None:
    torch.save(checkpoint | {"aii": note}, tmp_path / "n.pt")
    for open_it in (load_model, describe):
        with pytest.raises(CheckpointError) as caught:
            open_it(str(tmp_path / "n.pt"))
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "note",
    [
        {"language": None},
        {"audio_context": 7.5},
        {"audio_context": "5"},
        {"fallback": False},
        {"attention_back": 17},
    ],
)
def test_notes_that_make_sense(
    checkpoint: dict[str, Any], tmp_path: Path, note: dict[str, Any]
) -> None:
    torch.save(checkpoint | {"aii": note}, tmp_path / "n.pt")
    assert load_model(str(tmp_path / "n.pt")).metadata == note
