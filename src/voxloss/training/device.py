"""The device that a setting names."""

from voxloss.utilities.errors import InputError


def resolve_device(name: str) -> str:
    """The device that `execution.device` means.

    Raises:
        InputError: torch cannot use it on this machine.
    """
    import torch  # takes seconds, and commands that read studies import this module

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"execution.device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return name
