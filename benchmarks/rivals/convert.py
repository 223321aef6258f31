"""Weights in OpenAI's format (or ours) into the formats of other engines.

    python -m benchmarks.rivals.convert embedded out/ --to hf ctranslate2 ggml

``hf``: a folder as ``transformers`` saves it, with the files that ``transformers`` and
CTranslate2's converter need to know. ``ctranslate2``: CTranslate2's own converter on that folder,
weights stored in float32; faster-whisper takes it. ``ggml``: whisper.cpp's first format
(``models/convert-pt-to-ggml.py`` there), matrices in float16.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from aii.checkpoints import load_model
from aii.hf_checkpoints import hf_config, hf_name
from aii.mel import mel_filters
from aii.model import Whisper
from aii.tokenizer import Tokenizer, get_tokenizer

FORMATS = ("hf", "ctranslate2", "ggml")
GGML_MAGIC = 0x67676D6C
GGML_FLOAT32, GGML_FLOAT16 = 0, 1
_ALWAYS_FLOAT32 = (
    "encoder.conv1.bias",
    "encoder.conv2.bias",
    "encoder.positional_embedding",
    "decoder.positional_embedding",
)


def to_hf(model: Whisper, folder: Path) -> Path:
    """Write ``model`` as Hugging Face's folder of float32 weights, tokenizer included."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    dims = dict(vars(model.dims))
    _write(folder / "config.json", hf_config(dims))
    _write(folder / "generation_config.json", _generation(model))
    _write(folder / "preprocessor_config.json", _preprocessor(dims["n_mels"]))
    state = {hf_name(k): v.float().contiguous() for k, v in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    _write_tokenizer(model, folder)
    return folder


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _tokenizer(model: Whisper) -> Tokenizer:
    return get_tokenizer(model.is_multilingual, num_languages=model.num_languages)


def _generation(model: Whisper) -> dict[str, Any]:
    """``generation_config.json``: the special tokens, suppressed ones, alignment heads."""
    tokenizer = _tokenizer(model)
    never = [tokenizer.sot, tokenizer.sot_prev, tokenizer.sot_lm, tokenizer.no_speech]
    never += [tokenizer.transcribe, tokenizer.translate]
    heads = model.alignment_heads.to_dense().nonzero().tolist()
    known: dict[str, Any] = {
        "bos_token_id": tokenizer.eot,
        "eos_token_id": tokenizer.eot,
        "pad_token_id": tokenizer.eot,
        "decoder_start_token_id": tokenizer.sot,
        "prev_sot_token_id": tokenizer.sot_prev,
        "no_timestamps_token_id": tokenizer.no_timestamps,
        "max_length": model.dims.n_text_ctx,
        "max_initial_timestamp_index": 50,
        "suppress_tokens": sorted({*tokenizer.non_speech_tokens, *(t for t in never if t)}),
        "begin_suppress_tokens": [*tokenizer.encode(" "), tokenizer.eot],
        "alignment_heads": heads,
        "is_multilingual": model.is_multilingual,
        "return_timestamps": False,
    }
    if model.is_multilingual:
        codes, tokens = tokenizer.all_language_codes, tokenizer.all_language_tokens
        known["lang_to_id"] = {f"<|{c}|>": t for c, t in zip(codes, tokens, strict=True)}
        known["task_to_id"] = {
            "transcribe": tokenizer.transcribe,
            "translate": tokenizer.translate,
        }
    return known


def _preprocessor(n_mels: int) -> dict[str, Any]:
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": n_mels,
        "sampling_rate": 16_000,
        "hop_length": 160,
        "chunk_length": 30,
        "n_fft": 400,
        "n_samples": 480_000,
        "nb_max_frames": 3000,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }


def _special_tokens(model: Whisper) -> list[str]:
    """The special tokens without timestamps, in the order of their numbers."""
    tokenizer = _tokenizer(model)
    return [
        tokenizer.decode_with_timestamps([t])
        for t in range(tokenizer.eot, tokenizer.timestamp_begin)
    ]


