"""The package under another name: ``sys.modules["whisper"] = aii``, then ``import whisper.audio``.

Python by itself would load each module a second time under the other name, with second classes that
no ``isinstance`` knows. Here every name of the package leads to the same modules.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

PACKAGE = __name__.partition(".")[0]


class SameModules(MetaPathFinder, Loader):
    """Finds the modules of this package when they are asked for by another name of it."""

    def __init__(self) -> None:
        self._own: dict[str, ModuleSpec | None] = {}

    @classmethod
    def install(cls) -> None:
        """Let imports come by here, from now on."""
        if not any(isinstance(finder, cls) for finder in sys.meta_path):
            sys.meta_path.insert(0, cls())

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top, _, rest = fullname.partition(".")
        package = sys.modules.get(PACKAGE)
        if not rest or top == PACKAGE or package is None or sys.modules.get(top) is not package:
            return None
        if find_spec(f"{PACKAGE}.{rest}") is None:
            return None
        return ModuleSpec(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(f"{PACKAGE}.{spec.name.partition('.')[2]}")
        self._own[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is run again; the module keeps the name that it has here."""
        assert module.__spec__ is not None
        module.__spec__ = self._own.pop(module.__spec__.name)
