"""The old place of the command line, kept for one release: use `voxloss.commands.main`."""

import warnings

from voxloss.commands.main import main

__all__ = ["main"]

warnings.warn("voxloss.cli was renamed to voxloss.commands.main; import main from there", DeprecationWarning, 2)
