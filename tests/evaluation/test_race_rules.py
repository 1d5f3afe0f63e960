"""Races: the level that is spent, what leaves, and that it is the verdict's own comparison with the best."""

import dataclasses
import math

import numpy as np
import pytest

from voxloss.evaluation.fold_model import Interim, model_pairs, moderate, moderated_variances
from voxloss.evaluation.race import FUTILE, LEVEL, Look, decision_chance, interim_of, look_at, spent
from voxloss.evaluation.verdict import judge

NAMES = ["a", "b", "c", "d"]
FOLDS, CASES = 5, 60
FOLD = np.arange(CASES) % FOLDS


def scores(means: list[float], seed: int = 0, sd: float = 0.02) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return 0.6 + np.array(means) + generator.normal(0, 0.1, (CASES, 1)) + generator.normal(0, sd, (CASES, len(means)))


def look(values: np.ndarray, names: list[str] = NAMES, looks: tuple[Look, ...] = (), number: int = 5, **more) -> Look:
    settings = {"n_folds": FOLDS, "passes": 2, "family": len(NAMES)} | more
    kept = number > FOLD
    return look_at(values[kept], FOLD[kept], names, looks, round=number, **settings)


@pytest.mark.parametrize("passes", [1, 2, 3, 7])
@pytest.mark.parametrize("n_folds", [2, 5, 10])
def test_the_level_is_spent_step_by_step_and_never_wholly(n_folds, passes):
    shares = [spent(number, n_folds, passes) for number in range(n_folds * passes + 1)]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(0.9)
    later = [spent(number, n_folds, passes) for number in range(n_folds * passes, n_folds * (passes + 30))]
    assert later == sorted(later)
    assert later[-1] <= 0.95


def test_the_levels_of_all_looks_add_up_to_what_is_spent():
    """By hand, 5 folds and 3 passes: 0.9 · (1/2)/(7/8) of the level by round 5, of which (2/5)³ by round 2."""
    first_pass = 0.9 * 0.5 / 0.875
    assert spent(5, 5, 3) == pytest.approx(first_pass)
    assert spent(2, 5, 3) == pytest.approx(first_pass * 0.4**3)
    looks: list[Look] = []
    for number in range(2, 6):
        looks.append(look(scores([0, 0, 0, 0]), looks=tuple(looks), number=number, passes=3))
    assert sum(one.level for one in looks) == pytest.approx(LEVEL * first_pass)


def test_a_repeated_look_takes_a_share_that_is_fixed_beforehand():
    """By hand: 0.05 / 2 of what round 5 alone would spend, then 0.05 / 4, and nothing is taken from later looks."""
    first = look(scores([0, 0, 0, 0]), number=5)
    of_round = LEVEL * (spent(5, FOLDS, 2) - spent(4, FOLDS, 2))
    again = interim_of([first], 5, FOLDS, 2, 5)
    assert again.level == pytest.approx(0.025 * of_round)
    assert again.family == 5
    third = interim_of([first, first], 5, FOLDS, 2, 6)
    assert third.level == pytest.approx(0.0125 * of_round)
    later = interim_of([first, first], 10, FOLDS, 2, 6)
    assert later.level == pytest.approx(LEVEL * (spent(10, FOLDS, 2) - spent(5, FOLDS, 2)))


def test_with_nothing_left_to_spend_no_loss_leaves():
    first = look(scores([0, 0, 0, 0]), number=5)
    seen = look_at(
        scores([0.0, -0.3, -0.3, -0.3]), FOLD, NAMES, [first] * 12, round=5, n_folds=FOLDS, passes=2, family=4
    )
    assert not seen.departures
    assert seen.outcome != "one"


