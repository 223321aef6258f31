"""Whisper in Hugging Face's layout: a folder, its names turned into OpenAI's.

Such a folder has ``config.json`` (the dimensions), ``model.safetensors`` (or several files and
``model.safetensors.index.json``, which says what is where) and often ``generation_config.json``
(the alignment heads, tokens never to be chosen). The layout is that of ``transformers``'
``WhisperForConditionalGeneration``; the weights are the same as OpenAI's under other names.

Reading weights needs the ``safetensors`` package (``pip install 'aii[hf]'``). As with OpenAI's
files nothing is executed, and nothing is allocated on a file's word; ``aii.checkpoints`` checks
dimensions, names, shapes and types of both alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aii.errors import CheckpointError, MissingExtraError

if TYPE_CHECKING:
    import torch

CONFIG = "config.json"
GENERATION = "generation_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

_MOST_JSON = 8 << 20  # bytes; large-v3's index has 0.1 MB
_MOST_SHARDS = 256
_MOST_HEADS = 4096
_MOST_SUPPRESSED = 512  # tokens; OpenAI's list has 90

HF_DIMS = {
    "n_mels": "num_mel_bins",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads",
    "n_audio_layer": "encoder_layers",
    "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions",
    "n_text_state": "d_model",
    "n_text_head": "decoder_attention_heads",
    "n_text_layer": "decoder_layers",
}
"""OpenAI's names of the dimensions and Hugging Face's."""

_FIXED: dict[str, Any] = {"activation_function": "gelu", "scale_embedding": False}
_WHOLE = {  # outside the layers
    "encoder.positional_embedding": "encoder.embed_positions.weight",
    "encoder.ln_post": "encoder.layer_norm",
    "decoder.token_embedding": "decoder.embed_tokens",
    "decoder.positional_embedding": "decoder.embed_positions.weight",
    "decoder.ln": "decoder.layer_norm",
}
_ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
_PARTS = {  # of a layer
    **{f"attn.{ours}": f"self_attn.{theirs}" for ours, theirs in _ATTENTION.items()},
    **{f"cross_attn.{ours}": f"encoder_attn.{theirs}" for ours, theirs in _ATTENTION.items()},
    "attn_ln": "self_attn_layer_norm",
    "cross_attn_ln": "encoder_attn_layer_norm",
    "mlp.0": "fc1",
    "mlp.2": "fc2",
    "mlp_ln": "final_layer_norm",
}
_PARTS_BACK = {theirs: ours for ours, theirs in _PARTS.items()}
_WHOLE_BACK = {theirs: ours for ours, theirs in _WHOLE.items()}
_TIED = "proj_out.weight"  # the projection to the vocabulary, which is the token table


@dataclass
class HfFolder:
    """What a folder holds.

    Attributes:
        dims: the dimensions under OpenAI's names, unchecked.
        weights: tensors under OpenAI's names; of unknown ones, under their own.
        heads: (layer, head) pairs that follow the audio, or None where the folder names none.
        notes: plain values for ``Whisper.metadata``.
        size: bytes of the weights' files.
    """

    dims: dict[str, Any]
    weights: dict[str, torch.Tensor]
    heads: list[tuple[int, int]] | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    size: int = 0


def hf_name(name: str) -> str:
    """Hugging Face's name of a weight, from OpenAI's: ``decoder.blocks.0.mlp.0.bias`` is
    ``model.decoder.layers.0.fc1.bias``."""
    side, _, rest = name.partition(".blocks.")
    if rest:
        number, _, part = rest.partition(".")
        part, _, kind = part.rpartition(".")
        return f"model.{side}.layers.{number}.{_PARTS.get(part, part)}.{kind}"
    if name in _WHOLE:
        return f"model.{_WHOLE[name]}"
    part, _, kind = name.rpartition(".")
    return f"model.{_WHOLE.get(part, part)}.{kind}"


def openai_name(name: str) -> str:
    """The reverse of :func:`hf_name`, with or without the leading ``model.``; a name that it does
    not know comes back as it is."""
    bare = name.removeprefix("model.")
    side, _, rest = bare.partition(".layers.")
    if rest:
        number, _, part = rest.partition(".")
        part, _, kind = part.rpartition(".")
        return f"{side}.blocks.{number}.{_PARTS_BACK[part]}.{kind}" if part in _PARTS_BACK else name
    if bare in _WHOLE_BACK:
        return _WHOLE_BACK[bare]
    part, _, kind = bare.rpartition(".")
    if part in _WHOLE_BACK:
        return f"{_WHOLE_BACK[part]}.{kind}"
    return bare if part in ("encoder.conv1", "encoder.conv2") else name


def hf_config(dims: Mapping[str, int]) -> dict[str, Any]:
    """A ``config.json`` for dimensions under OpenAI's names."""
    english = dims["n_vocab"] == 51864
    end = 50256 if english else 50257
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        **{theirs: dims[ours] for ours, theirs in HF_DIMS.items()},
        "encoder_ffn_dim": 4 * dims["n_audio_state"],
        "decoder_ffn_dim": 4 * dims["n_text_state"],
        **_FIXED,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": end + 1,
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
    }


