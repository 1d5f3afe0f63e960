"""The tubes around the skeletons of the target, in which Skeleton Recall sums; made on the CPU by scikit-image."""

# mypy: disable-error-code="no-untyped-call, no-any-return"
# torch has no types for its library of operators.

from typing import Any

import torch
from torch import Tensor

from voxloss.losses.voxel_pass import targets
from voxloss.losses.voxel_pass.lesions.maps import read_labels
from voxloss.losses.voxel_pass.lesions.read import Reading
from voxloss.losses.voxel_pass.settings import INSIDE


def skeleton_tubes(
    labels: Tensor,
    classes: int,
    *,
    activation: str = "softmax",
    ignore_index: int | None = None,
    ignore_scope: str = "voxel",
    multi_hot: bool = False,
) -> Tensor:
    """Mark the voxels of each structure that are close to its skeleton: the `skeletons` of losses of thin structures.

    The skeleton is that of `skimage.morphology.skeletonize`, the tube has the voxels within two steps of it along the
    axes, and what of the tube is outside the structure is left out. With "softmax" the structure is all foreground
    together, as in the code of Kirchhoff et al., with "sigmoid" each channel by itself. Ignored voxels belong to no
    structure. It needs scikit-image (`pip install "voxloss[skeletons]"`) and works on the CPU: about 0.03 s for
    96³ voxels with a few dozen vessels.

    Args:
        labels: (B, *spatial) or (B, 1, *spatial), whole numbers. With one class always a target of it, in [0, 1].
        classes: C, the channels of the logits.
        activation: "softmax", where class 0 is the background, or "sigmoid", where every channel is a structure.
        ignore_index: Label of ignored voxels.
        ignore_scope: That of the loss: whether such a value in a target ignores the "voxel" in all channels, or with
            "sigmoid" in its own "channel" alone.
        multi_hot: Whether `labels` are multi-hot or soft targets (B, C, *spatial), of which a voxel of 1/2 or more is
            one of the structure.

    Returns:
        1 in a tube, else 0, uint8, on the device of the labels: (B, *spatial), or for targets with "sigmoid"
        (B, C, *spatial).

    Raises:
        ValueError: The shape of the labels does not fit, a label is out of range, or fewer than two classes with
            "softmax".
        ModuleNotFoundError: scikit-image is not installed.
    """
    values, reading = read_labels(labels, classes, activation, ignore_index, ignore_scope, multi_hot)
    return find_tubes(values, classes, reading)


def find_tubes(target: Tensor, classes: int, reading: Reading) -> Tensor:
    """Return the tubes of labels (B, *spatial) or targets (B, C, *spatial), as `skeleton_tubes` says."""
    from voxloss.geometry.skeletons import tubed_skeleton  # NumPy and scikit-image, which other losses need not

    together, apart = reading.activation == "softmax", reading.activation == "sigmoid" and reading.dense
    spatial = target.shape[2:] if reading.dense else target.shape[1:]
    found = []
    for sample in target:
        values, _ = reading.targets(sample.flatten(1)[None] if reading.dense else sample.flatten()[None], classes)
        masks = values[0] >= INSIDE
        if together:
            masks = masks.any(0, keepdim=True)
        masks = masks.view(len(masks), *spatial).cpu()
        tubes = torch.stack([torch.from_numpy(tubed_skeleton(mask.numpy())) for mask in masks]) & masks
        found.append(tubes if apart else tubes.any(0))
    if not found:
        return target.new_zeros((0, *((classes,) if apart else ()), *spatial), dtype=torch.uint8)
    return torch.stack(found).to(torch.uint8).to(target.device)


def read_tubes(skeletons: Any, logits: Tensor, target: Tensor, how: Reading) -> Tensor:
    """Return the tubes (B, *spatial) or (B, C, *spatial) of a target: those given, or where None is, those found.

    Raises:
        ValueError: Those that are given do not fit, or torch.vmap hides the labels.
        ModuleNotFoundError: There are none, and scikit-image is not installed.
    """
    apart = how.activation == "sigmoid" and how.dense
    if skeletons is None:
        if not torch.compiler.is_compiling() and targets.is_hidden(target):
            raise ValueError(
                "skeletons are made from the values of the labels, which torch.vmap hides: map over the logits alone, "
                "or give skeletons="
            )
        return torch.ops.voxloss.skeleton_tubes(
            target, logits.shape[1], how.activation, how.dense, how.ignore_index, how.by_channel, how.checked
        )
    skeletons = targets.as_tensor("skeletons", skeletons, logits)
    if skeletons.device != logits.device:
        raise ValueError(f"skeletons on {skeletons.device} but logits on {logits.device}")
    batch, channels, *spatial = logits.shape
    if not apart and skeletons.shape == (batch, 1, *spatial):
        skeletons = skeletons[:, 0]
    if apart and channels == 1 and skeletons.shape == (batch, *spatial):
        skeletons = skeletons[:, None]
    expected = (batch, channels, *spatial) if apart else (batch, *spatial)
    if skeletons.shape != expected:
        raise ValueError(
            f"skeletons of shape {tuple(skeletons.shape)} do not fit logits of shape {tuple(logits.shape)} and these "
            f"labels: expected {expected}; voxloss.skeleton_tubes or voxloss.transforms.Skeletons makes them"
        )
    return skeletons


def _tubes(target: Tensor, classes: int, *how: Any) -> Tensor:
    try:
        return find_tubes(target, classes, Reading(*how))
    except ModuleNotFoundError as error:  # of scikit-image, or of NumPy, which comes with it
        raise ModuleNotFoundError(
            "skeletons need scikit-image, which is not installed: pip install 'voxloss[skeletons]'; or give "
            "skeletons= at the call, which voxloss.transforms.Skeletons makes in a loader",
            name=error.name,
        ) from None


def _shape_of_tubes(target: Tensor, classes: int, *how: Any) -> Tensor:
    activation, dense, *_ = how
    together = dense and activation == "softmax"
    shape = (target.shape[0], *target.shape[2:]) if together else target.shape
    return target.new_empty(shape, dtype=torch.uint8)


def _register() -> torch.library.Library | None:
    """Register the operator; None where an earlier import of this package in the same process did."""
    if hasattr(torch.ops.voxloss, "skeleton_tubes"):
        return None
    library = torch.library.Library("voxloss", "FRAGMENT")
    reading = "str activation, bool dense, int? ignore_index, bool by_channel, bool checked"
    library.define(f"skeleton_tubes(Tensor target, int classes, {reading}) -> Tensor")
    library.impl("skeleton_tubes", _tubes, "CompositeExplicitAutograd")
    torch.library.register_fake("voxloss::skeleton_tubes", _shape_of_tubes, lib=library)
    return library


# The registration lasts as long as this object; see `voxel_pass.operator`.
_LIBRARY = _register()
if _LIBRARY is not None:
    vars(torch.ops.voxloss)["library of skeletons"] = _LIBRARY
