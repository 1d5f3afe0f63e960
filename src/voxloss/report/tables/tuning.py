"""The search for settings in words and as tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from voxloss.config.losses import TUNED
from voxloss.config.tuning import LEARNING_RATE, number_text
from voxloss.report.comparison import Comparison
from voxloss.report.names import SYMBOLS, loss_name, metric_name
from voxloss.report.tables.formats import Cell, Table
from voxloss.report.tables.verdict import between
from voxloss.report.tuning import TuningResults
from voxloss.study.folder import FINISHED
from voxloss.utilities.text import count_of


def parameter_name(name: str) -> str:
    """Return the display name of what is searched: a parameter's symbol, or "learning rate"."""
    return "learning rate" if name == LEARNING_RATE else SYMBOLS.get(name, name)


def tuning_sentence(trials: int) -> str:
    """Say what a verdict compares where each loss was tuned as well."""
    return (
        f"Each loss is compared as listed and as tuned; every loss had {count_of(trials, 'trial')} for each fold, "
        "judged on inner cases, which the trials did not train on and the study does not score in that fold."
    )


def tuning_sentences(results: TuningResults) -> tuple[str, ...]:
    """Return what a reader must know of the search: its budget, its state, its batches, and what repeats."""
    finished = int(results.trials["state"].isin(FINISHED).sum())
    planned = results.tuning.trials * len(results.settings)
    sentences = [tuning_sentence(results.tuning.trials)]
    if finished < planned:
        sentences.append(f"In progress: {finished} of {count_of(planned, 'trial')} finished.")
    if pruned := int((results.trials["state"] == "pruned").sum()):
        sentences.append(
            f"{count_of(pruned, 'trial')} stopped early: after a third of the epochs, the best mean foreground Dice on "
            "inner patches so far was below the median of the finished trials of earlier rounds at the same epoch."
        )
    if results.tuning.epochs is not None:
        sentences.append(
            f"A trial had {count_of(results.tuning.epochs, 'epoch')}, so losses and settings that learn slowly may be "
            "underrated."
        )
    if results.same_batches:
        sentences.append("All trials of a fold had the same batches, by the digests of their epochs.")
    else:
        sentences.append("The batches differ between trials of a fold, so their scores are not comparable.")
    if results.tuning.grid:
        sentences.append("The trials are all combinations of the listed values, so the same study has the same trials.")
    else:
        sentences.append(
            "The trials of a round depend only on the seed and on the scores of earlier rounds, not on the number of "
            "workers or where they are. Another version of Optuna may choose others, and so may a device on which "
            "trainings are not repeatable to the last bit (CUDA)."
        )
    return tuple(sentences)


def tuning_frame(results: TuningResults, comparison: Comparison) -> pd.DataFrame:
    """Return a row per loss: its means as listed and as tuned, their difference, its interval and what it means."""
    verdict = comparison.verdicts.get(comparison.primary_class)
    means = {} if verdict is None else dict(zip(verdict.losses, verdict.means, strict=True))
    rows = []
    for loss in results.losses:
        tuned, of_loss = loss.key + TUNED, results.of_loss(loss)
        listed_mean, tuned_mean = means.get(loss.key, math.nan), means.get(tuned, math.nan)
        half_width, result = math.nan, "not compared yet"
        if verdict is not None and loss.key in means and tuned in means:
            row = between(verdict, *sorted((loss.key, tuned), key=verdict.losses.index))  # the better mean first
            half_width = float(row.half_width)
            result = "clearly different" if row.differ else "equivalent" if row.same else "not distinguishable"
            result = "not learned" if comparison.none_learned(comparison.primary_class) else result
        rows.append({
            "loss": loss.key, "listed": listed_mean, "tuned": tuned_mean, "difference": tuned_mean - listed_mean,
            "half_width": half_width, "result": result, "trials": len(of_loss),
            "stopped_early": int((of_loss["state"] == "pruned").sum()),
        })  # fmt: skip
    return pd.DataFrame(rows)


