"""Where losses fail: structures that are missed as a whole, structures that are not there, and the worst cases."""

import pandas as pd

from voxloss.evaluation.scores import worst_filled
from voxloss.evidence.export import Export

COLUMNS = ("study", "loss", "with_class", "missed", "without_class", "invented", "worst_case", "worst_dice")


def failures_frame(export: Export) -> pd.DataFrame:
    """Return a row per loss, about the class of the headline.

    `missed`: of the predictions of cases that have the class (`with_class`: cases × seeds), those in which no voxel of
    it is found. `invented`: of the predictions of cases without it (`without_class`), those that have it. `worst_case`:
    the number of the case with the class that has the lowest mean Dice over the seeds, `worst_dice`. A failed run found
    nothing and invented nothing.
    """
    scores = export.judged_scores()
    scores = worst_filled(scores[scores["class"] == export.class_name])
    key = ["loss", "seed", "case"]
    table = scores.set_index([*key, "metric"])["value"].unstack("metric")
    scored = scores[scores["metric"] == "dice"].set_index(key)["status"].reindex(table.index) == "ok"
    has_class = table["recall"].notna()
    found = table.assign(
        with_class=has_class,
        missed=has_class & ~(table["recall"] > 0),
        without_class=~has_class,
        invented=~has_class & scored,  # where the class is absent, Dice is defined if it is predicted
    )
    counts = found.groupby("loss", sort=False)[["with_class", "missed", "without_class", "invented"]].sum()
    dice = found[found["with_class"]].groupby(["loss", "case"], sort=False)["dice"].mean().fillna(0.0)
    rows = []
    for loss in export.losses:
        if loss not in counts.index:
            continue
        row = {"study": export.name, "loss": loss, **{name: int(value) for name, value in counts.loc[loss].items()}}
        if loss in dice.index.get_level_values("loss"):
            of_cases = dice.loc[loss].sort_index(key=lambda cases: cases.str.zfill(12))
            row |= {"worst_case": str(of_cases.idxmin()), "worst_dice": float(of_cases.min())}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))
