"""How often the verdict names a difference between losses that is not there, and how often one that is.

    python benchmarks/verdict.py [--studies 2000] [--jobs 2] [--only WORD] [--output rows.csv]

Studies are simulated. "normal": a score is the case's difficulty, a part of every loss and case (of which paired
differences have standard deviation 0.10) and a part of every run. "tumour": Dice = expit of a latent score with a spike
at 0 for missed lesions, small lesions that vary and are missed more, difficulty that the losses share, heavy tails.
"study": difficulties of cases, residuals of a loss and case, and parts of runs are drawn from those of a real study
(`results/hippocampus-scores.csv`). No loss differs in its true mean, or the last is better by `effect`.

Beside the verdict, on the same scores: the intervals with one run variance for all losses (the median over the losses,
as in version 0.5), paired t tests over the folds and signed-rank tests over the cases, both with Holm's adjustment.
"""

import argparse
import csv
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special, stats

from voxloss.evaluation.verdict import judge

SCORES = Path(__file__).parent / "results" / "hippocampus-scores.csv"
LEARNED = 0.2  # mean Dice of a run; one below has missed the class


@dataclass(frozen=True)
class Setting:
    """A kind of study; per-loss tuples are of length `losses`; the last loss has the effect."""

    name: str
    kind: str = "normal"
    losses: int = 8
    folds: int = 5
    cases: int = 204
    seeds: int = 1
    runs: tuple[float, ...] = ()  # standard deviation of a run's mean (normal) or of its latent score (tumour)
    missed: tuple[float, ...] = ()  # share of missed lesions
    dead: int = 0  # the first losses are 0 everywhere
    faint: float = 0.0  # the first losses have this share of their scores instead
    collapse: tuple[float, ...] = ()  # probability that a run gives 5 % of the Dice
    sizes: tuple[int, ...] = ()  # cases of every fold
    effect: float = 0.0
    group: str = "null"
    extra: dict[str, float] = field(default_factory=dict, hash=False)


def flat(value: float, losses: int) -> tuple[float, ...]:
    return (value,) * losses


def part(share: float, noisy: float, quiet: float, losses: int) -> tuple[float, ...]:
    """The first losses noisy (at least one), the rest quiet."""
    many = max(1, round(share * losses))
    return (noisy,) * many + (quiet,) * (losses - many)


