"""The verdict: which losses may be the best, and which pairs differ, with simultaneous intervals."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import optimize, stats

from voxloss.evaluation.fold_model import Interim, PairModel, model_pairs
from voxloss.evaluation.metrics import metric_of
from voxloss.evaluation.repeats import overstatement
from voxloss.evaluation.scores import worst_filled
from voxloss.utilities.arrays import Float64s, Integers

MARGIN = 0.01  # differences below it do not matter in practice
POWER = 0.8  # with which a difference of `Verdict.detectable` is named
UNUSUAL = 3.0  # times the median fold SD, above which a loss does not count for `Verdict.detectable`
RESOLUTION = 1e-6  # a smaller difference is rounding, however certain

PAIR_COLUMNS = (
    "better", "worse", "difference", "half_width", "differ", "same", "p_order_wrong", "p_equivalent", "standard_error",
    "degrees", "case_sd", "needed",
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """The verdict of a study on one class and metric.

    Args:
        losses: The losses, the best mean first.
        means: Their means over the folds' means over their cases, seeds averaged; undefined and failed scores as in
            `worst_filled`.
        pairs: A row per two losses, the one with the better mean first (`better`, `worse`): difference, by which it is
            better; half_width of its simultaneous 95 % interval; differ (the interval excludes 0); same (it lies
            within ± margin); p_order_wrong, the probability that the worse loss is in truth the better one, and
            p_equivalent, that the true difference is within ± margin, both of this pair alone under a flat prior;
            standard_error of the difference and its degrees of freedom; case_sd, the standard deviation within folds of
            the cases' paired differences, NaN with one case per fold; needed, the difference above which the worse loss
            cannot be the best.
        may_be_best: The losses that may be the best, in the order of `losses`. In 95 % of studies the truly best loss
            is one of them (Hsu 1996).
        most_lost: The most that one can lose by taking the first loss: the upper end of the 95 % interval of the best
            true mean minus its own. 0 if it is alone in `may_be_best`, infinite with one fold.
        fold_sds: The standard deviation of every loss's fold means beyond effects of loss and fold, moderated: from the
            cases of a fold, the training and the training cases together.
        case_sds: The standard deviation of every loss's scores of cases within folds; NaN with one case per fold.
        n_cases: Number of cases. Cases without a value for some loss are excluded.
        n_folds: Number of folds.
        n_seeds: Number of seeds.
        margin: Differences below it do not matter in practice.
        higher_is_better: Whether larger values are better.
    """

    losses: tuple[str, ...]
    means: tuple[float, ...]
    pairs: pd.DataFrame
    may_be_best: tuple[str, ...]
    most_lost: float
    fold_sds: tuple[float, ...]
    case_sds: tuple[float, ...]
    n_cases: int
    n_folds: int
    n_seeds: int
    margin: float = MARGIN
    higher_is_better: bool = True

    @cached_property
    def detectable(self) -> float:
        """The true difference that intervals of these widths exclude with a probability of 80 %, averaged over pairs.

        Losses that vary far more from fold to fold than the median loss, such as after a failed training, are left out:
        a difference from them would have to be larger. So are losses that never vary, such as those that found nothing.
        """
        if self.n_folds < 2:
            return math.inf
        sds = np.array(self.fold_sds)
        limit = UNUSUAL * np.median(sds[sds > 0]) if (sds > 0).any() else 0.0
        usual = {loss for loss, sd in zip(self.losses, sds, strict=True) if 0 < sd <= limit}
        pairs = self.pairs[self.pairs["better"].isin(usual) & self.pairs["worse"].isin(usual)]
        pairs = self.pairs if pairs.empty else pairs
        width, error = pairs[["half_width", "standard_error"]].to_numpy(dtype=float).T
        error = np.maximum(error, 1e-12)

        def shortage(difference: float) -> float:
            return float(stats.norm.cdf((difference - width) / error).mean()) - POWER

        return float(optimize.brentq(shortage, 0.0, float((width + 100 * error).max())))

    @cached_property
    def overstated(self) -> float:
        """How much the best of the means overstates its loss, on average: it is the best partly by chance."""
        return overstatement(np.array(self.means), np.square(self.fold_sds) / self.n_folds, self.higher_is_better)


def of_some(verdict: Verdict, losses: Collection[str]) -> Verdict:
    """Return a verdict on some of its losses, chosen afterwards: intervals and what is needed stay those of all.

    The simultaneous statements about all losses hold for any of them, however they were chosen. A loss may be the best
    of the chosen ones unless another one of them exceeds it by more than the comparison of all losses allows.

    Args:
        verdict: The verdict on all losses.
        losses: Those to keep, at least two.
    """
    kept = [(loss, place) for place, loss in enumerate(verdict.losses) if loss in losses]
    names = tuple(loss for loss, _ in kept)
    pairs = verdict.pairs[verdict.pairs["better"].isin(names) & verdict.pairs["worse"].isin(names)]
    pairs = pairs.reset_index(drop=True)
    beaten = set(pairs.loc[pairs["difference"] > pairs["needed"].clip(lower=RESOLUTION), "worse"])
    may_be_best = tuple(loss for loss in names if loss not in beaten)
    rivals = pairs[pairs["better"] == names[0]]
    most_lost = max(0.0, float((rivals["needed"] - rivals["difference"]).max())) if len(may_be_best) > 1 else 0.0
    return replace(
        verdict,
        losses=names,
        means=tuple(verdict.means[place] for _, place in kept),
        pairs=pairs,
        may_be_best=may_be_best,
        most_lost=most_lost if verdict.n_folds > 1 else math.inf,
        fold_sds=tuple(verdict.fold_sds[place] for _, place in kept),
        case_sds=tuple(verdict.case_sds[place] for _, place in kept),
    )


def verdict(
    scores: pd.DataFrame, class_name: str, metric: str, margin: float = MARGIN, interim: Interim | None = None
) -> Verdict | None:
    """Judge the losses of a long table of scores by one class and metric.

    Folds of several data sets are separate trainings, whatever their numbers. If some folds have more seeds than
    others, the seeds that all folds have are used.

    Args:
        scores: A table as of `read_scores`, with the same cases and seeds for every loss (`common_scores`).
        class_name: The class.
        metric: The metric; one of which lower is better has no finite mean with empty predictions, see below.
        margin: Differences below it do not matter in practice, in the metric's unit.
        interim: Of an interim look (`judge`), which uses every seed of every fold.

    Returns:
        The verdict (`judge` has the model), or None as in `case_table`.

    Raises:
        ValueError: A score is infinite: an empty prediction of a structure that is there has no finite distance.
    """
    values = case_table(scores, class_name, metric, every_seed=interim is not None)
    if values is None:
        return None
    table, folds, n_seeds = values
    if np.isinf(table.to_numpy(dtype=float)).any():
        raise ValueError(
            f"{metric} of {class_name} is infinite where a prediction is empty, so its mean cannot be judged; judge "
            f"dice, or {metric} by ranks within cases (within_case_ranks)"
        )
    losses = list(table.columns)
    better = metric_of(metric).higher_is_better
    values = table.to_numpy(dtype=float)
    return judge(values, folds, losses, n_seeds, margin, higher_is_better=better, interim=interim)


def rank_verdict(scores: pd.DataFrame, class_name: str, metric: str, interim: Interim | None = None) -> Verdict | None:
    """Judge the losses by their ranks within cases: which loss is better on more cases, not by how much.

    The value of a case is the loss's rank among the K losses (1 the best, ties share the mean rank) divided by K, so
    that misses scored 0 and infinite distances weigh as much as any other lost comparison. Losses with equal means can
    differ in ranks, for example if one misses more lesions and outlines the others better.

    Args:
        scores: A table as of `read_scores`, with the same cases and seeds for every loss.
        class_name: The class.
        metric: The metric.
        interim: Of an interim look, as in `verdict`.

    Returns:
        The verdict on mean ranks / K, of which lower is better, or None as in `case_table`.
    """
    values = case_table(scores, class_name, metric, every_seed=interim is not None)
    if values is None:
        return None
    table, folds, n_seeds = values
    ranks = within_case_ranks(table.to_numpy(dtype=float), metric_of(metric).higher_is_better)
    names = list(table.columns)
    return judge(ranks / len(names), folds, names, n_seeds, 0.0, higher_is_better=False, interim=interim)


def within_case_ranks(values: Float64s, higher_is_better: bool = True) -> Float64s:
    """Return the ranks of losses within cases: 1 is the best, equal values share the mean of their ranks.

    Args:
        values: Scores, of shape (cases, losses); infinite values are allowed.
        higher_is_better: Whether larger values are better.
    """
    # Rounded, so that values that are equal in exact arithmetic share a rank.
    signed = np.round(-values if higher_is_better else values, 12)
    ranks: Float64s = stats.rankdata(signed, axis=1)
    return ranks


def case_table(
    scores: pd.DataFrame, class_name: str, metric: str, every_seed: bool = False
) -> tuple[pd.DataFrame, Integers, int] | None:
    """Return the values that are judged.

    Args:
        scores: A table as of `read_scores`, with the same cases and seeds for every loss.
        class_name: The class.
        metric: The metric.
        every_seed: Whether seeds that only some folds have take part.

    Returns:
        A table with a row per case and a column per loss, seeds averaged, undefined and failed scores as in
        `worst_filled`; the fold of every row, numbered from 0; and the number of seeds. None if there are fewer than
        two losses or no case has a value.
    """
    chosen = scores[(scores["class"] == class_name) & (scores["metric"].isin({metric, "dice", "recall"}))]
    chosen = worst_filled(chosen)
    chosen = chosen[chosen["metric"] == metric]
    losses = list(dict.fromkeys(chosen["loss"]))
    seeds_of_folds = [set(group) for _, group in chosen.groupby(["dataset", "fold"])["seed"]]
    seeds = set.intersection(*seeds_of_folds) if seeds_of_folds else set()
    if seeds and not every_seed:
        chosen = chosen[chosen["seed"].isin(seeds)]
    means = chosen.groupby(["dataset", "fold", "case", "loss"], sort=False)["value"].mean().unstack("loss")
    means = means.dropna()
    if len(losses) < 2 or means.empty:
        return None
    folds = pd.factorize(means.index.droplevel("case"))[0]
    return means[losses], folds, len(seeds) or min(len(found) for found in seeds_of_folds)


def judge(
    values: Float64s,
    folds: Integers,
    losses: Sequence[str],
    n_seeds: int,
    margin: float = MARGIN,
    *,
    higher_is_better: bool = True,
    interim: Interim | None = None,
    comparisons: int = 1,
) -> Verdict:
    """Judge losses by their case scores.

    The model: score of loss l, case c in fold f = loss + case + loss×case + run(l, f). Every fold of a loss is a
    separate training, so the cases of a fold share the chance of that training, which tests over cases do not account
    for. The folds' means carry all of it: the variance of a loss's fold means is estimated for every loss by itself and
    moderated towards the other losses' (`moderated_variances`), the intervals of all differences are simultaneous
    (`model_pairs`), and the losses that may be the best are those that no other loss exceeds by more than the
    one-sided point of Hsu's comparison with the best. The variance of a difference is at least what the cases alone
    give, s²_ij · mean(1 / n_f) / F, with s²_ij the variance of the cases' paired differences within folds and n_f the
    cases of fold f.

    Folds are taken as independent trainings. Their training sets share most of their cases, so the intervals are for a
    repetition of the study on these patients: what another data set would say, and collapses of training that did not
    happen in these runs, are not in them.

    Args:
        values: Scores, of shape (cases, losses), averaged over seeds, finite.
        folds: The fold of each case, from 0 to F - 1, of shape (cases,). With one fold no difference can be judged.
        losses: The names of the columns of `values`, at least two, all different.
        n_seeds: The number of seeds that were averaged.
        margin: Differences below it do not matter in practice.
        higher_is_better: Whether larger values are better.
        interim: Of an interim look at losses that stay while others have left (`voxloss.evaluation.race`): all
            intervals are then those of a look whose level is spent, valid whenever the comparison ends (repeated
            confidence intervals, Jennison and Turnbull 1989). None: the comparison is looked at once, complete.
        comparisons: How many such comparisons the intervals are to hold for at once (`model_pairs`).

    Returns:
        The verdict.

    Raises:
        ValueError: A value is not finite, a shape does not fit, a fold is empty, or there are fewer than two losses.
    """
    values, folds = _checked(values, folds, losses)
    n, count = values.shape
    sizes = np.bincount(folds)
    n_folds = len(sizes)
    fold_means = np.stack([np.bincount(folds, column) / sizes for column in values.T])  # (losses, folds)
    within = values - fold_means[:, folds].T
    covariance = within.T @ within / (n - n_folds) if n > n_folds else np.full((count, count), math.nan)
    means = fold_means.mean(axis=1)
    order = np.argsort(-means if higher_is_better else means, kind="stable")
    fold_means, covariance, means = fold_means[order], covariance[np.ix_(order, order)], means[order]
    first, second = np.triu_indices(count, 1)
    spread = covariance[first, first] + covariance[second, second] - 2 * covariance[first, second]
    model = None
    if n_folds > 1:
        by_cases = np.nan_to_num(np.maximum(spread, 0.0)) * (1 / sizes).mean() / n_folds
        case_degrees = max(1, n - n_folds)
        model = model_pairs(fold_means, by_cases, interim, case_degrees=case_degrees, comparisons=comparisons)
    names = tuple(losses[index] for index in order)
    difference = np.abs(means[first] - means[second])
    out = _beaten(count, first, second, difference, model)
    return Verdict(
        losses=names,
        means=tuple(map(float, means)),
        pairs=_pair_table(names, first, second, difference, spread, model, margin),
        may_be_best=tuple(name for name, beaten in zip(names, out, strict=True) if not beaten),
        most_lost=_most_lost(first, difference, out, model),
        fold_sds=tuple(map(float, np.sqrt(model.variances))) if model is not None else (math.nan,) * count,
        case_sds=tuple(map(float, np.sqrt(np.diag(covariance)))),
        n_cases=n,
        n_folds=n_folds,
        n_seeds=n_seeds,
        margin=margin,
        higher_is_better=higher_is_better,
    )


def _checked(values: Float64s, folds: Integers, losses: Sequence[str]) -> tuple[Float64s, Integers]:
    values, folds = np.asarray(values, dtype=float), np.asarray(folds)
    if values.ndim != 2 or folds.shape != values.shape[:1] or len(losses) != values.shape[1]:
        raise ValueError(
            "values must have the shape (cases, losses), with a fold per case and a name per loss; got values of shape "
            f"{values.shape}, folds of shape {folds.shape} and {len(losses)} names"
        )
    if len(losses) < 2 or len(set(losses)) < len(losses):
        raise ValueError(f"a comparison needs at least two losses with different names, got {list(losses)}")
    if not np.isfinite(values).all():
        case, loss = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(
            f"the value of case {case} for {losses[loss]} is {values[case, loss]}; leave out the cases without a value "
            "for every loss, or give them the worst value"
        )
    if not len(folds) or not np.issubdtype(folds.dtype, np.integer) or folds.min() < 0 or not np.bincount(folds).all():
        raise ValueError(f"folds must be whole numbers from 0 on, every fold with a case, got {np.unique(folds)}")
    return values, folds


def _beaten(count: int, first: Integers, second: Integers, difference: Float64s, model: PairModel | None) -> list[bool]:
    """Return for every loss, in the order of means, whether another loss exceeds it by too much to be the best."""
    if model is None:
        return [False] * count
    lower = second[difference > np.maximum(model.one_sided, RESOLUTION)]
    return [index in lower for index in range(count)]


def _most_lost(first: Integers, difference: Float64s, out: list[bool], model: PairModel | None) -> float:
    if model is None:
        return math.inf
    if sum(not beaten for beaten in out) == 1:
        return 0.0
    rivals = first == 0
    return max(0.0, float((model.one_sided - difference)[rivals].max()))


def _pair_table(
    names: Sequence[str],
    first: Integers,
    second: Integers,
    difference: Float64s,
    spread: Float64s,
    model: PairModel | None,
    margin: float,
) -> pd.DataFrame:
    better, worse = [names[index] for index in first], [names[index] for index in second]
    nothing = np.full(len(first), math.nan)
    half_width, needed, error, degrees = nothing + math.inf, nothing + math.inf, nothing, nothing
    wrong = equivalent = nothing
    if model is not None:
        half_width, needed = model.half_width, model.one_sided
        error, degrees = model.standard_error, model.degrees
        scale = np.maximum(error, 1e-300)
        wrong = np.where(difference > 0, stats.t.cdf(-difference / scale, degrees), 0.5)
        above, below = (margin - difference) / scale, (-margin - difference) / scale
        equivalent = stats.t.cdf(above, degrees) - stats.t.cdf(below, degrees)
    differ, same = difference > np.maximum(half_width, RESOLUTION), difference + half_width <= margin
    case_sd = np.sqrt(np.maximum(spread, 0))
    columns = (difference, half_width, differ, same, wrong, equivalent, error, degrees, case_sd, needed)
    return pd.DataFrame(dict(zip(PAIR_COLUMNS, (better, worse, *columns), strict=True)))
