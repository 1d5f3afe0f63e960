"""Print the table of docs/benchmarks/race.md from the rows of `benchmarks/race.py`.

python benchmarks/race_report.py benchmarks/results/race.csv
"""

import argparse
from pathlib import Path
from typing import get_args

import pandas as pd

from voxloss.evaluation.race import Outcome


def percent(value: float, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    rows = pd.read_csv(parser.parse_args().rows)
    print(
        f"{len(rows)} settings of {rows['studies'].iloc[0]} studies each: the best loss or one within the margin stays "
        f"in {percent(rows['best_or_near_kept'].min(), 1)} % at least; the best loss leaves in "
        f"{percent(rows['best_dropped'].max(), 1)} % at most; the mean share of runs is "
        f"{percent(rows['share_mean'].min())} to {percent(rows['share_mean'].max())} %.\n"
    )
    header = (
        "kind", "noise", "best or near stays", "best leaves", "runs: mean", "runs: 90th percentile", "rounds",
        "losses still in", "ended: one left", "equivalent", "futile", "rounds over", "head of the grid or near stays",
        "grid: best dropped", "grid: losses that may be best", "grid: best alone", "race: best alone",
    )  # fmt: skip
    print(f"| {' | '.join(header)} |")
    print("|---" * len(header) + "|")
    for row in rows.to_dict("records"):
        cells = [
            row["kind"], f"{row['noise']:g}", percent(row["best_or_near_kept"], 1), percent(row["best_dropped"], 1),
            percent(row["share_mean"]), percent(row["share_90"]), f"{row['rounds_mean']:.1f}",
            f"{row['left_mean']:.1f}", *(percent(row[f"ended_{why}"]) for why in get_args(Outcome)),
            percent(row["has_head_of_grid"], 1), percent(row["grid_best_dropped"], 1), f"{row['grid_left_mean']:.1f}",
            percent(row["grid_best_alone"]), percent(row["best_alone"]),
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
