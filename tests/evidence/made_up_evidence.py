"""Made-up exported studies with known differences between losses."""

import numpy as np
import pandas as pd

from voxloss.data.check.findings import Spread
from voxloss.evidence.export import Export
from voxloss.evidence.fingerprint import ClassRarity, Fingerprint

GAINS = {"dice_cross_entropy": 0.0, "mixed_focal": 0.05, "dice": -0.05, "focal": 0.0}


def export(
    name="a", kind="real", gains=GAINS, fraction=0.002, pieces=1.0, absent=0.2, seed=0, noise=0.01, data_set=None,
    series=None, cases=40, bias=None, **more,
):  # fmt: skip
    """An export whose losses differ by `gains` in Dice, and by `bias` in precision - recall."""
    random = np.random.default_rng([seed, *name.encode()])
    folds, rows = 5, []
    difficulty = random.normal(0.6, 0.08, cases)
    for loss, gain in gains.items():
        run = random.normal(0, noise, folds)
        for case in range(cases):
            dice = float(np.clip(difficulty[case] + gain + run[case % folds] + random.normal(0, 0.01), 0, 1))
            half = (bias or {}).get(loss, 0.0) / 2
            values = {"dice": dice, "precision": min(1, dice + half), "recall": max(0, dice - half)}
            rows += [
                (loss, case % folds, 0, str(case + 1), "lesion", metric, value) for metric, value in values.items()
            ]
    scores = pd.DataFrame(rows, columns=["loss", "fold", "seed", "case", "class", "metric", "value"])
    scores = scores.assign(dataset=data_set or name, status="ok")
    present = round(cases * (1 - absent))
    rarity = ClassRarity(
        "lesion", present, Spread(fraction, fraction / 3, min(1.0, fraction * 3)), Spread(pieces, 1.0, 2 * pieces), 0.5
    )
    return Export(
        name=name, kind=kind, data_set=data_set or name, class_name="lesion", metric="dice",
        losses=dict.fromkeys(gains), scores=scores, fingerprint=Fingerprint(cases, (rarity,)),
        source={"from": "voxloss"}, settings={}, environment={"voxloss": "0.1.0", "processor": "a processor"},
        runs={"states": {"done": 5 * len(gains)}, "seconds": dict.fromkeys(gains, 100.0)},
        digests={"data": None, "batches": {"equal": True, "unrecorded_runs": 0, "digests": {}}},
        series=series or {}, **more,
    )  # fmt: skip
