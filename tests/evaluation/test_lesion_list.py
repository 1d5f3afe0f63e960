"""The list of lesions: kinds, volumes and places, their marks on the grid, and the file."""

import numpy as np
import pytest
from scipy import ndimage

from lesion_masks import blobs
from voxloss.evaluation.lesion_list import LESION_COLUMNS, lesion_rows, read_lesions, write_lesions
from voxloss.evaluation.lesion_rules import LesionRules
from voxloss.evaluation.lesions import lesion_marks, match_lesions
from voxloss.evaluation.metrics import case_scores
from voxloss.utilities.errors import InputError

AFFINE = [[0, 0, -2.0, 10], [0, -3.0, 0, 20], [-4.0, 0, 0, -5], [0, 0, 0, 1]]


def made():
    """A lesion that is found, one of one voxel that is missed, and one that is invented."""
    reference, prediction = np.zeros((6, 10, 10), dtype=bool), np.zeros((6, 10, 10), dtype=bool)
    reference[1:3, 1:3, 1:3] = prediction[1:3, 1:3, 2:4] = True
    reference[4, 8, 8] = True
    prediction[4, 1:4, 8] = True
    return reference, prediction


def test_rows_by_hand():
    reference, prediction = made()
    rows = lesion_rows("case", "tumour", match_lesions(reference, prediction, 0.5), AFFINE)
    assert [(row["kind"], row["volume_ml"], row["dice"]) for row in rows] == [
        ("found", 4.0, 0.5), ("missed", 0.5, 0.0), ("invented", 1.5, 0.0),
    ]  # fmt: skip
    assert all(tuple(row) == LESION_COLUMNS for row in rows)
    assert [rows[1][f"{axis}_mm"] for axis in "xyz"] == [10 - 2 * 8, 20 - 3 * 8, -5 - 4 * 4]
    assert [rows[2][f"{axis}_mm"] for axis in "xyz"] == [10 - 2 * 8, 20 - 3 * 2, -5 - 4 * 4]  # the middle of three


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rules", [LesionRules(), LesionRules(match="one_to_one", threshold=0.3, connectivity=6)])
def test_places_and_marks_are_those_of_a_labelling(seed, rules):
    reference, prediction = blobs(seed)
    match, marks = lesion_marks(reference, prediction, 0.001, rules)
    plain = match_lesions(reference, prediction, 0.001, rules)
    for name, value in vars(plain).items():
        np.testing.assert_array_equal(getattr(match, name), value)
    structure = ndimage.generate_binary_structure(3, 3 if rules.connectivity == 26 else 1)
    ours, n_ours = ndimage.label(reference, structure)
    theirs, _ = ndimage.label(prediction, structure)
    assert [ours[tuple(place)] for place in match.places] == list(range(1, n_ours + 1))
    missed = {int(ours[tuple(place)]) for place in match.places[~match.detected]}
    invented = [int(theirs[tuple(place)]) for place in match.false_places]
    assert len(invented) == len(set(invented)) == match.false_predictions
    expected = np.where(np.isin(theirs, invented), 2, np.where(np.isin(ours, list(missed)), 1, 0))
    np.testing.assert_array_equal(marks, expected)
    for place, volume in zip(match.false_places, match.false_volumes_ml, strict=True):
        assert volume == pytest.approx((theirs == theirs[tuple(place)]).sum() * 0.001)


def test_lesions_that_are_not_counted_are_not_listed_or_marked():
    reference, prediction = made()
    match, marks = lesion_marks(reference, prediction, 0.5, LesionRules(minimum_volume_ml=1.0))
    assert [row["kind"] for row in lesion_rows("c", "t", match, AFFINE)] == ["found", "invented"]
    assert set(np.unique(marks)) == {0, 2}
    match, marks = lesion_marks(reference, prediction, 0.5, LesionRules(minimum_predicted_ml=2.0))
    assert [row["kind"] for row in lesion_rows("c", "t", match, AFFINE)] == ["found", "missed"]


@pytest.mark.parametrize("shape", [(0, 0, 0), (3, 3, 3)])
def test_empty_masks_have_no_lesion(shape):
    match, marks = lesion_marks(np.zeros(shape, bool), np.zeros(shape, bool), 1.0)
    assert not marks.any() and match.places.shape == match.false_places.shape == (0, 3)
    assert lesion_rows("c", "t", match.moved([1, 2, 3]), AFFINE) == []


def test_scores_hand_out_the_lesions_with_places_on_the_whole_grid():
    reference, prediction = (mask.astype(np.uint8) * 2 for mask in made())
    seen = {}
    scores = case_scores(reference, prediction, ("b", "one", "two"), (1, 1, 1), matched=seen.__setitem__)
    without = case_scores(reference, prediction, ("b", "one", "two"), (1, 1, 1))
    assert [str(score) for score in scores] == [str(score) for score in without]
    assert list(seen) == ["one", "two"] and len(seen["one"].places) == 0
    assert all(reference[tuple(place)] == 2 for place in seen["two"].places)
    assert all(prediction[tuple(place)] == 2 for place in seen["two"].false_places)


def test_the_file_gives_back_what_was_written(tmp_path):
    rows = lesion_rows("NA", 'tu"mour, ä', match_lesions(*made(), 0.5), AFFINE)
    write_lesions(tmp_path / "lesions.csv", rows)
    assert read_lesions(tmp_path / "lesions.csv").to_dict("records") == rows
    write_lesions(tmp_path / "none.csv", [])
    assert read_lesions(tmp_path / "none.csv").empty


@pytest.mark.parametrize(
    "text",
    ["", "case,class\n", f"{','.join(LESION_COLUMNS)}\na,b,lost,1,1,0,0,0\n",
     f"{','.join(LESION_COLUMNS)}\na,b,found,x,1,0,0,0\n", f"{','.join(LESION_COLUMNS)}\na,b,found,nan,1,0,0,0\n"],
)  # fmt: skip
def test_a_damaged_file_is_named(tmp_path, text):
    path = tmp_path / "lesions.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=r"lesions\.csv is damaged"):
        read_lesions(path)
    path.unlink()
    with pytest.raises(InputError, match=r"lesions\.csv is missing"):
        read_lesions(path)
