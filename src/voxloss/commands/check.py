"""`voxloss check`."""

import os
from pathlib import Path

from voxloss.config.schema import StudyConfig
from voxloss.data.check.check import check
from voxloss.data.check.findings import Report
from voxloss.data.check.inspection import USUAL_PATCH, Patch
from voxloss.data.folds import assign_folds
from voxloss.data.layouts import load_dataset
from voxloss.data.patients import read_patients
from voxloss.study.create import Progress


def check_data(
    root: Path, config: StudyConfig | None, layout: str, patients: Path | None, progress: Progress = lambda *_: None
) -> Report:
    """Check a data set as a study with this configuration would use it, or (None) as it lies there.

    Raises:
        InputError: the folder or the table of patients is not what it should be.
    """
    known = read_patients(patients) if patients is not None else {}
    if config is None:
        config, dataset = StudyConfig(), load_dataset(layout, root)
        patch = USUAL_PATCH
    else:
        data, spacing = config.data, config.preparation.spacing_mm
        dataset = load_dataset(data.layout, root, exclude=tuple(data.exclude), **data.options)
        if not known and config.splits.patients:
            known = read_patients(Path(config.splits.patients))
        size = config.patches.size or USUAL_PATCH.size
        patch = Patch(size, None if isinstance(spacing, str) else spacing)
    ids = [case.case_id for case in dataset.cases]
    kept_together = known if config.splits.patients else {}
    folds = assign_folds(ids, min(config.splits.folds, len(ids)), config.splits.seed, kept_together)
    return check(
        dataset,
        workers=os.cpu_count() or 1,
        progress=lambda finished, of: progress(finished, of, "reading"),
        patch=patch,
        patients=known,
        folds=folds,
    )
