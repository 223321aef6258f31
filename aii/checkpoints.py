"""Weights in: from a name or a file to a ``Whisper`` that can be trusted to be what it says.

The only file that opens weights. A checkpoint is what ``torch.save`` makes of
``{"dims": {...}, "model_state_dict": {...}}`` (OpenAI's format), with an optional plain dictionary
``"aii"`` that says what the model is for. Nothing in a file is executed (``weights_only=True``),
and nothing is allocated on its word: the archive, the dimensions, and each tensor's name, shape and
type are checked first. What is wrong comes out as one ``CheckpointError``.
"""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aii.errors import CheckpointError
from aii.hub import EMBEDDED, MODELS, available_models, cache_folder, resolve
from aii.model import ModelDimensions, Whisper

__all__ = [
    "EMBEDDED",
    "MODELS",
    "Description",
    "available_models",
    "cache_folder",
    "describe",
    "load_model",
    "resolve",
]

_MAX_PICKLE = 16 << 20  # bytes of data.pkl; large-v3's has 0.2 MB
_MAX_NOTES = 64  # entries of the "aii" dictionary
_VOCABULARIES = (51864, 51865, 51866)
_MEL_CHANNELS = (80, 128)
_LIMITS = {
    "n_audio_ctx": 1500,  # encoder frames in 30 s
    "n_audio_state": 4096,
    "n_audio_head": 64,
    "n_audio_layer": 128,
    "n_text_ctx": 4096,
    "n_text_state": 4096,
    "n_text_head": 64,
    "n_text_layer": 128,
}
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_OLD_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_MAGIC = (  # what a file that is no checkpoint may begin with, and what to say of it
    (b"lmgg", "is in whisper.cpp's format"),
    (b"GGUF", "is in whisper.cpp's format"),
    (b"<", "is a web page, not weights; the download must have gone wrong"),
    (b"version https://git-lfs", "is a Git LFS pointer, not the weights; run: git lfs pull"),
    (b"RIFF", "is a sound file"),
    (_OLD_TORCH, "is in PyTorch's format before 1.6; load it with PyTorch and save it again"),
)
_WANTED = "wanted is a .pt file in OpenAI's format"


@dataclass(frozen=True)
class Description:
    """What a checkpoint says of itself.

    Attributes:
        dims: the model's dimensions.
        metadata: the optional ``"aii"`` dictionary; empty for OpenAI's own files.
        parameters: how many weights there are.
        dtype: how they are stored, as in "float16".
        size: bytes of the file.
    """

    dims: ModelDimensions
    metadata: dict[str, Any]
    parameters: int
    dtype: str
    size: int


def load_model(
    name: str,
    device: str | torch.device | None = None,
    download_root: str | None = None,
    in_memory: bool = False,
) -> Whisper:
    """A model, ready to transcribe: float32 weights on ``device``, in evaluation mode.

    Args:
        name: a published name (see ``available_models``), "embedded", or the path of a file.
        device: where to put it; CUDA where there is one, else the CPU, when None.
        download_root: folder for downloaded models; ``cache_folder()`` when None.
        in_memory: read the file into memory before opening it, instead of mapping it.

    Raises:
        CheckpointError: the name is unknown, or the file is not a sound checkpoint.
        DownloadError: a published model is not here and could not be fetched.
    """
    path = resolve(name, download_root)
    checkpoint = _open(path, in_memory)
    dims = _dims(checkpoint, path)
    metadata = _metadata(checkpoint, path)
    model = _blueprint(dims)
    state = _state(checkpoint, model, path)
    _require_finite(state, path)
    model.load_state_dict(_on_device(state, device), assign=True)
    model.metadata = metadata
    if name in MODELS:
        model.set_alignment_heads(MODELS[name].alignment_heads)
    return model.to(model.device).eval()


def describe(path: str | os.PathLike[str]) -> Description:
    """Read dimensions and notes of a checkpoint and check its shape; the weights stay on disk.

    Raises:
        CheckpointError: the file is not a sound checkpoint.
    """
    file = Path(path)
    checkpoint = _open(file, in_memory=False)
    dims = _dims(checkpoint, file)
    state = _state(checkpoint, _blueprint(dims), file)
    return Description(
        dims=dims,
        metadata=_metadata(checkpoint, file),
        parameters=sum(tensor.numel() for tensor in state.values()),
        dtype=str(next(iter(state.values())).dtype).removeprefix("torch."),
        size=file.stat().st_size,
    )


def _blueprint(dims: ModelDimensions) -> Whisper:
    """A model on the "meta" device: names and shapes, and no memory."""
    with torch.device("meta"):
        return Whisper(dims)


