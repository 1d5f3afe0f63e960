"""What the training of a run or trial needs, from the files of its study."""

from collections.abc import Mapping

from voxloss.data.folds import Split
from voxloss.data.prepare.case import PreparedCase
from voxloss.study.folder import Run, RunFolder
from voxloss.study.study import Study
from voxloss.training.batches import TrainingJob


def training_job(
    study: Study, run: Run, files: RunFolder, split: Split, prepared: Mapping[str, PreparedCase]
) -> TrainingJob:
    """Return the job of a run or trial, which trains on the split's training cases and validates on its inner ones.

    Without inner cases, the validation after every epoch looks at the scored ones.

    Args:
        study: The study.
        run: The run or trial.
        files: The folder in which it is trained.
        split: Its cases.
        prepared: The prepared cases by id.
    """
    return TrainingJob(
        folder=files.path,
        config=study.config_of(run),
        loss=run.loss.name,
        parameters=study.parameters_of(run),
        fold=run.fold,
        seed=run.seed,
        training_cases=[prepared[case_id] for case_id in split.training],
        validation_cases=[prepared[case_id] for case_id in split.inner or split.validation],
        classes=study.dataset.classes,
        ignore_index=study.dataset.ignore_index,
        labels=run.loss.labels,
        events=study.files.events(run),
    )
