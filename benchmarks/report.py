"""How long `voxloss report` takes on a study of KiTS19's size: 7 losses, 210 cases, two classes, five folds.

    python benchmarks/report.py [--seeds 3] [--every-metric]

The scores are made up (three metrics; all of them with --every-metric), the images are not there, so that what is timed
is statistics, bootstrap, tables, figures and page. The report is made in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from voxloss.config.schema import PAPER_LOSSES
from voxloss.evaluation.metrics import METRICS, OVERLAP_METRICS
from voxloss.evaluation.scores import write_scores

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
    generator = np.random.default_rng(0)
    folds = [[f"case_{number:05}" for number in range(fold, CASES, FOLDS)] for fold in range(FOLDS)]
    difficulty = {case: generator.uniform(0.3, 0.9) for ids in folds for case in ids}
    rows = []
    for place, loss in enumerate(PAPER_LOSSES):
        for fold, ids in enumerate(folds):
            for seed in range(seeds):
                folder = study / "runs" / loss / f"fold-{fold}" / f"seed-{seed}"
                folder.mkdir(parents=True)
                status = {
                    "state": "done",
                    "epoch": 500,
                    "epochs": 500,
                    "seconds": 3600.0,
                    "batch_digest": f"{fold}{seed}",
                }
                (folder / "status.json").write_text(json.dumps(status))
                lines = ["epoch,validation_loss,validation_dice,seconds"]
                lines += [f"{epoch},{1 / epoch},{1 - 1 / epoch},7.2" for epoch in range(1, 501)]
                (folder / "history.csv").write_text("\n".join(lines) + "\n")
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
    write_scores(study / "scores.csv", rows)
    comparison = {"losses": list(PAPER_LOSSES), "seeds": list(range(seeds)), "primary_class": "tumour"}
    config = {"name": "made-up", "comparison": comparison, "splits": {"folds": FOLDS}}
    (study / "study.yaml").write_text(yaml.safe_dump({"config": config, "environment": {}}))
    (study / "folds.json").write_text(json.dumps({"folds": folds}))
    cases = [{"id": case, "images": [f"{case}.nii.gz"], "label": f"{case}-mask.nii.gz"} for case in difficulty]
    values = {str(value): value for value in range(3)}
    dataset = {"name": "made-up", "classes": ["background", *CLASSES], "label_values": values, "cases": cases}
    (study / "dataset.json").write_text(json.dumps(dataset))
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
