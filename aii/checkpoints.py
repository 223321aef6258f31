"""Weights in: from a name or a file to a ``Whisper`` that can be trusted to be what it says.

A checkpoint is what ``torch.save`` makes of ``{"dims": {...}, "model_state_dict": {...}}``, with an
optional plain dictionary ``"aii"`` that says what the model is for (OpenAI's format), or a folder
in Hugging Face's layout (``aii.hf_checkpoints``). These two modules alone open weights. Nothing in
a file is executed (``weights_only=True``), and nothing is allocated on its word: the archive, the
dimensions, and each tensor's name, shape and type are checked first. What is wrong comes out as one
``CheckpointError``.
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

from aii.audio_context import parse_audio_context
from aii.compute import convert
from aii.errors import CheckpointError, InputError
from aii.hf_checkpoints import HF_DIMS, hf_name, openai_name, read_folder
from aii.hub import EMBEDDED, MODELS, available_models, cache_folder, is_model_folder, resolve
from aii.languages import LANGUAGES
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
_WANTED = "wanted is a .pt file in OpenAI's format, or Hugging Face's folder of a Whisper"


@dataclass(frozen=True)
class _Source:
    """What was read, unchecked, and what its makers call things.

    Attributes:
        path: a file or a folder.
        dims: under OpenAI's names.
        weights: under OpenAI's names.
        notes: for ``Whisper.metadata``.
        size: bytes.
        heads: (layer, head) pairs that follow the audio, None where nothing says so.
        foreign: whether the names there are Hugging Face's.
    """

    path: Path
    dims: Any
    weights: Any
    notes: Any
    size: int
    heads: list[tuple[int, int]] | None = None
    foreign: bool = False

    def dim(self, name: str) -> str:
        """What the source calls a dimension."""
        return HF_DIMS[name] if self.foreign else name

    def weight(self, name: str) -> str:
        """What the source calls a weight."""
        theirs = hf_name(name) if self.foreign else name
        return theirs if openai_name(theirs) == name else name


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
    compute_type: str = "float32",
) -> Whisper:
    """A model, ready to transcribe, on ``device``, in evaluation mode.

    Args:
        name: a published name (see ``available_models``), "embedded", or the path of a file in
            OpenAI's format or of a folder in Hugging Face's.
        device: where to put it; CUDA where there is one, else the CPU, when None.
        download_root: folder for downloaded models; ``cache_folder()`` when None.
        in_memory: read the file into memory before opening it, instead of mapping it.
        compute_type: what it computes in, see :mod:`aii.compute`; "float32" is exact.

    Raises:
        ConfigError: there is no such compute type, or the device cannot.
        CheckpointError: the name is unknown, or the file is not a sound checkpoint.
        DownloadError: a published model is not here and could not be fetched.
        MissingExtraError: a folder was given, and ``safetensors`` is not installed.
    """
    source = _read(resolve(name, download_root), in_memory)
    dims = _dims(source)
    metadata = _metadata(source)
    heads = _heads(source, dims)
    model = _blueprint(dims)
    state = _state(source, model)
    _require_finite(source, state)
    model.load_state_dict(_on_device(state, device), assign=True)
    model.metadata = metadata
    if heads is not None:
        model.register_buffer("alignment_heads", heads.to(model.device), persistent=False)
    elif name in MODELS:
        model.set_alignment_heads(MODELS[name].alignment_heads)
    return convert(model.to(model.device).eval(), compute_type)


def describe(path: str | os.PathLike[str]) -> Description:
    """Read dimensions and notes of a checkpoint and check its shape; the weights stay on disk.

    Raises:
        CheckpointError: the file is not a sound checkpoint.
    """
    source = _read(Path(path), in_memory=False)
    dims = _dims(source)
    _heads(source, dims)
    state = _state(source, _blueprint(dims))
    return Description(
        dims=dims,
        metadata=_metadata(source),
        parameters=sum(tensor.numel() for tensor in state.values()),
        dtype=str(next(iter(state.values())).dtype).removeprefix("torch."),
        size=source.size,
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


def _read(path: Path, in_memory: bool) -> _Source:
    """Whatever is at ``path``, read as what it is."""
    if is_model_folder(path):
        folder = read_folder(path, in_memory=in_memory)
        notes, heads = folder.notes, folder.heads
        return _Source(path, folder.dims, folder.weights, notes, folder.size, heads, foreign=True)
    checkpoint = _open(path, in_memory)
    if "dims" not in checkpoint or "model_state_dict" not in checkpoint:
        keys = [str(key) for key in list(checkpoint)[:3]]
        if any("encoder." in key or "decoder." in key for key in keys):
            raise CheckpointError(
                f"{path} has a bare layout, without dimensions; give the folder that it is from, "
                f"with its config.json; {_WANTED}"
            )
        raise CheckpointError(f"{path} lacks dims or model_state_dict (it has {keys}); {_WANTED}")
    dims, state = checkpoint["dims"], checkpoint["model_state_dict"]
    return _Source(path, dims, state, checkpoint.get("aii", {}), path.stat().st_size)


def _open(path: Path, in_memory: bool) -> dict[str, Any]:
    """Unpickle without executing; tensors are mapped from the file, or read when ``in_memory``."""
    try:
        if path.is_dir():
            raise CheckpointError(f"{path} is a folder without a config.json; {_WANTED}")
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
        raise CheckpointError(
            f"{path} is a safetensors file; give the folder that it is in, with its config.json"
        )
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


def _dims(source: _Source) -> ModelDimensions:
    """The dimensions, once each is a number that a Whisper can have."""
    dims, path, called = source.dims, source.path, source.dim
    names = [field.name for field in dataclasses.fields(ModelDimensions)]
    if not isinstance(dims, dict) or set(dims) != set(names):
        raise CheckpointError(f"{path}: dims must hold exactly {', '.join(names)}")
    for name in names:
        value = dims[name]
        if type(value) is not int or value < 1:
            raise CheckpointError(
                f"{path}: {called(name)} is {value!r:.40}; it must be a positive integer"
            )
        if value > _LIMITS.get(name, value):
            raise CheckpointError(
                f"{path}: {called(name)} is {value}; at most {_LIMITS[name]} is allowed"
            )
    for name, known in (("n_vocab", _VOCABULARIES), ("n_mels", _MEL_CHANNELS)):
        if dims[name] not in known:
            raise CheckpointError(f"{path}: {called(name)} is {dims[name]}; known are {known}")
    for side in ("audio", "text"):
        state, heads = dims[f"n_{side}_state"], dims[f"n_{side}_head"]
        if state % heads or state % 2:
            raise CheckpointError(f"{path}: {heads} {side} heads do not divide {state} channels")
    if dims["n_audio_state"] != dims["n_text_state"]:
        raise CheckpointError(f"{path}: n_audio_state and n_text_state differ; they must be equal")
    return ModelDimensions(**dims)


def _state(source: _Source, blueprint: Whisper) -> dict[str, torch.Tensor]:
    """The weights, once their names, kinds and shapes are those of the blueprint."""
    state, path, called = source.weights, source.path, source.weight
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: model_state_dict is a {type(state).__name__}, no dict")
    expected = blueprint.state_dict()
    if sum(tensor.numel() for tensor in expected.values()) * 2 > source.size:
        raise CheckpointError(f"{path} is too small for the dimensions that it announces")
    for name in expected:
        if name not in state:
            raise CheckpointError(f"{path}: weight {called(name)} is missing")
    for name, tensor in state.items():
        if name not in expected:
            raise CheckpointError(
                f"{path}: weight {called(str(name))[:80]!r} is unknown to Whisper"
            )
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
            raise CheckpointError(f"{path}: weight {called(name)} is no plain tensor")
        if tensor.dtype not in _FLOATS or tensor.device.type != "cpu":
            raise CheckpointError(
                f"{path}: weight {called(name)} is {tensor.dtype} on {tensor.device}"
            )
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{path}: weight {called(name)} is {tuple(tensor.shape)}, "
                f"wanted by dims is {tuple(expected[name].shape)}"
            )
    return state


def _require_finite(source: _Source, state: dict[str, torch.Tensor]) -> None:
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"{source.path}: weight {source.weight(name)} has values that are no finite numbers"
            )


def _heads(source: _Source, dims: ModelDimensions) -> torch.Tensor | None:
    """The heads that follow the audio, sparse (layers, heads), where the source names them."""
    if source.heads is None:
        return None
    flags = torch.zeros(dims.n_text_layer, dims.n_text_head, dtype=torch.bool)
    for layer, head in source.heads:
        if layer >= dims.n_text_layer or head >= dims.n_text_head:
            raise CheckpointError(
                f"{source.path}: alignment_heads names head {head} of layer {layer}; the model has "
                f"{dims.n_text_head} heads in {dims.n_text_layer} layers"
            )
        flags[layer, head] = True
    return flags.to_sparse()


def _metadata(source: _Source) -> dict[str, Any]:
    """The optional notes: plain, flat and small, and what we act on makes sense."""
    notes, path = source.notes, source.path
    if not isinstance(notes, dict) or len(notes) > _MAX_NOTES:
        raise CheckpointError(f"{path}: the notes under 'aii' must be a small dictionary")
    for key, value in notes.items():
        plain = value is None or type(value) in (str, int, float, bool)
        if type(key) is not str or not plain or len(str(value)) > 4096:
            raise CheckpointError(f"{path}: note {str(key)[:40]!r} under 'aii' is no plain value")
    language = notes.get("language")
    if language is not None and language not in LANGUAGES:
        raise CheckpointError(
            f"{path}: note 'language' is {language!r:.40}; it must be a language's code, as in 'en'"
        )
    context = notes.get("audio_context", "full")
    try:
        if isinstance(context, bool):
            raise InputError
        parse_audio_context(context)
    except InputError:
        raise CheckpointError(
            f"{path}: note 'audio_context' is {context!r:.40}; it must be 'full', 'auto' or seconds"
        ) from None
    for name in ("fallback", "condition_on_previous_text"):
        if not isinstance(notes.get(name, True), bool):
            wrong = f"{name!r} is {notes[name]!r:.40}; it must be true or false"
            raise CheckpointError(f"{path}: note {wrong}")
    back = notes.get("attention_back", 1)
    if type(back) is not int or back < 1:
        wrong = f"'attention_back' is {back!r:.40}; it must be a number of frames"
        raise CheckpointError(f"{path}: note {wrong}")
    return dict(notes)


def _refused(error: pickle.UnpicklingError) -> str:
    """The name that a hostile or foreign pickle wanted to have called."""
    _, _, name = str(error).partition("GLOBAL ")
    return f"it calls for {name.split()[0][:80]}" if name.split() else "its contents are not plain"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