def test_the_evidence_is_of_the_loss_that_beats_it():
    """c is the best and varies too much to beat b, which a beats."""
    fold_means = np.array([[0.70, 0.70, 0.70, 0.70, 0.70], [0.6, 0.6, 0.6, 0.6, 0.6], [0.3, 1.0, 0.5, 1.1, 0.8]])
    generator = np.random.default_rng(0)
    values = fold_means.T[FOLD] + generator.normal(0, 0.002, (CASES, 3))
    seen = look_at(values, FOLD, ["a", "b", "c"], (), round=5, n_folds=FOLDS, passes=2, family=3)
    assert seen.losses[0] == "c"
    assert [(one.loss, one.beaten_by) for one in seen.departures] == [("b", "a")]
    assert seen.departures[0].difference > seen.departures[0].needed


def test_seeds_added_later_do_not_change_how_the_planned_ones_spend():
    first = look(scores([0, 0, 0, 0]), number=5)
    interim = interim_of([first], 10, FOLDS, 4, 4)  # planned 2, now 4
    assert interim.level == pytest.approx(LEVEL * (spent(10, FOLDS, 2) - spent(5, FOLDS, 2)))


def test_a_loss_far_behind_leaves_and_the_evidence_is_the_verdicts():
    values = scores([0.0, 0.01, 0.005, -0.3])
    seen = look(values)
    assert [one.loss for one in seen.departures] == ["d"]
    one = seen.departures[0]
    means = values.mean(axis=0)
    assert one.difference == pytest.approx(means[NAMES.index(one.beaten_by)] - means[3], abs=1e-12)
    interim = interim_of((), 5, FOLDS, 2, 4)
    verdict = judge(values, FOLD, NAMES, 1, interim=interim)
    row = verdict.pairs[(verdict.pairs["better"] == one.beaten_by) & (verdict.pairs["worse"] == "d")].iloc[0]
    assert (one.difference, one.needed) == (row["difference"], row["needed"])
    assert one.difference > one.needed
    assert seen.staying == verdict.may_be_best
    fold_means = np.stack([values[fold == FOLD].mean(axis=0) for fold in range(FOLDS)], axis=1)
    assert one.own_variance == pytest.approx(moderated_variances(fold_means).own[3])


def test_an_interim_look_needs_more_than_the_single_look_at_the_end():
    values = scores([0.0, 0.01, 0.005, -0.02])
    single = judge(values, FOLD, NAMES, 1).pairs
    interim = judge(values, FOLD, NAMES, 1, interim=Interim(0.01, 4)).pairs
    larger = judge(values, FOLD, NAMES, 1, interim=Interim(0.01, 12)).pairs
    for column in ("half_width", "needed"):
        assert (single[column] <= interim[column]).all()
        assert (interim[column] <= larger[column]).all()
    assert (single["half_width"] < interim["half_width"]).any()
    assert (interim["needed"] < larger["needed"]).any()
    assert (single["difference"] == interim["difference"]).all()


def test_losses_that_left_steady_the_variance_of_the_few_that_stay():
    """Two losses alone have four degrees of freedom; with five others of the same variance they have many more."""
    generator = np.random.default_rng(3)
    fold_means = generator.normal(0, 0.02, (400, 2, 5))
    alone = moderated_variances(fold_means)
    beside = moderated_variances(fold_means, interim=Interim(0.01, 7, (0.0004,) * 5, (4,) * 5))
    assert (alone.degrees == 4).all()
    assert np.median(beside.degrees) > 8
    assert beside.moderated.std() < 0.5 * alone.moderated.std()
    assert np.median(beside.moderated) == pytest.approx(0.0004, rel=0.2)
    quiet = moderated_variances(fold_means, interim=Interim(0.01, 7))
    assert (quiet.moderated == alone.moderated).all()


def test_losses_that_left_are_moderated_as_if_they_were_there():
    """Twin: `moderate` over all of them at once, those that stay with (K - 1)/K of their degrees of freedom."""
    generator = np.random.default_rng(4)
    fold_means = generator.normal(0, 0.02, (3, 5))
    left, degrees = (0.0009, 0.0001), (2, 4)
    found = moderated_variances(fold_means, interim=Interim(0.01, 5, left, degrees))
    raw = np.concatenate([found.own, left])
    expected, df = moderate(raw, np.ones(5, bool), np.array([4 * 2 / 3] * 3 + list(degrees)))
    assert found.moderated == pytest.approx(expected[:3], rel=1e-9)
    assert found.degrees == pytest.approx(np.minimum(df[:3], 2 * 4 + 6), rel=1e-9)


