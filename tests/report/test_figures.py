"""Figures: orientation against nibabel, what is chosen, and files that hold what they show."""

import math
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import nibabel
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

import study_files
from study_files import AFFINE, StudyFiles
from voxloss.report.comparison import compare
from voxloss.report.figures import slices
from voxloss.report.figures.scores import curves_figure, curves_table, score_figure
from voxloss.report.figures.slices import (
    INSET_SHARE,
    inset_corner,
    inset_crop,
    plane_spacing_mm,
    radiological_plane,
    representative_case,
    slice_figure,
    visible_frame,
)
from voxloss.report.record import open_record
from voxloss.utilities.errors import InputError

pytestmark = pytest.mark.slow

ORIENTATIONS = {
    "RAS": np.diag([1.0, 2.0, 3.0, 1.0]),
    "LPS": np.diag([-1.0, -2.0, 3.0, 1.0]),
    "kits19": np.array([[0, 0, -3.0, 0], [0, -2.0, 0, 0], [-1.0, 0, 0, 0], [0, 0, 0, 1]]),
    "oblique": np.array([[0.1, 1.9, 0, 5], [1.0, -0.2, 0.2, 7], [0, 0.3, -3.0, 9], [0, 0, 0, 1]]),
}


@pytest.mark.parametrize("affine", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_slices_are_radiological_whatever_the_storage(affine):
    volume = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
    canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume, affine)).get_fdata()
    for index in range(canonical.shape[2]):
        plane = radiological_plane(volume, affine, index)
        width, height, _ = canonical.shape
        expected = [[canonical[x, y, index] for x in reversed(range(width))] for y in reversed(range(height))]
        np.testing.assert_allclose(plane, expected)


@pytest.mark.parametrize("affine", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_a_mark_lies_where_anatomy_puts_it(affine):
    """The voxel furthest to the patient's right and front is top left, on the topmost slice."""
    shape = (4, 5, 6)
    corners = [(i, j, k) for i in (0, 3) for j in (0, 4) for k in (0, 5)]
    rightmost = max(corners, key=lambda voxel: sum((affine @ [*voxel, 1])[:3] / np.linalg.norm(affine[:3, :3], axis=1)))
    volume = np.zeros(shape)
    volume[rightmost] = 1
    n_slices = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume, affine)).shape[2]
    assert radiological_plane(volume, affine, n_slices - 1)[0, 0] == 1


def test_pixel_spacing_follows_the_axes():
    assert plane_spacing_mm((1, 2, 3), ORIENTATIONS["RAS"]) == (2, 1)
    assert plane_spacing_mm((1, 2, 3), ORIENTATIONS["kits19"]) == (2, 3)


@pytest.mark.parametrize(("axis", "orientation"), [(0, "RAS"), (1, "kits19"), (2, "oblique")])
def test_a_volume_of_one_slice_is_shown_as_that_slice(tmp_path, monkeypatch, axis, orientation):
    """Whatever the axis it is stored along; the pixels and their proportions are those of the slice."""
    affine = ORIENTATIONS[orientation]
    shape = tuple(1 if place == axis else extent for place, extent in enumerate((10, 40, 36)))
    monkeypatch.setattr(study_files, "SHAPE", shape)
    monkeypatch.setattr(study_files, "AFFINE", affine)
    monkeypatch.setattr(study_files, "_ball", lambda centre, radius: np.indices(shape).sum(axis=0) % 9 < radius // 3)
    StudyFiles(losses=("focal", "dice"), cases=2, folds=2).write(tmp_path)
    record = open_record(tmp_path)
    drawn = []
    monkeypatch.setattr(slices, "draw_panels", lambda *arguments: drawn.append(arguments))
    monkeypatch.setattr(slices, "save_figure", lambda *arguments: arguments[4])
    caption = slice_figure(record, compare(record), tmp_path)
    _, grey, _, pixel_mm, *_ = drawn[0]
    direction = int(nibabel.orientations.io_orientation(affine)[axis, 0])
    assert caption.split(". ")[1].startswith(f"{slices.VIEWS[direction][0]} slice 1 of 1 from")
    spacing = np.delete(np.linalg.norm(affine[:3, :3], axis=0), axis)
    assert min(grey.shape) > 1
    assert sorted(pixel_mm) == pytest.approx(sorted(spacing))


def test_a_line_of_pixels_is_drawn_without_contours():
    mask = np.ones((40, 1), np.uint8)
    panels = [slices.Panel("reference", "Reference", mask, math.nan)]
    slices.draw_panels(panels, np.ones((40, 1)), (0, 2), (1.0, 1.0), None, False, ("background", "lesion"))


def comparison_with(values):
    rows = [
        {"loss": loss, "case": case, "class": "tumour", "metric": "dice", "value": value}
        for loss, per_case in values.items()
        for case, value in per_case.items()
    ]
    return SimpleNamespace(scores=pd.DataFrame(rows), primary_class="tumour")


def test_the_representative_case_has_the_median_mean():
    values = {"x": {"a": 0.1, "b": 0.9, "c": 0.5, "d": math.nan}, "y": {"a": 0.2, "b": 0.8, "c": 0.6, "d": math.nan}}
    assert representative_case(comparison_with(values)) == "c"
    assert representative_case(comparison_with({"x": {"b": 0.5, "a": 0.5}})) == "a"
    with pytest.raises(InputError, match="no case has a DSC of tumour"):
        representative_case(comparison_with({"x": {"a": math.nan}}))


def test_inset_holds_the_structure_and_keeps_the_proportions():
    structure = np.zeros((100, 200), dtype=bool)
    structure[40:50, 150:165] = True
    left, right, top, bottom = inset_crop(structure)
    assert left < 149.5 and right > 164.5 and top < 39.5 and bottom > 49.5
    assert (right - left) / (bottom - top) == pytest.approx(2)


def test_inset_stays_inside_and_is_left_out_where_useless():
    structure = np.zeros((100, 100), dtype=bool)
    structure[0:5, 95:100] = True
    left, right, top, bottom = inset_crop(structure)
    assert left >= -0.5 and right <= 99.5 and top >= -0.5 and bottom <= 99.5
    assert inset_crop(np.ones((10, 10), dtype=bool)) is None
    assert inset_crop(np.zeros((10, 10), dtype=bool)) is None


def test_of_one_class_the_magnified_part_is_below_and_nothing_overlaps():
    mask = np.zeros((60, 80), dtype=np.uint8)
    mask[10:14, 12:18] = 1
    panels = [slices.Panel(name, f"{name}\nDSC", mask, 0.5) for name in ("a", "b", "c")]
    crop = inset_crop(mask > 0, 1.0)
    figure = slices.draw_panels(panels, np.ones((60, 80)), (0, 2), (1.0, 1.0), crop, True, ("background", "lesion"))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes] + [figure.legends[0].get_window_extent(renderer)]
    assert len(boxes) == 7
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])
        assert box.y1 <= figure.bbox.y1 + 1 and box.y0 >= -1
    above, below = figure.axes[0], figure.axes[3]
    assert above.get_xlim() == (-0.5, 79.5) and below.get_xlim() == (crop[0], crop[1])


