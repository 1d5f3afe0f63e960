"""How often the intervals of a difference joined over data sets hold the true one.

    python benchmarks/joined.py [--reviews 20000] [--output rows.csv]

A review joins k data sets. The true difference of a data set is normal around 0.02 with standard deviation τ, the
measured one normal around that with a standard error s: 0.015 everywhere, or log-uniform between 0.005 and 0.045. What
a study reports in the place of s is s √(χ²_d / d), with d degrees of freedom (8: five folds and a few losses), or s
itself. Beside ours: Hartung and Knapp's interval without the rule that q is at least 1, DerSimonian and Laird's with
the normal point; and the usual prediction interval, at the one best τ with k - 2 degrees of freedom (Higgins et al.).
Prediction intervals are of the first 2000 reviews, from five data sets on.
"""

import argparse
import csv
import itertools
import math
from pathlib import Path

import numpy as np
from scipy import stats

from voxloss.evaluation.joined import LEAST_TO_PREDICT, pool, predict

EFFECT, ERROR, UNEQUAL = 0.02, 0.015, (0.005, 0.045)
PREDICTED = 2000
SETS = (2, 3, 4, 5, 7, 10)
TAUS = (0.0, 0.005, 0.015, 0.03, 0.06)


def simulate(k: int, tau: float, unequal: bool, degrees: int | None, reviews: int, seed: int) -> dict[str, object]:
    random = np.random.default_rng(seed)
    shape = (reviews, k)
    errors = np.exp(random.uniform(*np.log(UNEQUAL), shape)) if unequal else np.full(shape, ERROR)
    y = EFFECT + tau * random.standard_normal(shape) + errors * random.standard_normal(shape)
    reported = errors if degrees is None else errors * np.sqrt(random.chisquare(degrees, shape) / degrees)
    found = pool(y, reported)
    point = stats.t.ppf(0.975, k - 1)
    weights = 1 / (reported**2 + found.tau[:, None] ** 2)
    q = (weights * (y - found.mean[:, None]) ** 2).sum(axis=1) / (k - 1)
    plain = np.sqrt(q / weights.sum(axis=1))
    some = slice(min(reviews, PREDICTED))
    new = EFFECT + tau * random.standard_normal(reviews)[some]
    predicts = k >= LEAST_TO_PREDICT
    low, high = predict(y[some], reported[some]) if predicts else (math.nan * new, math.nan * new)
    usual = np.sqrt(found.tau**2 + found.standard_error**2)[some] * stats.t.ppf(0.975, max(1, k - 2))

    def share(value: np.ndarray, centre: np.ndarray, half: np.ndarray) -> float:
        return round(float((np.abs(value - centre) <= half).mean()), 4)

    fixed = 1 / reported**2
    total = fixed.sum(axis=1)
    centre = (fixed * y).sum(axis=1) / total
    excess = (fixed * (y - centre[:, None]) ** 2).sum(axis=1) - (k - 1)
    tau_dl = np.maximum(0, excess / (total - (fixed**2).sum(axis=1) / total))
    random_weights = 1 / (reported**2 + tau_dl[:, None])
    mean_dl = (random_weights * y).sum(axis=1) / random_weights.sum(axis=1)
    return {
        "data_sets": k,
        "tau": tau,
        "standard_errors": "unequal" if unequal else "equal",
        "degrees": "known" if degrees is None else degrees,
        "reviews": reviews,
        "covered": share(EFFECT, found.mean, point * found.standard_error),
        "covered_without_floor": share(EFFECT, found.mean, point * plain),
        "covered_dersimonian_laird": share(EFFECT, mean_dl, 1.96 / np.sqrt(random_weights.sum(axis=1))),
        "half_width": round(float(np.median(point * found.standard_error)), 5),
        "predicted": share(new, (low + high) / 2, (high - low) / 2) if predicts else math.nan,
        "predicted_usual": share(new, found.mean[some], usual) if predicts else math.nan,
        "predicted_half_width": round(float(np.median(high - low)) / 2, 5),
        "predicted_usual_half_width": round(float(np.median(usual)), 5) if predicts else math.nan,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reviews", type=int, default=20000)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "joined.csv")
    arguments = parser.parse_args()
    settings = itertools.product((8, None), (False, True), TAUS, SETS)
    rows = [
        simulate(k, tau, unequal, degrees, arguments.reviews, seed)
        for seed, (degrees, unequal, tau, k) in enumerate(settings)
    ]
    with arguments.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
