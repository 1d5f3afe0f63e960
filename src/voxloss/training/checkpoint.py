"""Training state on disk: tensors and plain values only, so that reading a file cannot run code."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from voxloss.utilities.errors import InputError
from voxloss.utilities.files import atomic_path


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists and mappings of them) to `path`, whole or not at all."""
    with atomic_path(path) as partial:
        torch.save(state, partial)


def load_state(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a file of `save_state`.

    Raises:
        InputError: The file is missing, truncated, or holds more than tensors and plain values.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        return state
    except FileNotFoundError as error:
        raise InputError(f"There is no checkpoint {path}.") from error
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, ... for a damaged file
        reason = (str(error).splitlines() or ["it is empty"])[0].split(". ")[0]
        raise InputError(
            f"{path} is not a readable checkpoint ({reason}); without it the run is trained anew"
        ) from error


def weight_digest(state: Mapping[str, torch.Tensor]) -> str:
    """Return a digest of a network's weights: names, types, shapes and values, whatever device they are on."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(state.items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)};".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
