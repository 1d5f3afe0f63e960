"""Assign cases to folds: a pure function of ids, number of folds and seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from voxloss.data.patients import by_patient
from voxloss.utilities.errors import InputError


@dataclass(frozen=True)
class Split:
    """One fold: `validation` is scored, `training` is trained on, `inner` is set aside from training for selection."""

    training: tuple[str, ...]
    inner: tuple[str, ...]
    validation: tuple[str, ...]


def assign_folds(
    ids: Sequence[str], folds: int, seed: int, patients: Mapping[str, str] | None = None
) -> list[list[str]]:
    """Assign `ids` at random to `folds` folds; all scans of a patient go to the same fold.

    The ids are sorted first, so that the assignment depends on the set of cases and the seed alone. Patients are taken
    in random order, each into the fold that has the fewest cases, so that without `patients` (case id -> patient)
    sizes differ by at most one.

    Raises:
        InputError: Fewer patients than folds.
    """
    groups = by_patient(ids, patients or {})
    if len(groups) < folds:
        what = "patients" if patients else "cases"
        raise InputError(f"{folds} folds need at least {folds} {what}; there are {len(groups)}.")
    order = np.random.default_rng(np.random.SeedSequence([seed, folds])).permutation(len(groups))
    assigned: list[list[str]] = [[] for _ in range(folds)]
    for number in order:
        min(assigned, key=len).extend(groups[number])
    return [sorted(fold) for fold in assigned]


def split_of(
    folds: Sequence[Sequence[str]],
    fold: int,
    seed: int,
    inner_share: float = 0.0,
    patients: Mapping[str, str] | None = None,
) -> Split:
    """Return the split that scores `fold`; if `inner_share` is positive, a share of the other cases is set aside.

    Scans of one patient stay together, so that a little more than the share may be set aside.

    Raises:
        InputError: No such fold, or setting cases aside leaves none to train on.
    """
    if not 0 <= fold < len(folds):
        raise InputError(f"There is no fold {fold}; the study has folds 0 to {len(folds) - 1}.")
    others = sorted(case_id for number, ids in enumerate(folds) if number != fold for case_id in ids)
    inner: list[str] = []
    if inner_share > 0:
        count = max(1, round(inner_share * len(others)))
        groups = by_patient(others, patients or {})
        for number in np.random.default_rng(np.random.SeedSequence([seed, fold])).permutation(len(groups)):
            if len(inner) < count:
                inner += groups[number]
        if len(inner) >= len(others):
            raise InputError(f"Setting aside {len(inner)} of {len(others)} training cases leaves none to train on.")
    training = tuple(case_id for case_id in others if case_id not in inner)
    return Split(training, tuple(sorted(inner)), tuple(folds[fold]))
