"""Transforms for loaders: the maps of the labels that some losses need, made beside the training and not in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from voxloss.losses import lesion_regions, skeleton_tubes


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
    multi_hot: bool = False

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of the sample with the regions."""
        found = lesion_regions(
            _labels_of(sample, self.labels),
            self.classes,
            activation=self.activation,
            ignore_index=self.ignore_index,
            multi_hot=self.multi_hot,
        )
        return {**sample, self.regions: found[0]}


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
    multi_hot: bool = False

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of the sample with the tubes."""
        found = skeleton_tubes(
            _labels_of(sample, self.labels),
            self.classes,
            activation=self.activation,
            ignore_index=self.ignore_index,
            multi_hot=self.multi_hot,
        )
        return {**sample, self.skeletons: found[0]}


def _labels_of(sample: Mapping[str, Any], key: str) -> Any:
    """Return the labels of a sample as those of a batch of one."""
    if key not in sample:
        raise KeyError(f"the sample has no labels {key!r}; its keys are {', '.join(map(repr, sample))}")
    return sample[key][None]
