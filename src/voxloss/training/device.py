"""Resolve the setting of the device."""

from voxloss.utilities.errors import InputError


def resolve_device(name: str) -> str:
    """Return the device of the setting `execution.device`.

    Raises:
        InputError: torch cannot use the device on this machine.
    """
    import torch  # takes seconds, and commands that read studies import this module

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"execution.device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return name
