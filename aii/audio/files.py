"""Recordings into samples.

WAV files and raw telephony audio are read here; anything else, and WAV at another rate than the one
wanted, goes through the ``ffmpeg`` program, so that the samples are those that OpenAI's
``load_audio`` gives. Without that program WAV is resampled by ``aii.audio.resampler``.
"""

from __future__ import annotations

import io
import math
import os
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from aii.audio.pcm import PcmFormat, float_to_slin
from aii.audio.resampler import Resampler
from aii.errors import AudioError
from aii.types import SAMPLE_RATE

RAW_FORMATS = {
    **dict.fromkeys(
        (".slin", ".sln", ".raw", ".pcm", ".sln16", ".slin16"), PcmFormat("s16", 16000)
    ),
    **dict.fromkeys((".sln8", ".slin8"), PcmFormat("s16", 8000)),
    **dict.fromkeys((".ulaw", ".ul", ".mulaw"), PcmFormat("ulaw", 8000)),
    **dict.fromkeys((".alaw", ".al"), PcmFormat("alaw", 8000)),
}
"""What a file without a header holds, by its suffix."""

MAX_WAV_HEADER = 1 << 20
"""Bytes before a WAV file's samples; more is refused."""
MAX_WAV_CHUNKS = 100
"""Chunks before a WAV file's samples; more is refused, since no program writes them."""

PIECE = 1 << 16
"""Sample frames that are decoded at once."""

_RATES = range(1_000, 400_001)
_EXTENSIBLE = 0xFFFE
_ENCODINGS = {
    (1, 8): "u8",
    (1, 16): "s16",
    (1, 24): "s24",
    (1, 32): "s32",
    (3, 32): "f32",
    (6, 8): "alaw",
    (7, 8): "ulaw",
}
_STREAMED = (0, 0xFFFFFFFF)


@dataclass(frozen=True)
class WavFormat:
    """What a WAV header says.

    Attributes:
        pcm: how the samples are laid out.
        data_offset: bytes from the start of the file to the first sample.
        data_size: bytes of samples, or None if they go on to the end (a stream of unknown length).
    """

    pcm: PcmFormat
    data_offset: int
    data_size: int | None

    @property
    def encoding(self) -> str:
        """One of ``aii.audio.pcm.ENCODINGS``."""
        return self.pcm.encoding

    @property
    def rate(self) -> int:
        """Sample frames per second."""
        return self.pcm.rate

    @property
    def channels(self) -> int:
        """Samples per frame."""
        return self.pcm.channels


def parse_wav_header(data: bytes) -> WavFormat | None:
    """Read the header that ``data`` begins with; None if it goes on past the end of ``data``.

    Understands PCM of 8, 16, 24 and 32 bits, 32-bit float, G.711, any number of channels,
    WAVE_FORMAT_EXTENSIBLE, further chunks before the samples, and the sizes 0 and 0xFFFFFFFF that
    programs write when they do not know the length yet.

    Raises:
        AudioError: not a WAV file, a damaged header, or a kind of samples not among those.
    """
    if data[:4] != b"RIFF"[: len(data)] or data[8:12] != b"WAVE"[: max(0, len(data) - 8)]:
        raise AudioError("this is no WAV file: it does not begin with RIFF....WAVE")
    pcm: PcmFormat | None = None
    place = 12
    for _ in range(MAX_WAV_CHUNKS):
        if len(data) < place + 8:
            return None
        name, size = struct.unpack_from("<4sI", data, place)
        place += 8
        if name == b"data":
            if pcm is None:
                raise AudioError("damaged WAV header: the samples come before their format")
            return WavFormat(pcm, place, None if size in _STREAMED else size)
        if place + size > MAX_WAV_HEADER:
            raise AudioError(f"damaged WAV header: no samples in the first {MAX_WAV_HEADER} bytes")
        if name == b"fmt ":
            if len(data) < place + size:
                return None
            pcm = _wav_samples(data[place : place + size])
        place += size + size % 2
    raise AudioError(f"damaged WAV header: no samples in the first {MAX_WAV_CHUNKS} chunks")