def read_folder(path: Path, *, in_memory: bool = False) -> HfFolder:
    """Read a folder; the tensors are mapped from its files, or read when ``in_memory``.

    Raises:
        CheckpointError: it is not a folder of Whisper's, or something of it is missing or damaged.
        MissingExtraError: the ``safetensors`` package is not installed.
    """
    config = _config(path)
    files = _weight_files(path)
    tensors: dict[str, torch.Tensor] = {}
    for file, promised in files.items():
        found = _tensors(path / file, in_memory)
        if missing := sorted(set(promised) - set(found)):
            raise CheckpointError(f"{path / file}: weight {missing[0]} is missing, {INDEX} has it")
        if twice := sorted(tensors.keys() & found.keys()):
            raise CheckpointError(f"{path}: weight {twice[0][:80]} is there twice")
        tensors.update(found)
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in sorted(tensors.items()):
        if openai_name(name) in weights:
            raise CheckpointError(f"{path}: weight {name[:80]} is there twice")
        weights[openai_name(name)] = tensor
    _untie(weights, path)
    generation = _json(path / GENERATION) if (path / GENERATION).is_file() else {}
    return HfFolder(
        dims={ours: config[theirs] for ours, theirs in HF_DIMS.items()},
        weights=weights,
        heads=_heads(generation, path),
        notes=_notes(generation, config, path),
        size=sum((path / file).stat().st_size for file in files),
    )


def _config(path: Path) -> dict[str, Any]:
    """``config.json``, once it is that of a Whisper that we can compute."""
    if (path / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{path} is an adapter (PEFT), not a whole model; merge it into its base model and "
            "save that"
        )
    if not (path / CONFIG).is_file():
        raise CheckpointError(f"{path} has no {CONFIG}; wanted is Hugging Face's folder of a model")
    config = _json(path / CONFIG)
    kind = config.get("model_type")
    if kind != "whisper":
        raise CheckpointError(f"{path} is a model of type {str(kind)[:40]!r}, not whisper")
    if "quantization_config" in config:
        raise CheckpointError(f"{path} holds quantized weights; wanted are the original ones")
    for name in HF_DIMS.values():
        if name not in config:
            raise CheckpointError(f"{path / CONFIG} lacks {name}")
    for name, wanted in _FIXED.items():
        if config.get(name, wanted) != wanted:
            raise CheckpointError(
                f"{path / CONFIG}: {name} is {str(config[name])[:40]!r}; known is {wanted!r}"
            )
    for name in ("encoder_ffn_dim", "decoder_ffn_dim"):
        width = config["d_model"]
        if type(width) is int and config.get(name, 4 * width) != 4 * width:
            raise CheckpointError(f"{path / CONFIG}: {name} must be 4 x d_model ({4 * width})")
    return config


def _json(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes() if path.stat().st_size <= _MOST_JSON else None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    if text is None:
        raise CheckpointError(f"{path} is too large to be true")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON; fetch it again") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}, wanted is an object")
    return found


