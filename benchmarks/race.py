"""How much of the full grid a race takes, and how often the best loss is still in it at the end.

    python benchmarks/race.py [--studies 1000] [--jobs 2] [--only WORD] [--output rows.csv]

8 losses, 5 folds, 3 seeds, 204 cases. A score is the case's difficulty, a part of every loss and case (70 % of its
variance lasts over seeds; paired differences have standard deviation 0.26 with one seed, as of small lesions), and a
part of every run (standard deviation 0.02, half of its variance lasts over seeds); all of it also at half and at twice
the size. "missed" has tumour scores instead: Dice with a spike at 0 for missed lesions, and difficulty that the losses
share (`benchmarks/verdict.py`). Each study is raced, and judged once with all of its 120 runs.
"""

import argparse
import csv
import itertools
import math
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from scipy import special

from voxloss.evaluation.race import Look, Outcome, look_at
from voxloss.evaluation.verdict import MARGIN, judge
from voxloss.study.rounds import FIRST_LOOK

LOSSES, FOLDS, SEEDS, CASES = 8, 5, 3, 204
NOISES = (0.5, 1.0, 2.0)
NAMES = [str(number) for number in range(LOSSES)]
FOLD = np.arange(CASES) % FOLDS


@dataclass(frozen=True)
class Kind:
    """A kind of study: every loss's true mean beyond 0.6; factors of its run noise; its chance of a collapsed run."""

    name: str
    means: tuple[float, ...]
    noisy: tuple[float, ...] = (1.0,) * LOSSES
    dead: int = 0  # the last losses are 0 everywhere
    missed: float = 0.0  # share of missed lesions; 0: normal scores
    collapse: tuple[float, ...] = (0.0,) * LOSSES


def first(*differences: float) -> tuple[float, ...]:
    return (*differences, *(0.0,) * (LOSSES - len(differences)))


