"""The model behind the verdict: fold means, a run variance for every loss, and simultaneous intervals of differences.

Every function takes one study or a stack of studies: the leading dimensions of all arrays are those of the stack.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from voxloss.evaluation.critical import dunnett_points, tukey_points
from voxloss.utilities.arrays import Float64s, Integers, Mask

# The common prior of the losses' variances: its degrees of freedom (10⁴: all are equal), and its scale as a multiple
# of the losses' median variance.
PRIOR_DEGREES = np.array([1.0, 2, 4, 8, 16, 32, 1e4])
PRIOR_SCALES = np.exp(np.linspace(-3, 3, 30))

# The expected number of losses whose variance is not from the common prior, for example after a collapsed training,
# and the width of the log-uniform prior of such a variance.
OWN_LOSSES, OWN_LOG_RANGE = 0.6, 12.0

MANY_FOLDS = 8  # from which the nominal level of the comparison with the best is nearer to 5 %

# Degrees of freedom over those of a single loss, as a multiple of √(K + 2): up to the first the losses' variances look
# unequal, from the second on alike; see `alikeness`.
UNEQUAL, ALIKE = 0.85, 1.4
MOST_CASE_DEGREES = 2.0  # times the degrees of freedom of the folds, where the variance is that of the cases
ROUNDS = 4  # of estimating variances and weights of the fold effects in turn
NEGLIGIBLE = 1e-9  # fold means that deviate by less than this share of the largest deviation never vary
STILL = 0.01  # the same share for losses that hardly vary, such as those that found next to nothing


class Levels(NamedTuple):
    """Nominal levels.

    Args:
        unequal: Of the simultaneous intervals of all pairs, where the losses' variances look unequal.
        alike: The same where they look alike.
        best: Of the one-sided comparison with the best.
        own: Of the two-sided test on a pair's own fold differences.
    """

    unequal: float
    alike: float
    best: float
    own: float


class Variances(NamedTuple):
    """Variances of the losses' fold means, each of shape (..., K).

    Args:
        moderated: Ẽ.
        degrees: The degrees of freedom of Ẽ.
        own: E, before moderation.
    """

    moderated: Float64s
    degrees: Float64s
    own: Float64s


@dataclass(frozen=True)
class Interim:
    """What an interim look at a comparison knows beyond its scores, for comparisons that losses leave early.

    Args:
        level: The nominal level that is spent at this look, for the intervals and the comparison with the best.
        family: The number of all losses, those that left included.
        own: E of losses that left, at their last look, of shape (losses,).
        degrees: The degrees of freedom of `own`: their folds minus 1.
    """

    level: float
    family: int
    own: tuple[float, ...] = ()
    degrees: tuple[int, ...] = ()


def levels(count: int, n_folds: int) -> Levels:
    """Return the nominal levels for `count` losses and `n_folds` folds.

    Two losses are judged by a paired t test, whose level is exact. With more losses, variances are estimated from a few
    folds each, and the moderation makes noisy losses look quieter than they are, but only where the losses' variances
    differ. The nominal levels are those that keep the measured share of studies with a false difference near 5 %
    (`benchmarks/verdict.py`).
    """
    if count == 2:
        return Levels(0.05, 0.05, 0.05, 0.05)
    if n_folds <= 3:
        return Levels(0.04, 0.04, 0.03, 0.04)
    return Levels(0.03, 0.055, 0.03 if n_folds < MANY_FOLDS else 0.0375, 0.05)


def alikeness(degrees: Float64s, count: int, n_folds: int) -> Float64s:
    """Return how alike the losses' variances look, from 0 (unequal) to 1 (alike), of shape (...).

    Where they look alike, the moderation leans on the common prior, which has many degrees of freedom. With ρ the
    harmonic mean over the pairs of df_ij / (F - 1), it is

        log(ρ / (0.85 √(K + 2))) / log(1.4 / 0.85),  limited to 0 to 1.

    The limits were chosen on simulated studies with equal and unequal variances, 3 to 20 losses and 4 to 10 folds.

    Args:
        degrees: df_ij, of shape (..., pairs).
        count: K.
        n_folds: F.
    """
    ratio = 1 / ((n_folds - 1) / degrees).mean(axis=-1) / np.sqrt(count + 2)
    share: Float64s = np.clip(np.log(ratio / UNEQUAL) / np.log(ALIKE / UNEQUAL), 0.0, 1.0)
    return share


def moderated_variances(fold_means: Float64s, fold_effects: bool = True, interim: Interim | None = None) -> Variances:
    """Estimate the variance of every loss's fold means, beyond effects of loss and fold.

    With m_lf the mean of loss l in fold f, F folds and d = F - 1, four rounds of

        h_l = (1 / Ẽ_l) / Σ_k (1 / Ẽ_k),
        r_lf = (m_lf - m_l·) - Σ_k h_k (m_kf - m_k·),
        E_l = Σ_f r_lf² / (d (1 - h_l)),

    which is the fixed point of restricted maximum likelihood in the two-way layout of loss and fold (Patterson and
    Thompson 1971). The variances are then moderated (Smyth 2004, limma): with a common scaled inverse χ² prior of ν
    degrees of freedom and scale s,

        Ẽ_l = Σ_(ν, s) p(ν, s | E) [(1 - ω_l) (ν s + d E_l) / (ν + d) + ω_l E_l],

    p(ν, s | E) being the posterior weight on a grid, from the F densities of E_l / s. ω_l is the posterior probability
    that the loss's variance is not from the common prior (robust moderation, after Phipson et al. 2016), so that a loss
    that collapsed, or varies much more than the others, does not distort their variances. Its degrees of freedom are

        1 / df_l = Σ_(ν, s) p(ν, s | E) [(1 - ω_l) / (ν + d) + ω_l / d],  at most (K - 1) d.

    Two losses have only one difference, whose variance is not moderated: the paired t test.

    A loss that never varies, such as one that predicts nothing, has Ẽ = 0 and no part in the fold effects. With three
    folds or more, a loss whose fold means deviate by less than 1 % of the largest deviation has no part in them
    either, and its Ẽ is the plain variance of its fold means: the folds' difficulty does not show in next to nothing.

    Args:
        fold_means: m, of shape (..., K losses, F folds), with at least 2 losses and folds, without NaN.
        fold_effects: Whether losses share effects of the folds; False: E_l is the plain variance of the fold means.
        interim: Where losses have left: their E, with their degrees of freedom, take part in the moderation. As the K
            that stay may be few, each of them then counts with d (1 - 1/K) degrees of freedom, (K - 1) d in all.

    Returns:
        Ẽ, df and E.
    """
    count, n_folds = fold_means.shape[-2:]
    degrees = n_folds - 1
    centred, scale, varying, alike = _centred(fold_means)
    variances, df, own = np.ones(varying.shape), np.full(varying.shape, float(degrees)), np.zeros(varying.shape)
    for _ in range(ROUNDS if fold_effects else 1):
        weights = np.where(alike, 1 / np.maximum(variances, 1e-12), 0.0)
        several = (alike.sum(axis=-1, keepdims=True) > 1) & fold_effects
        share = np.where(several, weights / np.maximum(weights.sum(axis=-1, keepdims=True), 1e-300), 0.0)
        effects = (share[..., None] * centred).sum(axis=-2, keepdims=True)
        residual = np.where(alike[..., None], centred - effects, centred)
        own = np.square(residual).sum(axis=-1) / (degrees * np.maximum(1 - share, 0.02))
        if interim is not None and interim.own:
            variances, df = _moderated_with(own, alike, scale, degrees, interim)
        elif count > 2:
            variances, df = moderate(own, alike, degrees)
        else:  # only the variance of the one difference is known, half of which is given to each loss
            variances = np.where(varying, own, 0.0)
        still = varying & ~alike
        variances, df = np.where(still, own, variances), np.where(still, float(degrees), df)
    left = sum(interim.degrees) if interim is not None else 0
    squared = np.square(scale)
    return Variances(variances * squared, np.minimum(df, (count - 1) * degrees + left), own * squared)


def _moderated_with(
    own: Float64s, alike: Mask, scale: Float64s, degrees: int, interim: Interim
) -> tuple[Float64s, Float64s]:
    """Moderate the variances of losses together with those of losses that left."""
    count = own.shape[-1]
    shape = (*own.shape[:-1], len(interim.own))
    left = np.broadcast_to(np.asarray(interim.own) / np.square(scale), shape)
    variances, df = moderate(
        np.concatenate([own, left], axis=-1),
        np.concatenate([alike, left > 0], axis=-1),
        np.array([degrees * (1 - 1 / count)] * count + list(interim.degrees)),
    )
    return variances[..., :count], df[..., :count]


def _centred(fold_means: Float64s) -> tuple[Float64s, Float64s, Mask, Mask]:
    """Return the deviations from each loss's mean over the largest of all, that largest, which vary, which much."""
    centred = fold_means - fold_means.mean(axis=-1, keepdims=True)
    scale = np.abs(centred).max(axis=(-2, -1), keepdims=True)
    centred = centred / np.where(scale > 0, scale, 1.0)  # so that no square underflows
    largest = np.abs(centred).max(axis=-1)
    varying = largest > NEGLIGIBLE
    return centred, scale[..., 0], varying, largest > STILL if fold_means.shape[-1] > 2 else varying