def _weight_files(path: Path) -> dict[str, list[str]]:
    """The files of weights and the names that the index promises in each."""
    if (path / WEIGHTS).is_file():
        return {WEIGHTS: []}
    if not (path / INDEX).is_file():
        if any(path.glob("pytorch_model*.bin")):
            raise CheckpointError(
                f"{path} has weights as pickle (pytorch_model.bin) only; save it again with "
                "transformers: model.save_pretrained(folder, safe_serialization=True)"
            )
        raise CheckpointError(f"{path} has neither {WEIGHTS} nor {INDEX}; fetch it again")
    where = _json(path / INDEX).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise CheckpointError(f"{path / INDEX} lacks weight_map")
    files: dict[str, list[str]] = {}
    for name, file in where.items():
        if (
            not isinstance(file, str)
            or Path(file).name != file
            or not file.endswith(".safetensors")
        ):
            raise CheckpointError(
                f"{path / INDEX}: {str(file)[:80]!r} is no .safetensors file of this folder"
            )
        files.setdefault(file, []).append(name)
    if len(files) > _MOST_SHARDS:
        raise CheckpointError(f"{path / INDEX} names {len(files)} files; that is too many")
    for file in files:
        if not (path / file).is_file():
            raise CheckpointError(f"{path / file} is missing, but {INDEX} names it")
    return files


def _tensors(file: Path, in_memory: bool) -> dict[str, torch.Tensor]:
    """All tensors of one file."""
    try:
        import safetensors
        import safetensors.torch
    except ImportError:
        raise MissingExtraError("safetensors", "hf") from None
    try:
        if in_memory:
            return safetensors.torch.load(file.read_bytes())
        with ExitStack() as stack:
            opened = stack.enter_context(safetensors.safe_open(str(file), framework="pt"))
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from error
    except Exception as error:  # safetensors' own error, or what a damaged file makes of torch
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise CheckpointError(f"{file} is damaged ({reason}); fetch it again") from error


def _untie(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Drop the projection to the vocabulary where it is the token table, as in every Whisper."""
    import torch

    projection = weights.pop(_TIED, None)
    table = weights.get("decoder.token_embedding.weight")
    if projection is None:
        return
    if table is None:  # some save the tied one of the two
        weights["decoder.token_embedding.weight"] = projection
    elif projection.shape != table.shape or not torch.equal(projection, table):
        raise CheckpointError(f"{path}: {_TIED} is not the token table; no Whisper is made so")


def _heads(generation: Mapping[str, Any], path: Path) -> list[tuple[int, int]] | None:
    heads = generation.get("alignment_heads")
    if heads is None:
        return None
    pairs = isinstance(heads, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(type(n) is int and n >= 0 for n in pair)
        for pair in heads
    )
    if not pairs or not 0 < len(heads) <= _MOST_HEADS:
        raise CheckpointError(f"{path / GENERATION}: alignment_heads must be pairs of numbers")
    return [(pair[0], pair[1]) for pair in heads]


def _notes(generation: Mapping[str, Any], config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The tokens that the model's makers never want, for whoever decodes, as the decoding option
    ``suppress_tokens`` takes them; what is not told otherwise suppresses what is no speech.

    Older folders have them in ``config.json``. Many fine-tuned models have an empty list: none.
    """
    tokens = generation.get("suppress_tokens", config.get("suppress_tokens"))
    if tokens is None:
        return {}
    plain = isinstance(tokens, list) and all(type(token) is int for token in tokens)
    if not plain or len(tokens) > _MOST_SUPPRESSED:
        raise CheckpointError(
            f"{path}: suppress_tokens must be a list of at most {_MOST_SUPPRESSED} token numbers"
        )
    size = config["vocab_size"]
    if type(size) is int and (unknown := [token for token in tokens if not -1 <= token < size]):
        raise CheckpointError(
            f"{path}: suppress_tokens has {unknown[0]}, but the model has {size} tokens"
        )
    return {"suppress_tokens": ",".join(str(token) for token in tokens)}