def _on_device(
    state: dict[str, torch.Tensor], device: str | torch.device | None
) -> dict[str, torch.Tensor]:
    """Copies of the weights as float32 on ``device``; the mapped file is not needed after."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return {k: v.to(device, torch.float32, copy=True) for k, v in state.items()}
    except (RuntimeError, AssertionError) as error:
        raise CheckpointError(
            f"cannot put the model on device {device}: {_first_line(error)}"
        ) from error


def _open(path: Path, in_memory: bool) -> dict[str, Any]:
    """Unpickle without executing; tensors are mapped from the file, or read when ``in_memory``."""
    try:
        if path.is_dir():
            raise CheckpointError(f"{path} is a folder; {_WANTED}")
        _check_archive(path)
        if in_memory:
            source: Any = io.BytesIO(path.read_bytes())
            loaded = torch.load(source, map_location="cpu", weights_only=True)
        else:
            loaded = torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than weights ({_refused(error)}); it was not executed; {_WANTED}"
        ) from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle can raise anything; none of it is our fault
        raise CheckpointError(f"{path} is damaged ({_first_line(error)}); {_WANTED}") from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}, no checkpoint; {_WANTED}")
    return loaded


def _check_archive(path: Path) -> None:
    """Refuse, by looking at the container alone, what is no checkpoint or would blow up."""
    with path.open("rb") as file:
        head = file.read(64)
    size = path.stat().st_size
    if not head:
        raise CheckpointError(f"{path} is empty; {_WANTED}")
    for magic, verdict in _MAGIC:
        if head.lstrip().startswith(magic) or head.startswith(magic):
            raise CheckpointError(f"{path} {verdict}; {_WANTED}")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        raise CheckpointError(f"{path} is a safetensors file; {_WANTED}")
    if not head.startswith(b"PK"):
        raise CheckpointError(f"{path} is not a PyTorch checkpoint; {_WANTED}")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or damaged; fetch it again") from error
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(f"{path} is a compressed archive, no checkpoint; {_WANTED}")
    if sum(entry.file_size for entry in entries) > size:
        raise CheckpointError(f"{path} announces more data than it has; it is damaged")
    pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
    if not pickles:
        raise CheckpointError(f"{path} is an archive without weights; {_WANTED}")
    if any(entry.file_size > _MAX_PICKLE for entry in pickles):
        raise CheckpointError(f"{path} has a table of contents too large to be true")


def _dims(checkpoint: dict[str, Any], path: Path) -> ModelDimensions:
    """The dimensions, once each is a number that a Whisper can have."""
    if "dims" not in checkpoint or "model_state_dict" not in checkpoint:
        keys = [str(key) for key in list(checkpoint)[:3]]
        if any("encoder." in key or "decoder." in key for key in keys):
            raise CheckpointError(f"{path} has Hugging Face's or a bare layout; {_WANTED}")
        raise CheckpointError(f"{path} lacks dims or model_state_dict (it has {keys}); {_WANTED}")
    dims = checkpoint["dims"]
    names = [field.name for field in dataclasses.fields(ModelDimensions)]
    if not isinstance(dims, dict) or set(dims) != set(names):
        raise CheckpointError(f"{path}: dims must hold exactly {', '.join(names)}")
    for name in names:
        value = dims[name]
        if type(value) is not int or value < 1:
            raise CheckpointError(f"{path}: {name} is {value!r:.40}; it must be a positive integer")
        if value > _LIMITS.get(name, value):
            raise CheckpointError(f"{path}: {name} is {value}; at most {_LIMITS[name]} is allowed")
    if dims["n_vocab"] not in _VOCABULARIES:
        raise CheckpointError(f"{path}: n_vocab is {dims['n_vocab']}; known are {_VOCABULARIES}")
    if dims["n_mels"] not in _MEL_CHANNELS:
        raise CheckpointError(f"{path}: n_mels is {dims['n_mels']}; known are {_MEL_CHANNELS}")
    for side in ("audio", "text"):
        state, heads = dims[f"n_{side}_state"], dims[f"n_{side}_head"]
        if state % heads or state % 2:
            raise CheckpointError(f"{path}: {heads} {side} heads do not divide {state} channels")
    if dims["n_audio_state"] != dims["n_text_state"]:
        raise CheckpointError(f"{path}: n_audio_state and n_text_state differ; they must be equal")
    return ModelDimensions(**dims)


def _state(checkpoint: dict[str, Any], blueprint: Whisper, path: Path) -> dict[str, torch.Tensor]:
    """The weights, once their names, kinds and shapes are those of the blueprint."""
    state = checkpoint["model_state_dict"]
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: model_state_dict is a {type(state).__name__}, no dict")
    expected = blueprint.state_dict()
    if sum(tensor.numel() for tensor in expected.values()) * 2 > path.stat().st_size:
        raise CheckpointError(f"{path} is too small for the dimensions that it announces")
    for name in expected:
        if name not in state:
            raise CheckpointError(f"{path}: weight {name} is missing")
    for name, tensor in state.items():
        if name not in expected:
            raise CheckpointError(f"{path}: weight {str(name)[:80]!r} is unknown to Whisper")
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
            raise CheckpointError(f"{path}: weight {name} is no plain tensor")
        if tensor.dtype not in _FLOATS or tensor.device.type != "cpu":
            raise CheckpointError(f"{path}: weight {name} is {tensor.dtype} on {tensor.device}")
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{path}: weight {name} is {tuple(tensor.shape)}, "
                f"wanted by dims is {tuple(expected[name].shape)}"
            )
    return state


def _require_finite(state: dict[str, torch.Tensor], path: Path) -> None:
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{path}: weight {name} has values that are no finite numbers")


def _metadata(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """The optional ``"aii"`` dictionary: plain, flat and small."""
    notes = checkpoint.get("aii", {})
    if not isinstance(notes, dict) or len(notes) > _MAX_NOTES:
        raise CheckpointError(f"{path}: the notes under 'aii' must be a small dictionary")
    for key, value in notes.items():
        plain = value is None or type(value) in (str, int, float, bool)
        if type(key) is not str or not plain or len(str(value)) > 4096:
            raise CheckpointError(f"{path}: note {str(key)[:40]!r} under 'aii' is no plain value")
    return dict(notes)


def _refused(error: pickle.UnpicklingError) -> str:
    """The name that a hostile or foreign pickle wanted to have called."""
    words = str(error).split()
    if "GLOBAL" in words and words.index("GLOBAL") + 1 < len(words):
        return "it calls for " + words[words.index("GLOBAL") + 1][:80]
    return "its contents are not plain"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
