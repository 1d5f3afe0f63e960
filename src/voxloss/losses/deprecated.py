"""Modules that were moved stay importable under their old names until 0.2."""

import importlib
import sys
import warnings


def moved(old: str, new: str) -> None:
    """Let the module name `old` stand for the module `new`, the same object, with a DeprecationWarning."""
    warnings.warn(f"{old} is deprecated and will be removed in 0.2: use {new}", DeprecationWarning, stacklevel=3)
    sys.modules[old] = importlib.import_module(new)
