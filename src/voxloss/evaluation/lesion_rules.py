"""What a lesion is and when two lesions match: the settings of all lesion scores, declared once."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from voxloss.utilities.errors import InputError

Connectivity = Literal[6, 18, 26]
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
    """

    connectivity: Connectivity = 26
    match: MatchRule = "touch"
    threshold: float = 0.0
    panoptic_threshold: float = 0.5
    minimum_volume_ml: float = 0.0
    minimum_predicted_ml: float | None = None
    dilation: int = 0
    size_limits_ml: SizeLimits | dict[str, SizeLimits] | None = None

    def __post_init__(self) -> None:
        shares = ("threshold", "panoptic_threshold")
        volumes = ("minimum_volume_ml", "minimum_predicted_ml")
        self._require("connectivity", self.connectivity in get_args(Connectivity), "6, 18 or 26")
        self._require("match", self.match in get_args(MatchRule), "touch or one_to_one")
        for key in shares:
            self._require(key, 0 <= getattr(self, key) < 1, "at least 0 and below 1")
        for key in volumes:
            volume = getattr(self, key)
            self._require(key, volume is None or 0 <= volume < math.inf, "a volume in ml, not negative")
        self._require("dilation", self.dilation >= 0, "a number of voxels, not negative")
        limits = self.size_limits_ml
        for pair in limits.values() if isinstance(limits, dict) else () if limits is None else (limits,):
            ordered = len(pair) == 2 and 0 <= pair[0] <= pair[1] < math.inf
            self._require("size_limits_ml", ordered, "a smaller and a larger volume in ml")

    def _require(self, key: str, good: Any, allowed: str) -> None:
        if not good:
            raise InputError(f"evaluation.lesions.{key} must be {allowed}; received {getattr(self, key)!r}.")

    def limits_of(self, class_name: str) -> SizeLimits | None:
        """Return the size limits of a class; None if it has none."""
        limits = self.size_limits_ml
        return limits.get(class_name) if isinstance(limits, dict) else limits
