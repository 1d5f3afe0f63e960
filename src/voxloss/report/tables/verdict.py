"""The verdict in words and as a table."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

from voxloss.evaluation.effects import Friedman
from voxloss.evaluation.metrics import metric_of
from voxloss.evaluation.rankings import SIZES
from voxloss.evaluation.verdict import Verdict
from voxloss.report.names import loss_name, metric_name
from voxloss.report.tables.formats import Cell, Table, distinguishing
from voxloss.report.tables.scores import interval_text, p_text
from voxloss.utilities.text import count_of

LEARNED_CAPTION = (
    " Not learned: predicted in fewer than half of the scored cases with the class, or a mean DSC whose 95 % interval "
    "over cases does not lie above that of the best mask drawn without looking at the image. These losses stay in the "
    "comparison, since leaving losses out after their results are known would falsify its error rate."
)

NAMED = 3  # losses that a sentence names


def verdict_sentence(verdict: Verdict, class_name: str, metric: str, others_left: bool = False) -> str:
    """Say in at most about 25 words which losses may be the best, and what taking the first of them can cost.

    Args:
        verdict: The verdict.
        class_name: The class.
        metric: The metric.
        others_left: Whether other losses left a race before these were judged.
    """
    measure = f"mean {metric_name(metric)} of {class_name}"
    best, count, mean = loss_name(verdict.losses[0]), len(verdict.losses), f"{verdict.means[0]:.3f}"
    if verdict.n_folds < 2:
        return f"{best} has the best {measure}, {mean}, but one fold cannot judge any difference between losses."
    still = " still in" if others_left else ""
    every = f"Both losses{still}" if count == 2 else f"All {count} losses{still}"
    if verdict.pairs["same"].all():
        return f"{every} are equivalent (within {verdict.margin:g}) in {measure}, about {mean}."
    if len(verdict.may_be_best) == 1:
        return f"{best} is the best by {measure}, {mean} (95 % confidence)."
    most = verdict.most_lost if metric_of(metric).unit else min(verdict.most_lost, 1 - verdict.means[0])
    cost = f"taking {best} ({mean}) loses at most {most:.3f}"
    if len(verdict.may_be_best) == count:
        if others_left and count <= NAMED:
            return f"{names_of(verdict.may_be_best, 'or')} may be the best by {measure}; {cost}."
        one = "Either loss" if count == 2 else f"Any of the {count} losses{still}"
        return f"{one} may be the best by {measure}; {cost}."
    return f"{names_of(verdict.may_be_best, 'or')} may be the best by {measure}; {cost}."


def verdict_details(verdict: Verdict, metric: str) -> tuple[str, ...]:
    """Return the sentences that follow the headline: what is clearly worse, and what the study could detect."""
    if verdict.n_folds < 2 or verdict.pairs["same"].all():
        return ()
    best = verdict.losses[0]
    of_best = verdict.pairs[verdict.pairs["better"] == best]
    worse = list(of_best.loc[of_best["differ"], "worse"])
    sentences = []
    if worse:
        everyone = len(worse) == len(verdict.losses) - 1 and len(worse) > NAMED
        subject = f"All {len(worse)} others" if everyone else names_of(worse, "and")
        sentences.append(f"{subject} {'is' if len(worse) == 1 else 'are'} clearly worse than {loss_name(best)}.")
    if metric_of(metric).unit or verdict.detectable < 1:
        sentences.append(f"This study could only detect differences above about {verdict.detectable:.3f}.")
    else:
        sentences.append("This study has too few folds and cases to detect any difference.")
    return tuple(sentences)


def verdict_table(
    verdict: Verdict,
    class_name: str,
    metric: str,
    effects: pd.DataFrame | None = None,
    friedman: Friedman | None = None,
    parts: dict[str, float] | None = None,
    unlearned: Collection[str] = (),
) -> Table:
    """Return the verdict as a table with a row per loss, the best mean first.

    Args:
        verdict: The verdict on this class and metric.
        class_name: The class.
        metric: The metric.
        effects: `paired_effects` of this class and metric; adds the probabilities of a wrong order and of equivalence,
            and the share of cases on which the loss beats the best.
        friedman: Friedman's test of this class and metric, for the caption.
        parts: `variance_parts` of this class and metric, for the caption.
        unlearned: The losses that have not learned the class; if these are all, none is called the best.
    """
    best = verdict.losses[0]
    nothing = set(unlearned).issuperset(verdict.losses)
    rows = []
    for loss, mean in zip(verdict.losses, verdict.means, strict=True):
        may = "–" if nothing else "yes" if loss in verdict.may_be_best else "no"
        cells = [Cell(loss_name(loss), bold=loss == best and not nothing), Cell(may), Cell(f"{mean:.3f}")]
        if nothing:
            cells += [Cell("–"), Cell("not learned", shade="negative"), *[Cell("–")] * (0 if effects is None else 3)]
        elif loss == best:
            result = Cell("best mean, not learned", shade="negative") if loss in unlearned else Cell("best mean")
            cells += [Cell("–"), result, *[Cell("–")] * (0 if effects is None else 3)]
        else:
            row = between(verdict, best, loss)
            meaning = "clearly worse" if row.differ else "equivalent" if row.same else "not distinguishable"
            meaning = "not the best" if meaning == "not distinguishable" and may == "no" else meaning
            meaning += ", not learned" if loss in unlearned else ""
            low, high = difference_interval(row.difference, row.half_width, metric)
            cells.append(Cell(interval_text(row.difference, row.half_width, low, high)))
            cells.append(Cell(meaning, shade="negative", strong=True) if row.differ else Cell(meaning))
            if effects is not None:
                beats = f"{_beats(effects, loss, best):.0%}".replace("%", " %")
                cells += [Cell(_share(row.p_order_wrong)), Cell(_share(row.p_equivalent)), Cell(beats)]
        rows.append(tuple(cells))
    further = () if effects is None else ("P(wrong order)", "P(equivalent)", "Better on")
    return Table(
        title=f"Verdict: {metric_name(metric)} of {class_name}",
        caption=_caption(verdict, effects is not None, friedman, parts) + (LEARNED_CAPTION if unlearned else ""),
        header=("Loss", "May be best", "Mean", "Difference from the best", "Result", *further),
        rows=tuple(rows),
    )


def difference_interval(difference: float, half_width: float, metric: str) -> tuple[float, float]:
    """Return the interval of a difference of two means; it ends where differences of the metric do (1 for shares)."""
    largest = metric_of(metric).largest_difference
    return max(-largest, difference - half_width), min(largest, difference + half_width)


def pairs_frame(verdict: Verdict, metric: str) -> pd.DataFrame:
    """Return `Verdict.pairs` with the ends of the intervals, `low` and `high`, after `half_width`."""
    pairs = verdict.pairs.copy()
    ends = [difference_interval(*pair, metric) for pair in zip(pairs["difference"], pairs["half_width"], strict=True)]
    place = list(pairs.columns).index("half_width") + 1
    for offset, name in enumerate(("low", "high")):
        pairs.insert(place + offset, name, [end[offset] for end in ends])
    return pairs


def _share(probability: float) -> str:
    if math.isnan(probability):
        return "–"
    return (
        "< 1 %" if probability < 0.01 else "> 99 %" if probability > 0.99 else f"{probability:.0%}".replace("%", " %")
    )


def _beats(effects: pd.DataFrame, loss: str, best: str) -> float:
    """Return the share of cases on which a loss beats the best one."""
    forward = effects[(effects["row"] == loss) & (effects["column"] == best)]
    if len(forward):
        return float(forward["superiority"].iloc[0])
    backward = effects[(effects["row"] == best) & (effects["column"] == loss)]
    return 1 - float(backward["superiority"].iloc[0])


def stability_table(stability: pd.DataFrame, class_name: str, metric: str) -> Table:
    """Return a table of how often each loss has each rank, in per cent."""
    places = [column for column in stability.columns if column not in ("loss", "mean_rank")]
    rows = []
    for row in stability.to_dict("records"):
        shares = [row[place] for place in places]
        cells = [
            Cell(f"{share:.0%}" if share else "", bold=share == max(shares), shade="positive" if share >= 0.05 else "",
                 strong=share >= 0.5)
            for share in shares
        ]  # fmt: skip
        rows.append((Cell(loss_name(row["loss"])), Cell(f"{row['mean_rank']:.1f}"), *cells))
    return Table(
        title=f"Stability of the ranking: {metric_name(metric)} of {class_name}",
        caption=(
            "How often a loss has each rank in repetitions of the study, drawn from the verdict's model, which "
            "contains the chance of training; equal losses share the better rank."
        ),
        header=("Loss", "Mean rank", *places),
        rows=tuple(rows),
    )


def _caption(verdict: Verdict, with_effects: bool, friedman: Friedman | None, parts: dict[str, float] | None) -> str:
    basis = ", ".join(
        count_of(number, noun)
        for number, noun in ((verdict.n_cases, "case"), (verdict.n_folds, "fold"), (verdict.n_seeds, "seed"))
    )
    if verdict.n_folds < 2:
        return f"Based on {basis}. One fold is one training per loss, so no difference can be judged."
    text = (
        f"Based on {basis} and a model of case, fold and run. May be the best: in 95 % of studies, the truly best loss "
        "is among these. The difference from the best is by how much the best mean is better, with a simultaneous 95 % "
        f"interval: the chance of one or more false differences is about 5 %. Not the best: excluded "
        "from these by the one-sided comparison with the best, which is sharper than the interval. Equivalent: within "
        f"{verdict.margin:g}."
    )
    if verdict.n_folds < 4:
        text += (
            f" {count_of(verdict.n_folds, 'fold').capitalize()} can hardly tell a loss that varies much from one that "
            "does not: intervals are wide, and a loss that happened to vary little is trusted too much."
        )
    sds = [sd for sd in verdict.fold_sds if math.isfinite(sd)]
    text += f" Standard deviation of a fold's mean: {min(sds):.3f} to {max(sds):.3f}, by loss."
    if verdict.overstated >= 0.0005:
        text += (
            " The best of several means is the best partly by chance: on average it is "
            f"{verdict.overstated:.3f} too good."
        )
    text += (
        " The intervals are for repeating the study on these patients. Collapses of training that did not happen in "
        "these runs, and the order on another data set, are outside them."
    )
    if with_effects:
        text += (
            " P(wrong order): the probability that the loss is in truth better than the one with the best mean; "
            "P(equivalent): that the two differ by less than the margin. Better on: the share of cases on which the "
            "loss beats the one with the best mean."
        )
    if friedman is not None and math.isfinite(friedman.p):
        text += (
            f" Over the cases alone, which leaves out the chance of training: Friedman's p = {p_text(friedman.p)}, "
            f"Kendall's W = {friedman.kendall_w:.2f} ({count_of(friedman.n, 'case')})."
        )
    if parts is not None:
        text += f" Standard deviations between runs: {', '.join(f'{name} {part:.3f}' for name, part in parts.items())}."
    return text


def between(verdict: Verdict, better: str, worse: str) -> Any:
    """Return the row of `Verdict.pairs` about two losses, its columns as attributes."""
    pairs = verdict.pairs
    return next(pairs[(pairs["better"] == better) & (pairs["worse"] == worse)].itertuples())


def names_of(losses: Sequence[str], conjunction: str) -> str:
    """Return the display names of losses in a sentence; of more than `NAMED`, the number of those left out."""
    names = [loss_name(loss) for loss in losses]
    if len(names) > NAMED:
        return f"{', '.join(names[: NAMED - 1])} {conjunction} {len(names) - NAMED + 1} others"
    return f" {conjunction} ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def rankings_table(ways: pd.DataFrame, class_name: str, metric: str) -> Table:
    """Return `ways_of_ranking` as a table: every value with its rank."""
    columns = {"mean": "Mean", "median": "Median", "within_cases": "Rank within cases", "complete": "Complete cases"}
    rows = []
    for row in ways.sort_values("mean_rank", kind="stable").to_dict("records"):
        cells = [Cell(loss_name(row["loss"]))]
        for way in columns:
            value, rank = row[way], row[f"{way}_rank"]
            digits = 2 if way == "within_cases" else 3
            text = "–" if math.isnan(value) or math.isnan(rank) else f"{value:.{digits}f} ({rank:.0f})"
            cells.append(Cell(text, bold=row["within_cases_may_be_best"] if way == "within_cases" else rank == 1))
        rows.append(tuple(cells))
    return Table(
        title=f"Ways of ranking: {metric_name(metric)} of {class_name}",
        caption=(
            "The value by each way of ranking, with the loss's rank in brackets; bold: the first. Rank within cases: "
            "the mean of the loss's ranks among the losses on the same case, 1 the best; bold: may be the best by a "
            "verdict on these ranks; none where that is every loss. Complete cases: the mean over the cases with a "
            "value for every loss; elsewhere undefined values of empty predictions count as the worst."
        ),
        header=("Loss", *columns.values()),
        rows=distinguishing(rows),
    )


def sizes_table(sizes: pd.DataFrame, class_name: str, metric: str) -> Table:
    """Return `by_size` as a table: means on small, middle and large structures, and the missed ones."""
    rows = []
    for row in sizes.to_dict("records"):
        cells = [Cell(loss_name(row["loss"]))]
        for size in SIZES:
            cells.append(Cell("–" if math.isnan(row[size]) else f"{row[size]:.3f}", bold=row[f"{size}_may_be_best"]))
        rows.append((*cells, Cell(f"{row['missed']:.0%}".replace("%", " %"))))
    count = int(sizes["n"].iloc[0])
    return Table(
        title=f"By size: {metric_name(metric)} of {class_name}",
        caption=(
            f"Means on the smallest, middle and largest third of the {count} cases with {class_name}, by its size in "
            "the reference. Bold: may be the best on these cases, by a verdict of their own; none where that "
            "is every loss. Missed: DSC 0."
        ),
        header=("Loss", *(size.capitalize() for size in SIZES), "Missed"),
        rows=distinguishing(rows),
    )


def datasets_table(means: pd.DataFrame, class_name: str, metric: str) -> Table:
    """Return `by_dataset` as a table: a column per data set, the loss with the best average rank first."""
    names = list(dict.fromkeys(means["dataset"]))
    order = means.groupby("loss", sort=False)["rank"].mean().sort_values(kind="stable")
    by_loss = {(row["dataset"], row["loss"]): row for row in means.to_dict("records")}
    rows = []
    for loss, rank in order.items():
        cells = [Cell(loss_name(str(loss)))]
        for name in names:
            row = by_loss.get((name, loss))
            cells.append(Cell("–") if row is None else Cell(f"{row['mean']:.3f} ({row['rank']})", row["may_be_best"]))
        rows.append((*cells, Cell(f"{rank:.1f}")))
    sizes = means.drop_duplicates("dataset")
    counts = "; ".join(f"{row.dataset}: {count_of(int(row.cases), 'case')}" for row in sizes.itertuples())
    return Table(
        title=f"By data set: {metric_name(metric)} of {class_name}",
        caption=(
            f"The mean on each data set, with the loss's rank in brackets ({counts}). Bold: may be the best by a "
            "verdict on this data set alone; none where that is every loss. The verdict over all data sets counts a "
            "fold of any of them as one training; only the order over data sets says whether it holds for patients of "
            "other places."
        ),
        header=("Loss", *names, "Average rank"),
        rows=distinguishing(rows),
    )
