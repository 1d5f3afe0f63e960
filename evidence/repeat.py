"""Train the first run of a study again, from an empty folder, and compare its scores with the stored ones.

    python evidence/repeat.py --data DATA --work WORK size-1e-2

The first run is the first loss of the stored scores on their first fold and seed. On the kind of machine that trained
it, and with its versions, the scores are the same; elsewhere they differ by rounding that training amplifies. The exit
status is 0 if no score differs by more than --tolerance, else 1.
"""

import argparse
import subprocess
from pathlib import Path

import pandas as pd
from reproduce import STEPS, Place

from voxloss.evaluation.scores import read_scores
from voxloss.evidence.export import Export, read_export

RESULTS = Path(__file__).parent / "results"
IDENTITY = ["case", "class", "metric"]


def first_run(export: Export) -> tuple[str, int, int]:
    """The loss, fold and seed that are trained first."""
    folds, seeds = export.scores["fold"], export.scores["seed"]
    return next(iter(export.losses)), int(folds.min()), int(seeds.min())


def compared(stored: pd.DataFrame, again: pd.DataFrame) -> pd.DataFrame:
    """Return stored and repeated value of every score of a run, and their difference; NaN where both are undefined.

    Args:
        stored: The scores of the run in an export, whose cases are numbered in the order of their names.
        again: The run's scores.csv, with the names.
    """
    names = sorted(again["case"].unique(), key=lambda case: (len(case), case) if case.isdigit() else (0, case))
    numbers = sorted(stored["case"].unique(), key=int)
    if len(names) != len(numbers):
        raise SystemExit(f"the run has {len(names)} cases, and {len(numbers)} are stored")
    again = again.assign(case=again["case"].map(dict(zip(names, numbers, strict=True))))
    both = stored.merge(again, "left", on=IDENTITY, suffixes=("_stored", "_again"))  # whatever is stored is compared
    difference = (both["value_stored"] - both["value_again"]).abs()
    defined = both[["value_stored", "value_again"]].notna()
    difference[defined.any(axis=1) & ~defined.all(axis=1)] = 1.0  # a score that is defined in one of them
    return both[[*IDENTITY, "value_stored", "value_again"]].assign(difference=difference)


def main() -> int:
    """Train a run and compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=[name for name in STEPS if (RESULTS / name).is_dir()])
    parser.add_argument("--data", type=Path, required=True, help="folder of the public data sets")
    parser.add_argument("--work", type=Path, required=True, help="folder of the study, which must not have it yet")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="largest difference of a score")
    given = parser.parse_args()
    export = read_export(RESULTS / given.name)
    loss, fold, seed = first_run(export)
    place = Place(given.data.resolve(), given.work.resolve(), ["--no-report"])
    study = place.work / "repeated" / given.name
    if study.exists():
        raise SystemExit(f"{study} exists; remove it, since the run is to begin from nothing")
    place.prepare(given.name)
    one = ["--losses", loss, "--folds", str(fold), "--seeds", str(seed), "--execution.threads", "1"]
    subprocess.run(place.command(given.name, "--study", str(study), *one), check=True)
    scores = export.scores
    stored = scores[(scores["loss"] == loss) & (scores["fold"] == fold) & (scores["seed"] == seed)]
    table = compared(stored, read_scores(study / "runs" / loss / f"fold-{fold}" / f"seed-{seed}" / "scores.csv"))
    by_metric = table.groupby(["class", "metric"])["difference"].agg(["mean", "max", "count"])
    print(f"{given.name}: {loss}, fold {fold}, seed {seed}: differences from the stored scores\n{by_metric}")
    return int(table["difference"].max() > given.tolerance)


if __name__ == "__main__":
    raise SystemExit(main())
