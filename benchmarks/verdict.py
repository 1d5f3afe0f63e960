"""How often the verdict names a difference between losses that is not there, and how often one that is.

    python benchmarks/verdict.py [--studies 1000] [--output rows.csv]

Studies are made up: 7 losses, 5 folds, 204 cases; scores are the case's difficulty, a part of its own for every loss
and case (of which paired differences have standard deviation 0.10), and a part of every run (standard deviation 0.01),
one or three seeds. One loss is better by `effect`. Beside the verdict the pairwise rank-sum and signed-rank tests with
Holm's adjustment at 0.05, on the same scores averaged over the seeds.
"""

import argparse
import csv
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

from voxloss.evaluation.verdict import judge

LOSSES, FOLDS, CASES, CASE_SD, PAIR_SD = 7, 5, 204, 0.20, 0.10
NAMES = [f"loss {number}" for number in range(LOSSES)]
PAIRS = list(itertools.combinations(range(LOSSES), 2))
SETTINGS = [  # run's standard deviation of the first loss, of the others, effect on the first
    *((0.01, 0.01, effect) for effect in (0.0, 0.01, 0.03, 0.05)),
    (0.0, 0.0, 0.0),
    (0.03, 0.03, 0.0),
    (0.05, 0.01, 0.0),
]


def scores_of(
    generator: np.random.Generator, seeds: int, first_sd: float, run_sd: float, effect: float
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (cases, losses) averaged over the seeds, and the fold of every case."""
    folds = np.arange(CASES) % FOLDS
    own = generator.normal(0, PAIR_SD / np.sqrt(2), (CASES, LOSSES))
    sd = np.array([first_sd] + [run_sd] * (LOSSES - 1))
    runs = generator.normal(size=(seeds, FOLDS, LOSSES)).mean(axis=0) * sd
    values = 0.6 + generator.normal(0, CASE_SD, CASES)[:, None] + own + runs[folds]
    values[:, 0] += effect
    return values, folds


def by_verdict(values: np.ndarray, folds: np.ndarray) -> set[tuple[int, int]]:
    pairs = judge(values, folds, NAMES, 1).pairs
    named = pairs[pairs["differ"]]
    return {(NAMES.index(row.better), NAMES.index(row.worse)) for row in named.itertuples()}


def by_test(
    p_of: Callable[[np.ndarray, np.ndarray], float],
) -> Callable[[np.ndarray, np.ndarray], set[tuple[int, int]]]:
    def named(values: np.ndarray, folds: np.ndarray) -> set[tuple[int, int]]:
        p = [p_of(values[:, first], values[:, second]) for first, second in PAIRS]
        means = values.mean(axis=0)
        found = [pair for pair, reject in zip(PAIRS, multipletests(p, method="holm")[0], strict=True) if reject]
        return {(a, b) if means[a] >= means[b] else (b, a) for a, b in found}

    return named


METHODS = {
    "verdict": by_verdict,
    "signed-rank, Holm": by_test(lambda a, b: stats.wilcoxon(a, b, method="asymptotic").pvalue),
    "rank-sum, Holm": by_test(lambda a, b: stats.ranksums(a, b).pvalue),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    rows = []
    for seeds, (first_sd, run_sd, effect) in itertools.product((1, 3), SETTINGS):
        generator = np.random.default_rng(0)
        any_named, true_named, false_named = (dict.fromkeys(METHODS, 0) for _ in range(3))
        for _ in range(arguments.studies):
            values, folds = scores_of(generator, seeds, first_sd, run_sd, effect)
            for name, method in METHODS.items():
                named = method(values, folds)
                any_named[name] += bool(named)
                true_named[name] += effect > 0 and (0, 1) in named
                false_named[name] += any(effect == 0 or pair[0] != 0 for pair in named)
        for name in METHODS:
            share = {"any": any_named[name], "true_pair": true_named[name], "false": false_named[name]}
            row = {"seeds": seeds, "run_sd_first": first_sd, "run_sd": run_sd, "effect": effect, "method": name}
            row |= {key: round(number / arguments.studies, 4) for key, number in share.items()}
            rows.append(row)
            setting = f"{seeds} seed(s), run SD {run_sd:g} (first {first_sd:g}), effect {effect:g}, {name}"
            shares = f"any {row['any']:.1%}, a false one {row['false']:.1%}, a given true one {row['true_pair']:.1%}"
            print(f"{setting}: named {shares}")
    if arguments.output is not None:
        with arguments.output.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
