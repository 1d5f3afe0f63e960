"""Transforms for loaders: the maps of the labels that some losses need, made beside the training and not in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxloss.losses import lesion_regions, skeleton_tubes
from voxloss.losses.voxel_pass.further.distances import measure_labels, quick_measure


@dataclass(frozen=True)
class LesionRegions:
    """Add the regions of the lesions to a dictionary of one sample, as MONAI's dictionary transforms do.

        transform = LesionRegions("label", classes=2)  # after cropping and augmentation
        sample = transform({"image": image, "label": label})  # and sample["regions"], (F, *spatial)
        loss(logits, batch["label"], regions=batch["regions"])

    It belongs after all transforms that move or cut voxels, so that the lesions are those of the patch. It needs no
    MONAI; `monai.transforms.Compose` and `torchvision`'s take it as it is.

    Args:
        labels: Key of the labels: a tensor or array (*spatial) or (1, *spatial), or if `multi_hot` (C, *spatial).
        regions: Key that the regions get, (F, *spatial), int32.
        classes: C, the channels of the network's output.
        activation: That of the loss: "softmax", where F is C-1, or "sigmoid", where it is C.
        ignore_index: That of the loss.
        ignore_scope: That of the loss.
        multi_hot: Whether the labels are multi-hot or soft targets.

    Raises:
        KeyError: The sample has no such labels.
        ValueError: Their shape does not fit, or one is out of range.
    """

    labels: str = "label"
    regions: str = "regions"
    classes: int = 2
    activation: str = "softmax"
    ignore_index: int | None = None
    ignore_scope: str = "voxel"
    multi_hot: bool = False

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of the sample with the regions."""
        found = lesion_regions(
            _of(sample, "labels", self.labels)[None],
            self.classes,
            activation=self.activation,
            ignore_index=self.ignore_index,
            ignore_scope=self.ignore_scope,
            multi_hot=self.multi_hot,
        )
        return {**sample, self.regions: found[0]}


@dataclass(frozen=True)
class DistanceMaps:
    """Add the signed distances to the border of every class to a dictionary of one sample.

        transform = DistanceMaps("label", classes=2, spacing=(1.5, 0.8, 0.8))  # after cropping and augmentation
        sample = transform({"image": image, "label": label})  # and sample["distances"], (F, *spatial)
        loss(logits, batch["label"], distances=batch["distances"])

    It belongs after all transforms that move or cut voxels, so that the borders are those of the patch. It needs no
    MONAI; `monai.transforms.Compose` and `torchvision`'s take it as it is. Where SciPy is installed it measures the
    distances, else torch, which takes longer; they are the same, see `voxloss.distance_maps`.

    Args:
        labels: Key of the labels: a tensor or array (*spatial) or (1, *spatial), or if `multi_hot` (C, *spatial).
        distances: Key that the distances get, (F, *spatial), float32.
        classes: C, the channels of the network's output.
        spacing: Of the voxels along each axis, in mm, or the key of the sample that has it. None counts voxels.
        activation: That of the loss: "softmax", where F is C-1, or "sigmoid", where it is C.
        ignore_index: That of the loss.
        ignore_scope: That of the loss.
        multi_hot: Whether the labels are multi-hot or soft targets.
        background: Whether to measure to the border of class 0 under "softmax" too, for losses that include it.

    Raises:
        KeyError: The sample has no such labels, or no such spacing.
        ValueError: Their shape does not fit, or a label or spacing is out of range.
    """

    labels: str = "label"
    distances: str = "distances"
    classes: int = 2
    spacing: Sequence[float] | str | None = None
    activation: str = "softmax"
    ignore_index: int | None = None
    ignore_scope: str = "voxel"
    multi_hot: bool = False
    background: bool = False

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of the sample with the distances."""
        spacing = _of(sample, "spacing", self.spacing) if isinstance(self.spacing, str) else self.spacing
        found = measure_labels(
            _of(sample, "labels", self.labels)[None],
            self.classes,
            quick_measure(),
            spacing,
            self.activation,
            self.ignore_index,
            self.ignore_scope,
            self.multi_hot,
            self.background,
        )
        return {**sample, self.distances: found[0]}


@dataclass(frozen=True)
class Skeletons:
    """Add the tubes around the skeletons to a dictionary of one sample, as MONAI's dictionary transforms do.

        transform = Skeletons("label", classes=2)  # after cropping and augmentation
        sample = transform({"image": image, "label": label})  # and sample["skeletons"], (*spatial)
        loss(logits, batch["label"], skeletons=batch["skeletons"])

    It belongs after all transforms that move or cut voxels, like `LesionRegions`, and needs scikit-image
    (`pip install "voxloss[skeletons]"`).

    Args:
        labels: Key of the labels: a tensor or array (*spatial) or (1, *spatial), or if `multi_hot` (C, *spatial).
        skeletons: Key that the tubes get, uint8: (*spatial), or of multi-hot labels with "sigmoid" (C, *spatial).
        classes: C, the channels of the network's output.
        activation: That of the loss, "softmax" or "sigmoid".
        ignore_index: That of the loss.
        ignore_scope: That of the loss.
        multi_hot: Whether the labels are multi-hot or soft targets.

    Raises:
        KeyError: The sample has no such labels.
        ValueError: Their shape does not fit, or one is out of range.
        ModuleNotFoundError: scikit-image is not installed.
    """

    labels: str = "label"
    skeletons: str = "skeletons"
    classes: int = 2
    activation: str = "softmax"
    ignore_index: int | None = None
    ignore_scope: str = "voxel"
    multi_hot: bool = False

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of the sample with the tubes."""
        found = skeleton_tubes(
            _of(sample, "labels", self.labels)[None],
            self.classes,
            activation=self.activation,
            ignore_index=self.ignore_index,
            ignore_scope=self.ignore_scope,
            multi_hot=self.multi_hot,
        )
        return {**sample, self.skeletons: found[0]}


def _of(sample: Mapping[str, Any], what: str, key: str) -> Any:
    if key not in sample:
        raise KeyError(f"the sample has no {what} {key!r}; its keys are {', '.join(map(repr, sample))}")
    return sample[key]
