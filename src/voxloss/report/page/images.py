"""Cases of a study of images for the viewer: pictures (PNG) of the image and the masks, and the errors in them."""

import base64
import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.image import imsave

from voxloss.data.case import IGNORED, Case, read_label
from voxloss.data.grid import in_plane, stored_flat_axis
from voxloss.geometry.components import bounding_box, largest_component
from voxloss.geometry.distances import innermost_voxel
from voxloss.geometry.units import element_size
from voxloss.report.figures.planes import (
    canonical,
    drawn_plane,
    plane_spacing_mm,
    radiological_plane,
    shades,
    slice_across,
)
from voxloss.report.record import StudyRecord
from voxloss.utilities.arrays import AnyArray, ClassIndices, Mask

VIEWER_PIXELS = 4_000_000  # an image of more is thinned out
THUMBNAIL_PIXELS = 96  # on the longer side


def image_case(
    record: StudyRecord, case: Case, predictions: Mapping[str, ClassIndices]
) -> tuple[dict[str, Any], bytes]:
    """Return what the viewer shows of an image, and a small picture of it (PNG).

    Args:
        record: The study.
        case: The case.
        predictions: The predicted classes by loss, on the stored grid.

    Raises:
        InputError: The image or the mask cannot be read.
    """
    reference, geometry = read_label(case, record.study.dataset.label_values)
    ignored = reference == IGNORED
    reference[ignored] = 0
    across = slice_across(canonical(reference, geometry.affine).shape)

    def plane(mask: AnyArray) -> AnyArray:
        return radiological_plane(mask, geometry.affine, 0, across)

    planes = {loss: plane(mask) for loss, mask in predictions.items()}
    truth, counted = plane(reference), ~plane(ignored)
    element = element_size(in_plane(geometry.spacing_mm, stored_flat_axis(geometry, record.study.dataset)))
    values, window = drawn_plane(record, case, 0, across)
    step = math.ceil(math.sqrt(truth.size / VIEWER_PIXELS))
    errors = {
        loss: {
            str(index): _largest_error(truth == index, (mask == index) & counted, element, step)
            for index in range(1, len(record.study.dataset.classes))
        }
        for loss, mask in planes.items()
    }
    height, width = plane_spacing_mm(geometry.spacing_mm, geometry.affine, across)
    image = shades(values[::step, ::step], window)
    coarse = math.ceil(max(image.shape[:2]) / THUMBNAIL_PIXELS)
    content = {
        "case": case.case_id,
        "cut": step > 1,
        "pixel": [width, height],
        "image": _text(_png(image)),
        "reference": _text(_png(truth[::step, ::step])),
        "predictions": {loss: _text(_png(mask[::step, ::step])) for loss, mask in planes.items()},
        "errors": errors,
    }
    return content, _png(image[::coarse, ::coarse])


def _largest_error(reference: Mask, prediction: Mask, element: float, step: int) -> dict[str, Any] | None:
    error = error_component(reference, prediction)
    if error is None:
        return None
    (row, column), size, kind = error
    return {"pixel": [column // step, row // step], "size": round(size * element, 3), "kind": kind}


def error_component(reference: Mask, prediction: Mask) -> tuple[tuple[int, ...], int, str] | None:
    """Return an inner element, the number of elements and the kind of the largest error; None without any."""
    cut = bounding_box(reference != prediction)
    if cut is None:
        return None
    missed, n_missed = largest_component(reference[cut] & ~prediction[cut])
    extra, n_extra = largest_component(prediction[cut] & ~reference[cut])
    kind, component, size = "missed part", missed, n_missed
    if n_extra > n_missed:
        kind, component, size = "false positive", extra, n_extra
    places = zip(innermost_voxel(component), cut, strict=True)
    return tuple(place + part.start for place, part in places), size, kind


def _png(values: AnyArray) -> bytes:
    """Return values from 0 to 255, (rows, columns) or with three colours, as a PNG."""
    colours = values if values.ndim == 3 else np.repeat(values[:, :, None], 3, axis=2)
    file = io.BytesIO()
    imsave(file, np.ascontiguousarray(colours, dtype=np.uint8), format="png")
    return file.getvalue()


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