def _wav_samples(chunk: bytes) -> PcmFormat:
    """The sample layout that a WAV file's format chunk describes."""
    if len(chunk) < 16:
        raise AudioError(f"damaged WAV header: its format has {len(chunk)} bytes, not 16 or more")
    kind, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", chunk)
    if kind == _EXTENSIBLE and len(chunk) >= 26:
        (kind,) = struct.unpack_from("<H", chunk, 24)
    encoding = _ENCODINGS.get((kind, bits))
    if encoding is None:
        raise AudioError(
            f"WAV samples of kind {kind} with {bits} bits cannot be read; convert to 16-bit PCM"
        )
    if rate not in _RATES or not channels:
        raise AudioError(f"damaged WAV header: {channels} channels at {rate} Hz")
    pcm = PcmFormat(encoding, rate, channels)
    if block != pcm.frame_bytes:
        raise AudioError(f"damaged WAV header: {block} bytes per frame, not {pcm.frame_bytes}")
    return pcm


_FORMATS = (
    "aac,ac3,aiff,amr,asf,au,avi,caf,flac,flv,g722,gsm,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,"
    "mpeg,mpegts,ogg,opus,wav,w64"
)


@dataclass(frozen=True)
class Bounds:
    """What is done at most for a recording that a stranger has sent.

    ffmpeg is then kept to formats that hold their sound themselves: a play list may name other
    files of this machine, or addresses.

    Attributes:
        longest: seconds of sound.
        patience: seconds for ffmpeg.
    """

    longest: float
    patience: float = 300.0

    def bytes(self, pcm: PcmFormat) -> int:
        """Bytes of ``longest`` and a little more, in whole frames."""
        return (round(self.longest * pcm.rate) + pcm.rate) * pcm.frame_bytes


def load_audio(
    file: str | os.PathLike[str], sr: int = SAMPLE_RATE, *, bounds: Bounds | None = None
) -> np.ndarray:
    """Samples (N,) float32, -1 to 1, mono, of a recording of any kind.

    Args:
        file: path (or, for ffmpeg, an address with ``://``). Raw audio is known by its suffix, see
            ``RAW_FORMATS``; WAV by its contents.
        sr: samples per second wanted.
        bounds: for the recordings of strangers, which must be files.

    Raises:
        AudioError: the file is missing or cannot be decoded, ffmpeg is needed and not installed, or
            the recording is out of bounds.
    """
    samples = load_slin(file, sr, bounds=bounds).astype(np.float32)
    samples /= 32768.0  # in place: an hour has 230 MB
    return samples


def load_slin(
    file: str | os.PathLike[str], sr: int = SAMPLE_RATE, *, bounds: Bounds | None = None
) -> np.ndarray:
    """The same samples as (N,) int16, half as large.

    Within bounds they lie in a file without a name and take no memory that others need: of what
    strangers send there may be many hours at once.

    Args, Raises: see :func:`load_audio`.
    """
    samples = _load(file, sr, bounds)
    if bounds is not None and len(samples) > bounds.longest * sr:
        raise AudioError(f"the recording is longer than {bounds.longest:g} s; send it in parts")
    return samples


def _load(file: str | os.PathLike[str], sr: int, bounds: Bounds | None) -> np.ndarray:
    name = os.fspath(file)
    path = Path(name)
    if not path.exists() and "://" in name and bounds is None:
        return _ffmpeg(name, name, sr)
    try:
        raw = RAW_FORMATS.get(path.suffix.lower())
        if raw is not None:
            with path.open("rb") as source:
                return _at_rate(raw, source, None, sr, bounds)
        wav = _wav_format(path)
        ready = isinstance(wav, WavFormat) and wav.pcm == PcmFormat("s16", sr)
        if not ready and shutil.which("ffmpeg"):
            return _ffmpeg(f"file:{path.absolute()}", name, sr, bounds)
        if isinstance(wav, WavFormat):
            with path.open("rb") as source:
                source.seek(wav.data_offset)
                return _at_rate(wav.pcm, source, wav.data_size, sr, bounds)
    except FileNotFoundError:
        raise AudioError(f"there is no file {name}; check the path") from None
    except OSError as error:
        raise AudioError(f"cannot read {name}: {error.strerror}") from None
    if isinstance(wav, AudioError):
        raise AudioError(f"cannot decode {name} without ffmpeg: {wav}")
    raise AudioError(
        f"cannot decode {name} without ffmpeg; install it, or give WAV or raw SLIN (.slin)"
    )


