"""Counts of voxels by probability: their numbers, thresholds and calibration against slow twins and scikit-learn."""

import math

import numpy as np
import pytest

from voxloss.evaluation.lesion_rules import LesionRules
from voxloss.evaluation.metrics import case_scores
from voxloss.evaluation.probabilities.calibration import (
    LEAST,
    RELIABILITY_BINS,
    best_temperature,
    bin_probabilities,
    calibration,
    log_score,
    reliability,
)
from voxloss.evaluation.probabilities.counts import (
    BINS,
    FIRST_LEVELS,
    LEVELS,
    THRESHOLDS,
    ProbabilityCounter,
    ProbabilityCounts,
    RunCounts,
    count_probabilities,
    read_counts,
    threshold_place,
    write_counts,
)
from voxloss.evaluation.probabilities.froc import (
    LESION_THRESHOLDS,
    froc,
    lesions_by_threshold,
    sensitivity_at,
)
from voxloss.evaluation.probabilities.thresholds import (
    average_precision,
    best_threshold,
    overlaps,
    precision_at,
    scores_at,
)
from voxloss.utilities.errors import InputError


def made(seed=0, shape=(6, 20, 15), classes=3, sharpness=3.0):
    """Probabilities that know something of a reference, and the reference."""
    random = np.random.default_rng(seed)
    reference = random.choice(classes, size=shape, p=[0.9, *[0.1 / (classes - 1)] * (classes - 1)]).astype(np.uint8)
    logits = random.normal(size=(classes, *shape)) * 1.5
    for index in range(classes):
        logits[index] += sharpness * (reference == index)
    logits[0] += 2
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(axis=0)).astype(np.float32), reference


def of_class(counts, index):
    return ProbabilityCounts(counts.voxels[index - 1], counts.sums[index - 1])


def one(probabilities, reference, index=1):
    return of_class(count_probabilities(probabilities, reference), index)


def binary(values, truth):
    """The counts of one class where voxels have these probabilities."""
    values = np.asarray(values, dtype=np.float32)
    return one(np.stack([1 - values, values]), np.asarray(truth, dtype=np.uint8))


def rounded(probabilities):
    return np.floor(probabilities.astype(np.float64) * 65535 + 0.5) / 65535


def test_bins_have_the_borders_that_curves_need():
    assert FIRST_LEVELS[0] == 0 and len(np.unique(FIRST_LEVELS)) == BINS < 512
    for border in (0.01, 0.5, *(k / 15 for k in range(1, 15)), *(k / 20 for k in range(1, 20))):
        assert np.abs(THRESHOLDS - border).min() <= 0.5 / 65535 + 1e-12
    odds = np.log(THRESHOLDS[1:] / (1 - THRESHOLDS[1:]))
    fine = (THRESHOLDS[1:-1] > 1e-3) & (THRESHOLDS[1:-1] < 1 - 1e-3)
    assert np.diff(odds)[fine[: len(odds) - 1]].max() < 0.066
    assert THRESHOLDS[1] < 1e-4 < THRESHOLDS[-1]


@pytest.mark.parametrize("ignore", [None, 254])
def test_counts_are_those_of_a_loop_over_voxels(ignore):
    probabilities, reference = made(shape=(3, 5, 4))
    if ignore is not None:
        reference[0, :, 0] = ignore
    counts = count_probabilities(probabilities, reference, ignore)
    voxels, sums = np.zeros((2, 2, BINS), dtype=np.int64), np.zeros((2, 2, BINS))
    for index in (1, 2):
        for p, label in zip(probabilities[index].ravel().tolist(), reference.ravel().tolist(), strict=True):
            if label == ignore:
                continue
            level = math.floor(p * 65535 + 0.5)
            place = max(j for j in range(BINS) if FIRST_LEVELS[j] <= level)
            voxels[index - 1, int(label == index), place] += 1
            sums[index - 1, int(label == index), place] += level / 65535
    np.testing.assert_array_equal(counts.voxels, voxels)
    np.testing.assert_allclose(counts.sums, sums, atol=1e-12)


