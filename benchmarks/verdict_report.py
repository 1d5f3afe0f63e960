"""Print the tables of docs/benchmarks/verdict.md from the rows of `benchmarks/verdict.py`.

python benchmarks/verdict_report.py benchmarks/results/verdict.csv
"""

import argparse
from pathlib import Path

import pandas as pd
from scipy import stats

GROUPS = {
    "null": "No loss differs",
    "two or three folds": "No loss differs, two or three folds",
    "collapse": "A loss collapses now and then, means are equal",
}


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def describe(row: pd.Series) -> str:
    runs = ["as there"] if pd.isna(row["runs"]) else str(row["runs"]).split()
    text = runs[0] if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    dead = f", {row['dead']} {'of them' if row['faint'] else 'dead'}" if row["dead"] else ""
    numbers = " | ".join(str(row[name]) for name in ("kind", "losses", "folds", "cases", "seeds"))
    return f"| {row['setting']}{dead} | {numbers} | {text} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    rows = pd.read_csv(parser.parse_args().rows, keep_default_na=False, na_values=[""])
    nulls = rows[rows["group"].isin(["null", "two or three folds"])]
    wrong, total = (nulls["verdict_error"] * nulls["studies"]).sum(), nulls["studies"].sum()
    upper = stats.beta.ppf(0.95, wrong + 1, total - wrong)
    print(f"All {len(nulls)} settings together: {percent(wrong / total)} % (at most {percent(upper)} %).")
    for folds, chosen in (("from five folds", nulls["folds"] >= 5), ("with four folds", nulls["folds"] == 4)):
        worst, most = nulls.loc[chosen, "verdict_error"].max(), nulls.loc[chosen, "verdict_error_upper"].max()
        print(f"The worst setting {folds}: {percent(worst)} % (at most {percent(most)} %).")
    for group, title in GROUPS.items():
        print(f"\n## {title}\n")
        head = "| setting | scores | losses | folds | cases | seeds | SD of runs | verdict | at most |"
        print(f"{head} one variance | paired t | signed-rank | all intervals hold | best dropped |")
        print("|---" * 14 + "|")
        for _, row in rows[rows["group"] == group].iterrows():
            columns = ["verdict_error", "verdict_error_upper", "common_variance_error", "paired_t_error"]
            columns += ["signed_rank_error", "covered_all", "best_dropped"]
            values = [row[name] for name in columns]
            print(f"{describe(row)} {' | '.join(map(percent, values))} |")
    print("\n## One loss is better\n")
    head = "| setting | scores | losses | folds | cases | seeds | SD of runs | effect |"
    print(f"{head} verdict | one variance | paired t | best alone |")
    print("|---" * 12 + "|")
    for _, row in rows[rows["group"] == "power"].iterrows():
        powers = []
        for name in ("verdict", "common_variance", "paired_t"):
            power, equal, error = (percent(row[f"{name}_{kind}"]) for kind in ("power", "power_at_5", "null_error"))
            powers.append(f"{power} / {equal} ({error})")
        print(f"{describe(row)} {row['effect']:g} | {' | '.join(powers)} | {percent(row['best_alone'])} |")


if __name__ == "__main__":
    main()