def _wav_format(path: Path) -> WavFormat | AudioError | None:
    """A file's WAV header; why it cannot be used; or None if it is no WAV file."""
    with path.open("rb") as source:
        data = source.read(4096)
        if len(data) < 12 or data[:4] != b"RIFF" or data[8:12] != b"WAVE":
            return None
        try:
            found = parse_wav_header(data) or parse_wav_header(data + source.read(MAX_WAV_HEADER))
        except AudioError as error:
            return error
    return found or AudioError("damaged WAV header: the file ends before its samples")


def _at_rate(
    pcm: PcmFormat, source: IO[bytes], size: int | None, rate: int, bounds: Bounds | None
) -> np.ndarray:
    """Decode ``size`` bytes (None: to the end), an incomplete last frame left out, at ``rate``."""
    left = math.inf if size is None else size
    if bounds is not None:
        left = min(left, bounds.bytes(pcm))
    resampler = None if pcm.rate == rate else Resampler(pcm.rate, rate)
    with _store(bounds) as kept:
        while data := source.read(int(min(left, PIECE * pcm.frame_bytes))):
            left -= len(data)
            samples = pcm.decode(data[: len(data) - len(data) % pcm.frame_bytes])
            # Rounded to 16 bits as ffmpeg's output is.
            kept.write(float_to_slin(resampler.feed(samples) if resampler else samples))
        if resampler:
            kept.write(float_to_slin(resampler.flush()))
        return _samples(kept)


def _store(bounds: Bounds | None) -> IO[bytes]:
    """Where samples are kept: in memory, or in a file without a name; see :func:`load_slin`."""
    return io.BytesIO() if bounds is None else tempfile.TemporaryFile(prefix="aii-")


def _samples(kept: IO[bytes]) -> np.ndarray:
    """(N,) int16 of what is kept; they last when it is closed."""
    if isinstance(kept, io.BytesIO):
        return np.frombuffer(kept.getvalue(), "<i2")
    size = kept.seek(0, os.SEEK_END) // 2
    return np.memmap(kept, "<i2", "r", shape=(size,)) if size else np.zeros(0, np.int16)


def _ffmpeg(source: str, name: str, rate: int, bounds: Bounds | None = None) -> np.ndarray:
    """Have ffmpeg decode, mix down and resample ``source``; ``name`` is for the message."""
    command = ["ffmpeg", "-nostdin", "-v", "error"]
    if bounds is not None:
        command += ["-protocol_whitelist", "file", "-format_whitelist", _FORMATS]
    command += ["-i", source]
    if bounds is not None:
        command += ["-t", f"{bounds.longest + 1:g}"]
    command += ["-f", "s16le", "-ac", "1", "-acodec", "pcm_s16le", "-ar", str(rate), "-"]
    with _store(bounds) as kept:
        try:
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE if bounds is None else kept,
                stderr=subprocess.PIPE,
                check=False,
                timeout=None if bounds is None else bounds.patience,
            )
        except FileNotFoundError:
            raise AudioError(f"cannot decode {name} without ffmpeg; install it") from None
        except subprocess.TimeoutExpired:
            raise AudioError(f"cannot decode {name}: it takes too long") from None
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"ffmpeg ended with status {done.returncode}"
            raise AudioError(f"cannot decode {name}: {reason.removeprefix(f'{source}: ')}")
        return np.frombuffer(done.stdout, "<i2") if bounds is None else _samples(kept)
