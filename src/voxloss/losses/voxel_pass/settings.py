"""Settings of a pass over the voxels."""

from dataclasses import dataclass

from voxloss.losses.parameters import PerClass


@dataclass(frozen=True)
class PassSettings:
    """Settings of a pass over the voxels.

    Args:
        activation: "softmax" or "sigmoid".
        dense: Whether the target is (B, C, *spatial) in [0, 1]; else it is labels (B, *spatial).
        exponents: The focal exponents that are summed.
        ignore_index: The label whose voxels do not count.
        check: Whether the values of labels, targets and weights are checked before they are used. Without a check, a
            label out of range counts as ignored.
        watch: Whether they are checked without waiting for the device; a later pass raises the error.
    """

    activation: str
    dense: bool
    exponents: tuple[PerClass, ...]
    ignore_index: int | None
    check: bool
    watch: bool = False
