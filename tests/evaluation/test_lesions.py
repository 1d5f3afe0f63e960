"""Lesion scores against values by hand, a slow twin, and those of panoptica, Metrics Reloaded and BraTS 2023."""

import itertools
import math

import numpy as np
import pytest
from score_helpers import row

from lesion_masks import blobs
from voxloss.evaluation.lesion_rules import LesionRules
from voxloss.evaluation.lesions import limits_of_classes, match_lesions
from voxloss.evaluation.metrics import LESION_METRICS, METRICS, SIZE_METRICS, case_scores
from voxloss.evaluation.scores import failed_rows, score_rows, score_table, worst_filled
from voxloss.evaluation.verdict import verdict
from voxloss.utilities.errors import InputError

ONE_TO_ONE = LesionRules(match="one_to_one", threshold=0.5)

# By panoptica 2.1.7 (connected components, naive matching by a strict threshold on the intersection over union), of
# `blobs` for three seeds: recognition, segmentation and panoptic quality at 0.5, then at 0.2.
FROM_PANOPTICA = {
    1: ((0.10526315789473684, 0.5882352941176471, 0.06191950464396285),
        (0.631578947368421, 0.4083411780012552, 0.2578996913692138)),
    6: ((0.21052631578947367, 0.6291118421052632, 0.13244459833795014),
        (0.3157894736842105, 0.5675560428849903, 0.1792282240689443)),
    7: ((0.2, 0.5657865105280937, 0.11315730210561875),
        (0.4, 0.5277286894377163, 0.21109147577508655)),
}  # fmt: skip
# By Metrics Reloaded (commit cb38dfc): panoptic quality and F1 at 0.5, of the same.
FROM_METRICS_RELOADED = {
    1: (0.061919506804959015, 0.10526316156843032),
    6: (0.13244460379125858, 0.2105263244577391),
    7: (0.11315730661613739, 0.20000000797212122),
}
# By the metrics of BraTS 2023 (commit 43c9052): lesion-wise Dice, false positives, and lesions found and all, of the
# same with the settings of gliomas (dilation 3, lesions above 50 mm³) and metastases (1, above 2 mm³).
FROM_BRATS = {
    1: ((0.12179016874541453, 4, 1, 1), (0.2315077021044676, 7, 5, 5)),
    6: ((0.12244237244237244, 9, 2, 2), (0.14123042587891943, 12, 3, 3)),
    7: ((0.12437246963562754, 4, 1, 1), (0.12281779821164167, 7, 2, 3)),
}
# By panoptica at 0.5 and at 0.1, and by BraTS 2023 (dilation 1, above 2 voxels), of two structures of a real pair.
FROM_A_REAL_PAIR = {
    41: ((0.5882352941176471, 0.7453026309758894), (0.8235294117647058, 0.6685067778018263), 0.8757810460013069),
    62: ((0.45714285714285713, 0.5520272387682602), (0.8, 0.4980592489780916), 0.582009245200015),
}
NAN = math.nan


def grid(*rows):
    """A mask of one slice from rows of text, in which # is set."""
    return np.array([[[sign == "#" for sign in row] for row in rows]])


def scores(reference, prediction, rules=None, spacing=(10, 10, 10)):
    """All scores of one class; a voxel of 10 mm has 1 ml."""
    masks = (np.asarray(mask).astype(np.uint8) for mask in (reference, prediction))
    return {score.metric: score.value for score in case_scores(*masks, ("background", "x"), spacing, lesions=rules)}


def require(got, **expected):
    assert {metric: got[metric] for metric in expected} == pytest.approx(expected, nan_ok=True)


QUALITIES = ("recognition_quality", "segmentation_quality", "panoptic_quality")


@pytest.mark.parametrize("seed", FROM_PANOPTICA)
def test_agrees_with_panoptica_and_metrics_reloaded(seed):
    masks = blobs(seed)
    for threshold, expected in zip((0.5, 0.2), FROM_PANOPTICA[seed], strict=True):
        rules = LesionRules(match="one_to_one", threshold=threshold, panoptic_threshold=threshold)
        got = scores(*masks, rules)
        assert [got[metric] for metric in QUALITIES] == pytest.approx(expected)
        assert got["lesion_f1"] == pytest.approx(expected[0])
    got = scores(*masks, ONE_TO_ONE)
    assert (got["panoptic_quality"], got["lesion_f1"]) == pytest.approx(FROM_METRICS_RELOADED[seed], rel=1e-6)


