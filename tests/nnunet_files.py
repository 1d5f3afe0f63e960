"""Write results as nnU-Net 2.8 leaves them (tests/peers/test_nnunet_study.py makes real ones), without training."""

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

SHAPE, SPACING = (9, 12, 10), (1.5, 1.0, 2.0)
LABELS = {"background": 0, "Anterior": 1, "Posterior": 2}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
CASES = {0: ("case_001", "case_003"), 1: ("case_002", "case_004")}


@dataclass
class Results:
    """A data set and its trainers' results below `root`, in nnU-Net's folders."""

    root: Path
    labels: dict
    dataset: str = "Dataset004_Hippocampus"

    @property
    def raw(self):
        return self.root / "raw" / self.dataset

    def references(self, cases=CASES):
        """Write reference masks and images."""
        values = sorted({v for given in self.labels.values() for v in (given if isinstance(given, list) else [given])})
        for case in sorted(case for held in cases.values() for case in held):
            random = np.random.default_rng(int(case[-3:]))
            mask = np.zeros(SHAPE, np.uint8)
            for depth, value in enumerate(values[1:], start=1):
                mask[depth : 9 - depth, 2 : 11 - depth, 1:9] = value
            save(self.raw / "labelsTr" / f"{case}.nii.gz", mask)
            save(self.raw / "imagesTr" / f"{case}_0000.nii.gz", (mask * 40 + random.normal(0, 5, SHAPE)).astype("f4"))
        return self

    def trainer(self, name, *, shift=1, cases=CASES, results="res", plans="nnUNetPlans__3d_fullres", record=None):
        """Write one trainer's folder, its predictions moved by `shift` voxels, and return it."""
        folder = self.root / results / self.dataset / f"{name}__{plans}"
        for fold, held in cases.items():
            validation = folder / f"fold_{fold}" / "validation"
            entries = []
            for case in held:
                reference = self.raw / "labelsTr" / f"{case}.nii.gz"
                truth = np.asarray(nibabel.load(reference).dataobj)
                predicted = np.roll(np.where(truth == self.labels.get("ignore"), 0, truth), shift, axis=0)
                save(validation / f"{case}.nii.gz", predicted)
                entries.append(
                    {
                        "metrics": self.metrics(truth, predicted),
                        "prediction_file": str(validation / f"{case}.nii.gz"),
                        "reference_file": str(reference),
                    }
                )
            summary = {"foreground_mean": {}, "mean": {}, "metric_per_case": entries}
            (validation / "summary.json").write_text(json.dumps(summary, indent=4, sort_keys=True))
            if record:
                (folder / f"fold_{fold}" / "voxloss.json").write_text(json.dumps(record))
        dataset = {
            "name": "Hippocampus",
            "labels": self.labels,
            "file_ending": ".nii.gz",
            "channel_names": {"0": "MRI"},
        }
        (folder / "dataset.json").write_text(json.dumps(dataset))
        (folder / "plans.json").write_text(json.dumps({"dataset_name": self.dataset, "plans_name": "nnUNetPlans"}))
        return folder

    def metrics(self, truth, predicted):
        """As nnunetv2.evaluation.evaluate_predictions.compute_metrics."""
        counted = truth != self.labels.get("ignore", -1)
        regions = any(isinstance(given, list) for given in self.labels.values())
        found = {}
        for name, given in self.labels.items():
            if name in ("background", "ignore"):
                continue
            key = str(tuple(given)) if isinstance(given, list) and regions else str(given)
            true, guess = (np.isin(mask, given) & counted for mask in (truth, predicted))
            tp, fp, fn = (int(x.sum()) for x in (true & guess, ~true & guess & counted, true & ~guess))
            dice = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else float("nan")
            iou = tp / (tp + fp + fn) if tp + fp + fn else float("nan")
            tn = int(counted.sum()) - tp - fp - fn
            found[key] = {"Dice": dice, "IoU": iou, "TP": tp, "FP": fp, "FN": fn, "TN": tn}
            found[key] |= {"n_pred": tp + fp, "n_ref": tp + fn}
        return found


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([*SPACING, 1.0])), path)


def edit(path, change):
    """Rewrite a JSON file by a function of its content."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