def tuning_table(frame: pd.DataFrame, comparison: Comparison) -> Table:
    """Lay out `tuning_frame`."""
    rows = [
        (
            Cell(loss_name(row["loss"])), *(Cell(_mean(row[name])) for name in ("listed", "tuned")),
            Cell(_signed(row["difference"], row["half_width"])), Cell(row["result"]), Cell(str(row["trials"])),
            Cell(str(row["stopped_early"])),
        )
        for row in frame.to_dict("records")
    ]  # fmt: skip
    return Table(
        title=f"As listed and as tuned: mean {metric_name(comparison.primary_metric)} of {comparison.primary_class}",
        caption=(
            "Means over the scored cases. Difference: tuned minus listed, with the simultaneous 95 % interval of the "
            "verdict. Trials: those of all folds. The runs of a tuned loss train on all training cases of their fold."
        ),
        header=("Loss", "Listed", "Tuned", "Difference", "Result", "Trials", "Stopped early"),
        rows=tuple(rows),
    )


def _mean(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _signed(difference: float, half_width: float) -> str:
    if math.isnan(difference):
        return "–"
    around = f" ± {half_width:.3f}" if math.isfinite(half_width) else ""
    return f"{'+' if difference >= 0 else '−'}{abs(difference):.3f}{around}"


def settings_table(results: TuningResults) -> Table:
    """Return a row per loss and fold: the chosen setting and its score; searches in progress are left out."""
    names = _names(results)
    chosen = results.trials[results.trials["chosen"]]
    rows = []
    for loss in results.losses:
        for row in chosen[chosen["loss"] == loss.key].sort_values("fold").to_dict("records"):
            rows.append((
                Cell(loss_name(loss.key)), Cell(str(row["fold"])), *_values(row, names), Cell(f"{row['value']:.3f}"),
                Cell(str(row["trial"])),
            ))  # fmt: skip
    return Table(
        title="Chosen settings",
        caption=(
            "Of each fold the setting of the trial with the highest mean Dice over foreground classes and inner cases. "
            "Where the folds chose different settings, no single setting was evaluated; the search was."
        ),
        header=("Loss", "Fold", *map(parameter_name, names), "Dice", "Trial"),
        rows=tuple(rows),
    )


def _names(results: TuningResults) -> list[str]:
    return list(dict.fromkeys(name for loss in results.losses for name in results.space(loss)))


def _values(row: Mapping[Any, Any], names: Sequence[str]) -> list[Cell]:
    values = [row.get(name) for name in names]
    return [Cell("–" if _lacking(value) else number_text(value)) for value in values]


def trials_table(results: TuningResults) -> Table:
    """Return a row per trial, the best of each loss and fold first."""
    names, rows = _names(results), []
    ordered = results.trials.sort_values(["fold", "value"], ascending=[True, False], na_position="last")
    for loss in results.losses:
        for row in ordered[ordered["loss"] == loss.key].to_dict("records"):
            rows.append((
                Cell(loss_name(loss.key), bold=bool(row["chosen"])), Cell(str(row["fold"])), Cell(str(row["trial"])),
                *_values(row, names),
                Cell("–" if math.isnan(row["value"]) else f"{row['value']:.3f}", bold=bool(row["chosen"])),
                Cell(str(row["state"])), Cell(str(row["epochs"])), Cell(str(row["source"])),
            ))  # fmt: skip
    return Table(
        title="All trials",
        caption=(
            "Dice: the mean over foreground classes and inner cases. Bold: the chosen setting. Chosen by: the setting "
            "as the study lists it, the grid, or the sampler."
        ),
        header=("Loss", "Fold", "Trial", *map(parameter_name, names), "Dice", "State", "Epochs", "Chosen by"),
        rows=tuple(rows),
    )


def _lacking(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
