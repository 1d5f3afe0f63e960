"""Pages of the rows that further.py measured, and of those of warm_start.py.

python benchmarks/further_report.py further benchmarks/results/further-*.csv --output docs/benchmarks/further.md
python benchmarks/further_report.py warm benchmarks/results/warm-start.csv --output docs/benchmarks/warm-start.md
"""

import argparse
from pathlib import Path

import pandas as pd
from scipy import stats

MEASURES = {
    "emidec": {
        "dice": ("Dice, mean of the structures", 1),
        "rare_dice": ("Dice of the rare structures", 1),
        "lesion_recall": ("lesion recall", 1),
        "lesion_precision": ("lesion precision", 1),
        "hd95": ("HD95, in an assumed grid of 10 × 1.4 × 1.4 mm", -1),
        "calibration_error": ("calibration error", -1),
    },
    "drive": {
        "dice": ("Dice", 1),
        "cl_dice": ("clDice", 1),
        "skeleton_recall": ("recall of the centre line", 1),
        "components_error": ("parts too many or too few", -1),
        "calibration_error": ("calibration error", -1),
    },
}
BASE = "dice_cross_entropy"
VOLUMES = {"boxes": "Lesions", "classes": "Lesions of four classes", "tubes": "Tubes"}
NAMES = {"emidec": "EMIDEC: scars of the heart, small and large", "drive": "DRIVE: vessels of the retina"}


def further(rows: pd.DataFrame) -> str:
    """Tables by device and volume."""
    lines = [FURTHER]
    for device, on_device in rows.groupby("device", sort=False):
        first, shapes = on_device.iloc[0], on_device["shape"].unique()
        lines += [f"## {device}", "", f"Logits {', '.join(shapes)}, torch {first['torch']}, {first['date']}.", ""]
        for volume, group in on_device.groupby("volume", sort=False):
            lines += [f"### {VOLUMES[volume]}", ""]
            lines += ["| loss | median ms (10 %, 90 %) | × Dice + cross entropy | extra memory / logits |"]
            lines += ["|---|---|---|---|"]
            for _, row in group.iterrows():
                ratio, memory = (
                    "" if pd.isna(row[name]) else f"{row[name]:.2f}"
                    for name in ("ratio_to_dice_cross_entropy", "peak_extra_over_logits")
                )
                times = f"{row['ms_p50']:.1f} ({row['ms_p10']:.1f}, {row['ms_p90']:.1f})"
                lines.append(f"| {row['implementation']} | {times} | {ratio} | {memory} |")
            lines.append("")
    return "\n".join(lines)


def warm(rows: pd.DataFrame) -> str:
    """Means over the seeds, and differences from Dice + cross entropy of the same seed with 95 % intervals."""
    lines = [WARM]
    for dataset, of_dataset in rows.groupby("dataset", sort=False):
        lines += [f"## {NAMES[dataset]}", ""]
        for start, group in of_dataset.groupby("start", sort=False):
            if start == "none":
                continue
            seeds = group["seed"].nunique()
            lines += [f"### {'From the warm start' if start == 'warm' else 'From scratch'}, {seeds} seeds", ""]
            measures = MEASURES[dataset]
            lines += ["| loss | seeds | " + " | ".join(name for name, _ in measures.values()) + " |"]
            lines += ["|---|---|" + "---|" * len(measures)]
            base = group[group["loss"] == BASE].set_index("seed")
            for loss, own in group.groupby("loss", sort=False):
                by_seed = own.set_index("seed")
                cells = [_cell(by_seed[key], base[key], sign, loss) for key, (_, sign) in measures.items()]
                lines.append(f"| {loss} | {own['seed'].nunique()} | {' | '.join(cells)} |")
            lines.append("")
    return "\n".join(lines)


def _cell(own: pd.Series, base: pd.Series, sign: int, loss: str) -> str:
    digits = 1 if base.abs().mean() > 5 else 3
    if loss == BASE:
        return f"{own.mean():.{digits}f}"
    differences = (own - base).dropna()
    if len(differences) < 3:
        return f"{differences.mean():+.{digits}f}"
    half = stats.t.ppf(0.975, len(differences) - 1) * differences.std() / len(differences) ** 0.5
    text = f"{differences.mean():+.{digits}f} ± {half:.{digits}f}"
    return f"**{text}**" if sign * differences.mean() > half else text


def main() -> None:
    """Write a page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("page", choices=["further", "warm"])
    parser.add_argument("rows", type=Path, nargs="+", help="CSV files")
    parser.add_argument("--output", type=Path, required=True, help="the page to write")
    arguments = parser.parse_args()
    rows = pd.concat([pd.read_csv(path) for path in arguments.rows], ignore_index=True)
    page = further(rows) if arguments.page == "further" else warm(rows)
    arguments.output.write_text(page.rstrip() + "\n", encoding="utf-8")


FURTHER = """# Time and memory of the further losses

Losses of lesions, borders, order, thin structures and calibration, which need more than one pass over the voxels,
measured by `benchmarks/further.py` beside Dice + cross entropy: forward and backward, on a CPU the processor's time
of one thread. The rows are in `benchmarks/results/`. "Maps given" means that the loader made the maps of the labels,
whose time stands below by itself. Extra memory is the peak beyond the inputs, the gradient included.
"""

WARM = """# Does a loss improve what it is made for?

A small U-Net was trained with Dice + cross entropy, and then 300 steps more with each loss, from the same weights and
on the same batches (`benchmarks/warm_start.py`; the rows are in `benchmarks/results/warm-start.csv`). The line of
Dice + cross entropy has its values; the other lines have their differences from it in the same seed, from three seeds
on with a 95 % interval of their mean. Bold: better, and the interval does not contain 0; of many such intervals one
in twenty errs by chance. Losses have their defaults and one learning rate, tuned for none; "+" means beside Dice +
cross entropy. This is a small experiment: it shows what a loss changes, not which loss is the best for your data.
EMIDEC was trained on a CPU, with a small network on slices; its images do not know their spacing, so that distances
are in a grid that was assumed. Two of the vessels' seeds were trained on a GPU, the third on a CPU. With two seeds,
those of the vessels from scratch, there is no interval.
"""

if __name__ == "__main__":
    main()