def moderate(raw: Float64s, varying: Mask, degrees: Float64s | float) -> tuple[Float64s, Float64s]:
    """Return the moderated variances Ẽ and their degrees of freedom; `moderated_variances` has the equation.

    Args:
        raw: E, of shape (..., K losses).
        varying: Whether the loss varies; the others have Ẽ = 0.
        degrees: d, one number or of shape (K,).
    """
    any_varies = varying.any(axis=-1, keepdims=True)
    typical = np.nanmedian(np.where(varying | ~any_varies, raw, np.nan), axis=-1, keepdims=True)
    relative = np.maximum(raw / np.where(typical > 0, typical, 1.0), 1e-6)[..., None, None]
    nu, scale, d = PRIOR_DEGREES[:, None], PRIOR_SCALES, np.asarray(degrees, dtype=float)[..., None, None]
    own_probability = OWN_LOSSES / raw.shape[-1]
    log_own = np.log(own_probability / OWN_LOG_RANGE)
    common = (
        special.gammaln((d + nu) / 2) - special.gammaln(nu / 2) - special.gammaln(d / 2) + np.log1p(-own_probability)
    )
    ratio = d * relative / (nu * scale)
    log_common = common + d / 2 * np.log(ratio) - (d + nu) / 2 * np.log1p(ratio)  # of log E: the Jacobian is in it
    log_either = np.logaddexp(log_common, log_own)
    own = np.exp(log_own - log_either)
    joint = np.where(varying[..., None, None], log_either, 0.0).sum(axis=-3, keepdims=True)
    posterior = np.exp(joint - joint.max(axis=(-2, -1), keepdims=True))
    posterior /= posterior.sum(axis=(-2, -1), keepdims=True)
    shrunk = (1 - own) * (nu * scale + d * relative) / (nu + d) + own * relative
    inverse = (1 - own) / (nu + d) + own / d
    variances = np.where(varying, (posterior * shrunk).sum(axis=(-2, -1)) * typical, 0.0)
    return variances, 1 / (posterior * inverse).sum(axis=(-2, -1))


