"""A data set: cases that share classes and mask values, and a digest of its content."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from voxloss.data.case import IGNORED, Case
from voxloss.data.folds import OwnFolds
from voxloss.data.formats import exists, open_image
from voxloss.data.formats.geometry import are_axes
from voxloss.data.formats.volume import absent
from voxloss.geometry.units import AREAS, PIXELS, VOLUMES, Units
from voxloss.utilities.arrays import ClassIndices, Labels
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import count_of


@dataclass(frozen=True)
class Dataset:
    """Cases that share classes.

    Args:
        name: The data set's name.
        cases: The cases.
        classes: Names by class index; the first is "background".
        label_values: Value in a mask file -> class index. A class that is a union has several values. 254 marks
            ignored voxels, which count in no loss and no score. Any other value in a mask is an error.
        dropped: (Case id, reason) of what is on disk but not used.
        value_hints: Undeclared value -> what probably went wrong, for the error message.
        axes: The order and direction, such as "LPS", that the cases' arrays are turned to; None: each stays as stored.
        spacing_mm: The spacing along these axes that all cases have; None: they differ, or it is not known.
        own_folds: The folds that the data come with; None: they come without.
        patients: The patient of each case whose patient the data tell.
        notes: Sentences on how the files were understood; they are not kept in a study.
        flat_axis: The axis along which every case has one voxel, if the cases are images; None: they are volumes.
        unit: "pixel" if the size of the images' pixels is not known and counts as 1.

    Raises:
        InputError: The values contradict each other.
    """

    name: str
    cases: tuple[Case, ...]
    classes: tuple[str, ...]
    label_values: dict[int, int]
    dropped: tuple[tuple[str, str], ...] = ()
    value_hints: dict[int, str] = field(default_factory=dict)
    axes: str | None = None
    spacing_mm: tuple[float, float, float] | None = None
    own_folds: OwnFolds | None = None
    patients: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = field(default=(), compare=False)
    flat_axis: int | None = None
    unit: Literal["mm", "pixel"] = "mm"

    @property
    def units(self) -> Units:
        """The units in which its structures are measured."""
        if self.flat_axis is None:
            return VOLUMES
        return PIXELS if self.unit == "pixel" else AREAS

    @property
    def ignore_index(self) -> int | None:
        """`IGNORED` if a value of the masks is ignored or a case has a region of interest, else None."""
        return IGNORED if IGNORED in self.label_values.values() or self.has_regions else None

    @property
    def has_regions(self) -> bool:
        """Whether cases have a region of interest."""
        return any(case.region is not None for case in self.cases)

    def __post_init__(self) -> None:
        if not self.classes or self.classes[0] != "background":
            raise InputError(f"the first class of {self.name} should be background, but the classes are {self.classes}")
        if len(set(self.classes)) < len(self.classes) or len(self.classes) > IGNORED:
            raise InputError(f"the classes of {self.name} should differ and be fewer than 255, but are {self.classes}")
        if wrong := set(self.label_values.values()) - {*range(len(self.classes)), IGNORED}:
            raise InputError(f"label_values of {self.name} names class {min(wrong)}, of {len(self.classes)} classes")
        if self.axes is not None and not are_axes(self.axes):
            raise InputError(f'the axes of {self.name} should be three letters such as "RAS", but are {self.axes!r}')
        ids = [case.case_id for case in self.cases]
        if len(set(ids)) < len(ids):
            twice = next(case_id for case_id in ids if ids.count(case_id) > 1)
            raise InputError(f"{self.name} has more than one case called {twice}")


def without_excluded(
    cases: Iterable[Case], exclude: Collection[str]
) -> tuple[tuple[Case, ...], tuple[tuple[str, str], ...]]:
    """Split cases into those to use and the (id, reason) of those excluded.

    An id that no case has is passed over: `load_dataset` tells a mistake from a preset's exclusion.
    """
    if isinstance(exclude, str):
        raise InputError(f"exclude should be a list of case ids, but is the text {exclude!r}")
    cases = tuple(cases)
    kept = tuple(case for case in cases if case.case_id not in exclude)
    return kept, tuple((case.case_id, "excluded by the settings") for case in cases if case.case_id in exclude)


def require_complete(dataset: Dataset) -> None:
    """Raise InputError if a file of the data set is missing; the message names the first, and how many are missing."""
    unlabelled = [case.case_id for case in dataset.cases if case.label is None]
    if unlabelled:
        raise InputError(f"case {unlabelled[0]} of {dataset.name} has no mask ({len(unlabelled)} such cases)")
    files = [path for case in dataset.cases for path in case.files]
    missing = [path for path in files if not exists(path)]
    if missing:
        more = count_of(len(missing) - 1, "other file")
        others = f"; {more} of {dataset.name} {'is' if len(missing) == 2 else 'are'} missing too" if missing[1:] else ""
        raise InputError(f"{absent(missing[0])}{others}")


def require_same_channels(dataset: Dataset) -> None:
    """Raise InputError if a case has, by its header, another number of channels than the first case."""
    counts = [channels_of(case) for case in dataset.cases]
    for case, count in zip(dataset.cases, counts, strict=True):
        if count != counts[0]:
            first = dataset.cases[0].case_id
            raise InputError(f"{case.images[0]}: case {case.case_id} has {count} channels, but {first} has {counts[0]}")


def channels_of(case: Case) -> int:
    """Return the number of a case's channels. Raises InputError if a header cannot be read."""
    return sum(open_image(path).channels for path in case.images)