def test_inset_is_top_right_unless_it_would_hide_the_structure():
    assert inset_corner((10, 30, 60, 80), (100, 100)) == (1 - INSET_SHARE, 1 - INSET_SHARE)
    assert inset_corner((70, 90, 5, 25), (100, 100)) == (0.0, 1 - INSET_SHARE)


def test_visible_frame_holds_body_and_masks():
    bright, mask = np.zeros((100, 100), dtype=bool), np.zeros((100, 100), dtype=np.uint8)
    bright[30:60, 40:50] = True
    mask[70, 45] = 2
    rows, columns = visible_frame(bright, [mask])
    assert (rows.start, rows.stop) == (28, 73) and (columns.start, columns.stop) == (38, 52)
    assert visible_frame(np.zeros((5, 5), dtype=bool), []) == (slice(0, 5), slice(0, 5))


def test_every_figure_is_svg_png_and_csv(reported_study):
    folder = reported_study / "report" / "figures"
    for name in ("dice_tumour", "dice_kidney", "slices", "learning_curves"):
        assert ElementTree.parse(folder / f"{name}.svg").getroot().tag.endswith("svg")
        with Image.open(folder / f"{name}.png") as image:
            assert round(image.info["dpi"][0]) == 300 and np.asarray(image.convert("L")).std() > 10
        assert len(pd.read_csv(folder / f"{name}.csv")) > 0


def test_the_score_figures_data_are_the_scores(reported_study):
    shown = pd.read_csv(reported_study / "report" / "figures" / "dice_tumour.csv")
    scores = pd.read_csv(reported_study / "scores.csv")
    scores = scores[(scores["class"] == "tumour") & (scores["metric"] == "dice")]
    assert len(shown) == len(scores) == 4 * 9
    merged = shown.merge(scores, on=["loss", "case"])
    assert (merged["value_x"] == merged["value_y"]).all()


def test_the_slice_is_the_one_with_most_tumour(reported_study):
    table = pd.read_csv(reported_study / "report" / "figures" / "slices.csv")
    case, index = table["case"].iloc[0], int(table["slice"].iloc[0])
    label = np.asarray(nibabel.load(reported_study / "images" / case / "label.nii.gz").dataobj)
    area = (label == 2).sum(axis=(1, 2))[::-1]  # stored from head to feet, counted from the feet
    assert AFFINE[2, 0] < 0 and area[index] == area.max()
    reference = table[(table["panel"] == "reference") & (table["class"] == "tumour")]
    assert reference["pixels"].iloc[0] == area.max()
    assert table["panel"].unique().tolist() == ["reference", "focal", "dice", "focal_tversky", "mixed_focal"]


def test_curves_are_the_mean_over_runs(reported_study):
    record = open_record(reported_study)
    table = curves_table(record, ["dice"])
    histories = [
        pd.read_csv(record.study.run_folder(run.run).history_file) for run in record.runs if run.loss == "dice"
    ]
    expected = pd.concat(histories).groupby("epoch")["validation_dice"].mean()
    assert table["validation_dice"].tolist() == pytest.approx(expected.tolist())
    assert set(table["runs"]) == {3}


def test_a_run_without_prediction_or_history_is_drawn_as_such(tmp_path):
    files = StudyFiles(losses=("dice", "focal"), cases=4, folds=2, clip=None)
    files.states = {("focal", fold, 0): ("failed", "out of memory") for fold in range(2)}
    study = files.write(tmp_path / "study")
    for path in study.rglob("history.csv"):
        path.unlink()
    record = open_record(study)
    comparison = compare(record)
    slice_figure(record, comparison, tmp_path)
    table = pd.read_csv(tmp_path / "slices.csv")
    assert table.loc[table["panel"] == "focal", "pixels"].isna().all()
    assert score_figure(comparison, "tumour", "x", tmp_path).name == "x"
    assert curves_figure(record, comparison.losses, tmp_path) is None


def test_missing_images_are_named(tmp_path):
    study = StudyFiles(losses=("dice", "focal"), cases=4, folds=2).write(tmp_path / "study")
    for path in study.rglob("image.nii.gz"):
        path.unlink()
    record = open_record(study)
    with pytest.raises(InputError, match=r"image\.nii\.gz"):
        slice_figure(record, compare(record), tmp_path)