@dataclass(frozen=True)
class PairModel:
    """The intervals of all pairs (i, j), i < j in the order of `np.triu_indices`; the last dimension is that of pairs.

    Args:
        variances: Ẽ of every loss, of shape (..., K).
        first: i of every pair, of shape (pairs,).
        second: j of every pair.
        standard_error: √V_ij.
        degrees: Degrees of freedom of V_ij.
        half_width: Half width of the simultaneous interval of the difference.
        one_sided: The excess of another loss's mean over which a loss cannot be the best any more.
    """

    variances: Float64s
    first: Integers
    second: Integers
    standard_error: Float64s
    degrees: Float64s
    half_width: Float64s
    one_sided: Float64s


def model_pairs(
    fold_means: Float64s,
    case_variances: Float64s | float = 0.0,
    interim: Interim | None = None,
    case_degrees: float = math.inf,
    comparisons: int = 1,
) -> PairModel:
    """Return the simultaneous intervals of all differences between the losses' means over folds.

    With Ẽ and df of `moderated_variances`,

        V_ij = max((Ẽ_i + Ẽ_j) / F, v_ij),
        1 / df_ij = (Ẽ_i / df_i + Ẽ_j / df_j) / (Ẽ_i + Ẽ_j),
        half_width = max(q √V_ij, t s_ij / √F).

    q is Tukey's point for K means and df_ij (`tukey_points`), between those of the two levels of `levels` by how alike
    the variances look (`alikeness`). Where V_ij is v_ij, the variance from the cases, df_ij is that of the cases, but
    at least that of the folds and at most twice it. Losses that never vary count as one mean, and beside one of them,
    the other's Ẽ is without fold effects, which do not cancel. The second part widens the interval of a pair whose own
    F fold differences (standard deviation s_ij) vary more than the model says: t is Student's point with F - 1 degrees
    of freedom. df_ij is a weighted harmonic mean, which is at most Satterthwaite's (1946): as both variances lean on
    the same prior, their errors do not average out. For the comparison with the best (Hsu 1981, 1996), one_sided has
    Dunnett's and Student's one-sided points instead.

    Args:
        fold_means: Of shape (..., K losses, F folds), with at least 2 losses and folds.
        case_variances: v, the variance of the difference of two losses' means that the cases alone give, of shape
            (..., pairs).
        interim: Of a comparison that losses have left: q and c are those of all its means, at the level of this look.
        case_degrees: Degrees of freedom of v.
        comparisons: How many such comparisons the intervals are to hold for at once: all levels are divided by it
            (Bonferroni).
    """
    count, n_folds = fold_means.shape[-2:]
    first, second = np.triu_indices(count, 1)
    variances, df, _ = moderated_variances(fold_means, interim=interim)
    _, _, varying, alike = _centred(fold_means)
    # A loss that never varies, or hardly, has no fold effects in common with another.
    alone, alone_df, _ = moderated_variances(fold_means, fold_effects=False, interim=interim)
    shared = alike[..., first] & alike[..., second]

    def of_pair(values: Float64s, without: Float64s) -> tuple[Float64s, Float64s]:
        return np.where(shared, values[..., first], without[..., first]), np.where(
            shared, values[..., second], without[..., second]
        )

    one, other = of_pair(variances, alone)
    one_df, other_df = of_pair(df, alone_df)
    total, weighted = one + other, one / one_df + other / other_df
    degrees = np.where(total > 0, total / np.where(total > 0, weighted, 1.0), float(n_folds - 1))
    look_alike = alikeness(degrees, count, n_folds)[..., None]
    of_cases = np.clip(case_degrees, degrees, MOST_CASE_DEGREES * degrees)
    degrees = np.where(case_variances > total / n_folds, of_cases, degrees)
    standard_error = np.sqrt(np.maximum(total / n_folds, case_variances))
    own = (fold_means[..., first, :] - fold_means[..., second, :]).std(axis=-1, ddof=1) / np.sqrt(n_folds)
    means = np.clip(varying.sum(axis=-1) + (~varying).any(axis=-1), 2, count)[..., None]
    level = Levels(*(one / comparisons for one in levels(count, n_folds)))
    if interim is not None:
        level = Levels(interim.level, interim.level, interim.level, level.own)
        means = means + max(0, interim.family - count)
    tukey, dunnett = np.empty_like(degrees), np.empty_like(degrees)
    for number in np.unique(means):
        here = np.broadcast_to(means == number, degrees.shape)
        share = np.broadcast_to(look_alike, degrees.shape)[here]
        tukey[here] = (1 - share) * tukey_points(int(number), degrees[here], level.unequal)
        tukey[here] += share * tukey_points(int(number), degrees[here], level.alike)
        dunnett[here] = dunnett_points(int(number) - 1, degrees[here], level.best)
    two_sided = float(stats.t.ppf(1 - level.own / 2, n_folds - 1))
    one_sided = float(stats.t.ppf(1 - level.own, n_folds - 1))
    return PairModel(
        variances=variances,
        first=first,
        second=second,
        standard_error=standard_error,
        degrees=degrees,
        half_width=np.maximum(tukey * standard_error, two_sided * own),
        one_sided=np.maximum(dunnett * standard_error, one_sided * own),
    )
