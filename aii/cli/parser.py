"""An argument parser whose errors are one line."""

from __future__ import annotations

import argparse
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line, and where the help is."""

    def error(self, message: str) -> NoReturn:
        """Print the line and exit with code 2."""
        line = " ".join(message.split())
        self.exit(2, f"aii: error: {line}; see: {self.prog} --help\n")
