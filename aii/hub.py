"""Which models there are by name, and where they lie on this machine.

The published names, addresses, SHA-256 sums (they are part of the addresses) and alignment heads
are facts of OpenAI's release 20250625; the parameter counts are those of its model card. Files are
kept in the folder that openai-whisper uses, so that what either has downloaded serves both.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

from aii.download import Fetch, download, file_sha256
from aii.errors import CheckpointError, DownloadError
from aii.resources import asset

EMBEDDED = "embedded"
"""Name of the small model that comes with the package."""

_ADDRESS = "https://openaipublic.azureedge.net/main/whisper/models"


@dataclass(frozen=True)
class PublishedModel:
    """A model that OpenAI publishes.

    Attributes:
        file: its file's name.
        sha256: checksum of the file.
        alignment_heads: base85 of the gzipped (n_text_layer, n_text_head) table of the
            cross-attention heads that follow the audio; for word times.
        parameters: how many weights, in millions.
        base: address of the folder that holds ``<sha256>/<file>``.
    """

    file: str
    sha256: str
    alignment_heads: bytes
    parameters: int
    base: str = _ADDRESS

    @property
    def url(self) -> str:
        """Where to fetch it."""
        return f"{self.base}/{self.sha256}/{self.file}"


_LARGE_V3 = PublishedModel(
    "large-v3.pt",
    "e5b1a55b89c1367dacf97e3e19bfd829a01529dbfdeefa8caeb59b3f1b81dadb",
    b"ABzY8gWO1E0{>%R7(9S+Kn!D~%ngiGaR?*L!iJG9p-nab0JQ=-{D1-g00",
    1550,
)
_TURBO = PublishedModel(
    "large-v3-turbo.pt",
    "aff26ae408abcba5fbf8813c21e62b0941638c5f6eebfb145be0c9839262a19a",
    b"ABzY8j^C+e0{>%RARaKHP%t(lGR*)0g!tONPyhe`",
    809,
)

MODELS: dict[str, PublishedModel] = {
    "tiny.en": PublishedModel(
        "tiny.en.pt",
        "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03",
        b"ABzY8J1N>@0{>%R00Bk>$p{7v037`oCl~+#00",
        39,
    ),
    "tiny": PublishedModel(
        "tiny.pt",
        "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9",
        b"ABzY8bu8Lr0{>%RKn9Fp%m@SkK7Kt=7ytkO",
        39,
    ),
    "base.en": PublishedModel(
        "base.en.pt",
        "25a8566e1d0c1e2231d1c762132cd20e0f96a85d16145c3a00adf5d1ac670ead",
        b"ABzY8;40c<0{>%RzzG;p*o+Vo09|#PsxSZm00",
        74,
    ),
    "base": PublishedModel(
        "base.pt",
        "ed3a0b6b1c0edf879ad9b11b1af5a0e6ab5db9205f891f668f8b0e6c6326e34e",
        b"ABzY8KQ!870{>%RzyTQH3`Q^yNP!>##QT-<FaQ7m",
        74,
    ),
    "small.en": PublishedModel(
        "small.en.pt",
        "f953ad0fd29cacd07d5a9eda5624af0f6bcf2258be67c92b79389873d91e0872",
        b"ABzY8>?_)10{>%RpeA61k&I|OI3I$65C{;;pbCHh0B{qLQ;+}v00",
        244,
    ),
    "small": PublishedModel(
        "small.pt",
        "9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794",
        b"ABzY8DmU6=0{>%Rpa?J`kvJ6qF(V^F86#Xh7JUGMK}P<N0000",
        244,
    ),
    "medium.en": PublishedModel(
        "medium.en.pt",
        "d7440d1dc186f76616474e0ff0b3b6b879abc9d1a4926b7adfa41db2d497ab4f",
        b"ABzY8usPae0{>%R7<zz_OvQ{)4kMa0BMw6u5rT}kRKX;$NfYBv00*Hl@qhsU00",
        769,
    ),
    "medium": PublishedModel(
        "medium.pt",
        "345ae4da62f9b3d59415adc60127b97c714f32e89e936602e85993674d08dcb1",
        b"ABzY8B0Jh+0{>%R7}kK1fFL7w6%<-Pf*t^=N)Qr&0RR9",
        769,
    ),
    "large-v1": PublishedModel(
        "large-v1.pt",
        "e4b87e7e0bf463eb8e6956e646f1e277e901512310def2c24bf0e11bd3c28e9a",
        b"ABzY8r9j$a0{>%R7#4sLmoOs{s)o3~84-RPdcFk!JR<kSfC2yj",
        1550,
    ),
    "large-v2": PublishedModel(
        "large-v2.pt",
        "81f7c96c852ee8fc832187b0132e569d6c3065a3252ed18e56effd0b6a73e524",
        b"ABzY8zd+h!0{>%R7=D0pU<_bnWW*tkYAhobTNnu$jnkEkXqp)j;w1Tzk)UH3X%SZd&fFZ2fC2yj",
        1550,
    ),
    "large-v3": _LARGE_V3,
    "large": _LARGE_V3,
    "large-v3-turbo": _TURBO,
    "turbo": _TURBO,
}


def available_models() -> list[str]:
    """The published names, in openai-whisper's order. ("embedded" and paths load as well.)"""
    return list(MODELS)


