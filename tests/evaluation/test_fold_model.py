"""The model of fold means: against R's limma, emmeans, multcomp and qtukey, and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from voxloss.evaluation.critical import dunnett_points, tukey_points
from voxloss.evaluation.fold_model import (
    PRIOR_DEGREES,
    PRIOR_SCALES,
    alikeness,
    levels,
    model_pairs,
    moderate,
    moderated_variances,
)
from voxloss.evaluation.repeats import detectable_difference, rank_shares

# qtukey(0.95, K, df) / sqrt(2) and with 0.96, by R 4.2.2: (K, df) -> the points.
R_TUKEY = {
    (3, 2): (5.89075283454, 6.62086230958),
    (3, 4): (3.56398876677, 3.82578078959),
    (3, 9.5): (2.76513730477, 2.90450864768),
    (8, 4): (5.19477321543, 5.54763295402),
    (8, 9.5): (3.79314369771, 3.94981593974),
    (8, 28): (3.27021997819, 3.36837391581),
    (16, 28): (3.7494180762, 3.84721401643),
}

# The one-sided points at 0.95 and 0.97 of the multivariate t distribution with correlations 1/2, by R's mvtnorm.
R_DUNNETT = [
    (2, 4.0, (2.610418, 3.126633)), (2, 10.0, (2.150633, 2.46001)), (2, 60.0, (1.952031, 2.185981)),
    (7, 4.0, (3.43668, 4.04855)), (7, 10.0, (2.703922, 3.025262)), (7, 60.0, (2.395307, 2.615845)),
]  # fmt: skip

# Four losses, five folds, and what lm(y ~ loss + fold), emmeans and multcomp::glht (Tukey) say of them.
MEANS = np.array([
    [0.612, 0.587, 0.634, 0.601, 0.655], [0.598, 0.571, 0.640, 0.585, 0.631],
    [0.555, 0.601, 0.570, 0.622, 0.540], [0.641, 0.612, 0.660, 0.640, 0.671],
])  # fmt: skip
R_SIGMA2, R_SE, R_TUKEY_95 = 0.000804258333333, 0.0179, 2.969  # SE of a difference; half width / SE = 0.05328 / 0.01794


@pytest.mark.parametrize(("count", "degrees"), R_TUKEY)
def test_tukeys_points_are_rs(count, degrees):
    points = [float(tukey_points(count, np.array([degrees]), level)[0]) for level in (0.05, 0.04)]
    assert points == pytest.approx(R_TUKEY[count, degrees], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("degrees", [1.0, 1.7, 3.3, 12, 45, 1000])
@pytest.mark.parametrize("count", [2, 5, 20])
def test_tukeys_points_are_scipys(count, degrees):
    expected = stats.studentized_range.ppf(0.97, count, degrees) / math.sqrt(2)
    assert float(tukey_points(count, np.array([degrees]), 0.03)[0]) == pytest.approx(expected, rel=1e-3)


def test_dunnetts_points():
    for degrees in (1.0, 4.0, 20.0):  # one comparison is Student's one-sided test
        point = float(dunnett_points(1, np.array([degrees]), 0.05)[0])
        assert point == pytest.approx(stats.t.ppf(0.95, degrees), rel=1e-3)


@pytest.mark.parametrize(("comparisons", "degrees", "expected"), R_DUNNETT)
def test_dunnetts_points_are_rs(comparisons, degrees, expected):
    points = [float(dunnett_points(comparisons, np.array([degrees]), level)[0]) for level in (0.05, 0.03)]
    assert points == pytest.approx(expected, rel=1e-3)


def plain_variances(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The docstring's equations, loop by loop."""
    count, folds = means.shape
    d = folds - 1
    variances = np.ones(count)
    for _ in range(4):
        h = (1 / variances) / (1 / variances).sum()
        centred = means - means.mean(axis=1, keepdims=True)
        raw = np.array([sum((centred[l] - h @ centred) ** 2) / (d * (1 - h[l])) for l in range(count)])  # noqa: E741
        typical = np.median(raw)
        weights, shrunk, inverse = [], [], []
        own = 0.6 / count
        for nu in PRIOR_DEGREES:
            for scale in PRIOR_SCALES:
                # The density of log E under the common prior: an F distribution times the Jacobian E.
                common = stats.f.pdf(raw / (typical * scale), d, nu) * raw / (typical * scale) * (1 - own)
                omega = (own / 12) / (common + own / 12)
                weights.append(np.prod(common + own / 12))
                shrunk.append((1 - omega) * (nu * scale * typical + d * raw) / (nu + d) + omega * raw)
                inverse.append((1 - omega) / (nu + d) + omega / d)
        p = np.array(weights) / np.sum(weights)
        variances, df = p @ np.array(shrunk), 1 / (p @ np.array(inverse))
    return variances, np.minimum(df, (count - 1) * d)


