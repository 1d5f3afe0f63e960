"""From logits and labels to the sums that every loss is computed from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from voxloss.losses.parameters import PER_CLASS, PerClass
from voxloss.losses.voxel_pass import distributed, kernels, operator, targets
from voxloss.losses.voxel_pass.settings import PassSettings


@dataclass(frozen=True)
class VoxelStatistics:
    """Sums over the counted voxels of each sample b and class c; differentiable, each (B, C), float64 where there is.

    true_positive Σ p·t, false_positive Σ p·(1-t), false_negative Σ (1-p)·t, `focal[k]` Σ t (1-p)^γ_k (-log p) for
    γ_k = `focal_exponents[k]`, and with sigmoid `focal_negative[k]` Σ (1-t) p^γ_k (-log(1-p)) (else empty).
    A voxel weight multiplies every voxel's part of these sums. `voxels` (B,) is the number of counted voxels, without
    weights and without gradient. `sums` (B, S, C) holds all of them in this order. `sample_weight` (B,), where given,
    multiplies the values that are computed from each sample; the sums are without it.
    """

    sums: Tensor
    voxels: Tensor
    focal_exponents: tuple[PerClass, ...]
    activation: str
    sample_weight: Tensor | None = None

    @property
    def true_positive(self) -> Tensor:
        """Σ p·t, (B, C)."""
        return self.sums[:, kernels.TRUE_POSITIVE]

    @property
    def false_positive(self) -> Tensor:
        """Σ p·(1-t), (B, C)."""
        return self.sums[:, kernels.FALSE_POSITIVE]

    @property
    def false_negative(self) -> Tensor:
        """Σ (1-p)·t, (B, C)."""
        return self.sums[:, kernels.FALSE_NEGATIVE]

    @property
    def focal(self) -> tuple[Tensor, ...]:
        """Focal sums of the positive side, one (B, C) per exponent."""
        return self.sums[:, kernels.FOCAL :].unbind(1)[: len(self.focal_exponents)]

    @property
    def focal_negative(self) -> tuple[Tensor, ...]:
        """Focal sums of the negative side with sigmoid, one (B, C) per exponent; empty with softmax."""
        return self.sums[:, kernels.FOCAL :].unbind(1)[len(self.focal_exponents) :]

    @property
    def present(self) -> Tensor:
        """(B, C): whether the target has the class at all. Exact, since p and 1-p are never both 0."""
        return (self.true_positive + self.false_negative).detach() != 0  # NaN counts as there, and stays seen

    def focal_sums(self, exponent: float | Sequence[float]) -> tuple[Tensor, Tensor | None]:
        """Return the focal sums of an exponent: the positive side, and with sigmoid the negative side."""
        for k, summed in enumerate(self.focal_exponents):
            if summed == exponent:
                return self.focal[k], self.focal_negative[k] if self.focal_negative else None
        raise ValueError(f"focal exponent {exponent} is not among those summed: {self.focal_exponents}")

    def pooled(self, *, world: bool = False) -> "VoxelStatistics":
        """Return the statistics pooled over the batch, as if it were one sample, (1, C).

        With `world` they are pooled over the batches of all ranks of torch.distributed. Where the ranks' gradients are
        then averaged, as DistributedDataParallel does, the result is the gradient of a loss of the sums of all ranks.
        Every rank must call this.
        """
        weighted = self.sums if self.sample_weight is None else self.sums * self.sample_weight[:, None, None]
        sums, voxels = weighted.sum(0, keepdim=True), self.voxels.sum(0, keepdim=True)
        if world:
            sums, voxels = distributed.sum_over_ranks(sums, voxels)
        return replace(self, sums=sums, voxels=voxels, sample_weight=None)

    def samples(self) -> "list[VoxelStatistics]":
        """Return the statistics of each sample by itself."""
        weights = [None] * len(self.sums) if self.sample_weight is None else list(self.sample_weight.split(1))
        parts = zip(self.sums.split(1), self.voxels.split(1), weights, strict=True)
        return [replace(self, sums=sums, voxels=voxels, sample_weight=weight) for sums, voxels, weight in parts]


def voxel_statistics(
    logits: Tensor,
    labels: Tensor,
    *,
    focal_exponents: Sequence[float | Sequence[float]] = (),
    activation: str = "softmax",
    ignore_index: int | None = None,
    voxel_weight: Tensor | None = None,
    mask: Tensor | None = None,
    sample_weight: Tensor | None = None,
    validate: bool | Literal["later"] | None = None,
) -> VoxelStatistics:
    """Compute the sums of `VoxelStatistics` in one differentiable pass over the voxels.

    Args:
        logits: (B, C, *spatial), any floating type. Work is done in float32, for float64 logits in float64.
        labels: A tensor, array or nested lists: (B, *spatial) or (B, 1, *spatial) class indices of any integer type, or
            floating with whole values; or soft or multi-hot targets (B, C, *spatial) in [0, 1]. With a single channel
            always such a target.
        focal_exponents: γ ≥ 0 of each focal sum asked for, each a number or one per class.
        activation: "softmax" over the channels, or "sigmoid": every channel its own two-class problem, of which a hard
            label c is the positive side in channel c and the negative side in all others.
        ignore_index: Voxels with this label are left out and not counted. In soft or multi-hot targets it takes out
            the voxels that have it in any channel.
        voxel_weight: (B, *spatial) or (B, 1, *spatial), not negative; multiplies every voxel's part of the sums.
        mask: (B, *spatial) or (B, 1, *spatial); voxels where it is 0 or False are left out and not counted.
        sample_weight: (B,), not negative; kept for what is computed from the sums.
        validate: Whether the values of labels and weights are checked. "later" does not wait for the device: a later
            call raises the error. None: at once on the CPU, later on CUDA, not on other devices. Where not checked, a
            label out of range counts as ignored.

    Extra memory is a few chunks forward, and the gradient backward. Second derivatives, forward mode and torch.func
    take a slower pass with more memory.

    Raises:
        ValueError: Shapes or types that do not fit, softmax with one channel, labels out of range or not whole.
    """
    logits = targets.plain_logits(logits)
    targets.check_logits(logits, activation)
    target = targets.read_target(logits, targets.as_tensor("labels", labels, logits), ignore_index)
    if mask is not None:
        within = targets.read_companion("mask", logits, targets.as_tensor("mask", mask, logits))
        target, ignore_index = targets.masked(target, within, ignore_index)
    weight = None
    if voxel_weight is not None:
        weight = targets.read_companion("voxel_weight", logits, targets.as_tensor("voxel_weight", voxel_weight, logits))
    exponents = tuple(PER_CLASS("a focal exponent", exponent) for exponent in focal_exponents)
    for exponent in exponents:
        if isinstance(exponent, tuple) and len(exponent) != logits.shape[1]:
            raise ValueError(f"{len(exponent)} focal exponents {exponent} for {logits.shape[1]} classes")
    check = logits.device.type == "cpu" if validate is None else validate is True
    watch = logits.is_cuda if validate is None else validate == "later"
    settings = PassSettings(activation, target.dense, exponents, ignore_index, check, watch)
    sums, voxels = operator.sums(logits, target.values, weight, settings)
    of_samples = None
    if sample_weight is not None:
        of_samples = targets.read_sample_weight(logits, targets.as_tensor("sample_weight", sample_weight, logits))
        of_samples = of_samples.to(sums.dtype)
    return VoxelStatistics(sums, voxels.detach(), exponents, activation, of_samples)
