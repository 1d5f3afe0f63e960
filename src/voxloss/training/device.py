"""Resolve the settings of device and precision."""

import os
from typing import Literal

from voxloss.config.schema import ExecutionConfig
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


def gpus_of_runs(execution: ExecutionConfig) -> list[str]:
    """Return the GPUs of each of the runs that are executed at the same time, as values of CUDA_VISIBLE_DEVICES.

    Empty where runs are not to be spread over GPUs: there are too few for two runs, or `device` names another device.
    """
    import torch  # as above

    if execution.device not in ("auto", "cuda") or not torch.cuda.is_available():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    each = execution.devices_per_run
    groups = [",".join(names[first : first + each]) for first in range(0, len(names) - each + 1, each)]
    return groups if len(groups) > 1 else []


def runs_at_once(execution: ExecutionConfig) -> int:
    """Return how many runs this machine executes at the same time."""
    return execution.parallel if execution.parallel > 1 else max(1, len(gpus_of_runs(execution)))