@pytest.mark.parametrize("seed", range(5))
def test_moderated_variances_are_the_equations(seed):
    generator = np.random.default_rng(seed)
    means = generator.normal(size=(6, 5)) * np.array([1, 1, 1, 1, 1, 8])[:, None]
    variances, degrees, _ = moderated_variances(means)
    expected, expected_degrees = plain_variances(means)
    assert variances == pytest.approx(expected, rel=1e-6)
    assert degrees == pytest.approx(expected_degrees, rel=1e-6)


def test_with_equal_weights_the_variances_average_to_rs_residual_variance():
    centred = MEANS - MEANS.mean(axis=1, keepdims=True)
    raw = np.square(centred - centred.mean(axis=0)).sum(axis=1) / (4 * (1 - 1 / 4))
    assert raw.mean() == pytest.approx(R_SIGMA2, rel=1e-9)
    assert math.sqrt(2 * raw.mean() / 5) == pytest.approx(R_SE, abs=5e-5)
    assert float(tukey_points(4, np.array([12.0]), 0.05)[0]) == pytest.approx(R_TUKEY_95, abs=2e-3)


def test_moderation_lies_between_the_losss_own_variance_and_the_common_one_as_limmas():
    """R: squeezeVar(c(1, 2, 30, 0.5, 1.5, 0.9), 4)$var.post = 1.157 1.803 19.89 0.834 1.480 1.092."""
    raw = np.array([1, 2, 30, 0.5, 1.5, 0.9])
    variances, _ = moderate(raw, np.ones(6, bool), 4)
    limma = np.array([1.157, 1.803, 19.89, 0.834, 1.480, 1.092])
    assert (np.argsort(variances) == np.argsort(limma)).all()
    assert np.abs(np.log(variances / limma)).max() < math.log(1.5)


def test_equal_losses_share_their_degrees_of_freedom_and_unequal_ones_do_not():
    generator = np.random.default_rng(0)
    equal = moderated_variances(generator.normal(size=(200, 8, 5))).degrees
    unequal = moderated_variances(
        generator.normal(size=(200, 8, 5)) * np.array([1, 1, 1, 1, 6, 6, 6, 6])[:, None]
    ).degrees
    assert 15 < np.median(equal) <= 28
    assert 4 < np.median(unequal) < 8


def test_variances_look_alike_or_unequal():
    """By hand for eight losses and five folds; then simulated losses, of which half are five times as noisy."""
    assert alikeness(np.full(28, 4.0), 8, 5) == 0.0
    assert alikeness(np.full(28, 28.0), 8, 5) == 1.0
    between = alikeness(np.full(28, 4 * math.sqrt(0.85 * 1.4 * 10)), 8, 5)
    assert between == pytest.approx(0.5)
    generator = np.random.default_rng(3)
    means = generator.normal(size=(300, 8, 5))
    noisier = means * np.array([1, 1, 1, 1, 5, 5, 5, 5])[:, None]
    equal, unequal = (alikeness(model_pairs(values).degrees, 8, 5) for values in (means, noisier))
    assert np.median(equal) > 0.8 and np.median(unequal) == 0.0


def test_the_point_lies_between_those_of_the_two_levels():
    """In most pairs, whose half width is not that of their own fold differences."""
    model = model_pairs(np.random.default_rng(8).normal(size=(50, 8, 5)))
    points = model.half_width / model.standard_error
    first = tukey_points(8, model.degrees, 0.03)
    last = tukey_points(8, model.degrees, 0.055)
    share = alikeness(model.degrees, 8, 5)[:, None]
    expected = first + share * (last - first)
    assert (points >= expected * (1 - 1e-9)).all()
    assert (np.isclose(points, expected)).mean() > 0.5