def brats(dilation, above_voxels):
    """The rules of BraTS 2023, whose voxels are 1 mm³; lesions of exactly the limit are left out there."""
    limit = (above_voxels + 1) / 1000
    return LesionRules(dilation=dilation, minimum_volume_ml=limit, minimum_predicted_ml=0)


@pytest.mark.parametrize("seed", FROM_BRATS)
def test_agrees_with_brats_2023(seed):
    for rules, expected in zip((brats(3, 50), brats(1, 2)), FROM_BRATS[seed], strict=True):
        dice, false, found, lesions = expected
        got = scores(*blobs(seed), rules, (1, 1, 1))
        require(got, lesion_dice=dice, false_positive_lesions=false, lesion_recall=found / lesions)


def test_agrees_with_them_on_a_real_pair(real_data):
    nibabel = pytest.importorskip("nibabel")
    folder = real_data / "spine_pred_ref" / "semantic"
    labels = [np.asarray(nibabel.load(folder / name).dataobj) for name in ("ref.nii.gz", "pred.nii.gz")]
    for value, (strict, lenient, dice) in FROM_A_REAL_PAIR.items():
        masks = [label == value for label in labels]
        for threshold, expected in ((0.5, strict), (0.1, lenient)):
            got = scores(*masks, LesionRules(panoptic_threshold=threshold), (1, 1, 1))
            assert (got["recognition_quality"], got["segmentation_quality"]) == pytest.approx(expected)
        assert scores(*masks, brats(1, 2), (1, 1, 1))["lesion_dice"] == pytest.approx(dice)


def test_one_predicted_lesion_over_two():
    reference = grid("####.##")
    prediction = grid("#######")
    # One of 4 and one of 2 voxels, and one of 7: intersection over union 4/7 and 2/7.
    require(
        scores(reference, prediction),
        lesion_recall=1, lesion_precision=1, lesion_f1=1, false_positive_lesions=0,
        lesion_dice=(8 / 11 + 4 / 9) / 2,
        segmentation_quality=4 / 7, recognition_quality=1 / 1.5, panoptic_quality=4 / 7 / 1.5,
    )  # fmt: skip
    require(
        scores(reference, prediction, ONE_TO_ONE),
        lesion_recall=1 / 2, lesion_precision=1, lesion_f1=2 / 3, lesion_dice=8 / 11 / 2, false_positive_lesions=0,
    )  # fmt: skip


def test_a_lesion_predicted_in_two_parts():
    reference = grid("#######")
    prediction = grid("####.##")
    require(
        scores(reference, prediction),
        lesion_recall=1, lesion_precision=1, lesion_f1=1, lesion_dice=12 / 13, false_positive_lesions=0,
        segmentation_quality=4 / 7, recognition_quality=1 / 1.5, panoptic_quality=4 / 7 / 1.5,
    )  # fmt: skip
    require(
        scores(reference, prediction, ONE_TO_ONE),
        lesion_recall=1, lesion_precision=1 / 2, lesion_f1=2 / 3, lesion_dice=8 / 11 / 2, false_positive_lesions=1,
    )  # fmt: skip


def test_an_overlap_of_exactly_the_threshold_is_none():
    reference, prediction = grid("##"), grid("#.")
    assert scores(reference, prediction, ONE_TO_ONE)["lesion_recall"] == 0
    assert scores(reference, prediction)["panoptic_quality"] == 0
    assert scores(reference, prediction, LesionRules(threshold=0.49))["lesion_recall"] == 1
    # Without a pair nothing says how well lesions are outlined.
    assert math.isnan(scores(reference, prediction)["segmentation_quality"])


