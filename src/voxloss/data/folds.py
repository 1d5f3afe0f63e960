"""Assignment of cases to folds: a pure function of (ids, number of folds, seed)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxloss.errors import InputError


@dataclass(frozen=True)
class Split:
    """One fold: `validation` is scored, `training` is trained on, `inner` is set aside from training for selection."""

    training: tuple[str, ...]
    inner: tuple[str, ...]
    validation: tuple[str, ...]


def assign_folds(ids: Sequence[str], folds: int, seed: int) -> list[list[str]]:
    """Assign `ids` at random to `folds` folds whose sizes differ by at most one.

    The ids are sorted first, so that the assignment depends on the set of cases and the seed alone.

    Raises:
        InputError: fewer cases than folds.
    """
    if len(ids) < folds:
        raise InputError(f"{folds} folds need at least {folds} cases; there are {len(ids)}.")
    order = np.random.default_rng(np.random.SeedSequence([seed, folds])).permutation(sorted(ids))
    return [sorted(str(case_id) for case_id in order[fold::folds]) for fold in range(folds)]


def split_of(folds: Sequence[Sequence[str]], fold: int, seed: int, inner_share: float = 0.0) -> Split:
    """The split in which `fold` is scored; a share of the other cases is set aside where `inner_share` is positive.

    Raises:
        InputError: no such fold, or setting cases aside leaves none to train on.
    """
    if not 0 <= fold < len(folds):
        raise InputError(f"There is no fold {fold}; the study has folds 0 to {len(folds) - 1}.")
    others = sorted(case_id for number, ids in enumerate(folds) if number != fold for case_id in ids)
    inner: list[str] = []
    if inner_share > 0:
        count = max(1, round(inner_share * len(others)))
        if count >= len(others):
            raise InputError(f"Setting aside {count} of {len(others)} training cases leaves none to train on.")
        generator = np.random.default_rng(np.random.SeedSequence([seed, fold]))
        inner = sorted(str(case_id) for case_id in generator.choice(others, size=count, replace=False))
    training = tuple(case_id for case_id in others if case_id not in inner)
    return Split(training, tuple(inner), tuple(folds[fold]))
