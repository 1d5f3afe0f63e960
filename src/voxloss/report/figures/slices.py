"""One slice of a representative case, or its image: reference and losses as coloured contours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from voxloss.data.case import IGNORED, Case, read_label
from voxloss.geometry.components import bounding_box, enclosing_box
from voxloss.report.comparison import Comparison
from voxloss.report.figures.labels import LINE_INCHES, label_of
from voxloss.report.figures.planes import (
    canonical,
    drawn_plane,
    plane_spacing_mm,
    radiological_plane,
    shades,
    slice_across,
)
from voxloss.report.figures.scores import STYLE, FigureFile, save_figure
from voxloss.report.record import StudyRecord
from voxloss.utilities.arrays import ClassIndices, Float32s, Mask
from voxloss.utilities.errors import InputError

# Of Okabe and Ito's colours those that show on grey, from dark to light images.
CONTOURS = ("#D55E00", "#56B4E9", "#F0E442", "#009E73", "#CC79A7", "#E69F00", "#0072B2")

# The same for images in colour, which are red or brown more often than blue or yellow; and thinner lines.
ON_COLOUR = ("#56B4E9", "#F0E442", "#009E73", "#CC79A7", "#0072B2", "#E69F00", "#D55E00")
LINE_WIDTH, LINE_WIDTH_ON_COLOUR = 1.0, 0.7

COLUMNS = 4
TITLE_WIDTH = 34  # characters
PANEL_INCHES = 2.35
INSET_SHARE = 0.45  # of a panel's width and height
LEAST_MAGNIFICATION = 1.25

VIEWS = (
    ("Sagittal", "the patient's left", "the patient's front"),
    ("Coronal", "the back", "the patient's right"),
    ("Axial", "the feet", "the patient's right"),
)  # name, where slices are counted from, and what is on the left, by the axis that a slice lies across


@dataclass(frozen=True)
class Panel:
    """A slice's class indices under its heading; without a mask if a run left no prediction."""

    loss: str
    title: str
    mask: ClassIndices | None
    dice: float