def test_the_pair_with_the_largest_overlap_comes_first():
    # The first predicted lesion overlaps both of the reference, 2/5 and 3/6; the second only the first, 1/4.
    reference = grid("#####.####")
    prediction = grid("#.########")
    rules = LesionRules(match="one_to_one", threshold=0.1, panoptic_threshold=0.1)
    # 4 of 4 and 8 (4/8), 3 of 5 and 8 (3/10); 1 of 5 and 1 (1/5).
    require(
        scores(reference, prediction, rules),
        segmentation_quality=(4 / 8 + 1 / 5) / 2, recognition_quality=1, lesion_f1=1, lesion_dice=(8 / 12 + 2 / 6) / 2,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("second", "lesions"),  # by connectivity 6, 18 and 26, beside a voxel at (0, 0, 0)
    [((0, 0, 1), (1, 1, 1)), ((0, 1, 1), (2, 1, 1)), ((1, 1, 1), (2, 2, 1)), ((0, 0, 2), (2, 2, 2))],
)
def test_lesions_that_touch_by_face_edge_and_corner(second, lesions):
    mask = np.zeros((3, 3, 3), dtype=bool)
    mask[0, 0, 0] = mask[second] = True
    rules = [LesionRules(connectivity=connectivity) for connectivity in (6, 18, 26)]
    assert tuple(len(match_lesions(mask, mask, 1.0, rule).volumes_ml) for rule in rules) == lesions


def test_two_dimensions_have_the_neighbours_of_a_plane():
    mask = np.array([[1, 0], [0, 1]], dtype=bool)
    counts = [len(match_lesions(mask, mask, 1.0, LesionRules(connectivity=n)).volumes_ml) for n in (6, 18, 26)]
    assert counts == [2, 1, 1]
    reference = np.array([[1, 0, 0, 0, 1, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0, 1, 0, 1]], dtype=bool)
    prediction = np.array([[0, 0, 0, 1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0, 0]], dtype=bool)
    # Two lesions that touch at a corner only are one; a predicted one bridges two of the reference.
    found = match_lesions(reference, prediction, 0.5)
    assert (found.volumes_ml.tolist(), found.detected.tolist()) == ([1, 1, 1, 0.5], [False, True, True, False])
    assert (found.true_predictions, found.false_predictions) == (1, 1)


def test_touching_lesions_of_two_classes_are_apart():
    reference, prediction = np.array([[[1, 1, 2, 2, 0, 1]]]), np.array([[[1, 1, 1, 1, 0, 0]]])
    both = case_scores(reference, prediction, ("background", "a", "b"), (10, 10, 10))
    of = {name: {s.metric: s.value for s in both if s.class_name == name} for name in "ab"}
    require(of["a"], lesion_recall=1 / 2, lesion_precision=1, lesion_dice=4 / 6 / 2, recognition_quality=0)
    require(of["b"], lesion_recall=0, lesion_precision=NAN, lesion_f1=0, false_positive_lesions=0)


@pytest.mark.parametrize("rules", [LesionRules(), ONE_TO_ONE, LesionRules(dilation=2)])
def test_identical_masks_and_lesions_of_one_voxel(rules):
    mask = np.zeros((20, 20, 20), dtype=bool)
    mask[1, 1, 1] = mask[10, 10, 10] = mask[18, 2, 5] = True
    got = scores(mask, mask, rules)
    perfect = {metric: 1 for metric in LESION_METRICS if METRICS[metric].higher_is_better}
    perfect |= {"false_positive_lesions": 0, "false_positive_lesions_negative": NAN, "case_specificity": NAN}
    require(got, **perfect)


# What each score is where a class is in both masks (as two voxels apart, of which one is predicted), in the reference
# alone, in the prediction alone, and in neither: the table of docs/report.md.
MATRIX = {
    "lesion_recall": (1 / 2, 0, NAN, NAN),
    "lesion_precision": (1, NAN, 0, NAN),
    "lesion_f1": (2 / 3, 0, 0, NAN),
    "lesion_dice": (1 / 2, 0, 0, NAN),
    "panoptic_quality": (2 / 3, 0, 0, NAN),
    "segmentation_quality": (1, NAN, NAN, NAN),
    "recognition_quality": (2 / 3, 0, 0, NAN),
    "false_positive_lesions": (0, 0, 1, 0),
    "false_positive_lesions_negative": (NAN, NAN, 1, 0),
    "case_sensitivity": (1, 0, NAN, NAN),
    "case_specificity": (NAN, NAN, 0, 1),
    "lesion_recall_small": (1 / 2, 0, NAN, NAN),
    "lesion_recall_middle": (NAN, NAN, NAN, NAN),
    "lesion_recall_large": (NAN, NAN, NAN, NAN),
}
TWO, ONE, NONE = grid("#.#"), grid("#.."), grid("...")


