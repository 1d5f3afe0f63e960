"""Assign cases to folds: a pure function of ids, number of folds and seed, or as the data say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from voxloss.data.patients import by_patient
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import excluding


@dataclass(frozen=True)
class Split:
    """One fold: `validation` is scored, `training` is trained on, `inner` is set aside from training for selection."""

    training: tuple[str, ...]
    inner: tuple[str, ...]
    validation: tuple[str, ...]


@dataclass(frozen=True)
class OwnFolds:
    """The folds that a data set comes with.

    Args:
        source: The name of the file that they are in.
        validation: The case ids of each fold.
        training: The cases that are trained on where each fold is scored; None: all others.
    """

    source: str
    validation: tuple[tuple[str, ...], ...]
    training: tuple[tuple[str, ...], ...] | None = None


def own_assignment(
    own: OwnFolds, ids: Sequence[str], left_out: Sequence[str] = (), patients: Mapping[str, str] | None = None
) -> list[list[str]]:
    """Return the folds of a data set as a study has them: each case is scored once and trained on in all other folds.

    Args:
        own: The folds.
        ids: The cases.
        left_out: Cases of the data set that are not used; the folds may name them.
        patients: The patient of each case id.

    Raises:
        InputError: The folds name an unknown case, lack a case, have one twice or in training and validation, train on
            other cases than all others, leave a fold empty, have scans of a patient in several, or are fewer than two.
    """
    source, way = own.source, "correct the file, or have the folds drawn at random (splits.from_data false)"
    fold_of: dict[str, int] = {}
    for number, fold in enumerate(own.validation):
        for case_id in fold:
            if case_id in left_out:
                continue
            if case_id not in ids:
                raise InputError(f"{source} names {case_id} in fold {number}, but there is no such case; {way}")
            if fold_of.setdefault(case_id, number) != number or fold.count(case_id) > 1:
                raise InputError(
                    f"{source} has the case {case_id} in fold {fold_of[case_id]} and again in {number}; {way}"
                )
    if len(own.validation) < 2:
        raise InputError(f"{source} has one fold, but a study needs at least two; {way}")
    if missing := [case_id for case_id in ids if case_id not in fold_of]:
        more = f" ({len(missing)} such cases)" if len(missing) > 1 else ""
        leave = f"leave {'them' if more else 'it'} out: {excluding(missing)}"
        raise InputError(f"{source} has the case {missing[0]} in no fold{more}; {way}, or {leave}")
    folds = [sorted(case_id for case_id in fold if case_id in fold_of) for fold in own.validation]
    if not all(folds):
        raise InputError(f"{source} has no case that is used in fold {folds.index([])}; {way}")
    for number, training in enumerate(own.training or ()):
        if both := sorted({*training} & {*folds[number]}):
            raise InputError(f"{source} has the case {both[0]} in training and validation of fold {number}; {way}")
        if unknown := sorted({*training} - {*ids, *left_out}):
            raise InputError(f"{source} names {unknown[0]} in fold {number}, but there is no such case; {way}")
        if lacking := sorted({*ids} - {*training} - {*folds[number]}):
            raise InputError(
                f"{source} does not train on the case {lacking[0]} in fold {number}, but a study trains on all cases "
                f"that a fold does not score; {way}"
            )
    for group in by_patient(ids, patients or {}):
        if len({fold_of[case_id] for case_id in group}) > 1:
            other = next(case_id for case_id in group if fold_of[case_id] != fold_of[group[0]])
            raise InputError(
                f"{source} has {group[0]} in fold {fold_of[group[0]]} and {other} in fold {fold_of[other]}, but both "
                f"are of the patient {(patients or {})[other]}, who would be in both training and test; {way}"
            )
    return folds


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
        way = f"--splits.folds {len(groups)}" if len(groups) > 1 else "a study needs two or more"
        there = f"there {'is' if len(groups) == 1 else 'are'} {len(groups)} ({way})"
        raise InputError(f"{folds} folds need at least {folds} {what}; {there}.")
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