def test_the_variance_from_the_cases_has_their_degrees_up_to_twice_those_of_the_folds():
    means = np.random.default_rng(9).normal(size=(4, 5))
    plain = model_pairs(means)
    from_cases = model_pairs(means, 2 * plain.standard_error.max() ** 2)
    assert from_cases.degrees == pytest.approx(2 * plain.degrees)
    few = model_pairs(means, 2 * plain.standard_error.max() ** 2, case_degrees=2)
    assert few.degrees == pytest.approx(plain.degrees)
    between = 1.5 * float(plain.degrees.max())
    some = model_pairs(means, 2 * plain.standard_error.max() ** 2, case_degrees=between)
    assert some.degrees == pytest.approx(np.minimum(between, 2 * plain.degrees))
    assert model_pairs(means, 0.5 * plain.standard_error.min() ** 2).degrees == pytest.approx(plain.degrees)


def test_a_stack_of_studies_is_each_of_them():
    stack = np.random.default_rng(1).normal(size=(7, 4, 5))
    stack[2, 1] = 0.0
    stack[3] = 0.5
    together = model_pairs(stack, 0.01)
    for index, means in enumerate(stack):
        alone = model_pairs(means, 0.01)
        for name in ("variances", "standard_error", "degrees", "half_width", "one_sided"):
            assert getattr(together, name)[index] == pytest.approx(getattr(alone, name), rel=1e-9, abs=1e-12), name


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
def test_units_and_offsets_do_not_matter(scale):
    means = np.random.default_rng(2).normal(size=(5, 4))
    plain, other = model_pairs(means), model_pairs(scale * (means + np.arange(4) * 3 + np.arange(5)[:, None]))
    assert other.half_width == pytest.approx(scale * plain.half_width, rel=1e-6)


def test_losses_that_never_vary_count_as_one():
    means = np.random.default_rng(4).normal(size=(6, 5))
    means[3:] = 0.0
    model = model_pairs(means)
    assert (model.variances[3:] == 0).all() and (model.variances[:3] > 0).all()
    live = (model.first < 3) & (model.second < 3)
    points = tukey_points(4, model.degrees[live], levels(6, 5).alike)
    assert (model.half_width[live] >= points * model.standard_error[live] * (1 - 1e-9)).all()
    assert (model.half_width[(model.first >= 3) & (model.second >= 3)] == 0).all()


def test_losses_that_differ_by_constants_alone_have_no_variance():
    """Whole numbers, so that the fold effects cancel exactly."""
    means = np.array([1.0, 2.0, 4.0, 1.0])[None, :] + np.array([0.0, 1.0, 5.0])[:, None]
    model = model_pairs(means)
    assert model.half_width == pytest.approx(np.zeros(3), abs=1e-9)


def test_a_detectable_difference_is_named_as_often_as_it_says():
    variances = np.full(6, 0.0004)
    errors = np.full(15, math.sqrt(2 * 0.0004 / 5))
    needed = detectable_difference(variances, errors, 5, seed=1)
    generator = np.random.default_rng(2)
    means = generator.standard_normal((1000, 6, 5)) * 0.02
    means[:, 0] += needed
    model = model_pairs(means)
    named = (means[:, 0].mean(axis=-1) - means[:, 1].mean(axis=-1)) > model.half_width[:, 0]
    assert named.mean() == pytest.approx(0.8, abs=0.04)


def test_shares_of_ranks():
    shares = rank_shares(np.array([0.3, 0.1, 0.3]), np.zeros(3))
    assert shares.tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 0]]  # equal means share the better rank
    # Two means one standard error of their difference apart: the normal distribution at 1.
    shares = rank_shares(np.array([1.0, 0.0]), np.array([0.5, 0.5]), studies=40_000)
    assert shares[0, 0] == pytest.approx(stats.norm.cdf(1.0), abs=0.01)
    lower = rank_shares(np.array([1.0, 0.0]), np.array([0.5, 0.5]), higher_is_better=False)
    assert lower[1, 0] == pytest.approx(stats.norm.cdf(1.0), abs=0.015)