def test_a_loss_near_zero_has_no_part_in_the_fold_effects():
    generator = np.random.default_rng(5)
    folds = generator.normal(0, 0.1, (1, 5))  # the folds' difficulty, which living losses share
    living = 0.6 + folds + generator.normal(0, 0.01, (4, 5))
    faint = 0.002 + generator.normal(0, 1e-5, (2, 5))
    without = moderated_variances(living)
    both = moderated_variances(np.concatenate([living, faint]))
    assert both.moderated[:4] == pytest.approx(without.moderated, rel=0.35)
    assert both.own[:4] == pytest.approx(without.own, rel=0.1)
    assert both.moderated[4:] == pytest.approx(faint.var(axis=1, ddof=1), rel=1e-9)
    assert (both.degrees[4:] == 4).all()
    pairs = model_pairs(np.concatenate([living, faint]))
    assert pairs.half_width[0] < 0.1  # of two living losses, though their folds differ by 0.1


def test_how_a_race_ends():
    assert look(scores([0.0, -0.3, -0.3, -0.3])).outcome == "one"
    equal = scores([0.0, 0.0, 0.0, 0.0], sd=0.0005)
    assert look(equal).outcome == "equivalent"
    undecided = scores([0.0, 0.0, 0.0, 0.0], sd=0.1)
    assert look(undecided, number=4).outcome is None
    assert math.isnan(look(undecided, number=4).chance)
    seen = look(undecided)
    assert seen.chance < FUTILE
    assert seen.outcome == "futile"
    assert look(undecided, passes=1).outcome == "rounds"


def test_the_chance_of_a_decision():
    """It grows with the difference, and is 1/2 where the difference is what the last look will need."""
    values = scores([0.0, 0.0, 0.0, 0.0], sd=0.02)
    verdict = judge(values, FOLD, NAMES, 1, interim=Interim(0.01, 4))

    def chance(difference: float) -> float:
        pairs = verdict.pairs.assign(difference=difference)
        return decision_chance(dataclasses.replace(verdict, pairs=pairs), verdict.losses, 1, 3)

    row = verdict.pairs.iloc[0]
    total, of_cases = row["standard_error"] ** 2, row["case_sd"] ** 2 / CASES
    final = min(total, of_cases) * (0.7 + 0.3 / 3) + max(0.0, total - of_cases) * (0.5 + 0.5 / 3)
    assert chance(row["needed"] * math.sqrt(final / total)) == pytest.approx(0.5, abs=0.01)
    assert chance(0.0) < 0.1 < 0.9 < chance(2 * row["needed"])


@pytest.mark.slow
def test_the_best_loss_stays_and_equal_ones_seldom_leave():
    """A short form of benchmarks/race.py: over 60 races, one better by 0.05 stays and most of the far ones leave."""
    left_best = left_far = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        run = generator.normal(0, 0.02, (FOLDS, 4))[FOLD]
        values = scores([0.05, 0.0, -0.3, -0.3], seed, sd=0.1) + run
        names, looks = list(NAMES), []
        for number in range(2, 6):
            columns = [NAMES.index(name) for name in names]
            looks.append(look(values[:, columns], names, tuple(looks), number))
            names = list(looks[-1].staying)
            if looks[-1].outcome:
                break
        left_best += "a" not in names
        left_far += ("c" not in names) + ("d" not in names)
    assert left_best <= 1
    assert left_far >= 110


def test_one_fold_decides_nothing():
    values = scores([0.0, -0.3, -0.3, -0.3])
    kept = FOLD == 0
    seen = look_at(values[kept], FOLD[kept], NAMES, (), round=2, n_folds=FOLDS, passes=2, family=4)
    assert not seen.departures
    assert seen.outcome is None
