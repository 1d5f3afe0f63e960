"""Print the tables of docs/benchmarks/executors.md from the rows of `benchmarks/executors.py`.

python benchmarks/executors_report.py benchmarks/results/executors.csv
"""

import argparse
import math
from pathlib import Path

import pandas as pd

from voxloss.study.projection import COSTS, execution_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", type=Path)
    rows = pd.read_csv(parser.parse_args().rows)
    print(training_table(rows[rows["work"] == "train"]))
    print()
    print(waiting_table(rows[rows["work"] == "wait"]))


def training_table(rows: pd.DataFrame) -> str:
    """Lay out total time against workers, and what the model of `voxloss plan --workers` says."""
    one = rows[rows["workers"] == 1].iloc[-1]
    lines = [
        (
            "executor", "workers", "runs", "a run, s", "from first run to last result, s", "times faster",
            "whole command, s", "times faster", "model, s", "cores of others before",
        )
    ]  # fmt: skip
    for _, row in rows.sort_values("workers").iterrows():
        rounds = math.ceil(row["runs"] / row["workers"])
        model = execution_seconds(COSTS[row["executor"]], rounds, one["run_s"])
        lines.append(
            (
                f"`{row['executor']}`", f"{row['workers']}", f"{row['runs']}", f"{row['run_s']:.1f}",
                f"{row['busy_s']:.1f}", f"{one['busy_s'] / row['busy_s']:.2f}", f"{row['total_s']:.1f}",
                f"{one['total_s'] / row['total_s']:.2f}", f"{model:.1f}", f"{row['cores_of_others']:.1f}",
            )
        )  # fmt: skip
    return table(lines)


def waiting_table(rows: pd.DataFrame) -> str:
    """Lay out the costs of executors by runs that wait."""
    lines = [
        (
            "executor", "workers", "runs", "a run waits, s", "from the command to the first run, s", "beside a run, s",
            "from the last result to the command's end, s", "waiting runs per hour", "cores of others before",
        )
    ]  # fmt: skip
    lines += [
        (
            f"`{row['executor']}`", f"{row['workers']}", f"{row['runs']}", f"{row['wait_s']:g}",
            f"{row['start_s']:.1f}", f"{row['overhead_s']:.2f}", f"{row['end_s']:.1f}", f"{row['runs_per_hour']}",
            f"{row['cores_of_others']:.1f}",
        )
        for _, row in rows.iterrows()
    ]  # fmt: skip
    return table(lines)


def table(lines: list[tuple[str, ...]]) -> str:
    """Return a table of Markdown whose first line is the header."""
    header, *others = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([header, "|---" * len(lines[0]) + "|", *others])


if __name__ == "__main__":
    main()
