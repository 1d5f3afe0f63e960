"""Scores of a second reader's masks against the reference, with the metrics of the losses."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from voxloss.data.case import read_label
from voxloss.data.dataset import Dataset
from voxloss.data.formats import count_label_values
from voxloss.data.grid import flattened, in_plane, stored_flat_axis
from voxloss.data.readers import OPTION, second_masks
from voxloss.study.study import Study

if TYPE_CHECKING:
    import pandas as pd

READER = "second reader"  # in the place of a loss


def reader_scores(study: Study) -> "pd.DataFrame | None":
    """Return the long table of a second reader's scores; None if the study has none (`data.options.second_reader`).

    It has the cases with a second mask, each in its fold, as of seed 0. Nothing that losses are judged by has a part in
    it.

    Raises:
        InputError: The masks are no longer there, or one cannot be read or lies on another grid.
    """
    options = study.parsed.data.options
    if study.imported or OPTION not in options:
        return None
    masks = second_masks(study.dataset.cases, Path(study.config.data.root), options[OPTION])
    files = tuple((case_id, path, path.stat().st_mtime_ns) for case_id, path in sorted(masks.items()))
    return _scores(study.folder, files).copy()


def second_values(path: Path, dataset: Dataset) -> dict[int, int]:
    """Return value -> class index in a second reader's mask: those of the data set's masks.

    Where a data set has one class, the mask's only value besides 0 is that class, whatever it is: DRIVE's first masks
    have 255, its second ones 1. Raises InputError if the mask cannot be read.
    """
    marked = [value for value in count_label_values(path) if value != 0]
    if len(dataset.classes) == 2 and len(marked) == 1 and marked[0] > 0:
        return {marked[0]: 1} | dataset.label_values
    return dataset.label_values


@functools.lru_cache(maxsize=1)  # page and console show the same scores, and surfaces take their time
def _scores(folder: Path, files: tuple[tuple[str, Path, int], ...]) -> "pd.DataFrame":
    from voxloss.evaluation.metrics import case_scores  # these import SciPy and pandas
    from voxloss.evaluation.scores import score_rows, score_table

    study = Study.open(folder)
    dataset, config = study.dataset, study.config
    rows = []
    for case_id, path, _ in files:
        case = study.case(case_id)
        reference, geometry = read_label(case, dataset.label_values, dataset.value_hints)
        second, _ = read_label(replace(case, label=path), second_values(path, dataset), dataset.value_hints)
        if dataset.ignore_index is not None:
            second[second == dataset.ignore_index] = 0
        flat = stored_flat_axis(geometry, dataset)
        scores = case_scores(
            flattened(reference, flat),
            flattened(second, flat),
            dataset.classes,
            in_plane(geometry.spacing_mm, flat),
            config.comparison.tolerance_mm,
            config.evaluation.lesions,
            ignore_index=dataset.ignore_index,
        )
        fold = study.fold_of(case_id)
        rows += score_rows(scores, dataset=dataset.name, fold=fold, seed=0, loss=READER, case=case_id)
    return score_table(rows)