def data_digest(files: Mapping[str, Sequence[str]]) -> str:
    """Return one digest of a data set, independent of its folder.

    Args:
        files: For every case's id the digests of its files (`content_digest`).
    """
    digest = hashlib.blake2b(digest_size=16)
    for case_id in sorted(files):
        digest.update(case_id.encode() + b"\0")
        for one in files[case_id]:
            digest.update(bytes.fromhex(one))
    return digest.hexdigest()


def file_values(dataset: Dataset) -> list[int]:
    """Return, for every class, its value in the masks; the smallest if there are several."""
    return [
        min(value for value, index in dataset.label_values.items() if index == wanted)
        for wanted in range(len(dataset.classes))
    ]


def to_file_values(label: ClassIndices, dataset: Dataset) -> Labels:
    """Convert class indices to the values of the data set's own masks (BraTS20 writes enhancing tumour as 4).

    Returns:
        uint8, or uint16 if a class has a value above 255.
    """
    values = file_values(dataset)
    table: Labels = np.array(values, dtype=np.uint8 if max(values) <= 255 else np.uint16)
    return table[label]


def dataset_to_json(dataset: Dataset) -> dict[str, Any]:
    """Return the data set as JSON values, with absolute paths."""
    own = dataset.own_folds
    content: dict[str, Any] = {
        "name": dataset.name,
        "classes": list(dataset.classes),
        "label_values": {str(value): index for value, index in dataset.label_values.items()},
        "value_hints": {str(value): hint for value, hint in dataset.value_hints.items()},
        "dropped": [list(pair) for pair in dataset.dropped],
        "cases": [
            {
                "id": case.case_id,
                "images": [str(path.absolute()) for path in case.images],
                "label": None if case.label is None else str(case.label.absolute()),
                **({} if case.region is None else {"region": str(case.region.absolute())}),
                **({} if case.spacing_mm is None else {"spacing_mm": list(case.spacing_mm)}),
            }
            for case in dataset.cases
        ],
        "axes": dataset.axes,
        "spacing_mm": None if dataset.spacing_mm is None else list(dataset.spacing_mm),
        "flat_axis": dataset.flat_axis,
        "unit": dataset.unit,
    }
    if own is not None:
        training = None if own.training is None else [list(ids) for ids in own.training]
        folds = [list(ids) for ids in own.validation]
        content["own_folds"] = {"source": own.source, "validation": folds, "training": training}
    if dataset.patients:
        content["patients"] = dataset.patients
    return content


def dataset_from_json(content: dict[str, Any]) -> Dataset:
    """Return the data set of `dataset_to_json`. Raises KeyError, TypeError or AttributeError for anything else."""
    cases = [
        Case(
            case["id"],
            tuple(map(Path, case["images"])),
            Path(case["label"]) if case["label"] else None,
            Path(case["region"]) if case.get("region") else None,
            _spacing(case.get("spacing_mm")),
        )
        for case in content["cases"]
    ]
    return Dataset(
        name=content["name"],
        cases=tuple(cases),
        classes=tuple(content["classes"]),
        label_values={int(value): index for value, index in content["label_values"].items()},
        dropped=tuple((case_id, reason) for case_id, reason in content.get("dropped", ())),
        value_hints={int(value): hint for value, hint in content.get("value_hints", {}).items()},
        axes=content.get("axes"),
        spacing_mm=_spacing(content.get("spacing_mm")),
        own_folds=_own_folds(content.get("own_folds")),
        patients=dict(content.get("patients", {})),
        flat_axis=_axis(content.get("flat_axis")),
        unit="pixel" if content.get("unit") == "pixel" else "mm",
    )


def _own_folds(content: dict[str, Any] | None) -> OwnFolds | None:
    if content is None:
        return None
    training = content["training"]
    return OwnFolds(
        content["source"],
        tuple(map(tuple, content["validation"])),
        None if training is None else tuple(map(tuple, training)),
    )


def _spacing(values: list[float] | None) -> tuple[float, float, float] | None:
    if values is None:
        return None
    if not isinstance(values, list) or len(values) != 3:
        raise TypeError(f"spacing_mm should be three numbers, but is {values!r}")
    return float(values[0]), float(values[1]), float(values[2])


def _axis(value: Any) -> int | None:
    if value not in (None, 0, 1, 2):
        raise TypeError(f"flat_axis should be 0, 1, 2 or null, but is {value!r}")
    return value  # type: ignore[no-any-return]
