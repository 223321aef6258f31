"""Text brought to one form before word errors are counted (Whisper paper, appendix C).

``EnglishTextNormalizer`` for English, ``BasicTextNormalizer`` for every other language. Results are
those of openai-whisper's classes of the same names.
"""

from aii.normalizers.basic import BasicTextNormalizer
from aii.normalizers.english import EnglishTextNormalizer

__all__ = ["BasicTextNormalizer", "EnglishTextNormalizer"]
