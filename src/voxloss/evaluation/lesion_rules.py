"""What a lesion is and when two lesions match: the settings of all lesion scores, declared once."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from voxloss.utilities.errors import InputError

Connectivity = Literal[6, 18, 26]

# Key of volumes -> key of images in its place.
AREA_KEYS = {
    "minimum_volume_ml": "minimum_area_mm2",
    "minimum_predicted_ml": "minimum_predicted_mm2",
    "size_limits_ml": "size_limits_mm2",
}
MatchRule = Literal["touch", "one_to_one"]
SizeLimits = tuple[float, float]


@dataclass(frozen=True)
class LesionRules:
    """How the lesions of a class are found and matched.

    Args:
        connectivity: Neighbours of a voxel, which belong to the same lesion: 26 (faces, edges and corners), 18 (faces
            and edges) or 6 (faces). In two dimensions these are 8, 8 and 4.
        match: "touch": a lesion matches every lesion of the other mask that it overlaps enough, so merged and split
            lesions count as detected. "one_to_one": each lesion matches one at most, pairs with the largest overlap
            first.
        threshold: Two lesions match if their intersection over union exceeds this; 0: one voxel in common is enough.
        panoptic_threshold: The same for panoptic, segmentation and recognition quality, which always match one to one.
        minimum_volume_ml: A smaller lesion of the reference is not counted, nor is a predicted one that only matches
            such lesions.
        minimum_predicted_ml: A smaller predicted lesion that matches nothing is not counted as a false positive;
            null: minimum_volume_ml. 0 counts those of any size.
        dilation: The reference is dilated by this number of voxels (18 neighbours) to find lesions: those that then
            touch are one, and a predicted lesion touches what it touches after the dilation. Volumes and overlaps are
            those before it. 0: no dilation. BraTS 2023 takes 3, and 1 for metastases and meningiomas.
        size_limits_ml: Largest volume of a small and of a middle lesion of the reference, for lesion recall by size;
            for all classes, or for each by its name. null: thirds of the data set's lesions, by class.
        minimum_area_mm2: In the place of minimum_volume_ml for images; in pixels if the pixel size is not known, as the
            next two.
        minimum_predicted_mm2: In the place of minimum_predicted_ml for images.
        size_limits_mm2: In the place of size_limits_ml for images.
    """

    connectivity: Connectivity = 26
    match: MatchRule = "touch"
    threshold: float = 0.0
    panoptic_threshold: float = 0.5
    minimum_volume_ml: float = 0.0
    minimum_predicted_ml: float | None = None
    dilation: int = 0
    size_limits_ml: SizeLimits | dict[str, SizeLimits] | None = None
    minimum_area_mm2: float = 0.0
    minimum_predicted_mm2: float | None = None
    size_limits_mm2: SizeLimits | dict[str, SizeLimits] | None = None

    def __post_init__(self) -> None:
        shares = ("threshold", "panoptic_threshold")
        sizes = {
            "minimum_volume_ml": "a volume in ml", "minimum_predicted_ml": "a volume in ml",
            "minimum_area_mm2": "an area in mm² or pixels", "minimum_predicted_mm2": "an area in mm² or pixels",
        }  # fmt: skip
        self._require("connectivity", self.connectivity in get_args(Connectivity), "6, 18 or 26")
        self._require("match", self.match in get_args(MatchRule), "touch or one_to_one")
        for key in shares:
            self._require(key, 0 <= getattr(self, key) < 1, "at least 0 and below 1")
        for key, what in sizes.items():
            size = getattr(self, key)
            self._require(key, size is None or 0 <= size < math.inf, f"{what}, not negative")
        self._require("dilation", self.dilation >= 0, "a number of voxels, not negative")
        for key, what in (("size_limits_ml", "volume in ml"), ("size_limits_mm2", "area in mm² or pixels")):
            limits = getattr(self, key)
            for pair in limits.values() if isinstance(limits, dict) else () if limits is None else (limits,):
                ordered = len(pair) == 2 and 0 <= pair[0] <= pair[1] < math.inf
                self._require(key, ordered, f"a smaller and a larger {what}")

    def _require(self, key: str, good: Any, allowed: str) -> None:
        if not good:
            raise InputError(f"evaluation.lesions.{key} must be {allowed}; received {getattr(self, key)!r}.")

    def of_areas(self) -> "LesionRules":
        """Return the rules for two-dimensional masks, in which the keys of volumes hold those of areas."""
        areas: dict[str, Any] = {volume: getattr(self, area) for volume, area in AREA_KEYS.items()}
        return replace(self, **areas)

    def limits_of(self, class_name: str) -> SizeLimits | None:
        """Return the size limits of a class; None if it has none."""
        limits = self.size_limits_ml
        return limits.get(class_name) if isinstance(limits, dict) else limits
