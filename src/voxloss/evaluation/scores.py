"""The long table of scores: one row per loss, fold, seed, case, class and metric. All tables and tests come from it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from voxloss.evaluation.metrics import METRICS, Score, is_metric, metric_of
from voxloss.utilities.arrays import Mask
from voxloss.utilities.errors import InputError
from voxloss.utilities.files import atomic_path

COLUMNS = ("dataset", "fold", "seed", "loss", "case", "class", "metric", "value", "status")
STATUSES = ("ok", "undefined", "failed")

# The identity of a row. The fold is not part of it: a case is held out in only one fold.
KEY = ["dataset", "seed", "loss", "case", "class", "metric"]


def score_rows(
    scores: Iterable[Score], *, dataset: str, fold: int, seed: int, loss: str, case: str
) -> list[dict[str, Any]]:
    """Return the rows of the long table for the scores of one case."""
    origin = {"dataset": dataset, "fold": fold, "seed": seed, "loss": loss, "case": case}
    return [
        {**origin, "class": score.class_name, "metric": score.metric, "value": score.value, "status": score.status}
        for score in scores
    ]


def failed_rows(
    *,
    dataset: str,
    fold: int,
    seed: int,
    loss: str,
    cases: Iterable[str],
    classes: Sequence[str],
    own_metrics: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Return rows of a run that failed or diverged: NaN and "failed" for every held-out case, class and metric.

    Args:
        dataset: The data set.
        fold: The run's fold.
        seed: The run's seed.
        loss: The run's loss.
        cases: The ids of the cases that the run should have scored.
        classes: All class names, background first, as in `case_scores`.
        own_metrics: The study's metrics of the user's own.
    """
    metrics = (*METRICS, *own_metrics)
    scores = [Score(name, metric, math.nan, "failed") for name in classes[1:] for metric in metrics]
    rows = []
    for case in cases:
        rows += score_rows(scores, dataset=dataset, fold=fold, seed=seed, loss=loss, case=case)
    return rows


def score_table(rows: Iterable[dict[str, Any]] | pd.DataFrame, source: str = "the scores") -> pd.DataFrame:
    """Check rows and return them as a table with exactly `COLUMNS`, in the same order.

    Args:
        rows: Dictionaries with the keys `COLUMNS`, or a table with these columns.
        source: The name of the rows in an error, for example the file's name.

    Raises:
        InputError: A column is missing or unknown, a value has the wrong type, a metric or status is unknown, a value
            contradicts its status, or two rows are about the same score. The message names the row, counted from 1.
    """
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if table.empty and len(table.columns) == 0:
        table = pd.DataFrame(columns=list(COLUMNS))
    _check_columns(table, source)
    table = table[list(COLUMNS)].reset_index(drop=True)
    for column in ("fold", "seed"):
        table[column] = [_whole(value, column, row, source) for row, value in _numbered(table[column])]
        table[column] = table[column].astype("int64")
    for column in ("dataset", "loss", "case", "class", "metric", "status"):
        table[column] = table[column].astype(object)
        for row, value in _numbered(table[column]):
            if not isinstance(value, str) or not value:
                raise InputError(f"{source}, row {row}: {column} must be a name, got {value!r}")
    table["value"] = pd.Series([_real(value, row, source) for row, value in _numbered(table["value"])], dtype="float64")
    _check_values(table, source)
    _check_duplicates(table, source)
    return table


def _numbered(column: pd.Series) -> Iterable[tuple[int, Any]]:
    return enumerate(column.tolist(), start=1)


def _check_columns(table: pd.DataFrame, source: str) -> None:
    missing = [column for column in COLUMNS if column not in table.columns]
    unknown = [str(column) for column in table.columns if column not in COLUMNS]
    if missing or unknown:
        complaint = f"lacks {', '.join(missing)}" if missing else f"has the unknown {', '.join(unknown)}"
        raise InputError(f"{source} {complaint}; the columns are {', '.join(COLUMNS)}")


def _whole(value: Any, column: str, row: int, source: str) -> int:
    try:
        if not isinstance(value, str) and value != int(value):
            raise ValueError
        return int(value)
    except (TypeError, ValueError):
        raise InputError(f"{source}, row {row}: {column} must be a whole number, got {value!r}") from None


def _real(value: Any, row: int, source: str) -> float:
    if value is None or value == "":
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{source}, row {row}: value must be a number or empty, got {value!r}") from None


def _check_values(table: pd.DataFrame, source: str) -> None:
    rows = zip(table["metric"], table["value"], table["status"], strict=True)
    for row, (metric, value, status) in enumerate(rows, start=1):
        if not is_metric(metric):
            raise InputError(f"{source}, row {row}: unknown metric {metric!r}; there are {', '.join(METRICS)}")
        if status not in STATUSES:
            raise InputError(f"{source}, row {row}: unknown status {status!r}; there are {', '.join(STATUSES)}")
        low, high = metric_of(metric).range
        if status == "ok" and high < math.inf and not low <= value <= high:
            raise InputError(f"{source}, row {row}: {metric} lies between {low:g} and {high:g}, got {value}")
        if status == "ok" and high == math.inf and not low <= value < math.inf:
            allowed = "not negative" if low == 0 else f"at least {low:g}"
            raise InputError(f"{source}, row {row}: {metric} is finite and {allowed}, got {value}")
        if status != "ok" and not math.isnan(value):
            raise InputError(f"{source}, row {row}: a score with status {status!r} has no value, got {value}")


def _check_duplicates(table: pd.DataFrame, source: str) -> None:
    repeated = table.duplicated(KEY)
    if repeated.any():
        row = int(repeated.to_numpy().argmax())
        twice = table.loc[row]
        raise InputError(
            f"{source}, row {row + 1}: {twice['metric']} of {twice['class']} in case {twice['case']} is given twice "
            f"for loss {twice['loss']}, seed {twice['seed']} (here in fold {twice['fold']})"
        )


