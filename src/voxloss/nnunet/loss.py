"""A loss of the catalogue with what nnU-Net decides: regions, ignored voxels, batch Dice, processes."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from voxloss.losses import Compound, Loss, get_loss
from voxloss.losses.boundary import set_spacing
from voxloss.losses.own import own_loss
from voxloss.nnunet.maps import IGNORED, TargetMaps, WithMaps, ignored_in_all
from voxloss.utilities.imports import import_attribute

# Losses that take the batch of each process by itself.
OF_ONE_PROCESS = ("lovasz",)


class RegionsWithIgnored(nn.Module):
    """A loss of regions; the last channel of nnU-Net's target marks voxels that do not count.

    `loss` must have `IGNORED` as its ignore_index.
    """

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, target: Tensor, **given: Tensor) -> Tensor:
        """Return the loss as a scalar: logits (B, C, *spatial), target (B, C + 1, *spatial) of 0 and 1."""
        loss: Tensor = self.loss(logits, ignored_in_all(target), **given)
        return loss


def nnunet_loss(
    name: str,
    parameters: Mapping[str, Any],
    *,
    regions: int | None,
    ignore_label: int | None,
    batch_dice: bool,
    several_processes: bool,
    classes: int = 0,
    spacing: Sequence[float] | None = None,
) -> nn.Module:
    """Return the loss for one resolution of nnU-Net's output.

    Args:
        name: One of `voxloss.list_losses()`, "compound", or the import path of an own loss; its parameters may have
            `labels`, the form of labels that it takes. An own loss that is no subclass of `Loss` takes no regions.
        parameters: Of the loss, and shared options; they go before what nnU-Net decides, but for activation and
            ignored voxels.
        regions: How many, each with a sigmoid channel of its own; None: labels, with a softmax.
        ignore_label: Of voxels that do not count.
        batch_dice: Region terms of the batch instead of each sample.
        classes: The channels of the network's output; with it, maps that are further channels of the target are
            taken, where the loss needs any (`Maps`).
        spacing: Of the voxels along each axis, in mm, of losses that measure distances and have none of their own.
        several_processes: As under DistributedDataParallel: "the batch" is then that of all processes, as in nnU-Net.

    `dice_cross_entropy` is nnU-Net's own loss, also where it sums instead of averages: the cross entropy of regions
    with an ignore label.

    Raises:
        ValueError: An unknown loss or parameter, a value that it cannot have, or an option that nnU-Net decides.
    """
    for decided in ("activation", "ignore_index"):
        if decided in parameters:
            raise ValueError(f"{decided} is decided by the data set's labels; leave it out of the parameters of {name}")
    if "." in name:
        return _own(name, parameters, regions, ignore_label)
    world = several_processes and name not in OF_ONE_PROCESS
    pool = "sample" if not batch_dice else "world" if world else "batch"
    ignore_index = ignore_label if regions is None else None if ignore_label is None else IGNORED
    reading = {"activation": "softmax" if regions is None else "sigmoid", "ignore_index": ignore_index}
    loss = get_loss(name, **{"pool": pool, **parameters}, **reading)
    if spacing is not None:
        set_spacing(loss, spacing)
    maps = TargetMaps.of(loss, classes, regions is not None, ignore_label is not None) if classes else None
    if maps is not None:
        whole = loss if regions is None or ignore_label is None else RegionsWithIgnored(loss)
        return WithMaps(whole, maps)
    if regions is None or ignore_label is None:
        return loss
    if name == "dice_cross_entropy":
        # A cross entropy averaged over C channels, and (C - 1) / C of one summed over them, is one summed.
        rest = get_loss("cross_entropy", pool=pool, **reading)
        loss = Compound([loss, rest], [1.0, (regions - 1) / regions]) if regions > 1 else loss
    return RegionsWithIgnored(loss)


def _own(name: str, parameters: Mapping[str, Any], regions: int | None, ignore_label: int | None) -> nn.Module:
    """A user's own loss; its pooling is its own affair, and only subclasses of `Loss` can have regions."""
    given = dict(parameters)
    form = given.pop("labels", "index")
    part = import_attribute(name, "the loss")
    if regions is None:
        return own_loss(name, part, given, labels=form, ignore_index=ignore_label)
    loss = own_loss(name, part, given, labels=form, ignore_index=None if ignore_label is None else IGNORED)
    if not isinstance(loss, Loss):
        raise ValueError(f"{name} cannot be trained on regions, which only subclasses of voxloss.Loss take")
    loss.activation = "sigmoid"
    return loss if ignore_label is None else RegionsWithIgnored(loss)
