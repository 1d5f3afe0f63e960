"""What a pass over the voxels needs beside its tensors."""

from dataclasses import dataclass

from voxloss.losses.parameters import PerClass


@dataclass(frozen=True)
class PassSettings:
    """`check` is whether the values of labels, targets and weights are checked; where not, a label out of range counts
    as ignored. `dense` says that the target is (B, C, *spatial) in [0, 1], else it is labels (B, *spatial)."""

    activation: str
    dense: bool
    exponents: tuple[PerClass, ...]
    ignore_index: int | None
    check: bool
