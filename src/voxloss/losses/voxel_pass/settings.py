"""Settings of a pass over the voxels, and the order of the sums that it gives."""

from dataclasses import dataclass

from voxloss.losses.parameters import PerClass

# The first sums, and the first of the focal ones. After these come, where they are asked for, the squared differences,
# the sums of minima: the part of t that p covers, the excess and the shortfall of p; Σ p·t and Σ (1-p)·t in a tube; the
# cross entropy of the hardest voxels; and for each number of bins Σ (p-t) of each bin of p, then the voxels in each.
TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE, FOCAL = range(4)
MINIMA, TUBE = 3, 2

INSIDE = 0.5  # a target of this or more makes a voxel one of the structure


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
        label_smoothing: ε of the targets of the focal sums: (1-ε)·t + ε/C, with sigmoid (1-ε)·t + ε/2.
        squared: Whether Σ (p-t)²/2 is summed.
        minimum: Whether Σ min(p, t), Σ max(p-t, 0) and Σ max(t-p, 0) are summed; `dense` only, as they are the first
            three sums where t is 0 or 1.
        tube: Whether Σ p·t and Σ (1-p)·t over the voxels of a tube are summed. For the implementations of the pass a
            voxel of the tube has its weight with a minus.
        hardest: Of how many selections of the hardest voxels the cross entropy is summed, with sigmoid both sides.
        bins: Into how many equal bins of p the voxels are sorted, once for each number.
    """

    activation: str
    dense: bool
    exponents: tuple[PerClass, ...]
    ignore_index: int | None
    check: bool
    watch: bool = False
    label_smoothing: float = 0.0
    squared: bool = False
    minimum: bool = False
    tube: bool = False
    hardest: int = 0
    bins: tuple[int, ...] = ()

    @property
    def against_labels(self) -> bool:
        """Whether it is a softmax against labels that are not smoothed."""
        return self.activation == "softmax" and not self.dense and self.label_smoothing == 0

    @property
    def by_label(self) -> bool:
        """Whether the label's channel of each voxel is all that the sums need."""
        return self.against_labels and not self.squared

    @property
    def after_focal(self) -> int:
        """The first sum after the focal ones."""
        return FOCAL + len(self.exponents) * self.sides

    @property
    def sides(self) -> int:
        """The sums of an exponent: with sigmoid the negative side has one, too."""
        return 2 if self.activation == "sigmoid" else 1

    @property
    def rows(self) -> int:
        """S, the number of sums."""
        return self.before_bins(len(self.bins))

    def before_bins(self, k: int) -> int:
        """Return the first of the sums over the bins of number `k`."""
        return self.before_hardest + self.hardest * self.sides + 2 * sum(self.bins[:k])

    @property
    def before_tube(self) -> int:
        """The first of the sums in a tube, where they are asked for."""
        return self.after_focal + self.squared + (MINIMA if self.minimum else 0)

    @property
    def before_hardest(self) -> int:
        """The first of the sums over the hardest voxels, where they are asked for."""
        return self.before_tube + (TUBE if self.tube else 0)

    def smoothed(self, classes: int) -> tuple[float, float]:
        """The factor of t and the addend of the targets of the focal sums."""
        share = self.label_smoothing
        return 1 - share, share / (2 if self.activation == "sigmoid" else classes)