HALF_NOISY = (3.0, 1.0) * (LOSSES // 2)
KINDS = (
    Kind("all equal", first()),
    Kind("one better by 0.02", first(0.02)),
    Kind("one better by 0.05", first(0.05)),
    Kind("one better by 0.10", first(0.10)),
    Kind("graded, steps of 0.01", tuple(-0.01 * number for number in range(LOSSES))),
    Kind("graded, steps of 0.03", tuple(-0.03 * number for number in range(LOSSES))),
    Kind("two better by 0.05", first(0.05, 0.05)),
    Kind("half dead, one better by 0.05", first(0.05), dead=LOSSES // 2),
    Kind("six of eight behind by 0.20", first(0.20, 0.20)),
    Kind("unequal noise, all equal", first(), noisy=HALF_NOISY),
    Kind("unequal noise, one better by 0.05", first(0.05), noisy=HALF_NOISY),
    Kind("missed lesions, all equal", first(), missed=0.15),
    Kind("missed lesions, one better by 0.05", first(0.05), missed=0.15),
    Kind("the best collapses in one run of 15", first(0.10), collapse=(1 / 15, *(0.0,) * (LOSSES - 1))),
    Kind("the best collapses in one run of 4", first(0.30), collapse=(1 / 4, *(0.0,) * (LOSSES - 1))),
)


def simulate(kind: Kind, noise: float, generator: np.random.Generator) -> np.ndarray:
    """Scores of shape (cases, losses, seeds)."""
    shape = (CASES, LOSSES, SEEDS)
    runs = 0.02 * noise * np.array(kind.noisy)[:, None]
    lasting = math.sqrt(0.5) * generator.normal(size=(FOLDS, LOSSES, 1))
    run = (runs * (lasting + math.sqrt(0.5) * generator.normal(size=(FOLDS, LOSSES, SEEDS))))[FOLD]
    own = math.sqrt(0.7) * generator.normal(size=(CASES, LOSSES, 1)) + math.sqrt(0.3) * generator.normal(size=shape)
    means = np.array(kind.means)[:, None]
    if kind.missed:
        difficulty = generator.normal(size=(CASES, 1, 1))
        found = 0.6 * difficulty + 0.8 * own * min(noise, 1.0) > special.ndtri(kind.missed)
        dice = special.expit(1.3 + 0.5 * difficulty + 0.4 * noise * generator.standard_t(5, shape) / math.sqrt(5 / 3))
        # Its mean beyond the runs, to which the losses' means are added on found lesions alone.
        scores = np.where(found, np.clip(dice + (means + run) / (1 - kind.missed), 0, 1), 0.0)
    else:
        difficulty = 0.2 * noise * generator.normal(size=(CASES, 1, 1))
        scores = 0.6 + means + difficulty + 0.26 / math.sqrt(2) * noise * own + run
    gone = generator.random((FOLDS, LOSSES, SEEDS)) < np.array(kind.collapse)[:, None]
    scores = np.where(gone[FOLD], 0.05 * scores, scores)
    scores[:, LOSSES - kind.dead :] = 0.0
    return scores


def race(scores: np.ndarray, futility: bool = True) -> tuple[list[Look], int]:
    """The looks of a race, and how many runs it took. Without futility it goes on to its last round."""
    staying, looks, runs = list(NAMES), [], 0
    for number in range(1, FOLDS * SEEDS + 1):
        runs += len(staying)
        if number < FIRST_LOOK:
            continue
        passes, begun = divmod(number, FOLDS)
        columns = [int(name) for name in staying]
        own = scores[:, columns]
        weights = np.zeros((CASES, SEEDS))  # of the seeds that the fold of a case has
        weights[:, :passes] = 1.0
        if begun:
            weights[begun > FOLD, passes] = 1.0
        scored = weights.any(axis=1)
        mean = (own * weights[:, None]).sum(axis=2)[scored] / weights.sum(axis=1)[scored, None]
        seen = look_at(mean, FOLD[scored], staying, looks, round=number, n_folds=FOLDS, passes=SEEDS, family=LOSSES)
        looks.append(seen)
        staying = list(seen.staying)
        if seen.outcome is not None and (futility or seen.outcome != "futile"):
            break
    return looks, runs


def measure(kind: Kind, noise: float, studies: int, seed: int, futility: bool) -> dict[str, object]:
    generator = np.random.default_rng([seed, round(10 * noise), *kind.name.encode()])
    true = np.array(kind.means) * (1 - np.array(kind.collapse))
    true[LOSSES - kind.dead :] = -0.6
    near = {name for name in NAMES if true[int(name)] >= true.max() - MARGIN - 1e-12}
    best = [name for name in NAMES if true[int(name)] == true.max()]
    outcomes: Counter[str] = Counter()
    shares, left, full_left, rounds = [], [], [], []
    kept, full_kept, full_dropped, agree = 0, 0, 0, 0
    dropped = np.zeros(len(best))
    alone, full_alone = 0, 0
    for _ in range(studies):
        scores = simulate(kind, noise, generator)
        looks, runs = race(scores, futility)
        staying = set(looks[-1].staying)
        full = judge(scores.mean(axis=2), FOLD, NAMES, SEEDS)
        may = set(full.may_be_best)
        outcomes[str(looks[-1].outcome)] += 1
        shares.append(runs / (LOSSES * FOLDS * SEEDS))
        rounds.append(looks[-1].round)
        left.append(len(staying))
        full_left.append(len(may))
        kept += bool(staying & near)
        full_kept += bool(may & near)
        dropped += [name not in staying for name in best]
        full_dropped += sum(name not in may for name in best)
        means = dict(zip(full.losses, full.means, strict=True))
        agree += max(means[name] for name in staying) >= full.means[0] - MARGIN
        alone += staying == {best[0]} and len(best) == 1
        full_alone += may == {best[0]} and len(best) == 1
    row: dict[str, object] = {
        "kind": kind.name, "noise": noise, "studies": studies,
        "best_or_near_kept": kept / studies,
        "best_dropped": float(dropped.mean()) / studies,
        "best_dropped_worst": float(dropped.max()) / studies,  # of the equally good, the one that leaves most
        "share_mean": float(np.mean(shares)),
        "share_90": float(np.quantile(shares, 0.9)),
        "rounds_mean": float(np.mean(rounds)),
        "left_mean": float(np.mean(left)),
        "best_alone": alone / studies,
        "has_head_of_grid": agree / studies,
        "grid_best_or_near_kept": full_kept / studies,
        "grid_best_dropped": full_dropped / studies / len(best),
        "grid_left_mean": float(np.mean(full_left)),
        "grid_best_alone": full_alone / studies,
    }  # fmt: skip
    row |= {f"ended_{outcome}": outcomes[outcome] / studies for outcome in get_args(Outcome)}
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000, help="studies of each kind and noise")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--only", default="", help="kinds whose name contains this")
    parser.add_argument("--no-futility", action="store_true", help="go on to the last round where nothing is decided")
    parser.add_argument("--output", type=Path, help="CSV file")
    arguments = parser.parse_args()
    cells = list(itertools.product([kind for kind in KINDS if arguments.only in kind.name], NOISES))
    rows = []
    with ProcessPoolExecutor(arguments.jobs) as pool:
        kinds, noises = zip(*cells, strict=True)
        every = itertools.repeat
        settings = (every(arguments.studies), every(arguments.seed), every(not arguments.no_futility))
        for row in pool.map(measure, kinds, noises, *settings):
            rows.append(row)
            print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    if arguments.output is not None:
        with arguments.output.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
