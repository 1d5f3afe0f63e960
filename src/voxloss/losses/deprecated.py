"""Modules and a class that have new names stay importable under their old ones until 0.2."""

import importlib
import sys
import warnings


def moved(old: str, new: str) -> None:
    """Let the module name `old` stand for the module `new`, the same object, with a DeprecationWarning."""
    warnings.warn(f"{old} is deprecated and will be removed in 0.2: use {new}", DeprecationWarning, stacklevel=3)
    sys.modules[old] = importlib.import_module(new)


def renamed(old: str, new: str) -> None:
    """Warn, for a module's `__getattr__`, about the line that asks for `old`."""
    warnings.warn(f"{old} is deprecated and will be removed in 0.2: use {new}", DeprecationWarning, stacklevel=3)
