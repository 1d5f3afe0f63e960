"""The order of the losses: how stable it is, and how it depends on the way of ranking and on the size of structures."""

import math

import numpy as np
import pandas as pd

from voxloss.evaluation.fold_model import Interim
from voxloss.evaluation.metrics import metric_of
from voxloss.evaluation.repeats import rank_shares
from voxloss.evaluation.scores import seed_means, worst_filled
from voxloss.evaluation.significance import case_values
from voxloss.evaluation.verdict import Verdict, rank_verdict, verdict, within_case_ranks

SIZES = ("small", "middle", "large")  # thirds of the cases by the structure's volume


def rank_stability(verdict: Verdict) -> pd.DataFrame:
    """Return how often each loss has each rank in repetitions of the study, drawn from the verdict's model.

    After the ranking stability of Wiesenfarth et al. (2021, challengeR), who resample cases; that leaves out the
    chance of training, which the model's standard deviations of fold means contain. Equal losses share the better rank.

    Returns:
        A row per loss in order of its mean rank: loss, mean_rank, and columns 1 to k with the share of the repetitions
        in which it has that rank; empty with one fold.
    """
    places = [str(place + 1) for place in range(len(verdict.losses))]
    if verdict.n_folds < 2:
        return pd.DataFrame(columns=["loss", "mean_rank", *places])
    variances = np.square(verdict.fold_sds) / verdict.n_folds
    shares = rank_shares(np.array(verdict.means), variances, verdict.higher_is_better)
    result = pd.DataFrame(shares, columns=places)
    result.insert(0, "loss", list(verdict.losses))
    result.insert(1, "mean_rank", shares @ np.arange(1, len(places) + 1))
    return result.sort_values("mean_rank", kind="stable").reset_index(drop=True)


def ways_of_ranking(scores: pd.DataFrame, class_name: str, metric: str, interim: Interim | None = None) -> pd.DataFrame:
    """Return the losses' values and places by four ways of ranking; `interim` as in `verdict`.

    Returns:
        A row per loss, with the columns loss and, for every way, its value and its rank (`…_rank`; 1 the best, equal
        values share the better rank): mean over cases, median over cases, mean rank within cases, and `complete`, the
        mean over the cases that have a value for every loss without `worst_filled`; `within_cases_may_be_best`, whether
        the loss may be the best by `rank_verdict`.
    """
    values = case_values(scores, class_name, metric).dropna()
    better = metric_of(metric).higher_is_better
    chosen = scores[(scores["class"] == class_name) & (scores["metric"] == metric)]
    raw = seed_means(chosen).pivot(index=["dataset", "case"], columns="loss", values="value").dropna()
    result = pd.DataFrame({"loss": list(values.columns)})
    if values.empty:
        return result.iloc[:0]
    ranks = within_case_ranks(values.to_numpy(dtype=float), better).mean(axis=0)
    ways = {
        "mean": (values.mean(), better),
        "median": (values.median(), better),
        "within_cases": (pd.Series(ranks, index=values.columns), False),
        "complete": (raw.mean(), better),
    }
    for way, (column, higher) in ways.items():
        column = column.reindex(values.columns)
        result[way] = column.to_numpy(dtype=float)
        result[f"{way}_rank"] = column.round(12).rank(ascending=not higher, method="min").to_numpy(dtype=float)
    judged = rank_verdict(scores, class_name, metric, interim)
    best = judged.may_be_best if judged is not None else tuple(values.columns)
    result["within_cases_may_be_best"] = [loss in best for loss in values.columns]
    return result


def by_size(scores: pd.DataFrame, class_name: str, metric: str, interim: Interim | None = None) -> pd.DataFrame:
    """Return the losses' means on small, middle and large structures, and the share of structures that they missed.

    `interim` is as in `verdict`.

    Cases with the structure are split into thirds by its volume in the reference. A structure is missed if its Dice is
    0, averaged over the seeds.

    Returns:
        A row per loss: loss; for small, middle and large its mean (NaN without a case) and `…_may_be_best`, whether it
        may be the best on these cases by a verdict of their own; missed and n, the number of structures. Empty without
        `reference_volume` in the scores.
    """
    of_class = scores[scores["class"] == class_name]
    volumes = of_class[of_class["metric"] == "reference_volume"].groupby(["dataset", "case"])["value"].mean()
    volumes = volumes[volumes > 0]
    values = case_values(scores, class_name, metric).dropna()
    volumes = volumes[volumes.index.isin(values.index)]
    losses = list(values.columns)
    if len(volumes) < len(SIZES) or not losses:
        return pd.DataFrame(columns=["loss"])
    third = (volumes.rank(method="first") - 1) * len(SIZES) // len(volumes)
    cases = pd.MultiIndex.from_frame(of_class[["dataset", "case"]])
    result = pd.DataFrame({"loss": losses})
    for number, size in enumerate(SIZES):
        own = volumes.index[third == number]
        result[size] = values.loc[values.index.isin(own)].mean().to_numpy(dtype=float)
        chosen = of_class[cases.isin(own)]
        judged = verdict(chosen, class_name, metric, interim=interim) if metric_of(metric).higher_is_better else None
        best = judged.may_be_best if judged is not None else losses
        result[f"{size}_may_be_best"] = [loss in best for loss in losses]
    dice = seed_means(worst_filled(of_class[of_class["metric"].isin(["dice", "recall"])]))
    dice = dice[dice["metric"] == "dice"].pivot(index=["dataset", "case"], columns="loss", values="value")
    dice = dice.loc[dice.index.isin(volumes.index)].reindex(columns=losses)
    result["missed"] = [float((dice[loss] == 0).mean()) if len(dice) else math.nan for loss in losses]
    result["n"] = len(volumes)
    return result


def by_dataset(scores: pd.DataFrame, class_name: str, metric: str, interim: Interim | None = None) -> pd.DataFrame:
    """Return the losses' means on every data set, each judged by itself; `interim` as in `verdict`.

    Only the order over data sets says how far an order holds for patients of other places.

    Returns:
        A row per loss and data set: dataset, loss, mean, rank (1 the best, equal means share the better rank),
        may_be_best, cases and folds. Empty where the scores are of one data set, or none can be judged.
    """
    rows = []
    names = list(dict.fromkeys(scores["dataset"]))
    for name in names if len(names) > 1 else []:
        judged = verdict(scores[scores["dataset"] == name], class_name, metric, interim=interim)
        if judged is None:
            continue
        means = pd.Series(judged.means).round(12)
        ranks = means.rank(ascending=not judged.higher_is_better, method="min").astype(int)
        for loss, mean, rank in zip(judged.losses, judged.means, ranks, strict=True):
            best = loss in judged.may_be_best
            rows.append((name, loss, mean, int(rank), best, judged.n_cases, judged.n_folds))
    return pd.DataFrame(rows, columns=["dataset", "loss", "mean", "rank", "may_be_best", "cases", "folds"])
