"""Losses made of losses: several on one pass over the voxels, and one on outputs of several resolutions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from voxloss.losses.catalogue import get_loss
from voxloss.losses.formulas import Formula
from voxloss.losses.modules import VoxelLoss
from voxloss.losses.parameters import PerClass, check_positive
from voxloss.losses.statistics import VoxelStatistics


@dataclass(frozen=True)
class WeightedFormulas:
    """Σ_k weight_k · formula_k, by name."""

    formulas: dict[str, Formula]
    weights: tuple[float, ...]

    @property
    def exponents(self) -> tuple[PerClass, ...]:
        """Each exponent that any of the formulas needs, once."""
        return tuple(dict.fromkeys(exponent for formula in self.formulas.values() for exponent in formula.exponents))

    def terms(self, statistics: VoxelStatistics) -> dict[str, Tensor]:
        """Each formula's part of the sum by name, weighted."""
        parts = zip(self.formulas.items(), self.weights, strict=True)
        return {name: weight * formula(statistics) for (name, formula), weight in parts}

    def __call__(self, statistics: VoxelStatistics) -> Tensor:
        return torch.stack(list(self.terms(statistics).values())).sum()


class Compound(VoxelLoss):
    """Σ_k weight_k · loss_k(logits, labels) on one pass over the voxels, whatever exponents the losses need.

        Compound([voxloss.get_loss("dice", include_background=False), "cross_entropy"], weights=[1, 0.5])

    losses: modules of this package or their names, Compound among them; those given by name get the activation,
        ignore_index and validate of the others.
    weights: not negative, one per loss; 1 each where not given.

    Raises:
        ValueError: no loss, a weight that is negative or missing, or losses that disagree about activation,
            ignore_index or validate, which are those of the shared pass.
        TypeError: something that is no loss of this package.
    """

    def __init__(self, losses: Sequence[VoxelLoss | str], weights: Sequence[float] | None = None) -> None:
        nn.Module.__init__(self)
        if not losses or isinstance(losses, str):
            raise ValueError(f"Compound needs a list of losses, received {losses!r}")
        given = [loss for loss in losses if not isinstance(loss, str)]
        for loss in given:
            if not isinstance(loss, VoxelLoss):
                raise TypeError(f"Compound takes losses of voxloss or their names, received {type(loss).__name__}")
            if loss.reading != given[0].reading:
                raise ValueError(
                    "the losses of a Compound must agree on activation, ignore_index and validate, received "
                    f"{given[0].reading} and {loss.reading}"
                )
        self.reading: dict[str, Any] = given[0].reading if given else {}
        made = [get_loss(loss, **self.reading) if isinstance(loss, str) else loss for loss in losses]
        self.losses = nn.ModuleList(made)
        self.weights = _weights(weights, len(made))
        names = [type(loss).__name__.removesuffix("Loss") for loss in made]
        names = [f"{name} {k}" if names.count(name) > 1 else name for k, name in enumerate(names, start=1)]
        self.formula = WeightedFormulas(
            {name: loss.formula for name, loss in zip(names, made, strict=True)}, self.weights
        )

    def extra_repr(self) -> str:
        return f"weights={self.weights}"


class DeepSupervision(nn.Module):
    """Σ_k weight_k · loss(logits_k, labels_k) over outputs of falling resolution, the finest first.

        loss = DeepSupervision(voxloss.get_loss("mixed_focal"))
        loss([logits, logits_half, logits_quarter], labels)

    Labels (and a voxel weight) of the finest grid are taken to the other grids by nearest neighbour: the voxel of index
    i of m is that of index floor((i + 1/2) n / m) of n. Multi-hot and soft targets too. Or give one for each output.

    loss: called as `loss(logits, labels, voxel_weight)` or, without a voxel weight, `loss(logits, labels)`.
    weights: not negative, one per output; where not given 1, 1/2, 1/4, … divided by their sum, as in nnU-Net, which
        however gives the coarsest of its outputs the weight 0. An output of weight 0 is left out.

    Raises:
        ValueError: no output, or another number of weights or labels than of outputs.
    """

    def __init__(self, loss: nn.Module, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.weights = None if weights is None else _weights(weights, len(weights))

    def forward(
        self,
        logits: Sequence[Tensor] | Tensor,
        labels: Sequence[Tensor] | Tensor,
        voxel_weight: Sequence[Tensor] | Tensor | None = None,
    ) -> Tensor:
        """The weighted sum as a scalar. A single tensor of logits is a single output with weight 1."""
        if isinstance(logits, Tensor):  # what a network with deep supervision returns in validation
            return self._at(logits, _of_output(labels, 0, 1), _of_output(voxel_weight, 0, 1))
        if not logits:
            raise ValueError("DeepSupervision received no output")
        weights = self.weights or tuple(2.0**-k / (2 - 2.0 ** (1 - len(logits))) for k in range(len(logits)))
        if len(weights) != len(logits):
            raise ValueError(f"DeepSupervision has {len(weights)} weights but received {len(logits)} outputs")
        parts = []
        for k, (output, weight) in enumerate(zip(logits, weights, strict=True)):
            if weight != 0:
                companions = [_of_output(t, k, len(logits)) for t in (labels, voxel_weight)]
                parts.append(weight * self._at(output, *companions))
        return torch.stack(parts).sum()

    def _at(self, logits: Tensor, labels: Tensor, voxel_weight: Tensor | None) -> Tensor:
        labels = nearest(labels, logits.shape[2:])
        if voxel_weight is None:
            return self.loss(logits, labels)
        return self.loss(logits, labels, nearest(voxel_weight, logits.shape[2:]))

    def extra_repr(self) -> str:
        return "" if self.weights is None else f"weights={self.weights}"


def nearest(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """The last axes of `tensor` brought to `shape` by nearest neighbour, in whatever type it is."""
    for axis, (old, new) in enumerate(zip(tensor.shape[-len(shape) :], shape, strict=True), start=-len(shape)):
        if old != new:
            index = torch.div((torch.arange(new, device=tensor.device) * 2 + 1) * old, 2 * new, rounding_mode="floor")
            tensor = tensor.index_select(axis, index)
    return tensor


def _of_output(tensors: Any, k: int, outputs: int) -> Any:
    if tensors is None or isinstance(tensors, Tensor):
        return tensors
    if len(tensors) != outputs:
        raise ValueError(f"DeepSupervision received {outputs} outputs but {len(tensors)} labels or voxel weights")
    return tensors[k]


def _weights(weights: Sequence[float] | None, number: int) -> tuple[float, ...]:
    chosen = (1.0,) * number if weights is None else tuple(weights)
    if len(chosen) != number:
        raise ValueError(f"{number} losses need as many weights, received {len(chosen)}: {chosen}")
    for weight in chosen:
        check_positive("a weight", weight, or_zero=True)
    if not any(chosen):
        raise ValueError(f"one weight at least must be above 0, received {chosen}")
    return tuple(float(weight) for weight in chosen)
