"""Where the files in ``assets/`` are.

They are installed as the package ``aii.assets``; in a checkout that is not installed they lie in
``assets/`` beside ``aii/``.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def asset(name: str) -> Path:
    """Path of the asset ``name``, whether or not the package is installed.

    Raises:
        FileNotFoundError: there is no such asset, which means a damaged installation.
    """
    candidates = [Path(__file__).resolve().parent.parent / "assets" / name]
    try:
        candidates.insert(0, Path(str(resources.files("aii.assets").joinpath(name))))
    except ModuleNotFoundError:
        pass
    for path in candidates:
        if path.is_file():
            return path
    raise FileNotFoundError(f"asset {name} is missing; reinstall aii (looked at {candidates[-1]})")
