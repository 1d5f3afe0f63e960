"""The versions and machines that the runs of a study were trained with."""

from collections.abc import Iterable, Mapping
from typing import Any

from voxloss.study.folder import RunStatus

VERSIONS = ("voxloss", "torch", "python")


def machines_of(statuses: Iterable[RunStatus], of_study: Mapping[str, Any]) -> list[tuple[dict[str, Any], int]]:
    """Return every machine with its versions, and the number of ended runs that it trained, the most first.

    A run that moved while it was trained counts for each of its machines.

    Args:
        statuses: The runs' states.
        of_study: Versions and machine of the study, which stand for those of a run that recorded none.
    """
    counts: list[tuple[dict[str, Any], int]] = []
    for status in statuses:
        if status.state not in ("done", "diverged", "failed"):
            continue
        for environment in status.environments or (of_study,):
            place = next((i for i, (known, _) in enumerate(counts) if known == environment), None)
            if place is None:
                counts.append((dict(environment), 1))
            else:
                counts[place] = (counts[place][0], counts[place][1] + 1)
    return sorted(counts, key=lambda pair: -pair[1])


def machine_text(environment: Mapping[str, Any]) -> str:
    """Write a machine with its versions: "NVIDIA H200; voxloss 0.1.0, torch 2.13.0, python 3.11.5"."""
    versions = ", ".join(f"{name} {environment[name]}" for name in VERSIONS if name in environment)
    on_cpu = str(environment.get("device", "cuda")).startswith("cpu")  # a study's own record names no device
    processor = environment.get("processor", "unknown machine")
    where = processor if on_cpu else environment.get("gpu") or processor
    return "; ".join(part for part in (str(where), versions) if part)