def test_pieces_of_any_order_count_like_the_whole(monkeypatch):
    from voxloss.evaluation.probabilities import counts as module

    monkeypatch.setattr(module, "PIECE", 7)
    probabilities, reference = made()
    turned = reference.transpose(2, 0, 1)[::-1]  # a view, as of a case stored along other axes
    moved = probabilities.transpose(0, 3, 1, 2)[:, ::-1]
    counter = ProbabilityCounter(turned, 3)
    for rows in (slice(9, 15), slice(0, 9)):
        for index in (2, 0, 1):
            box = (rows, slice(0, 6), slice(0, 20))
            counter.add(index, box, moved[(index, *box)])
    whole = count_probabilities(probabilities, reference)
    np.testing.assert_array_equal(counter.counts().voxels, whole.voxels)
    np.testing.assert_allclose(counter.counts().sums, whole.sums)


def test_probabilities_of_0_and_1_and_a_rounding_beyond():
    counts = binary([0.0, 1.0, 1.0000002, -1e-9], [0, 1, 1, 0])
    assert counts.voxels[0, 0] == 2 and counts.voxels[1, -1] == 2 and counts.voxels.sum() == 4
    assert counts.sums[1, -1] == 2.0


@pytest.mark.parametrize("index", [1, 2])
def test_overlaps_at_every_threshold_are_those_of_masks(index):
    probabilities, reference = made(1)
    found = overlaps(one(probabilities, reference, index))
    values, truth = rounded(probabilities[index]), reference == index
    for place in (0, 1, BINS // 4, BINS // 2, BINS - 1):
        mask = values >= THRESHOLDS[place] - 1e-9
        assert found.true_positive[place] == (mask & truth).sum()
        assert found.false_positive[place] == (mask & ~truth).sum()
        assert found.false_negative[place] == (~mask & truth).sum()


def test_scores_at_a_half_are_those_of_the_mask_with_two_classes():
    probabilities, reference = made(2, classes=2)
    prediction = probabilities.argmax(axis=0).astype(np.uint8)
    assert not (rounded(probabilities[1]) == THRESHOLDS[threshold_place(0.5)]).any()  # no voxel on the border
    ours = scores_at(one(probabilities, reference), 0.5, "b")
    assert ours == case_scores(reference, prediction, ("a", "b"))


@pytest.mark.parametrize(
    ("values", "truth", "expected"),
    [
        ([0.9, 0.1], [0, 0], (0.0, 0.0, None)),  # only predicted
        ([0.1, 0.1], [1, 0], (0.0, None, 0.0)),  # only in the reference
        ([0.1, 0.1], [0, 0], (None, None, None)),  # in neither
        ([0.9, 0.9], [1, 0], (2 / 3, 0.5, 1.0)),
    ],
)
def test_empty_masks_are_undefined_as_in_case_scores(values, truth, expected):
    scores = scores_at(binary(values, truth), 0.5, "b")
    assert [None if score.status == "undefined" else score.value for score in scores] == list(expected)
    assert [score.metric for score in scores] == ["dice", "precision", "recall"]


def test_the_best_threshold_is_that_of_a_search_over_masks():
    cases = [made(seed, classes=2, shape=(4, 9, 8)) for seed in range(3)]
    cases.append(
        (np.stack([np.full((2, 2, 2), 0.7), np.full((2, 2, 2), 0.3)]).astype(np.float32), np.zeros((2, 2, 2), np.uint8))
    )
    found = best_threshold([one(*case) for case in cases])

    def mean_dice(threshold):
        values = []
        for probabilities, reference in cases:
            mask, truth = rounded(probabilities[1]) >= threshold - 1e-9, reference == 1
            total = mask.sum() + truth.sum()
            values += [2 * (mask & truth).sum() / total] if total else []
        return np.mean(values)

    every = np.array([mean_dice(threshold) for threshold in THRESHOLDS[1:]])
    assert mean_dice(found) == pytest.approx(every.max())
    best = THRESHOLDS[1:][every >= every.max() - 1e-12]
    assert found == min(best, key=lambda t: abs(math.log(t / (1 - t))))


def test_a_plateau_of_thresholds_gives_a_half():
    assert best_threshold([binary([0.01, 0.99], [0, 1])]) == pytest.approx(0.5, abs=1e-4)


def test_a_collapsed_class_has_a_threshold_far_below_a_half():
    """All voxels of a rare structure have a probability of 1 %, others less: argmax finds nothing."""
    assert best_threshold([binary([0.001, 0.0001, 0.01, 0.011], [0, 0, 1, 1])]) == pytest.approx(0.0099, rel=0.02)


def test_many_cases_without_a_class_do_not_leave_it_unpredicted():
    """One case of ten has the class, at low probabilities; the others have false positives beyond a threshold."""
    cases = [binary([0.2, 0.2, 0.15, 0.01], [1, 1, 0, 0]), *[binary([0.19, 0.01], [0, 0])] * 9]
    assert best_threshold(cases) == pytest.approx(0.2, rel=0.02)
    cases[0] = binary([0.2, 0.2, 0.25, 0.01], [1, 1, 0, 0])
    assert best_threshold(cases) == pytest.approx(0.2, rel=0.02)


def test_no_threshold_without_the_class_in_any_case():
    assert best_threshold([binary([0.9, 0.1], [0, 0])]) is None
    assert best_threshold([]) is None


def test_a_case_without_the_class_raises_the_threshold():
    with_class = binary([0.4, 0.8, 0.8, 0.1], [1, 1, 1, 0])
    assert best_threshold([with_class]) == pytest.approx(0.4, rel=0.02)
    assert best_threshold([with_class, binary([0.7, 0.1], [0, 0])]) > 0.7


def test_average_precision_equals_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    probabilities, reference = made(3)
    for index in (1, 2):
        values = THRESHOLDS[np.searchsorted(THRESHOLDS, rounded(probabilities[index]) + 1e-9) - 1]  # by bin
        expected = metrics.average_precision_score((reference == index).ravel(), values.ravel())
        assert average_precision(one(probabilities, reference, index)) == pytest.approx(expected, abs=1e-12)
        exact = metrics.average_precision_score((reference == index).ravel(), probabilities[index].ravel())
        assert average_precision(one(probabilities, reference, index)) == pytest.approx(exact, abs=0.01)


def test_average_precision_by_hand():
    # Recall 1/2 at precision 1, then 1 at precision 2/3.
    assert average_precision(binary([0.9, 0.5, 0.3, 0.1], [1, 0, 1, 0])) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert math.isnan(average_precision(binary([0.9], [0])))
    assert average_precision(binary([0.9, 0.1], [1, 0])) == 1.0


def test_precision_at_a_recall_is_that_of_the_highest_threshold_that_reaches_it():
    counts = binary([0.9, 0.5, 0.3, 0.1], [1, 0, 1, 0])
    np.testing.assert_allclose(precision_at(counts, np.array([0.0, 0.25, 0.5, 0.75, 1.0])), [1, 1, 1, 2 / 3, 2 / 3])
    assert np.isnan(precision_at(binary([0.9], [0]), np.array([0.5]))).all()


def slow_ece(values, truth, bins=RELIABILITY_BINS):
    total = 0.0
    for place in range(bins):
        inside = [n for n, p in enumerate(values) if place <= p * bins < place + 1 or (place == bins - 1 and p >= 1)]
        if inside:
            mean, share = np.mean([values[n] for n in inside]), np.mean([truth[n] for n in inside])
            total += len(inside) / len(values) * abs(mean - share)
    return total


@pytest.mark.parametrize("index", [1, 2])
def test_calibration_equals_that_of_a_loop_over_voxels(index):
    probabilities, reference = made(4)
    counts = one(probabilities, reference, index)
    p, y = rounded(probabilities[index]).ravel(), (reference == index).ravel().astype(float)
    found = calibration(counts)
    assert found.ece == pytest.approx(slow_ece(p, y), abs=1e-9)
    considered = p >= THRESHOLDS[threshold_place(0.01)] - 1e-9
    assert found.ece_foreground == pytest.approx(slow_ece(p[considered], y[considered]), abs=1e-9)
    assert found.brier == pytest.approx(np.mean((p - y) ** 2), rel=1e-3)  # a bin's voxels count at their mean
    clamped = np.clip(p, LEAST, 1 - LEAST)
    assert found.log_score == pytest.approx(-np.mean(y * np.log(clamped) + (1 - y) * np.log1p(-clamped)), rel=1e-3)
    exact = -np.mean(y * np.log(probabilities[index].ravel()) + (1 - y) * np.log1p(-probabilities[index].ravel()))
    assert found.log_score == pytest.approx(exact, rel=1e-2)


def test_brier_and_log_score_equal_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    probabilities, reference = made(5, classes=2)
    found = calibration(one(probabilities, reference))
    truth, values = (reference == 1).ravel(), probabilities[1].ravel()
    assert found.brier == pytest.approx(metrics.brier_score_loss(truth, values), rel=1e-3)
    assert found.log_score == pytest.approx(metrics.log_loss(truth, values), rel=1e-2)


def test_calibrated_probabilities_have_next_to_no_error_also_of_the_foreground():
    random = np.random.default_rng(0)
    p = random.beta(0.3, 3, size=200_000)
    counts = binary(p, random.random(p.size) < p)
    found = calibration(counts)
    assert found.ece < 0.003 and found.ece_foreground < 0.004
    bins = reliability(counts)
    filled = bins.voxels > 500
    np.testing.assert_allclose(bins.predicted[filled], bins.observed[filled], atol=0.06)


def test_a_voxel_of_probability_0_in_the_class_costs_a_finite_amount():
    assert log_score(binary([0.0], [1])) == pytest.approx(-math.log(LEAST)) == pytest.approx(11.78, abs=0.01)
    assert log_score(binary([1.0, 1.0], [0, 0])) == pytest.approx(11.78, abs=0.01)


@pytest.mark.filterwarnings("error")
def test_what_is_not_a_number_counts_as_0():
    counts = binary([math.nan, 0.9], [1, 1])
    assert counts.voxels[1, 0] == 1 and counts.voxels.sum() == 2 and np.isfinite(counts.sums).all()


def test_nothing_counted_is_undefined():
    nothing = ProbabilityCounts(np.zeros((2, BINS), dtype=np.int64), np.zeros((2, BINS)))
    assert all(math.isnan(value) for value in vars(calibration(nothing)).values())
    assert math.isnan(reliability(nothing).error())
    assert best_temperature(nothing) is None


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_spoiled_probabilities_is_found(temperature):
    """Calibrated log odds times a factor: the best temperature is that factor."""
    random = np.random.default_rng(1)
    odds = random.normal(-1.5, 1.2, size=300_000)
    truth = random.random(odds.size) < 1 / (1 + np.exp(-odds))
    counts = binary(1 / (1 + np.exp(-odds * temperature)), truth)
    found = best_temperature(counts)
    assert found == pytest.approx(temperature, rel=0.05)
    if temperature != 1:
        assert calibration(counts, found).ece < calibration(counts).ece / 3
        assert calibration(counts, found).log_score < calibration(counts).log_score


def test_a_temperature_keeps_the_order_and_one_half():
    counts = binary(np.linspace(0, 1, 1001), np.arange(1001) % 2)
    scaled = bin_probabilities(counts, 2.0)
    assert (np.diff(scaled[0]) >= 0).all()
    assert scaled[0, 0] > 0 and scaled[1, -1] < 1


def test_no_temperature_for_one_outcome_alone():
    assert best_temperature(binary([0.1, 0.2], [0, 0])) is None
    assert best_temperature(binary([0.1, 0.2], [1, 1])) is None


def test_lesions_by_threshold_by_hand():
    reference, probability = np.zeros((3, 12, 12), dtype=bool), np.zeros((3, 12, 12), dtype=np.uint8)
    reference[1, 1:3, 1:3] = reference[1, 8:10, 8:10] = True
    probability[1, 1:3, 1:3] = 240  # detected to 0.94
    probability[1, 8, 8] = 60  # to 0.235
    probability[1, 1:3, 8:10] = 128  # invented to 0.502
    table = dict(zip(LESION_THRESHOLDS, lesions_by_threshold(reference, probability, 0.001).tolist(), strict=True))
    assert table[0.02] == table[0.2] == [2, 2, 1]
    assert table[0.35] == table[0.5] == [2, 1, 1]
    assert table[0.65] == table[0.9] == [2, 1, 0]
    assert table[0.95] == [2, 0, 0]


def test_lesions_at_a_half_are_those_of_the_scores():
    probabilities, reference = made(6, classes=2, shape=(5, 16, 16), sharpness=4)
    bytes_ = np.floor(probabilities[1] * 255 + 0.5).astype(np.uint8)
    rules = LesionRules(minimum_volume_ml=0.002)
    row = lesions_by_threshold(reference == 1, bytes_, 0.001, rules)[LESION_THRESHOLDS.index(0.5)]
    mask = (bytes_ >= 128).astype(np.uint8)
    scores = {s.metric: s.value for s in case_scores(reference, mask, ("a", "b"), (1, 1, 1), lesions=rules)}
    assert row[1] / row[0] == scores["lesion_recall"] and row[2] == scores["false_positive_lesions"]


def test_froc_pools_lesions_and_counts_false_positives_per_case():
    lesions = np.array([[[4, 4, 3], [4, 2, 1]], [[0, 0, 2], [0, 0, 0]]])  # two cases, two thresholds
    false, sensitivity = froc(lesions)
    assert false.tolist() == [2.5, 0.5] and sensitivity.tolist() == [1.0, 0.5]
    assert sensitivity_at(lesions, (0.25, 0.5, 4)).tolist() == [0.0, 0.5, 1.0]
    assert np.isnan(sensitivity_at(np.zeros((2, 3, 3), dtype=int))).all()


def test_lesions_of_an_empty_case_are_zeros():
    nothing = lesions_by_threshold(np.zeros((3, 3, 3), bool), np.zeros((3, 3, 3), np.uint8), 0.001)
    assert nothing.shape == (len(LESION_THRESHOLDS), 3) and not nothing.any()


def run_of(*cases, inner=()):
    counts = [count_probabilities(*case) for case in cases]
    lesions = np.arange(len(cases) * 30).reshape(len(cases), 10, 3)
    names = tuple(f"Fall {n}, «ä»" for n in range(len(cases)))
    return RunCounts(names, tuple(n in inner for n in range(len(cases))), ("b", "c"), tuple(counts), "c", lesions)


def test_counts_come_back_from_their_file(tmp_path):
    run = run_of(made(0), made(1), made(2), inner=(2,))
    write_counts(tmp_path / "counts.npz", run)
    back = read_counts(tmp_path / "counts.npz")
    assert (back.cases, back.inner, back.classes, back.lesion_class) == (run.cases, run.inner, run.classes, "c")
    np.testing.assert_array_equal(back.lesions, run.lesions)
    for one_of, other in zip(back.counts, run.counts, strict=True):
        np.testing.assert_array_equal(one_of.voxels, other.voxels)
        np.testing.assert_array_equal(one_of.sums, other.sums)
    assert list(back.of_class("c")) == list(run.cases[:2]) and list(back.of_class("c", inner=True)) == [run.cases[2]]
    assert (tmp_path / "counts.npz").stat().st_size < 60_000


def cut(path):
    path.write_bytes(path.read_bytes()[:200])


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("counts")


def other_bins(path):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **(arrays | {"thresholds": arrays["thresholds"][1:]}))


def lacking(path):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    del arrays["sums"]
    np.savez(path, **arrays)


def objects(path):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **(arrays | {"cases": np.array([{}], dtype=object)}))


@pytest.mark.parametrize("damage", [cut, empty, text, other_bins, lacking, objects, lambda path: path.unlink()])
def test_a_damaged_file_is_one_sentence_that_names_it(tmp_path, damage):
    path = tmp_path / "counts.npz"
    write_counts(path, run_of(made()))
    damage(path)
    with pytest.raises(InputError, match=r"counts\.npz is (missing|damaged)"):
        read_counts(path)


def test_levels_are_those_of_sixteen_bits():
    assert LEVELS == 2**16 and THRESHOLDS[-1] <= 1
