"""The best masks that do not look at the image, of every fold, from the prepared masks of its training cases."""

from collections.abc import Sequence

import numpy as np

from voxloss.data.prepare.case import PreparedCase, open_prepared
from voxloss.evaluation.blind import blind_dice, cell_counts, cell_grid
from voxloss.study.study import Study


def write_blind(study: Study) -> None:
    """Write for every class and case the Dice of the best mask that does not look at the image (blind.json).

    The mask of a fold is derived from its training cases and scored on the prepared masks of the cases it holds out, so
    that reports need no images. The study must be held, and its cases prepared.
    """
    folders = study.files.read_prepared()
    ids = [case_id for fold in study.folds for case_id in fold]
    cases = [open_prepared(folders[case_id]) for case_id in ids]
    fold_of = np.repeat(np.arange(len(study.folds)), [len(fold) for fold in study.folds])
    study.files.write_blind("a map of the training masks", _dice(cases, ids, fold_of, study.dataset.classes))


def _dice(
    cases: Sequence[PreparedCase], ids: Sequence[str], fold_of: np.ndarray, classes: Sequence[str]
) -> dict[str, dict[str, float]]:
    cells = cell_grid([case.shape for case in cases], len(classes))
    counts = np.stack([cell_counts(case.label, len(classes), cells) for case in cases])
    counts = counts.reshape(len(cases), len(classes), -1)
    counted = counts.sum(axis=1)
    result: dict[str, dict[str, float]] = {}
    for index, name in enumerate(classes[1:], start=1):
        result[name] = {}
        for fold in range(int(fold_of.max()) + 1):
            held_out = fold_of == fold
            dice = blind_dice(counts[:, index], counted, ~held_out)
            for place in np.flatnonzero(held_out & ~np.isnan(dice)).tolist():
                result[name][ids[place]] = float(dice[place])
    return result