def settings() -> list[Setting]:
    made: list[Setting] = []

    def normal(name: str, losses: int, folds: int, cases: int, runs: Sequence[float], **more: object) -> None:
        made.append(Setting(name, "normal", losses, folds, cases, runs=tuple(runs), **more))  # type: ignore[arg-type]

    for losses, folds, cases in (
        (7, 5, 204),
        (2, 5, 60),
        (3, 5, 369),
        (4, 5, 60),
        (16, 5, 204),
        (8, 10, 369),
        (20, 10, 369),
        (8, 4, 204),
    ):
        for run in (0.0, 0.01, 0.05):
            normal("equal", losses, folds, cases, flat(run, losses))
    for losses, folds, cases in (
        (7, 5, 204),
        (4, 5, 60),
        (8, 10, 369),
        (16, 5, 204),
        (12, 4, 120),
        (5, 5, 100),
        (20, 5, 204),
    ):
        normal("half noisy × 5", losses, folds, cases, part(0.5, 0.05, 0.01, losses))
        normal("half noisy × 2.5", losses, folds, cases, part(0.5, 0.025, 0.01, losses))
        normal("one noisy × 5", losses, folds, cases, part(0, 0.05, 0.01, losses))
        normal("a quarter noisy × 3", losses, folds, cases, part(0.25, 0.06, 0.02, losses))
    for losses, folds, dead in ((7, 5, 3), (7, 5, 4), (10, 5, 6), (16, 5, 9), (12, 4, 8), (20, 5, 13), (8, 10, 5)):
        normal("dead losses", losses, folds, 204, flat(0.03, losses), dead=dead)
    for losses, folds, dead in ((7, 5, 3), (16, 5, 9), (8, 10, 5), (12, 4, 8), (4, 5, 2)):
        normal("losses near 0", losses, folds, 204, flat(0.03, losses), dead=dead, faint=0.003)
    for losses, folds in ((10, 5), (12, 4), (20, 5), (6, 5), (8, 10)):
        spread = tuple(0.03 * np.sqrt(stats.gamma.ppf((np.arange(losses) + 0.5) / losses, 1.5) / 1.5))
        normal("run variances ~ gamma(1.5)", losses, folds, 204, spread)
    normal("unequal folds", 8, 5, 204, flat(0.01, 8), sizes=(124, 20, 20, 20, 20))
    normal("unequal folds", 8, 5, 28, flat(0.01, 8), sizes=(20, 2, 2, 2, 2))
    normal("unequal folds", 3, 5, 204, flat(0.03, 3), sizes=(124, 20, 20, 20, 20))
    for seeds in (3, 5):
        normal("seeds", 8, 5, 204, part(0.5, 0.05, 0.02, 8), seeds=seeds)
    for losses, folds in ((3, 3), (8, 3), (16, 3), (8, 2), (4, 2)):
        normal("equal", losses, folds, 60, flat(0.03, losses), group="two or three folds")
        normal("half noisy × 5", losses, folds, 204, part(0.5, 0.05, 0.01, losses), group="two or three folds")
        normal("one noisy × 5", losses, folds, 204, part(0, 0.05, 0.01, losses), group="two or three folds")
        normal("dead losses", losses, folds, 204, flat(0.03, losses), dead=losses // 2, group="two or three folds")
        if losses > 3:
            more = {"dead": losses // 2, "faint": 0.003, "group": "two or three folds"}
            normal("losses near 0", losses, folds, 204, flat(0.03, losses), **more)

    def tumour(name: str, losses: int, folds: int, cases: int, **more: object) -> None:
        more = {"runs": flat(0.12, losses), "missed": flat(0.15, losses), **more}
        made.append(Setting(name, "tumour", losses, folds, cases, **more))  # type: ignore[arg-type]

    for losses, folds, cases in ((8, 5, 204), (3, 5, 60), (16, 5, 204), (8, 10, 369), (4, 5, 40), (6, 5, 12)):
        tumour("equal", losses, folds, cases)
    for losses, folds, cases in ((8, 5, 204), (16, 5, 204), (8, 10, 369), (4, 5, 60)):
        tumour("half noisy × 6", losses, folds, cases, runs=part(0.5, 0.30, 0.05, losses))
        tumour("one noisy × 6", losses, folds, cases, runs=part(0, 0.30, 0.05, losses))
    for losses, cases in ((8, 12), (8, 20), (16, 20), (8, 60), (2, 20)):
        tumour("half miss 30 %, half 5 %", losses, 5, cases, missed=part(0.5, 0.30, 0.05, losses))
    tumour("spike of 30 %", 8, 5, 60, missed=flat(0.30, 8))
    tumour("dead losses", 7, 5, 204, dead=3)
    tumour("dead losses", 16, 5, 100, dead=9)
    tumour("losses near 0", 7, 5, 60, dead=3, faint=0.003)
    for losses, folds in ((8, 5), (3, 5), (16, 5)):
        tumour(
            "a loss collapses in a random fold",
            losses,
            folds,
            204,
            collapse=part(0, 1 / folds, 0.0, losses),
            group="collapse",
        )

    for losses, folds, cases in ((4, 5, 40), (8, 5, 40), (8, 5, 204), (3, 5, 100), (8, 3, 60), (8, 10, 204)):
        group = "two or three folds" if folds < 4 else "null"
        made.append(Setting("runs of all losses", "study", losses, folds, cases, group=group))
        made.append(Setting("runs normal, each loss's SD", "study", losses, folds, cases, group=group, extra={"sd": 1}))
    for losses, cases in ((4, 40), (8, 40), (8, 204)):
        made.append(Setting("each loss's own runs", "study", losses, 5, cases, group="collapse", extra={"own": 1}))
    made.append(Setting("one better", "study", 8, 5, 100, effect=0.05, group="power"))

    for effect in (0.03, 0.05):
        tumour("one better", 8, 5, 204, runs=flat(0.06, 8), missed=flat(0.05, 8), effect=effect, group="power")
    tumour("one better", 8, 5, 204, seeds=3, runs=flat(0.06, 8), missed=flat(0.05, 8), effect=0.05, group="power")
    tumour("one better", 3, 5, 60, effect=0.10, group="power")
    uneven = tuple(np.round(0.06 * np.exp(0.5 * special.ndtri((np.arange(8) + 0.5) / 8)), 3)[[3, 6, 1, 4, 7, 0, 5, 2]])
    tumour("one better, runs uneven", 8, 5, 204, runs=uneven, missed=flat(0.05, 8), effect=0.05, group="power")
    for losses, folds, cases, run, effect in (
        (7, 5, 204, 0.01, 0.05),
        (7, 5, 204, 0.03, 0.10),
        (4, 5, 60, 0.01, 0.07),
        (3, 5, 369, 0.03, 0.10),
        (16, 5, 204, 0.01, 0.05),
        (8, 10, 369, 0.02, 0.04),
        (8, 4, 204, 0.02, 0.08),
        (2, 5, 60, 0.01, 0.05),
    ):
        normal("one better", losses, folds, cases, flat(run, losses), effect=effect, group="power")
    normal("one better, one noisy", 8, 5, 204, part(0, 0.05, 0.01, 8), effect=0.06, group="power")
    normal("one better, half dead", 8, 5, 204, flat(0.03, 8), dead=4, effect=0.10, group="power")
    return made


def simulate(setting: Setting, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores (cases, losses) averaged over the seeds, and the fold of every case."""
    folds = (
        np.repeat(np.arange(len(setting.sizes)), setting.sizes)
        if setting.sizes
        else np.arange(setting.cases) % setting.folds
    )
    values = {"normal": _normal, "tumour": _tumour, "study": _resampled}[setting.kind](setting, generator, folds)
    if setting.dead:
        values[:, : setting.dead] *= setting.faint
    return values, folds


def _normal(setting: Setting, generator: np.random.Generator, folds: np.ndarray) -> np.ndarray:
    n, losses = len(folds), setting.losses
    runs = generator.normal(size=(setting.seeds, folds.max() + 1, losses)).mean(axis=0) * np.array(setting.runs)
    values = (
        0.6 + generator.normal(0, 0.2, (n, 1)) + generator.normal(0, 0.10 / math.sqrt(2), (n, losses)) + runs[folds]
    )
    values[:, -1] += setting.effect
    return values


class Parts(NamedTuple):
    """What the scores of a study consist of. Runs and residuals have no mean."""

    cases: np.ndarray  # (cases,), the mean over losses and seeds
    runs: np.ndarray  # (losses and seeds, folds)
    residuals: np.ndarray  # (losses and seeds, cases)


@cache
def _parts() -> Parts:
    """The parts of those losses and seeds of which no run missed the class."""
    table = pd.read_csv(SCORES).pivot(index=["loss", "seed"], columns=["fold", "case"], values="dice")
    folds = table.columns.get_level_values("fold").to_numpy()
    sizes = np.bincount(folds)
    means = np.stack([table.to_numpy()[:, folds == fold].mean(axis=1) for fold in range(len(sizes))], axis=1)
    scores = table.to_numpy()[means.min(axis=1) > LEARNED]
    difficulty = scores.mean(axis=0)
    rest = scores - difficulty
    runs = np.stack([rest[:, folds == fold].mean(axis=1) for fold in range(len(sizes))], axis=1)
    residuals = (rest - runs[:, folds]) * np.sqrt(sizes / (sizes - 1))[folds]
    runs = runs - runs.mean(axis=1, keepdims=True)
    # The residuals of a fold's cases are in its mean too; what is left is the run's own part.
    noise = (residuals.var(axis=1, keepdims=True) / sizes).mean(axis=1, keepdims=True)
    observed = runs.var(axis=1, ddof=1, keepdims=True)
    return Parts(difficulty, runs * np.sqrt(np.maximum(0, 1 - noise / observed)), residuals)


def _resampled(setting: Setting, generator: np.random.Generator, folds: np.ndarray) -> np.ndarray:
    parts = _parts()
    chosen = generator.permutation(len(parts.runs))[: setting.losses]
    cases = generator.integers(len(parts.cases), size=len(folds))
    shape = (folds.max() + 1, setting.losses)
    if "own" in setting.extra:
        runs = np.stack([generator.choice(parts.runs[one], shape[0]) for one in chosen], axis=1)
    elif "sd" in setting.extra:
        runs = generator.normal(size=shape) * parts.runs[chosen].std(axis=1, ddof=1)
    else:
        runs = generator.choice(parts.runs.ravel(), shape)
    values = parts.cases[cases, None] + parts.residuals[np.ix_(chosen, cases)].T + runs[folds]
    values[:, -1] += setting.effect
    return np.asarray(values)


def _latent_dice(difficulty, own_difficulty, missing, noise, own_missing, run, shift, missed):
    small = np.exp(-0.35 * difficulty)
    dice = special.expit(1.3 + 0.5 * difficulty + 0.8 * own_difficulty + shift + run + 0.40 * small * noise)
    seen = 0.6 * difficulty + 0.8 * (math.sqrt(0.7) * missing + math.sqrt(0.3) * own_missing) + 0.6 * (run + shift)
    return np.where(seen < special.ndtri(missed), 0.0, dice)


def _tumour(setting: Setting, generator: np.random.Generator, folds: np.ndarray) -> np.ndarray:
    n, losses, n_folds = len(folds), setting.losses, folds.max() + 1
    difficulty, own, missing = generator.normal(size=(3, n, 1))
    runs, missed = np.array(setting.runs), np.array(setting.missed)
    collapse = setting.collapse or flat(0.0, losses)
    shifts = np.array([
        _shift(0.60 + (setting.effect if loss == losses - 1 else 0.0) - 0.05 * any(collapse), run, miss, gone)
        for loss, (run, miss, gone) in enumerate(zip(setting.runs, setting.missed, collapse, strict=True))
    ])  # fmt: skip
    lasting = generator.normal(size=(n_folds, losses)) * math.sqrt(0.5) * runs  # half of a run's variance is the fold's
    heavy = generator.standard_t(5, size=(n, losses)) / math.sqrt(5 / 3)
    total = np.zeros((n, losses))
    for _ in range(setting.seeds):
        run = (lasting + generator.normal(size=(n_folds, losses)) * math.sqrt(0.5) * runs)[folds]
        noise = heavy
        if setting.seeds > 1:
            noise = math.sqrt(0.7) * heavy + math.sqrt(0.3) * generator.standard_t(5, size=(n, losses)) / math.sqrt(
                5 / 3
            )
        dice = _latent_dice(difficulty, own, missing, noise, generator.normal(size=(n, losses)), run, shifts, missed)
        gone = generator.random((n_folds, losses)) < np.array(collapse)
        total += np.where(gone[folds], 0.05 * dice, dice)
    return total / setting.seeds


@cache
def _shift(target: float, run: float, missed: float, collapse: float) -> float:
    """The latent shift that gives a loss this true mean."""
    generator = np.random.default_rng(77)
    size = 200_000
    difficulty, own, missing, own_missing, runs = generator.normal(size=(5, size))
    noise = generator.standard_t(5, size=size) / math.sqrt(5 / 3)
    low, high = -6.0, 6.0
    for _ in range(25):
        middle = (low + high) / 2
        mean = _latent_dice(difficulty, own, missing, noise, own_missing, runs * run, middle, missed).mean() * (
            1 - 0.95 * collapse
        )
        low, high = (middle, high) if mean < target else (low, middle)
    return (low + high) / 2


# Every method returns, for all pairs i < j, how often its half width the difference is (above 1: named).
Method = Callable[[np.ndarray, np.ndarray], np.ndarray]


def common_variance(values: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """One run variance for all losses, the median over them beyond what the cases give (version 0.5)."""
    n, count = values.shape
    means, sizes, covariance = _fold_means(values, folds)
    n_folds, degrees = len(sizes), len(sizes) - 1
    noise = values - means[folds]
    noise = noise - noise.mean(axis=1, keepdims=True)
    case_variance = (noise**2).sum() / ((n - n_folds) * (count - 1))
    residual = means - means.mean(axis=0)
    residual -= np.median(residual, axis=1, keepdims=True) if count > 2 else residual.mean(axis=1, keepdims=True)
    squares = (residual**2).sum(axis=0) / degrees * (2 if count == 2 else 1)
    extra = max(0.0, np.median(squares) / (stats.chi2.ppf(0.5, degrees) / degrees) - case_variance * (1 / sizes).mean())
    first, second = np.triu_indices(count, 1)
    spread = covariance[first, first] + covariance[second, second] - 2 * covariance[first, second]
    error = np.sqrt(np.maximum(spread, 0) * (1 / sizes).mean() / n_folds + 2 * extra / n_folds)
    level = 0.02 if count > 2 and n_folds > 3 else 0.05
    own = (means[:, first] - means[:, second]).std(axis=0, ddof=1) / math.sqrt(n_folds)
    width = np.maximum(_tukey(count, (count - 1) * degrees) * error, _student(degrees, level) * own)
    return _ratio(means, first, second, width)


def paired_t(values: np.ndarray, folds: np.ndarray) -> np.ndarray:
    means, sizes, _ = _fold_means(values, folds)
    first, second = np.triu_indices(values.shape[1], 1)
    difference = means[:, first] - means[:, second]
    own = difference.std(axis=0, ddof=1) / math.sqrt(len(sizes))
    t = np.divide(difference.mean(axis=0), own, out=np.zeros_like(own), where=own > 0)
    return _holm(2 * stats.t.sf(np.abs(t), len(sizes) - 1))


def signed_rank(values: np.ndarray, folds: np.ndarray) -> np.ndarray:
    first, second = np.triu_indices(values.shape[1], 1)
    difference = values[:, first] - values[:, second]
    ranks = stats.rankdata(np.where(difference == 0, np.inf, np.abs(difference)), axis=0) * (difference != 0)
    z = np.divide(
        (np.sign(difference) * ranks).sum(axis=0),
        np.sqrt((ranks**2).sum(axis=0)),
        out=np.zeros(len(first)),
        where=(ranks > 0).any(axis=0),
    )
    return _holm(2 * stats.norm.sf(np.abs(z)))


def _fold_means(values: np.ndarray, folds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sizes = np.bincount(folds)
    means = np.stack([np.bincount(folds, column) / sizes for column in values.T], axis=1)
    within = values - means[folds]
    return means, sizes, within.T @ within / max(1, len(values) - len(sizes))


def _ratio(means: np.ndarray, first: np.ndarray, second: np.ndarray, width: np.ndarray) -> np.ndarray:
    difference = np.abs((means[:, first] - means[:, second]).mean(axis=0))
    return np.divide(difference, width, out=np.where(difference > 1e-6, np.inf, 0.0), where=width > 0)


def _holm(p: np.ndarray) -> np.ndarray:
    p = np.nan_to_num(p, nan=1.0)  # statsmodels' function collects garbage at every call, which takes most of the time
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return np.asarray(np.log(np.maximum(adjusted, 1e-300)) / math.log(0.05))  # above 1: below 0.05


@cache
def _tukey(count: int, degrees: int) -> float:
    return float(stats.studentized_range.ppf(0.95, count, degrees)) / math.sqrt(2)


@cache
def _student(degrees: int, level: float) -> float:
    return float(stats.t.ppf(1 - level / 2, degrees))


SIGNED_RANK_STUDIES = 500  # it takes longer than all others together
RIVALS: dict[str, Method] = {"common variance": common_variance, "paired t": paired_t, "signed rank": signed_rank}


def measure(setting: Setting, studies: int, seed: int) -> dict[str, object]:
    """The row of a setting."""
    key = [seed, *map(ord, repr(replace(setting, effect=0.0, extra={})))]
    generator = np.random.default_rng(key)
    names = [str(number) for number in range(setting.losses)]
    first, second = np.triu_indices(setting.losses, 1)
    live = first >= setting.dead
    if setting.faint:
        live |= second < setting.dead
    best = (second == setting.losses - 1) & live
    null = live & ~best if setting.effect else live
    truth = np.where(best, setting.effect, 0.0)
    ratios: dict[str, list[np.ndarray]] = {name: [] for name in ("verdict", *RIVALS)}
    null_ratios: dict[str, list[np.ndarray]] = {name: [] for name in ratios}
    covered, single, kept, alone, width = 0, 0.0, np.zeros(setting.losses), 0, []
    for study in range(studies):
        rivals = {
            name: method for name, method in RIVALS.items() if name != "signed rank" or study < SIGNED_RANK_STUDIES
        }
        values, folds = simulate(setting, generator)
        result = judge(values, folds, names, setting.seeds)
        of = {(int(row.better), int(row.worse)): row for row in result.pairs.itertuples()}
        rows = [
            (of[i, j], 1.0) if (i, j) in of else (of[j, i], -1.0)
            for i, j in zip(first.tolist(), second.tolist(), strict=True)
        ]
        difference = np.array([sign * row.difference for row, sign in rows])  # first - second
        half = np.array([row.half_width for row, _ in rows])
        inside = np.abs(difference + truth) <= half
        covered += bool(inside[live].all())
        single += float(inside[live].mean())
        may = set(result.may_be_best)
        kept += [name in may for name in names]
        alone += may == {names[-1]}
        width.append(float(np.median(half[live])))
        signed = np.divide(-difference, half, out=np.where(np.abs(difference) > 1e-6, np.inf, 0.0), where=half > 0)
        ratios["verdict"].append(signed)
        for name, method in rivals.items():
            sign = np.sign(-difference)
            ratios[name].append(method(values, folds) * sign)
        if setting.effect:  # the matched null: the same study without the effect
            equal = values.copy()
            if setting.kind != "tumour":
                equal[:, -1] -= setting.effect
            else:
                equal, folds = simulate(replace(setting, effect=0.0), generator)
            for name, method in rivals.items():
                null_ratios[name].append(method(equal, folds)[live])
            pairs = judge(equal, folds, names, setting.seeds).pairs
            pairs = pairs[(pairs[["better", "worse"]].astype(int) >= setting.dead).all(axis=1)]
            null_ratios["verdict"].append((pairs["difference"] / pairs["half_width"].clip(lower=1e-300)).to_numpy())
    row: dict[str, object] = {
        "group": setting.group, "setting": setting.name, "kind": setting.kind, "losses": setting.losses,
        "folds": setting.folds, "cases": sum(setting.sizes) or setting.cases, "seeds": setting.seeds,
        "dead": setting.dead, "faint": setting.faint, "effect": setting.effect, "studies": studies,
    }  # fmt: skip
    row["runs"] = " ".join(f"{value:.3g}" for value in sorted(set(setting.runs)))
    for name, values in ratios.items():
        table = np.abs(np.array(values))
        wrong = int((table[:, null] > 1).any(axis=1).sum())
        column = name.replace(" ", "_")
        row[f"{column}_error"] = round(wrong / len(table), 4)
        if name == "verdict":
            row["verdict_error_upper"] = (
                round(float(stats.beta.ppf(0.95, wrong + 1, studies - wrong)), 4) if wrong < studies else 1.0
            )
        if setting.effect:
            power = np.array(values)[:, best]
            threshold = np.quantile(np.array(null_ratios[name]).max(axis=1), 0.95)
            row[f"{column}_null_error"] = round(float((np.array(null_ratios[name]).max(axis=1) > 1).mean()), 4)
            row[f"{column}_power"] = round(float((power > 1).mean()), 4)
            row[f"{column}_power_at_5"] = round(float((power > threshold).mean()), 4)
    row["covered_all"] = round(covered / studies, 4)
    row["covered_each"] = round(single / studies, 4)
    # Of the losses with the best true mean, how often one is dropped from the set that may be best: the worst of them.
    equals = kept[-1:] if setting.effect else kept[setting.dead :]
    row["best_dropped"] = round(1 - float(equals.min()) / studies, 4)
    row["best_dropped_mean"] = round(1 - float(equals.mean()) / studies, 4)
    row["best_alone"] = round(alone / studies, 4)
    row["median_half_width"] = round(float(np.median(width)), 5)
    return row


def measured(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    chosen = [setting for setting in settings() if arguments.only in f"{setting.group} {setting.kind} {setting.name}"]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        yield from pool.map(measure, chosen, itertools.repeat(arguments.studies), itertools.repeat(arguments.seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=2000, help="studies of each setting")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--only", default="", help="settings whose group, kind or name contains this")
    parser.add_argument("--output", type=Path, help="CSV file")
    arguments = parser.parse_args()
    rows = []
    for row in measured(arguments):
        rows.append(row)
        size = " ".join(
            f"{name} {row[name]}" for name in ("losses", "folds", "cases", "seeds", "runs", "dead", "effect")
        )
        print(f"{row['group']}: {row['setting']} ({row['kind']}), {size}")
        for name in ("verdict", *(rival.replace(" ", "_") for rival in RIVALS)):
            power = (
                f", power {row[f'{name}_power']:.1%}, at equal error {row[f'{name}_power_at_5']:.1%}"
                if row["effect"]
                else ""
            )
            print(f"    {name}: error {row[f'{name}_error']:.1%}{power}")
        covered = " ".join(
            f"{name} {row[name]:.1%}" for name in ("verdict_error_upper", "covered_all", "best_dropped", "best_alone")
        )
        print(f"    {covered}", flush=True)
    nulls = [row for row in rows if row["group"] in ("null", "two or three folds")]
    if nulls:
        wrong = sum(float(str(row["verdict_error"])) * arguments.studies for row in nulls)
        total = len(nulls) * arguments.studies
        upper = stats.beta.ppf(0.95, wrong + 1, total - wrong)
        print(f"all {len(nulls)} settings without a difference: {wrong / total:.2%}, at most {upper:.2%}")
    if arguments.output is not None:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with arguments.output.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
