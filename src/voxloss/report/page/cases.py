"""The cases of a study, ordered by disagreement of the losses, and their volumes for the viewer.

From a file a page can fetch nothing, but it can load scripts: each case's volumes are a script of their own, as base64,
that the viewer loads when the case is opened.
"""

import base64
import gzip
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from voxloss.data.case import IGNORED, Case, read_image, read_label
from voxloss.data.formats.geometry import Geometry
from voxloss.data.probabilities import read_probability
from voxloss.evaluation.lesion_list import lesion_rows
from voxloss.evaluation.lesion_rules import LesionRules
from voxloss.evaluation.lesions import lesion_marks
from voxloss.evaluation.significance import case_values
from voxloss.geometry.components import bounding_box, class_boxes, enclosing_box
from voxloss.report.comparison import Comparison
from voxloss.report.figures.planes import grey_window
from voxloss.report.names import loss_name
from voxloss.report.page.images import error_component, image_case
from voxloss.report.record import StudyRecord
from voxloss.utilities.arrays import AnyArray, ClassIndices, Float64s, Mask
from voxloss.utilities.errors import InputError

# A case of more voxels is cut to what surrounds its structures, and if that is not enough thinned out.
VIEWER_VOXELS = 6_000_000
MARGIN = 0.5  # of the structures' extent, on every side
LEAST_MARGIN = 12  # voxels

INVENTED = 128  # added to the class of an invented lesion in the viewer's map of marks


@dataclass(frozen=True)
class CaseRow:
    """One case: its fold, the volume (ml) of the primary class, the primary metric by loss, and their spread.

    Of an image volume_ml is the area, in mm² or pixels.
    """

    case_id: str
    fold: int
    volume_ml: float
    values: tuple[float, ...]
    spread: float


def case_rows(comparison: Comparison) -> list[CaseRow]:
    """Return all cases with a value of the primary class, by falling spread (highest minus lowest), then id."""
    scores = comparison.scores
    wide = case_values(scores, comparison.primary_class, comparison.primary_metric)
    own = scores[scores["class"] == comparison.primary_class]
    folds = own.drop_duplicates(["dataset", "case"]).set_index(["dataset", "case"])["fold"]
    volumes = own[own["metric"] == "reference_volume"].groupby(["dataset", "case"])["value"].mean()
    rows = []
    for key, values in wide.dropna(how="all").iterrows():
        spread = float(values.max() - values.min())
        volume = float(volumes.get(key, math.nan))
        in_order = tuple(float(values[loss]) for loss in comparison.losses)
        rows.append(CaseRow(str(key[1]), int(folds[key]), volume, in_order, spread))
    return sorted(rows, key=lambda row: (-row.spread, row.case_id))


def cases_frame(rows: Sequence[CaseRow], losses: Sequence[str]) -> pd.DataFrame:
    """Return the rows as a table: case, fold, volume_ml, spread, and a column per loss."""
    return pd.DataFrame(
        [(row.case_id, row.fold, row.volume_ml, row.spread, *row.values) for row in rows],
        columns=["case", "fold", "volume_ml", "spread", *losses],
    )


def write_viewer_cases(
    record: StudyRecord, comparison: Comparison, case_ids: Sequence[str], folder: Path
) -> tuple[dict[str, str], list[str]]:
    """Write the volumes, or images, of some cases into `folder`.

    Returns file names by case, and sentences about failures.

    The predictions are those of the first seed.
    """
    cases = {case.case_id: case for case in record.study.dataset.cases}
    files: dict[str, str] = {}
    missing = []
    for case_id in case_ids:
        try:
            if record.study.dataset.flat_axis is None:
                content, thumbnail = _viewer_case(record, comparison, cases[case_id]), None
            else:
                predictions = _predictions(record, comparison, cases[case_id])
                content, thumbnail = image_case(record, cases[case_id], predictions)
        except (InputError, KeyError) as error:
            missing.append(f"Case {case_id} is not in the viewer: {error}.")
            continue
        # Numbered, since a case may be called anything.
        name = f"{len(files) + 1:04}.js"
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")
        if thumbnail is not None:
            (folder / name).with_suffix(".png").write_bytes(thumbnail)
        (folder / name).write_text(f"voxlossCase({json.dumps(name)}, {text});\n", encoding="utf-8")
        files[case_id] = name
    return files, missing


