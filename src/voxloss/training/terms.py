"""The terms of a loss on one batch: their shares of the gradient, and terms that are not finite."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from voxloss.losses import Loss, VoxelStatistics, voxel_statistics
from voxloss.losses.terms import needs


def gradient_shares(
    loss: nn.Module, logits: Tensor, labels: Tensor, maps: Mapping[str, Tensor] | None = None
) -> dict[str, float]:
    """Return each term's share of the gradient by name: ‖∂term/∂logits‖ divided by the sum of these norms.

    Adam hides a loss's scale but not the ratio of its terms. Terms without any gradient have share 0. A loss that is no
    `Loss` of this package has no terms that could be told apart.
    """
    if not isinstance(loss, Loss):
        return {}
    leaf = logits.detach().requires_grad_()
    terms = loss.formula.terms(_statistics(loss, leaf, labels, maps))
    norms = {
        name: float(torch.autograd.grad(value, leaf, retain_graph=True)[0].float().norm())
        for name, value in terms.items()
    }
    total = sum(norms.values())
    return {name: norm / total if total > 0 else 0.0 for name, norm in norms.items()}


@torch.no_grad()
def what_is_not_finite(
    loss: nn.Module, logits: Tensor, labels: Tensor, classes: Sequence[str], maps: Mapping[str, Tensor] | None = None
) -> str:
    """Describe which classes have logits that are not finite, or else which terms and classes are not finite."""
    broken = ~logits.isfinite().transpose(0, 1).flatten(1).all(1)
    if broken.any():
        return f"the network's logits of {_names(classes, broken)} are not finite"
    if not isinstance(loss, Loss):
        return "the logits are finite, its own value is not"
    statistics = _statistics(loss, logits, labels, maps)
    terms = [name for name, value in loss.formula.terms(statistics).items() if not value.isfinite()]
    sums = ~statistics.sums.isfinite().all(1).all(0)
    where = f" by the sums of {_names(classes, sums)}" if sums.any() else ""
    return (
        f"the {' and the '.join(terms)} term is not finite{where}"
        if terms
        else "its terms are finite, their sum is not"
    )


def _statistics(loss: Loss, logits: Tensor, labels: Tensor, maps: Mapping[str, Tensor] | None) -> VoxelStatistics:
    return voxel_statistics(logits, labels, **needs(loss.formula), **loss.reading | dict(maps or {}))


def _names(classes: Sequence[str], chosen: Tensor) -> str:
    return ", ".join(name for name, is_chosen in zip(classes, chosen.tolist(), strict=True) if is_chosen)
