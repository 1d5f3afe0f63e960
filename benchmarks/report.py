"""How long `voxloss report` takes on a study of KiTS19's size: 7 losses, 210 cases, two classes, five folds.

    python benchmarks/report.py [--seeds 3] [--every-metric]

The scores are made up (three metrics; all of them with --every-metric), the images are not there, so that what is timed
is statistics, bootstrap, tables, figures and page. The report is made in a process of its own.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from voxloss.config.files import config_from, to_plain
from voxloss.config.losses import LossChoice
from voxloss.config.schema import PAPER_LOSSES
from voxloss.config.settled import SettledConfig
from voxloss.data.case import Case
from voxloss.data.dataset import Dataset
from voxloss.evaluation.metrics import METRICS, OVERLAP_METRICS
from voxloss.evaluation.scores import write_scores
from voxloss.study.folder import Description, Run, RunStatus, StudyFolder
from voxloss.training.history import write_history

CASES, FOLDS, CLASSES = 210, 5, ("kidney", "tumour")
REPORT = """
import sys, time
from pathlib import Path
start = time.perf_counter()
from voxloss.report import build_report
build_report(Path(sys.argv[1]))
print(time.perf_counter() - start)
"""


def write_study(study: Path, seeds: int, metrics: tuple[str, ...]) -> int:
    """Write a study's files without images or predictions; the number of scores."""
    generator, files = np.random.default_rng(0), StudyFolder(study)
    folds = [[f"case_{number:05}" for number in range(fold, CASES, FOLDS)] for fold in range(FOLDS)]
    difficulty = {case: generator.uniform(0.3, 0.9) for ids in folds for case in ids}
    rows = []
    for place, loss in enumerate(PAPER_LOSSES):
        for fold, ids in enumerate(folds):
            for seed in range(seeds):
                run = Run(LossChoice(loss, {}), fold, seed)
                digest = f"{fold}{seed}"
                files.write_status(RunStatus(run, "done", 500, 500, seconds=3600.0, batch_digest=digest))
                epochs = [
                    {"epoch": epoch, "train_loss": 1 / epoch, "validation_loss": 1 / epoch,
                     "validation_dice": 1 - 1 / epoch, "seconds": 7.2}
                    for epoch in range(1, 501)
                ]  # fmt: skip
                write_history(files.run(run).history_file, epochs)
                for case in ids:
                    for class_name in CLASSES:
                        share = float(np.clip(difficulty[case] + 0.01 * place + generator.normal(0, 0.07), 0, 1))
                        for metric in metrics:
                            value = share if not METRICS[metric].unit else 40 * (1.001 - share)
                            rows.append(
                                {
                                    "dataset": "made-up", "fold": fold, "seed": seed, "loss": loss, "case": case,
                                    "class": class_name, "metric": metric, "value": value, "status": "ok",
                                }
                            )  # fmt: skip
    write_scores(files.scores_file, rows)
    comparison = {"losses": list(PAPER_LOSSES), "seeds": list(range(seeds)), "primary_class": "tumour"}
    content = {"name": "made-up", "comparison": comparison, "splits": {"folds": FOLDS}}
    content |= {
        "patches": {"size": [16, 16, 16]},
        "preparation": {"spacing_mm": "stored"},
        "training": {"precision": "float32"},
    }
    cases = tuple(Case(case, (Path(f"{case}.nii.gz"),), Path(f"{case}-mask.nii.gz")) for case in difficulty)
    dataset = Dataset("made-up", cases, ("background", *CLASSES), {value: value for value in range(3)})
    files.write_dataset(dataset, digest=False)
    files.write_folds(folds)
    files.write_description(Description(to_plain(SettledConfig.of(config_from(content))), {}))
    return len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--every-metric", action="store_true")
    arguments = parser.parse_args()
    metrics = tuple(METRICS) if arguments.every_metric else OVERLAP_METRICS
    with tempfile.TemporaryDirectory() as folder:
        number = write_study(Path(folder), arguments.seeds, metrics)
        start = time.perf_counter()
        result = subprocess.run(
            [sys.executable, "-c", REPORT, folder], check=True, stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        total = time.perf_counter() - start
    print(
        f"{len(PAPER_LOSSES)} losses, {CASES} cases, {len(metrics)} metrics, {arguments.seeds} seed(s): {number} scores"
    )
    print(f"report in {float(result.stdout):.1f} s ({total:.1f} s with the start of Python)")


if __name__ == "__main__":
    main()