def _viewer_case(record: StudyRecord, comparison: Comparison, case: Case) -> dict[str, Any]:
    reference, geometry = read_label(case, record.study.dataset.label_values)
    ignored = reference == IGNORED
    reference[ignored] = 0
    predictions = _predictions(record, comparison, case)
    classes = range(1, len(record.study.dataset.classes))
    errors = {
        loss: {
            str(index): largest_error(reference == index, (mask == index) & ~ignored, geometry.affine)
            for index in classes
        }
        for loss, mask in predictions.items()
    }
    frame = mask_frame([reference, *predictions.values()])
    affine = np.asarray(geometry.affine) @ _window_affine(frame)
    lesions, marks = {}, {}
    for loss, mask in predictions.items():
        lesions[loss], marked = _lesions(record, reference, np.where(ignored, np.uint8(0), mask), geometry)
        marks[loss] = _nifti(marked[frame], affine)
    image, _ = read_image(replace(case, images=case.images[:1]))
    low, high = grey_window(record, image[0])
    grey = np.clip((image[0][frame] - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    del image
    return {
        "case": case.case_id,
        "cut": tuple(grey.shape) != tuple(geometry.shape),
        "image": _nifti(grey, affine),
        "reference": _nifti(reference[frame], affine),
        "predictions": {loss: _nifti(mask[frame], affine) for loss, mask in predictions.items()},
        "errors": errors,
        "lesions": lesions,
        "marks": marks,
        "probabilities": {
            loss: _nifti(values[frame], affine)
            for loss, values in _probabilities(record, comparison, case.case_id, reference.shape)
        },
    }


def _lesions(
    record: StudyRecord, reference: ClassIndices, prediction: ClassIndices, geometry: Geometry
) -> tuple[dict[str, list[dict[str, Any]]], ClassIndices]:
    """Return the lesions of every class, missed and invented ones first, and a map of these.

    The map has the class of missed lesions, and `INVENTED` more in invented ones.
    """
    rules = record.study.lesion_rules or LesionRules()
    voxel_ml = math.prod(geometry.spacing_mm) / 1000
    marks = np.zeros(reference.shape, dtype=np.uint8)
    lesions = {}
    boxes = class_boxes([reference, prediction], len(record.study.dataset.classes))
    for index, name in enumerate(record.study.dataset.classes):
        if index == 0:
            continue
        box = boxes[index]
        match, of_class = lesion_marks(reference[box] == index, prediction[box] == index, voxel_ml, rules)
        view = marks[box]
        view[of_class == 1] = index
        view[of_class == 2] = index + INVENTED
        rows = lesion_rows("", name, match.moved([part.start for part in box]), geometry.affine)
        rows.sort(key=lambda row: (row["kind"] == "found", -row["volume_ml"]))
        lesions[str(index)] = [
            {"kind": row["kind"], "ml": round(row["volume_ml"], 4), "mm": [row["x_mm"], row["y_mm"], row["z_mm"]]}
            for row in rows
        ]
    return lesions, marks


def _probabilities(
    record: StudyRecord, comparison: Comparison, case_id: str, shape: tuple[int, ...]
) -> Iterator[tuple[str, ClassIndices]]:
    """Yield every loss whose probabilities of the primary class are kept, with these in steps of 1/255."""
    place = record.study.dataset.classes.index(comparison.primary_class) - 1
    for loss in comparison.losses:
        path = record.probabilities(loss, case_id, record.shown_seed)
        if path is not None:
            yield loss, read_probability(path, place, shape)


def _predictions(record: StudyRecord, comparison: Comparison, case: Case) -> dict[str, ClassIndices]:
    seed = record.shown_seed
    predictions = {}
    for loss in comparison.losses:
        path = record.prediction(loss, case.case_id, seed)
        if path is not None:
            predictions[loss] = record.read_prediction(path, case)
    return predictions


def mask_frame(masks: Sequence[ClassIndices]) -> tuple[slice, ...]:
    """Return the part of the grid, and the step along each axis, that the viewer shows."""
    shape = masks[0].shape
    frame = [slice(0, extent) for extent in shape]
    structures = enclosing_box(map(bounding_box, masks)) if math.prod(shape) > VIEWER_VOXELS else None
    if structures is not None:
        for axis, (part, extent) in enumerate(zip(structures, shape, strict=True)):
            margin = max(LEAST_MARGIN, round(MARGIN * (part.stop - part.start - 1)))
            frame[axis] = slice(max(0, part.start - margin), min(extent, part.stop + margin))
    steps = [1, 1, 1]
    extents = [part.stop - part.start for part in frame]
    while math.prod(-(-extent // step) for extent, step in zip(extents, steps, strict=True)) > VIEWER_VOXELS:
        finest = max(range(3), key=lambda axis: extents[axis] / steps[axis])
        steps[finest] += 1
    return tuple(slice(part.start, part.stop, step) for part, step in zip(frame, steps, strict=True))


def _window_affine(frame: tuple[slice, ...]) -> Float64s:
    """Return the 4 × 4 matrix from voxels of the shown part to voxels of the whole grid."""
    affine = np.diag([*(part.step or 1 for part in frame), 1]).astype(float)
    affine[:3, 3] = [part.start for part in frame]
    return affine


def _nifti(array: AnyArray, affine: Float64s) -> str:
    """Return a compressed NIfTI file of bytes as base64."""
    image = nibabel.Nifti1Image(np.ascontiguousarray(array, dtype=np.uint8), affine)
    return base64.b64encode(gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)).decode()


def largest_error(reference: Mask, prediction: Mask, affine: ArrayLike) -> dict[str, Any] | None:
    """Return where the largest missed or false positive component is (world mm), and its size; None without any."""
    error = error_component(reference, prediction)
    if error is None:
        return None
    place, size, kind = error
    matrix = np.asarray(affine)
    millimetres = matrix @ [*place, 1]
    volume_ml = size * abs(np.linalg.det(matrix[:3, :3])) / 1000
    return {"mm": [round(float(value), 3) for value in millimetres[:3]], "ml": round(float(volume_ml), 3), "kind": kind}


def viewer_index(record: StudyRecord, comparison: Comparison, files: dict[str, str]) -> dict[str, Any]:
    """Return what the viewer's script needs before a case is opened: names of losses and classes, scores, files.

    The scores are those of the predictions that are shown, of the first seed.
    """
    classes = list(record.study.dataset.classes)
    scores = comparison.scores
    dice = scores[(scores["metric"] == "dice") & scores["case"].isin(list(files))]
    dice = dice[dice["seed"] == record.shown_seed][["case", "loss", "class", "value"]]
    values: dict[str, dict[str, dict[str, float]]] = {}
    for row in dice.dropna().to_dict("records"):
        by_class = values.setdefault(row["case"], {}).setdefault(row["loss"], {})
        by_class[str(classes.index(row["class"]))] = round(row["value"], 3)
    return {
        "losses": [{"key": loss, "name": loss_name(loss)} for loss in comparison.losses],
        "classes": classes[1:],
        "primary": classes.index(comparison.primary_class),
        "files": files,
        "dice": values,
        "planar": record.study.dataset.flat_axis is not None,
        "unit": comparison.units.size,
        "seed": record.shown_seed if len(record.study.comparison.seeds) > 1 else None,
    }