def representative_case(comparison: Comparison) -> str:
    """Return the case with the median DSC of the primary class, averaged over losses and seeds.

    Of an even number of cases the lower middle one; equal means are ordered by case id.

    Raises:
        InputError: No case has a DSC of that class.
    """
    scores = comparison.scores
    chosen = scores[(scores["class"] == comparison.primary_class) & (scores["metric"] == "dice")]
    means = chosen.groupby("case", as_index=False)["value"].mean().dropna()
    if means.empty:
        raise InputError(f"no case has a DSC of {comparison.primary_class}")
    return str(means.sort_values(["value", "case"])["case"].iloc[(len(means) - 1) // 2])


def slice_figure(record: StudyRecord, comparison: Comparison, folder: Path) -> FigureFile:
    """Draw a case like the paper's Figures 3 (several classes) and 4 (one class), and save it.

    The slice is the one with the largest area of the primary class in the reference.

    Raises:
        InputError: The case's image or mask cannot be read.
    """
    case_id = representative_case(comparison)
    case = next(case for case in record.study.dataset.cases if case.case_id == case_id)
    reference, geometry = read_label(case, record.study.dataset.label_values)
    reference[reference == IGNORED] = 0
    target = record.study.dataset.classes.index(comparison.primary_class)
    turned = canonical(reference, geometry.affine)
    across = slice_across(turned.shape)
    within = tuple(direction for direction in range(3) if direction != across)
    areas = np.count_nonzero(turned == target, axis=within)
    index = int(np.argmax(areas))
    reference_plane = radiological_plane(reference, geometry.affine, index, across)
    del reference, turned
    values, window = drawn_plane(record, case, index, across)

    panels = [Panel("reference", "Reference", reference_plane, math.nan)]
    panels += [
        _loss_panel(record, comparison, case, loss, geometry.affine, index, across) for loss in comparison.losses
    ]
    pixel_mm = plane_spacing_mm(geometry.spacing_mm, geometry.affine, across)
    brightest = values.max(axis=2) if values.ndim == 3 else values
    frame = visible_frame(brightest > window[0], [panel.mask for panel in panels if panel.mask is not None])
    panels = [replace(panel, mask=None if panel.mask is None else panel.mask[frame]) for panel in panels]
    below = (
        len(record.study.dataset.classes) == 2
    )  # the paper's Figure 4 has it so; with several classes its Figure 3's corner
    crop = inset_crop(reference_plane[frame] == target, 1.0 if below else INSET_SHARE)
    figure = draw_panels(panels, values[frame], window, pixel_mm, crop, below, record.study.dataset.classes)
    caption = f"Case {case_id}, the case with the median DSC of {comparison.primary_class} (averaged over the losses)."
    if record.study.dataset.flat_axis is None:
        view, origin, left = VIEWS[across]
        caption += (
            f" {view} slice {index + 1} of {len(areas)} from {origin}, the one with the most "
            f"{comparison.primary_class} in the reference; {left} is on the left. DSC is of the whole volume."
        )
    if crop is not None:
        caption += f" {'Below' if below else 'Inset'}: the framed part, magnified."
    data = pd.DataFrame(
        {
            "panel": panel.loss, "case": case_id, "slice": index, "class": name, "dice_of_primary_class": panel.dice,
            "pixels": np.nan if panel.mask is None else int(np.count_nonzero(panel.mask == place)),
        }
        for panel in panels
        for place, name in enumerate(record.study.dataset.classes)
        if place
    )  # fmt: skip
    return save_figure(figure, folder, "slices", "A representative case", caption, data)


def visible_frame(bright: Mask, masks: Sequence[ClassIndices]) -> tuple[slice, slice]:
    """Return the part of a plane that is worth showing: brighter than black, or in a mask, with a margin."""
    whole = tuple(slice(0, extent) for extent in bright.shape)
    rows, columns = enclosing_box(map(bounding_box, (bright, *masks))) or whole
    return _widened(rows, bright.shape[0]), _widened(columns, bright.shape[1])


def _widened(part: slice, extent: int) -> slice:
    margin = max(1, extent // 50)
    return slice(max(0, part.start - margin), min(extent, part.stop + margin))


def _loss_panel(
    record: StudyRecord, comparison: Comparison, case: Case, loss: str, affine: ArrayLike, index: int, across: int
) -> Panel:
    scores = comparison.scores
    chosen = scores[(scores["loss"] == loss) & (scores["case"] == case.case_id) & (scores["metric"] == "dice")]
    chosen = chosen[chosen["class"] == comparison.primary_class].sort_values("seed")
    seed, dice = int(chosen["seed"].iloc[0]), float(chosen["value"].iloc[0])
    path = record.prediction(loss, case.case_id, seed)
    if path is None:
        return Panel(loss, f"{label_of(loss, TITLE_WIDTH)}\nno prediction", None, dice)
    mask = record.read_prediction(path, case)
    shown = "undefined" if math.isnan(dice) else f"{dice:.3f}"
    return Panel(
        loss,
        f"{label_of(loss, TITLE_WIDTH)}\nDSC {comparison.primary_class} {shown}",
        radiological_plane(mask, affine, index, across),
        dice,
    )


def draw_panels(
    panels: Sequence[Panel],
    grey: Float32s,
    window: tuple[float, float],
    pixel_mm: tuple[float, float],
    crop: tuple[float, float, float, float] | None,
    below: bool,
    classes: Sequence[str],
) -> Figure:
    """Draw the reference and each loss's mask over one slice, each with the structure magnified.

    Args:
        panels: The reference, then the losses.
        grey: The slice's grey values (rows, columns), or its colours (rows, columns, 3).
        window: The values that are drawn black and white.
        pixel_mm: Height and width of a pixel.
        crop: The part that is magnified; None: none.
        below: Whether the magnified part is below the slice; else it is an inset.
        classes: Names of the classes, for the legend.
    """
    rows, columns = grey.shape[:2]
    height_per_width = rows * pixel_mm[0] / (columns * pixel_mm[1])
    n_rows = math.ceil(len(panels) / COLUMNS)
    n_columns = math.ceil(len(panels) / n_rows)
    pictures = 2 if below and crop is not None else 1  # one above the other
    further = max(0, *(panel.title.count("\n") - 1 for panel in panels))  # lines of titles, beyond the usual two
    title = 0.48 + 1.4 * LINE_INCHES * further
    size = (n_columns * PANEL_INCHES, n_rows * (pictures * PANEL_INCHES * height_per_width + title) + 0.45)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(n_rows * pictures, n_columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for place, panel in enumerate(panels):
            row, column = divmod(place, n_columns)
            axes = grid[row * pictures, column]
            _draw_plane(
                axes, grey, panel.mask, window, pixel_mm, LINE_WIDTH if grey.ndim == 2 else LINE_WIDTH_ON_COLOUR
            )
            axes.set_title(panel.title, fontsize=8.5, linespacing=1.25)
            if crop is not None:
                corner = inset_corner(crop, (rows, columns))
                inset = grid[row * 2 + 1, column] if below else axes.inset_axes((*corner, INSET_SHARE, INSET_SHARE))
                _draw_inset(axes, inset, grey, panel.mask, window, pixel_mm, crop)
        handles = [
            Line2D([], [], color=_contour_colour(place, grey), linewidth=2, label=name)
            for place, name in enumerate(classes)
            if place
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False)
    return figure


def _contour_colour(class_index: int, grey: Float32s) -> str:
    colours = CONTOURS if grey.ndim == 2 else ON_COLOUR
    return colours[(class_index - 1) % len(colours)]


def _draw_plane(
    axes: Axes,
    grey: Float32s,
    mask: ClassIndices | None,
    window: tuple[float, float],
    pixel_mm: tuple[float, float],
    width: float,
) -> None:
    axes.set_axis_on()
    axes.imshow(shades(grey, window), cmap="gray", vmin=0, vmax=255, aspect=pixel_mm[0] / pixel_mm[1])
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if mask is None or min(mask.shape) < 2:  # a line of pixels has no contour
        return
    for place in range(1, int(mask.max(initial=0)) + 1):
        if (mask == place).any():
            axes.contour(mask == place, levels=[0.5], colors=[_contour_colour(place, grey)], linewidths=width)


def inset_crop(structure: Mask, share_of_panel: float = INSET_SHARE) -> tuple[float, float, float, float] | None:
    """Return the part to magnify: (left, right, top, bottom) in pixels, with the proportions of the whole plane.

    It holds the structure with some space around; None where a picture of it as wide as this share of the panel would
    hardly magnify it.
    """
    rows, columns = structure.shape
    box = bounding_box(structure)
    if box is None:
        return None
    centre = [(part.start + part.stop - 1) / 2 for part in box]
    # As shares of the plane's height and width, so that the frame keeps the plane's proportions.
    share = max(max(part.stop - part.start, 4) / extent for part, extent in zip(box, structure.shape, strict=True))
    side = max(1.3 * share, 0.12)
    if side * LEAST_MAGNIFICATION > share_of_panel:
        return None
    top = min(max(centre[0] - side * rows / 2, -0.5), rows - 0.5 - side * rows)
    left = min(max(centre[1] - side * columns / 2, -0.5), columns - 0.5 - side * columns)
    return left, left + side * columns, top, top + side * rows


def inset_corner(crop: tuple[float, float, float, float], shape: tuple[int, int]) -> tuple[float, float]:
    """Return the inset's lower left corner in shares of the panel: top right, or a corner that hides no structure."""
    left, right, top, bottom = crop
    far = 1 - INSET_SHARE
    for x, y in ((far, far), (0.0, far), (far, 0.0), (0.0, 0.0)):
        inset_left, inset_top = x * shape[1] - 0.5, (1 - y - INSET_SHARE) * shape[0] - 0.5
        apart = (
            right <= inset_left
            or left >= inset_left + INSET_SHARE * shape[1]
            or bottom <= inset_top
            or top >= inset_top + INSET_SHARE * shape[0]
        )
        if apart:
            return x, y
    return far, far


def _draw_inset(
    axes: Axes,
    inset: Axes,
    grey: Float32s,
    mask: ClassIndices | None,
    window: tuple[float, float],
    pixel_mm: tuple[float, float],
    crop: tuple[float, float, float, float],
) -> None:
    left, right, top, bottom = crop
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="white", linewidth=0.6))
    _draw_plane(inset, grey, mask, window, pixel_mm, 1.3)
    inset.set_xlim(left, right)
    inset.set_ylim(bottom, top)
    for spine in inset.spines.values():
        spine.set(visible=True, edgecolor="white", linewidth=0.9)
