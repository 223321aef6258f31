"""The dashboard: the page, its style and its modules, served as they are (no build step).

``index.html`` is the page; everything else it loads from beside itself, under ``web/``. Modules
without a document (``js/resampler.js``, ``calls.js``, ``export.js``, ...) are tested by node.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
"""Where the files are."""
