"""Differences joined over data sets: equal to R's metafor, to values computed by hand, and stable."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from voxloss.evaluation.joined import join, pool, predict, spread_points

METAFOR = pd.read_csv(Path(__file__).with_name("joined_metafor.csv"))  # joined_metafor.R writes it


@pytest.mark.parametrize("row", METAFOR.to_dict("records"), ids=lambda row: row["set"])
def test_joined_is_that_of_metafor(row):
    y, s = ([float(word) for word in row[name].split()] for name in ("y", "s"))
    found = join(y, s)
    for name, value in {
        "mean": found.mean, "standard_error": found.standard_error, "tau2": found.tau**2, "low": found.low,
        "high": found.high, "Q": found.heterogeneity, "p_Q": found.p_heterogeneity,
    }.items():  # fmt: skip
        assert value == pytest.approx(row[name], rel=1e-6, abs=1e-15), name
    high, low = spread_points(y, s, np.array([0.025, 0.975]))
    assert (low, high) == pytest.approx((row["tau2_low"], row["tau2_high"]), rel=1e-6, abs=1e-12)
    assert (found.predicted is None) == (len(y) < 5)  # a new data set is not predicted from fewer than five


def test_two_equal_standard_errors_by_hand():
    """y = ±1 around 3, s = 1: Q(τ²) = 2 / (1 + τ²) = 1, so τ² = 1, and SE² = (1 + τ²) / 2 = 1."""
    found = join([2.0, 4.0], [1.0, 1.0])
    assert (found.mean, found.tau, found.standard_error) == pytest.approx((3.0, 1.0, 1.0), abs=1e-12)
    assert found.high == pytest.approx(3 + stats.t.ppf(0.975, 1), rel=1e-12)
    assert found.weights == pytest.approx((0.5, 0.5))
    assert found.detectable == pytest.approx(stats.t.ppf(0.975, 1) + stats.t.ppf(0.8, 1))


numbers = st.floats(-1, 1, allow_nan=False)
errors = st.floats(1e-3, 1)


@given(st.lists(st.tuples(numbers, errors), min_size=2, max_size=12), numbers)
def test_the_equation_of_paule_and_mandel_holds(pairs, shift):
    y, s = map(np.array, zip(*pairs, strict=True))

    def q(tau_squared):
        weights = 1 / (s**2 + tau_squared)
        return float((weights * (y - (weights * y).sum() / weights.sum()) ** 2).sum())

    found = join(y, s)
    expected = 0.0 if q(0.0) <= len(y) - 1 else optimize.brentq(lambda t: q(t) - (len(y) - 1), 0, 100, xtol=1e-14)
    assert found.tau**2 == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert min(y) - 1e-9 <= found.mean <= max(y) + 1e-9
    moved = join(y + shift, s)
    assert moved.mean == pytest.approx(found.mean + shift, abs=1e-6)
    other_way = join(-y, s)
    assert (other_way.low, other_way.high) == pytest.approx((-found.high, -found.low), abs=1e-9)
    if found.predicted is not None:
        assert other_way.predicted == pytest.approx((-found.predicted[1], -found.predicted[0]), abs=1e-6)


def test_a_new_data_set_is_predicted_over_the_confidence_distribution_of_tau():
    """Beside a slow twin: τ² drawn from its confidence distribution by bisection, then a normal difference."""
    y, s = np.array([0.021, -0.008, 0.055, 0.012, 0.034]), np.array([0.010, 0.015, 0.020, 0.008, 0.012])
    random = np.random.default_rng(0)

    def q(tau_squared):
        weights = 1 / (s**2 + tau_squared)
        return float((weights * (y - (weights * y).sum() / weights.sum()) ** 2).sum())

    drawn = []
    for target in random.chisquare(4, 4000):
        tau_squared = 0.0 if q(0.0) <= target else optimize.bisect(lambda t, c=target: q(t) - c, 0, 10, xtol=1e-9)
        weights = 1 / (s**2 + tau_squared)
        mean, variance = (weights * y).sum() / weights.sum(), tau_squared + 1 / weights.sum()
        drawn.append(random.normal(mean, variance**0.5))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert join(y, s).predicted == pytest.approx((low, high), abs=0.006)  # the draws' own error is about 0.002
    known = join([0.1] * 50, [0.01] * 50).predicted  # differences that agree, so that τ is next to nothing
    assert known == pytest.approx((0.1 - 1.96 * 0.01 / 50**0.5, 0.1 + 1.96 * 0.01 / 50**0.5), abs=1e-3)


def test_a_stack_is_joined_as_its_rows():
    random = np.random.default_rng(0)
    y, s = random.normal(0, 0.1, (50, 6)), random.uniform(0.01, 0.1, (50, 6))
    stack, (low, high) = pool(y, s), predict(y, s)
    for place in range(50):
        one = join(y[place], s[place])
        assert (stack.mean[place], stack.tau[place]) == pytest.approx((one.mean, one.tau), abs=1e-12)
        assert (low[place], high[place]) == pytest.approx(one.predicted, abs=1e-9)


def test_more_comparisons_widen_the_interval_of_the_mean_alone():
    one, seven = (join([0.02, 0.0, 0.05, 0.01, 0.03], [0.01] * 5, comparisons=n) for n in (1, 7))
    assert seven.high - seven.mean > one.high - one.mean and seven.predicted == one.predicted
    assert one.clear(7) == (seven.low > 0 or seven.high < 0) and one.clear(1) == (one.low > 0 or one.high < 0)
    assert seven.high - seven.mean == pytest.approx(stats.t.ppf(1 - 0.025 / 7, 4) * seven.standard_error)


@pytest.mark.parametrize(
    ("y", "s"), [([0.1], [0.1]), ([0.1, 0.2], [0.1]), ([0.1, np.nan], [0.1, 0.1]), ([0.1, 0.2], [0.1, 0.0])]
)
def test_what_cannot_be_joined_is_refused(y, s):
    with pytest.raises(ValueError, match=r"two or more differences|finite"):
        join(y, s)