def cache_folder(download_root: str | os.PathLike[str] | None = None) -> Path:
    """Where downloaded models lie: the argument, or ``$XDG_CACHE_HOME/whisper``, or
    ``~/.cache/whisper``."""
    if download_root is not None:
        return Path(download_root).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "whisper"


def local_file(name: str, download_root: str | os.PathLike[str] | None = None) -> Path:
    """Where the file of a published name is, or would be once downloaded.

    Raises:
        CheckpointError: there is no such name.
    """
    if name not in MODELS:
        raise CheckpointError(_unknown(name))
    return cache_folder(download_root) / MODELS[name].file


def resolve(name: str, download_root: str | os.PathLike[str] | None = None) -> Path:
    """The file of "embedded", of a published name (downloaded when it is not here) or of a path,
    which may also be a folder in Hugging Face's layout.

    A published name's file is checked against its SHA-256 each time.

    Raises:
        CheckpointError: neither a name that is known nor a file.
        DownloadError: the download failed.
    """
    if name == EMBEDDED:
        try:
            return asset("embedded.pt")
        except FileNotFoundError as error:
            raise CheckpointError(str(error)) from error
    if name in MODELS:
        return _published(MODELS[name], cache_folder(download_root))
    try:
        path = Path(name).expanduser()
    except RuntimeError as error:  # ~nobody
        raise CheckpointError(f"{name}: {error}") from error
    if not name:
        raise CheckpointError("the model has no name; give one of aii models, or a path")
    if path.is_dir() and not is_model_folder(path):
        raise CheckpointError(
            f"{name} is a folder without a config.json; give a .pt file in OpenAI's format, or "
            "Hugging Face's folder of a Whisper"
        )
    if not path.exists():
        raise CheckpointError(_unknown(name))
    return path


def is_model_folder(path: Path) -> bool:
    """Whether ``path`` is a folder in Hugging Face's layout; it may still be of another model, or
    with ``adapter_config.json`` no whole one."""
    return any((path / name).is_file() for name in ("config.json", "adapter_config.json"))


def _published(model: PublishedModel, folder: Path) -> Path:
    target = folder / model.file
    if target.exists() and not target.is_file():
        raise CheckpointError(f"{target} exists and is not a regular file; remove it")
    if target.is_file():
        if file_sha256(target) == model.sha256:
            return target
        warnings.warn(f"{target} has a wrong SHA-256; downloading it again", stacklevel=4)
    try:
        return download(Fetch(model.url, model.sha256), target)
    except DownloadError as error:
        raise DownloadError(f"{error}; or copy {model.file} into {folder} yourself") from error


def _unknown(name: str) -> str:
    names = ", ".join([EMBEDDED, *MODELS])
    return f"no model and no file is called {name}; known are {names}"


# -- by openai-whisper's names, which other programs borrow ------------------------------------

_MODELS = {name: model.url for name, model in MODELS.items()}
_ALIGNMENT_HEADS = {name: model.alignment_heads for name, model in MODELS.items()}


def _download(url: str, root: str, in_memory: bool) -> bytes | str:
    """The file of a published address in the folder ``root``: its path, or what is in it.

    Raises:
        DownloadError: the download failed.
    """
    *_, sha256, file = url.split("/")
    path = download(Fetch(url, sha256), Path(root).expanduser() / file)
    return path.read_bytes() if in_memory else str(path)
