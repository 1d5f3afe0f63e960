"""Print the tables of docs/benchmarks/joined.md from the rows of `benchmarks/joined.py`.

python benchmarks/joined_report.py benchmarks/results/joined.csv
"""

import argparse
from pathlib import Path

import pandas as pd

COLUMNS = {
    "covered": "mean: ours",
    "covered_without_floor": "q not raised to 1",
    "covered_dersimonian_laird": "DerSimonian, Laird",
    "half_width": "ours: half width",
    "predicted": "new data set: ours",
    "predicted_usual": "usual",
    "predicted_half_width": "ours: half width",
    "predicted_usual_half_width": "usual: half width",
}


def cell(name: str, value: float) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.4f}" if name.endswith("half_width") else f"{100 * value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    rows = pd.read_csv(parser.parse_args().rows, keep_default_na=False, na_values=["nan"])
    for (degrees, errors), part in rows.groupby(["degrees", "standard_errors"], sort=False):
        known = "known" if degrees == "known" else f"estimated with {degrees} degrees of freedom"
        print(f"\n### {errors.capitalize()} standard errors, {known}\n")
        print("| τ | data sets | " + " | ".join(COLUMNS.values()) + " |\n|" + "---:|" * (len(COLUMNS) + 2))
        for row in part.to_dict("records"):
            cells = [f"{row['tau']:g}", str(row["data_sets"]), *(cell(name, row[name]) for name in COLUMNS)]
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