def write_scores(path: Path, rows: Iterable[dict[str, Any]] | pd.DataFrame) -> None:
    """Check rows and write them as CSV, whole or not at all; values keep every digit, NaN is an empty field."""
    table = score_table(rows, source=str(path))
    with atomic_path(path) as partial:
        table.to_csv(partial, index=False, encoding="utf-8", lineterminator="\n")


def write_network_scores(path: Path, scores: Mapping[str, pd.DataFrame]) -> None:
    """Write the scores of several networks, whole or not at all, as `write_scores` with a column `network` first."""
    tables = [score_table(table, source=str(path)) for table in scores.values()]
    for name, table in zip(scores, tables, strict=True):
        table.insert(0, "network", name)
    with atomic_path(path) as partial:
        pd.concat(tables).to_csv(partial, index=False, encoding="utf-8", lineterminator="\n")


def read_scores(path: Path) -> pd.DataFrame:
    """Read and check a file of `write_scores`; every value is equal to the last bit.

    Raises:
        InputError: The file does not exist, is not CSV, or `score_table` refuses it.
    """
    try:
        # Everything as text first: a case may be called "007" or "NA", and pandas' own parser rounds the last digit.
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"there is no score table {path}") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a score table: {error}") from None
    return score_table(table, source=str(path))


def merge_scores(paths: Iterable[Path]) -> pd.DataFrame:
    """Read several score files into one table; a score in two of them is refused."""
    tables = [read_scores(path) for path in paths]
    if not tables:
        return score_table([])
    return score_table(pd.concat(tables, ignore_index=True), source="the merged scores")


def worst_filled(scores: pd.DataFrame) -> pd.DataFrame:
    """Return a copy for rankings and tests, in which a loss gains nothing from a value that could not be computed.

    The worst value (0 if higher is better, infinite if lower is better) replaces: undefined scores (precision,
    distances) of an empty prediction of a structure that is there; distances of a prediction of a structure that is not
    there; every score of a failed run. NaN remains where no prediction could change the score or be wrong: all scores
    of a class that is neither in the reference nor in the prediction, the recall of a class that is not in the
    reference, and what is only defined without a reference where there is one. The status column does not change.
    """
    filled = scores.copy()
    known = {name: metric_of(name) for name in filled["metric"].unique()}
    worst = filled["metric"].map({name: metric.worst for name, metric in known.items()}).astype(float)
    needs_prediction, needs_reference, needs_absence = (
        filled["metric"].map({name: getattr(metric, need) for name, metric in known.items()}).astype(bool)
        for need in ("needs_prediction", "needs_reference", "needs_absence")
    )
    ok, undefined, recall = filled["status"] == "ok", filled["status"] == "undefined", filled["metric"] == "recall"
    # Dice is defined as soon as one of the two masks has the class.
    in_either = _shared(filled, ["dataset", "seed", "loss", "case", "class"], (filled["metric"] == "dice") & ok)
    of_empty_prediction = needs_prediction & undefined & in_either

    # Another loss says of a failed run's case that it has no structure; or no lesion of a size, or none that is
    # counted, in which case recall is defined.
    structure = ["dataset", "case", "class"]
    absent = _shared(filled, structure, recall & undefined)
    unneeded = needs_reference & (absent | _shared(filled, [*structure, "metric"], needs_reference & undefined))
    unneeded |= needs_absence & ~(absent | _shared(filled, structure, needs_absence & ok))
    failed = (filled["status"] == "failed") & ~unneeded
    filled["value"] = filled["value"].mask(of_empty_prediction | failed, worst)
    return filled


def _shared(scores: pd.DataFrame, columns: Sequence[str], rows: "pd.Series[bool]") -> Mask:
    """Return for every row whether one of `rows` has the same values in some columns."""
    chosen = pd.MultiIndex.from_frame(scores.loc[rows, columns])
    found: Mask = pd.MultiIndex.from_frame(scores[columns]).isin(chosen)
    return found


def seed_means(scores: pd.DataFrame) -> pd.DataFrame:
    """Average every case's value over the seeds of its loss: tables and tests over cases count a case once.

    The average is over the seeds with a value; a case without a value in any seed stays NaN.

    Returns:
        A table with the columns dataset, fold, loss, case, class, metric, value, in the order of first appearance.
    """
    unit = ["dataset", "fold", "loss", "case", "class", "metric"]
    return scores.groupby(unit, sort=False, as_index=False)["value"].mean()


def complete_check(scores: pd.DataFrame) -> None:
    """Refuse a table in which a loss lacks a score that another loss has, so that all are compared on the same cases.

    Raises:
        InputError: A score is missing; the message names the loss and the case of the first one.
    """
    unit = ["dataset", "seed", "case", "class", "metric"]
    wanted = scores[unit].drop_duplicates()
    for loss in scores["loss"].unique():
        had = pd.MultiIndex.from_frame(scores.loc[scores["loss"] == loss, unit])
        missing = wanted[~pd.MultiIndex.from_frame(wanted).isin(had)]
        if len(missing):
            first = missing.iloc[0]
            raise InputError(
                f"loss {loss} has no {first['metric']} of {first['class']} for case {first['case']}, seed "
                f"{first['seed']}, which another loss has ({len(missing)} scores missing)"
            )


def common_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of the cases and seeds that all losses in the table have, as needed for a study in progress."""
    n_losses = scores["loss"].nunique()
    had_by = scores.groupby(["dataset", "seed", "case", "class", "metric"], sort=False)["loss"].transform("nunique")
    return scores[had_by == n_losses].reset_index(drop=True)
