"""How the package's optional parts are installed."""


def install_command(extra: str) -> str:
    """Return the command that installs an extra of this package; until it is published, from a checkout.

    Args:
        extra: One of those in pyproject.toml.
    """
    return f'pip install -c constraints.txt ".[{extra}]" (in a checkout of voxloss)'
