"""Compute ``assets/mel_filters.npz``: the mel bands of Whisper, from Slaney's published formula.

Malcolm Slaney, "Auditory Toolbox" (Interval Research, technical report 1998-010): the mel scale is
linear (200/3 Hz per mel) below 1000 Hz and logarithmic (27 mels for each factor of 6.4) above.
Bands are triangles whose corners are equally spaced in mels between 0 Hz and 8 kHz, each scaled to
an area of one (its height is 2 over its width in Hz).

    python scripts/make_mel_filters.py [OUTPUT]

The file holds ``mel_80`` (80, 201) and ``mel_128`` (128, 201) in float32 and has the same bytes
wherever it is computed.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np

SAMPLE_RATE = 16_000
N_FFT = 400
BANDS = (80, 128)

KNEE_HZ = 1000.0
HZ_PER_MEL = 200.0 / 3.0
KNEE_MEL = KNEE_HZ / HZ_PER_MEL
LOG_STEP = np.log(6.4) / 27.0

DEFAULT_OUTPUT = Path(__file__).resolve().parent.parent / "assets" / "mel_filters.npz"


def hz_to_mel(hz: float) -> float:
    """Slaney's mel number of a frequency."""
    if hz < KNEE_HZ:
        return hz / HZ_PER_MEL
    return float(KNEE_MEL + np.log(hz / KNEE_HZ) / LOG_STEP)


def mel_to_hz(mels: np.ndarray) -> np.ndarray:
    """Frequencies of Slaney's mel numbers, float64."""
    return np.where(
        mels < KNEE_MEL, mels * HZ_PER_MEL, KNEE_HZ * np.exp(LOG_STEP * (mels - KNEE_MEL))
    )


def filterbank(bands: int) -> np.ndarray:
    """Weights (bands, 201) float32 that sum the power spectrum of 400 samples into mel bands."""
    nyquist = SAMPLE_RATE / 2
    corners = mel_to_hz(np.linspace(hz_to_mel(0.0), hz_to_mel(nyquist), bands + 2))
    low, peak, high = (corners[i : i + bands, None] for i in range(3))
    bins = np.linspace(0.0, nyquist, N_FFT // 2 + 1)
    rising = (bins - low) / (peak - low)
    falling = (high - bins) / (high - peak)
    # The triangles are rounded before they are scaled, as the table in use everywhere was.
    triangles = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    return (triangles * (2.0 / (high - low))).astype(np.float32)


def write(path: Path) -> None:
    """Write the archive with fixed names, order and dates, so that its bytes never vary."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for bands in BANDS:
            member = io.BytesIO()
            np.lib.format.write_array(member, filterbank(bands), version=(1, 0))
            entry = zipfile.ZipInfo(f"mel_{bands}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, member.getvalue())


def main(arguments: list[str]) -> int:
    """Write the file named by the first argument, or the asset."""
    output = Path(arguments[0]) if arguments else DEFAULT_OUTPUT
    write(output)
    print(f"wrote {output} ({output.stat().st_size} bytes)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