@pytest.mark.parametrize("rules", [LesionRules(), ONE_TO_ONE])
def test_empty_mask_matrix(rules):
    rules = LesionRules(match=rules.match, threshold=rules.threshold, size_limits_ml=(1, 2))
    for place, masks in enumerate([(TWO, ONE), (TWO, NONE), (NONE, ONE), (NONE, NONE)]):
        masks = [mask.astype(np.uint8) for mask in masks]
        of_case = {s.metric: s for s in case_scores(*masks, ("background", "x"), (10, 10, 10), lesions=rules)}
        assert set(of_case) == set(METRICS)
        for metric, expected in MATRIX.items():
            score = of_case[metric]
            assert score.value == pytest.approx(expected[place], nan_ok=True), (metric, place)
            assert score.status == ("undefined" if math.isnan(expected[place]) else "ok")
    assert set(MATRIX) == {*LESION_METRICS, *SIZE_METRICS}


def test_what_counts_as_the_worst():
    classes, rows = ("background", "x"), []
    rules = LesionRules(minimum_volume_ml=2, size_limits_ml=(1, 2))
    for case, reference in (("lesion", "##.##.##"), ("healthy", "........"), ("speck", "#.......")):
        for loss, prediction in (("found", "##......"), ("nothing", "........"), ("elsewhere", "...##...")):
            masks = (grid(text).astype(np.uint8) for text in (reference, prediction))
            of_case = case_scores(*masks, classes, (10, 10, 10), lesions=rules)
            rows += score_rows(of_case, dataset="toy", fold=0, seed=0, loss=loss, case=case)
    cases = ["lesion", "healthy", "speck"]
    rows += failed_rows(dataset="toy", fold=0, seed=0, loss="broken", cases=cases, classes=classes)
    filled = worst_filled(score_table(rows)).set_index(["loss", "case", "metric"])["value"].sort_index()
    worst = {metric: METRICS[metric].worst for metric in MATRIX}
    empty = {"segmentation_quality": 0, "lesion_precision": 0, "lesion_recall": 0, "case_sensitivity": 0}
    require(filled["nothing", "lesion"], **empty, case_specificity=NAN, false_positive_lesions_negative=NAN)
    require(filled["found", "healthy"], segmentation_quality=0, lesion_precision=0, case_specificity=0)
    require(filled["nothing", "healthy"], lesion_f1=NAN, segmentation_quality=NAN, case_specificity=1)
    # A failed run is the worst in what can be worst for the case, and has no value where no loss can have one.
    absent = ("false_positive_lesions_negative", "case_specificity", "lesion_recall_small", "lesion_recall_large")
    require(filled["broken", "lesion"], **{**worst, **dict.fromkeys(absent, NAN)})
    needing = {metric for metric in MATRIX if METRICS[metric].needs_reference}
    for case in ("healthy", "speck"):  # whose lesion is too small to be counted
        require(filled["broken", case], **{**worst, **dict.fromkeys(needing, NAN)})


def test_the_smallest_volume_counts_with_anisotropic_voxels():
    # 0.5 x 0.5 x 8 mm: 2 mm³ a voxel. Lesions of 6, 4 and 2 mm³.
    reference = grid("###.##.#....")
    prediction = grid("#.......#.##")
    spacing = (8, 0.5, 0.5)
    # The lesions of 2 and 4 mm³ are found or not without being counted; of the predicted ones, that of 2 mm³ is not
    # counted and that of 4 mm³ is a false positive, as it is as large as the limit.
    got = scores(reference, prediction, LesionRules(minimum_volume_ml=0.004), spacing)
    require(got, lesion_recall=1 / 2, lesion_precision=1 / 2, false_positive_lesions=1)
    got = scores(reference, prediction, LesionRules(minimum_volume_ml=0.005), spacing)
    require(got, lesion_recall=1, lesion_precision=1, false_positive_lesions=0)
    got = scores(reference, prediction, LesionRules(minimum_volume_ml=0.005, minimum_predicted_ml=0), spacing)
    require(got, lesion_recall=1, lesion_precision=1 / 3, false_positive_lesions=2)
    # A predicted lesion on one that is too small to be counted is neither right nor wrong.
    got = scores(grid("#...###"), grid("#....#."), LesionRules(minimum_volume_ml=0.006), spacing)
    require(got, lesion_recall=1, lesion_precision=1, false_positive_lesions=0, lesion_dice=2 / 4)
    got = scores(grid("#......"), grid("#...##."), LesionRules(minimum_volume_ml=0.004), spacing)
    require(got, lesion_recall=NAN, lesion_precision=0, case_specificity=0, false_positive_lesions_negative=1)


