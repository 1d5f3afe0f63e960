"""Resolve the settings of device and precision."""

from typing import Literal

from voxloss.utilities.errors import InputError


def resolve_precision(name: Literal["auto", "float32", "bfloat16"], device: str) -> Literal["float32", "bfloat16"]:
    """Return the precision of the setting `training.precision` on a device.

    On a CPU, bfloat16 is no default: it is slow without instructions of its own, and some of its convolutions have to
    be computed in float32 (`voxloss.training.precision`).
    """
    import torch  # as below

    if name != "auto":
        return name
    own = device.startswith("cuda") and torch.cuda.get_device_capability(device) >= (8, 0)
    return "bfloat16" if own else "float32"


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