def _write_tokenizer(model: Whisper, folder: Path) -> None:
    """A byte-level BPE of the same tokens and merges, as ``tokenizers`` reads it."""
    from tokenizers import AddedToken, decoders, pre_tokenizers, processors
    from tokenizers import Tokenizer as FastTokenizer
    from tokenizers.models import BPE

    ranks = dict(_ranks(model))
    letters = _byte_letters()

    def written(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    vocabulary = {written(token): rank for token, rank in ranks.items()}
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) > 1:
            left, right = _parts(token, ranks)
            merges.append((written(left), written(right)))
    fast = FastTokenizer(BPE(vocab=vocabulary, merges=merges))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.post_processor = processors.ByteLevel(trim_offsets=False)
    specials = _special_tokens(model)
    fast.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in specials]
    )
    fast.save(str(folder / "tokenizer.json"))
    end = specials[0]
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": end,
            "eos_token": end,
            "unk_token": end,
            "pad_token": end,
            "additional_special_tokens": specials[1:],
            "model_max_length": 1024,
        },
    )


def _ranks(model: Whisper) -> Iterator[tuple[bytes, int]]:
    """Each ordinary token and its number."""
    tokenizer = _tokenizer(model)
    for rank in range(tokenizer.eot):
        yield tokenizer.encoding.decode_single_token_bytes(rank), rank


def _parts(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """The two tokens that were merged into ``token``: byte-pair encoding but for its last step."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [ranks.get(a + b, 1 << 30) for a, b in pairwise(parts)]
        best = min(range(len(pairs)), key=pairs.__getitem__)
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts


def _byte_letters() -> dict[int, str]:
    """GPT-2's printable stand-ins for bytes (Radford et al., 2019): those that print stand for
    themselves, the others for letters from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in plain}
    others = [byte for byte in range(256) if byte not in letters]
    return {**letters, **{byte: chr(256 + i) for i, byte in enumerate(others)}}


def to_ctranslate2(hf_folder: Path, folder: Path) -> Path:
    """Convert Hugging Face's folder with CTranslate2's converter, keeping float32."""
    from ctranslate2.converters import TransformersConverter

    files = ["preprocessor_config.json", "tokenizer.json"]
    TransformersConverter(str(hf_folder), copy_files=files).convert(str(folder), force=True)
    return folder


def to_ggml(model: Whisper, path: Path) -> Path:
    """Write ``model`` as whisper.cpp reads it, matrices in float16."""
    dims = model.dims
    filters = mel_filters("cpu", dims.n_mels).numpy().astype(np.float32)
    header = (
        dims.n_vocab, dims.n_audio_ctx, dims.n_audio_state, dims.n_audio_head, dims.n_audio_layer,
        dims.n_text_ctx, dims.n_text_state, dims.n_text_head, dims.n_text_layer, dims.n_mels,
        GGML_FLOAT16,
    )  # fmt: skip
    with path.open("wb") as file:
        file.write(struct.pack("<I11i", GGML_MAGIC, *header))
        file.write(struct.pack("<2i", *filters.shape) + filters.tobytes())
        tokens = [token for token, _ in _ranks(model)]
        file.write(struct.pack("<i", len(tokens)))
        for token in tokens:
            file.write(struct.pack("<i", len(token)) + token)
        for name, tensor in model.state_dict().items():
            _write_tensor(file, name, tensor)
    return path


def _write_tensor(file: BinaryIO, name: str, tensor: torch.Tensor) -> None:
    """Name, dimensions from the last to the first, and the numbers."""
    data = tensor.float().numpy()
    if name.endswith(("conv1.bias", "conv2.bias")):
        data = data[:, None]
    halved = data.ndim > 1 and name not in _ALWAYS_FLOAT32
    data = data.astype(np.float16 if halved else np.float32)
    written = name.encode()
    kind = GGML_FLOAT16 if halved else GGML_FLOAT32
    file.write(struct.pack("<3i", data.ndim, len(written), kind))
    file.write(struct.pack(f"<{data.ndim}i", *reversed(data.shape)))
    file.write(written + np.ascontiguousarray(data).tobytes())


def convert(name: str, folder: Path, formats: Sequence[str]) -> dict[str, Path]:
    """Convert a model (a name or a path) into ``formats``; where each one lies."""
    model = load_model(name, device="cpu")
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, Path] = {}
    if "hf" in formats or "ctranslate2" in formats:
        made["hf"] = to_hf(model, folder / "hf")
    if "ctranslate2" in formats:
        made["ctranslate2"] = to_ctranslate2(made["hf"], folder / "ctranslate2")
    if "ggml" in formats:
        made["ggml"] = to_ggml(model, folder / "ggml-f16.bin")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="name of a model, or the path of a .pt file or HF folder")
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument("--to", nargs="+", choices=FORMATS, default=FORMATS)
    args = parser.parse_args(argv)
    for kind, path in convert(args.model, args.folder, args.to).items():
        print(f"{kind}: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