def test_dilation_joins_lesions_and_reaches_predictions():
    reference = grid("##..##......##")
    prediction = grid(".......#......")
    # Two voxels apart: joined from one step on. The predicted voxel is one voxel away from the second.
    require(scores(reference, prediction), lesion_recall=0, lesion_precision=0, false_positive_lesions=1)
    got = scores(reference, prediction, LesionRules(dilation=1))
    require(got, lesion_recall=0, false_positive_lesions=1, lesion_dice=0)
    assert len(match_lesions(reference, prediction, 1.0, LesionRules(dilation=1)).volumes_ml) == 2
    got = scores(reference, prediction, LesionRules(dilation=2))
    require(got, lesion_recall=1 / 2, lesion_precision=1, false_positive_lesions=0, lesion_dice=0)
    # An overlap is that of the masks themselves.
    assert scores(reference, prediction, LesionRules(dilation=2, threshold=0.01))["lesion_recall"] == 0
    assert match_lesions(reference, prediction, 1.0, LesionRules(dilation=2)).volumes_ml.tolist() == [4, 2]


def test_recall_by_size():
    reference = grid("#.##.###.#.##")
    prediction = grid("#....###....#")
    limits = limits_of_classes({"x": [np.array([1.0, 2, 3]), np.array([1.0, 2])], "y": [], "z": [np.zeros(0)]})
    assert limits == {"x": (1.0, 2.0)}
    for given in ((1, 2), limits):
        got = scores(reference, prediction, LesionRules(size_limits_ml=given))
        require(got, lesion_recall_small=1 / 2, lesion_recall_middle=1 / 2, lesion_recall_large=1, lesion_recall=3 / 5)
    assert not set(SIZE_METRICS) & set(scores(reference, prediction, LesionRules(size_limits_ml={"y": (1, 2)})))
    # 0.1 · 0.1 · 0.7 mm³ is not exactly what three times its third is.
    got = scores(grid("#.###"), grid("..###"), LesionRules(size_limits_ml=(7e-6, 21e-6)), (0.7, 0.1, 0.1))
    require(got, lesion_recall_small=0, lesion_recall_middle=1, lesion_recall_large=NAN)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"connectivity": 8}, "connectivity must be 6, 18 or 26; received 8"),
        ({"match": "any"}, "match must be touch or one_to_one; received 'any'"),
        ({"threshold": 1.0}, "threshold must be at least 0 and below 1; received 1.0"),
        ({"panoptic_threshold": NAN}, "panoptic_threshold must be at least 0 and below 1; received nan"),
        ({"minimum_volume_ml": -1.0}, "minimum_volume_ml must be a volume in ml, not negative; received -1.0"),
        ({"minimum_predicted_ml": math.inf}, "minimum_predicted_ml must be a volume in ml, not negative; received inf"),
        ({"dilation": -1}, "dilation must be a number of voxels, not negative; received -1"),
        ({"size_limits_ml": (2.0, 1.0)}, "size_limits_ml must be a smaller and a larger volume in ml"),
        ({"size_limits_ml": {"x": (1.0, NAN)}}, "size_limits_ml must be a smaller and a larger volume in ml"),
    ],
)
def test_rules_that_make_no_sense_are_refused(values, message):
    with pytest.raises(InputError, match=f"evaluation.lesions.{message}"):
        LesionRules(**values)


def test_masks_are_of_one_shape_and_of_any_type():
    reference, prediction = np.array([[2, 0, 1]], dtype=np.uint8), np.array([[1, 0, 0]], dtype=np.int64)
    found = match_lesions(reference, prediction, 1.0)
    assert (found.detected.tolist(), found.false_predictions) == ([True, False], 0)
    with pytest.raises(InputError, match=r"must have one shape, got \(1, 3\) and \(1, 2\)"):
        match_lesions(reference, prediction[:, :2], 1.0)


