"""Whether trainings can be compared: of one data set and configuration, with the same cases held out in each fold."""

from collections import Counter
from collections.abc import Sequence

from voxloss.study.imported.nnunet_results import Training
from voxloss.utilities.errors import InputError


def require_comparable(trainings: Sequence[Training], wanted: Sequence[int] | None) -> None:
    """Refuse trainings that cannot be compared; `wanted` are the folds asked for, None those that any has finished.

    Raises:
        InputError: Naming what differs: data set, labels, configuration, finished folds, the cases of a fold, or how
            often a loss was trained.
    """
    first = trainings[0]
    for other in trainings[1:]:
        if other.dataset != first.dataset:
            raise InputError(f"{other.folder} has results of {other.dataset}, but {first.folder} of {first.dataset}")
        if (other.structures, other.ignore_label) != (first.structures, first.ignore_label):
            raise InputError(f"{other.folder} has other labels in its dataset.json than {first.folder}")
        if other.configuration != first.configuration:
            raise InputError(
                f"{other.folder} has results of {other.configuration}, but {first.folder} of {first.configuration}: "
                "what differs would be credited to the losses; name the folders of one configuration"
            )
    folds = sorted({fold for training in trainings for fold in training.folds} | set(wanted or ()))
    if not folds:
        raise InputError(f"{first.folder} has no finished validation (fold_K/validation/summary.json)")
    for training in trainings:
        missing = [fold for fold in folds if fold not in training.folds]
        if missing:
            raise InputError(
                f"{training.folder} has no finished validation of fold {', '.join(map(str, missing))} "
                f"(fold_{missing[0]}/validation/summary.json); finish it, or name the folds to compare with --folds"
            )
        _require_same_split(first, training)
    repeats = Counter(training.loss for training in trainings)
    for loss, number in repeats.items():
        if number != repeats[first.loss]:
            raise InputError(
                f"the number of trainings per fold differs: {repeats[first.loss]} of {first.loss}, {number} of {loss}; "
                "repeated trainings are seeds, and every loss needs the same number"
            )


def _require_same_split(first: Training, other: Training) -> None:
    for one, two in ((first, other), (other, first)):
        fold_of = {case: fold for fold, cases in two.folds.items() for case in cases}
        for fold, cases in one.folds.items():
            for case in cases:
                if fold_of.get(case) != fold:
                    place = f"in fold {fold_of[case]}" if case in fold_of else "in no fold"
                    raise InputError(
                        f"the splits differ: case {case} is held out in fold {fold} of {one.folder}, but {place} of "
                        f"{two.folder}; losses can be compared on one splits_final.json only"
                    )
