"""Any long table of scores as a study."""

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import pandas as pd

from voxloss.config.schema import PrimaryMetric
from voxloss.data.case import Case
from voxloss.data.dataset import Dataset
from voxloss.evaluation.scores import COLUMNS, complete_check, score_table
from voxloss.study.imported.write import ImportCounts, Imported, require_free, write_imported
from voxloss.utilities.errors import InputError

REQUIRED = ("loss", "case", "metric", "value")
MOST_FOLDS = 1000  # each gets a folder per loss and seed
DEFAULTS = {"class": "structure", "fold": "0", "seed": "0"}
PRIMARY_METRICS = get_args(PrimaryMetric)


def import_table(path: Path, study: Path, columns: str | None = None, primary_class: str | None = None) -> ImportCounts:
    """Read a long table, one row per loss, case and metric, and write it as a study that `voxloss report` reads.

    The columns loss, case, metric and value are needed; class, fold, seed, dataset and status may be there, and others
    are left alone. Folds of several data sets are numbered on from each other. Separated by commas, semicolons or
    tabs. An empty value or "nan" is an undefined score.

    Args:
        path: The table.
        study: The folder to write; an earlier import is replaced.
        columns: "loss=method,case=patient": what our columns are called in the table.
        primary_class: That the headline is about; None: the last in the table, by the custom that a lesion comes after
            its organ.

    Raises:
        InputError: The table cannot be read, lacks a column, has a metric or value that it cannot have, the same score
            twice, or not the same cases for every loss; the message names the row or the case.
    """
    require_free(study)
    read = _read(path)
    read = read.rename(columns=_renamed(columns, read.columns, path))
    missing = [name for name in REQUIRED if name not in read.columns]
    if missing:
        raise InputError(
            f"{path} lacks {', '.join(missing)}; it has {', '.join(map(str, read.columns))}. "
            "--columns loss=method,case=patient says what a column is called"
        )
    table = pd.DataFrame({name: read[name] for name in COLUMNS if name in read.columns})
    table["metric"] = table["metric"].str.strip().str.lower()
    table["value"] = table["value"].str.strip().replace(["nan", "NaN", "NA", "NAN"], "")
    for name, value in {**DEFAULTS, "dataset": path.name.split(".")[0]}.items():
        if name not in table.columns:
            table[name] = value
    if "status" not in table.columns:
        table["status"] = ["undefined" if value == "" else "ok" for value in table["value"]]
    scores = score_table(table, source=str(path))
    if scores.empty:
        raise InputError(f"{path} holds no score")
    _check(scores, path)
    scores["fold"] = _distinct_folds(scores)
    losses, classes = list(dict.fromkeys(scores["loss"])), list(dict.fromkeys(scores["class"]))
    if primary_class is not None and primary_class not in classes:
        raise InputError(f"--primary-class {primary_class}: the classes of {path} are {', '.join(classes)}")
    metric = next((name for name in PRIMARY_METRICS if name in set(scores["metric"])), None)
    if metric is None:
        raise InputError(f"{path} has none of the metrics that losses are compared by: {', '.join(PRIMARY_METRICS)}")
    names = list(dict.fromkeys(scores["dataset"]))
    cases = tuple(Case(case, (), None) for case in dict.fromkeys(scores["case"]))
    dataset = Dataset(
        ", ".join(names), cases, ("background", *classes), {index: index for index in range(len(classes) + 1)}
    )
    return write_imported(
        study,
        Imported(
            name=names[0] if len(names) == 1 else path.name.split(".")[0],
            origin={"from": "a table", "table": str(path.resolve())},
            dataset=dataset,
            losses=losses,
            keys=losses,
            scores=scores,
            primary_class=primary_class or classes[-1],
            primary_metric=metric,
        ),
    )


def _read(path: Path) -> pd.DataFrame:
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        separator = max(",;\t", key=header.count)
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", sep=separator)
    except FileNotFoundError:
        raise InputError(f"there is no table {path}") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a table: {' '.join(str(error).split())}") from None


def _renamed(columns: str | None, there: "pd.Index", path: Path) -> Mapping[str, str]:
    """Their names of columns -> ours."""
    renamed: dict[str, str] = {}
    for pair in columns.split(",") if columns else ():
        ours, equals, theirs = (part.strip() for part in pair.partition("="))
        if not equals or ours not in COLUMNS:
            raise InputError(f"--columns takes OURS=THEIRS with ours among {', '.join(COLUMNS)}; received {pair!r}")
        if theirs not in there:
            raise InputError(f"{path} has no column {theirs!r}; it has {', '.join(map(str, there))}")
        renamed[theirs] = ours
    # A column of ours' name that is renamed over would be there twice.
    return renamed | {name: f"their {name}" for name in renamed.values() if name in there and name not in renamed}


def _check(scores: pd.DataFrame, path: Path) -> None:
    shared = scores.groupby("case")["dataset"].unique()
    if (several := shared[shared.str.len() > 1]).size:
        raise InputError(
            f"{path}: case {several.index[0]} is in the data sets {' and '.join(several.iloc[0])}; name the cases of "
            "each data set differently"
        )
    if (strange := scores[~scores["fold"].between(0, MOST_FOLDS - 1)]).size:
        raise InputError(f"{path}: fold {strange['fold'].iloc[0]} should lie between 0 and {MOST_FOLDS - 1}")
    folds = scores.groupby("case")["fold"].nunique()
    if (folds > 1).any():
        raise InputError(f"the splits differ: case {folds.idxmax()} of {path} is held out in more than one fold")
    for loss in scores["loss"].unique():
        if loss in ("", ".", "..") or any(sign in "/\\" or not sign.isprintable() for sign in loss):
            raise InputError(f"{path}: {loss!r} cannot be a loss's name, which is that of a folder")
    _require_dice_of_undefined(scores, path)
    complete_check(scores)


def _distinct_folds(scores: pd.DataFrame) -> "pd.Series[int]":
    """Number the folds of several data sets on from each other, since each fold is a training of its own."""
    begin, first = 0, {}
    for name, folds in scores.groupby("dataset", sort=False)["fold"]:
        first[name], begin = begin, begin + int(folds.max()) + 1
    return scores["fold"] + scores["dataset"].map(first).astype(int)


def _require_dice_of_undefined(scores: pd.DataFrame, path: Path) -> None:
    """Without Dice nothing tells an empty prediction, which ranks as the worst, from a case without the structure."""
    units = ["seed", "loss", "case", "class"]
    with_dice = pd.MultiIndex.from_frame(scores.loc[scores["metric"] == "dice", units])
    ambiguous = scores[(scores["status"] == "undefined") & ~pd.MultiIndex.from_frame(scores[units]).isin(with_dice)]
    if len(ambiguous):
        first = ambiguous.iloc[0]
        raise InputError(
            f"{path}: {first['metric']} of {first['class']} in case {first['case']} has no value for loss "
            f"{first['loss']}, and there is no dice beside it that tells whether its prediction was empty"
        )
