"""The imbalance fingerprint of a data set: how rare its classes are, as `voxloss check` measures it."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from voxloss.data.check.findings import Report, Spread
from voxloss.utilities.errors import InputError


@dataclass(frozen=True)
class ClassRarity:
    """How rare a class is.

    Args:
        name: The class.
        cases: That have it; the spreads are over these.
        voxel_fraction: Its share of the voxels of a case.
        pieces: Its connected pieces per case.
        patches_without: The share of random patches of a random case that hold no voxel of it; NaN if it is not known.
    """

    name: str
    cases: int
    voxel_fraction: Spread
    pieces: Spread
    patches_without: float


@dataclass(frozen=True)
class Fingerprint:
    """How rare the classes of a data set are.

    Args:
        cases: Cases with a mask.
        classes: The classes without the background.
    """

    cases: int
    classes: tuple[ClassRarity, ...]

    def absent_share(self, name: str) -> float:
        """The share of cases that lack a class."""
        return 1 - self.of(name).cases / self.cases

    def of(self, name: str) -> ClassRarity:
        """A class. Raises InputError where there is none of this name."""
        for one in self.classes:
            if one.name == name:
                return one
        raise InputError(f"there is no class {name!r}; there are {', '.join(one.name for one in self.classes)}")

    @property
    def rarest(self) -> ClassRarity:
        """The class with the least median share of the voxels."""
        return min(self.classes, key=lambda one: one.voxel_fraction.median)


def fingerprint_of(report: Report) -> Fingerprint | None:
    """Return the fingerprint that a check measured; None if it read no mask with a structure."""
    classes = tuple(
        ClassRarity(one.name, one.cases, one.voxel_fraction, one.components, one.patches_without)
        for one in report.classes[1:]
        if one.cases
    )
    return Fingerprint(report.masks_read, classes) if report.masks_read and classes else None


def read_check(path: Path) -> Fingerprint:
    """Read the check.json of `voxloss check DATA --output FOLDER`.

    Raises:
        InputError: The file is not that of a check, or the check read no mask.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        classes = [
            {
                "name": one["name"],
                "cases": one["cases"],
                "voxel_fraction": one["voxel_fraction"],
                "pieces": one["components"],
                "patches_without": one["patches_without"],
            }
            for one in content["classes"][1:]
            if one["cases"]
        ]
        cases = content["masks_read"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not the check.json of `voxloss check DATA --output FOLDER`: {error!r}") from None
    if not cases or not classes:
        raise InputError(f"{path} holds no fingerprint, as the check read no mask with a structure")
    return fingerprint_from({"cases": cases, "classes": classes}, str(path))


def fingerprint_from(content: Mapping[str, Any], source: str) -> Fingerprint:
    """Read what `plain_fingerprint` gave. Raises InputError, naming the source, if it is not a fingerprint."""
    try:
        classes = tuple(
            ClassRarity(
                str(one["name"]),
                int(one["cases"]),
                Spread(**_numbers(one["voxel_fraction"])),
                Spread(**_numbers(one["pieces"])),
                math.nan if one["patches_without"] is None else float(one["patches_without"]),
            )
            for one in content["classes"]
        )
        found = Fingerprint(int(content["cases"]), classes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{source} is damaged: its fingerprint cannot be read ({error!r})") from None
    for one in found.classes:
        share, pieces = one.voxel_fraction.median, one.pieces.median
        if not (0 < share <= 1 and pieces >= 1 and 0 < one.cases <= found.cases):
            raise InputError(
                f"{source} is damaged: the class {one.name} has {one.cases} of {found.cases} cases, a share of {share} "
                f"and {pieces} pieces"
            )
    return found


def _numbers(spread: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(spread[name]) for name in ("median", "low", "high")}


def plain_fingerprint(fingerprint: Fingerprint) -> dict[str, Any]:
    """Return a fingerprint for YAML, to six digits."""
    return {"cases": fingerprint.cases, "classes": [_rounded(asdict(one)) for one in fingerprint.classes]}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
