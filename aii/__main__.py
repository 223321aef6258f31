"""``python -m aii``: the same as the command ``aii``."""

from __future__ import annotations

import sys

from aii.cli import main

if __name__ == "__main__":
    sys.exit(main())
