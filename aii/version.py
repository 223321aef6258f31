"""The version, where ``openai-whisper`` has its own."""

from __future__ import annotations

from aii import __version__ as __version__