def test_fewer_false_positives_are_better_in_the_verdict():
    random = np.random.default_rng(0)
    rows = [
        row(loss, f"case-{case}", "false_positive_lesions", float(random.poisson(mean)), fold=case % 5)
        for loss, mean in (("many", 6), ("few", 1))
        for case in range(40)
    ]
    judged = verdict(score_table(rows), "tumour", "false_positive_lesions")
    assert judged is not None and judged.losses == ("few", "many") and judged.may_be_best == ("few",)
    assert not judged.higher_is_better


def lesions_of(voxels, diagonal):
    """Sets of voxels that are connected by steps along at most `diagonal` axes at once, by their first voxels."""
    left, lesions = set(voxels), []
    while left:
        todo, lesion = [min(left)], set()
        while todo:
            voxel = todo.pop()
            if voxel in left:
                left.remove(voxel)
                lesion.add(voxel)
                todo += [other for other in left if near(voxel, other, 1, diagonal)]
        lesions.append(lesion)
    return lesions


def near(one, other, furthest, total):
    steps = [abs(a - b) for a, b in zip(one, other, strict=True)]
    return max(steps) <= furthest and sum(steps) <= total


def twin(reference, prediction, rules):
    """The content of a LesionMatch of lesions of any volume: lesions are sets of voxels, compared pair by pair."""
    diagonal, steps = {6: 1, 18: 2, 26: 3}[rules.connectivity], rules.dilation

    def grown(lesion):  # so many steps to 18 neighbours
        return {p for p in np.ndindex(reference.shape) if any(near(p, voxel, steps, 2 * steps) for voxel in lesion)}

    ours, theirs = (lesions_of(map(tuple, np.argwhere(mask).tolist()), diagonal) for mask in (reference, prediction))
    groups = lesions_of(set().union(*map(grown, ours)), diagonal)
    ours = [set().union(*(lesion for lesion in ours if lesion <= group)) for group in groups]
    iou = {
        (i, j): len(a & b) / len(a | b)
        for (i, a), (j, b) in itertools.product(enumerate(ours), enumerate(theirs))
        if grown(a) & b
    }

    def matched(threshold, one_to_one):
        pairs = [pair for pair, value in iou.items() if value > threshold or threshold == 0]
        kept = []
        for i, j in sorted(pairs, key=lambda pair: (-iou[pair], pair)):
            if not one_to_one or all(i != k and j != m for k, m in kept):
                kept.append((i, j))
        return kept

    pairs = matched(rules.threshold, rules.match == "one_to_one")
    panoptic = matched(rules.panoptic_threshold, True)
    dice = []
    for i, lesion in enumerate(ours):
        union = set().union(*(theirs[j] for k, j in pairs if k == i))
        dice.append(2 * len(lesion & union) / (len(lesion) + len(union)))
    return (
        sorted(map(len, ours)),
        len({i for i, _ in pairs}),
        len({j for _, j in pairs}),
        len(theirs) - len({j for _, j in pairs}),
        pytest.approx(sum(dice)),
        pytest.approx(sorted(iou[pair] for pair in panoptic)),
        len(theirs) - len(panoptic),
    )


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("dilation", [0, 1, 2])
@pytest.mark.parametrize(("match", "threshold"), [("touch", 0), ("touch", 0.2), ("one_to_one", 0), ("one_to_one", 0.3)])
def test_agrees_with_the_twin(connectivity, dilation, match, threshold):
    rules = LesionRules(connectivity, match, threshold, 0.25, dilation=dilation)
    random = np.random.default_rng(connectivity + dilation)
    for share in (0.05, 0.15):
        reference = random.random((3, 8, 7)) < share
        prediction = np.where(random.random(reference.shape) < 0.1, ~reference, reference)
        prediction |= np.roll(reference, 1, axis=2) & (random.random(reference.shape) < 0.7)
        found = match_lesions(reference, prediction, 1.0, rules)
        assert (
            sorted(map(int, found.volumes_ml)),
            int(found.detected.sum()),
            found.true_predictions,
            found.false_predictions,
            found.dice.sum(),
            sorted(found.panoptic_ious),
            found.panoptic_false_predictions,
        ) == twin(reference, prediction, rules)
