"""Differences between losses: of every study, joined over data sets, and along a dose-response series."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from voxloss.evaluation.joined import POWER, Joined, join
from voxloss.evaluation.verdict import MARGIN, Verdict, case_table, judge
from voxloss.evidence.export import Export
from voxloss.evidence.kinds import KINDS

BASELINE = "dice_cross_entropy"
METRIC = "dice"  # in which differences are joined
BALANCE = "balance"  # stands for a loss whose precision and recall are equal

# What is compared: the mean Dice, or the mean of precision - recall, which is positive where a loss errs to precision.
Measure = Literal["dice", "precision_minus_recall"]


@dataclass(frozen=True)
class Estimate:
    """A difference between two losses, or its change, with its interval.

    Args:
        data_set: The data set.
        first: The loss that is better where the difference is positive.
        second: The other.
        mean: The difference.
        half_width: Of its 95 % interval.
        standard_error: Of the difference.
        degrees: Degrees of freedom of the standard error.
    """

    data_set: str
    first: str
    second: str
    mean: float
    half_width: float
    standard_error: float
    degrees: float

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.half_width

    @property
    def detectable(self) -> float:
        """The true difference that the interval excludes from 0 with a probability of 80 %."""
        return self.half_width + float(stats.t.ppf(POWER, self.degrees)) * self.standard_error

    @property
    def usable(self) -> bool:
        """Whether its standard error is known: not with one fold, nor between losses that never vary."""
        return math.isfinite(self.standard_error) and self.standard_error > 0


def ended(low: float, high: float) -> tuple[float, float]:
    """End an interval where differences between two shares do; NaN stays."""
    return max(low, -1.0), min(high, 1.0)  # the first one where they do not compare


@dataclass(frozen=True)
class Difference(Estimate):
    """By how much the mean over folds of a loss exceeds that of another; its interval is one of all pairs of losses.

    Args:
        study: The export's name.
    """

    study: str

    @property
    def low(self) -> float:
        """Lower end of the interval, not below -1."""
        return ended(super().low, super().high)[0]

    @property
    def high(self) -> float:
        """Upper end of the interval, not above 1."""
        return ended(super().low, super().high)[1]


def is_joined(export: Export) -> bool:
    """Whether a study is joined with other data sets.

    Its images are real, a loss has learned to find the class, and it is not a race, which also stops losses by chance.
    """
    return export.kind == "real" and export.look is None and export.learned


def difference(verdict: Verdict, export: Export, first: str, second: str) -> Difference | None:
    """Return a difference of a study; None if it lacks one of the losses."""
    pairs = verdict.pairs
    for sign, better, worse in ((1, first, second), (-1, second, first)):
        found = pairs[(pairs["better"] == better) & (pairs["worse"] == worse)]
        if len(found):
            row = found.iloc[0]
            return Difference(
                export.data_set, first, second, sign * float(row["difference"]), float(row["half_width"]),
                float(row["standard_error"]), float(row["degrees"]), export.name,
            )  # fmt: skip
    return None


class Judged:
    """The verdicts of an export, each computed once."""

    def __init__(self, export: Export) -> None:
        self.export = export
        self.verdict = cache(self._verdict)

    def _verdict(self, class_name: str, measure: Measure) -> Verdict | None:
        if measure == METRIC:
            return self.export.verdict(class_name, METRIC)
        return bias_verdict(self.export, class_name)

    def difference(self, first: str, second: str, measure: Measure = "dice") -> Difference | None:
        """By how much a loss exceeds another, for the class of the headline.

        A loss that has not learned to find the class errs neither to precision nor to recall.
        """
        unlearned = self.export.unlearned.get(self.export.class_name, ())
        if measure != METRIC and {first, second} & set(unlearned):
            return None
        verdict = self.verdict(self.export.class_name, measure)
        return None if verdict is None else difference(verdict, self.export, first, second)


def bias_verdict(export: Export, class_name: str) -> Verdict | None:
    """Judge precision - recall of every case, beside a loss `BALANCE` in which they are equal; None without a case.

    An empty prediction of a structure that is there has precision and recall 0, as in the verdict on either.
    """
    scores = export.judged_scores()
    tables = [case_table(scores, class_name, metric) for metric in ("precision", "recall")]
    if tables[0] is None or tables[1] is None:
        return None
    (precision, _, n_seeds), (recall, _, _) = tables[0], tables[1]
    bias = (precision - recall[precision.columns]).dropna()
    if bias.empty:
        return None
    folds = pd.factorize(bias.index.droplevel("case"))[0]
    values = np.column_stack([bias.to_numpy(dtype=float), np.zeros(len(bias))])
    interim = None if export.look is None else export.look.interim
    return judge(values, folds, [*bias.columns, BALANCE], n_seeds, MARGIN, interim=interim)


def joined(differences: Iterable[Estimate], comparisons: int = 1) -> Joined | None:
    """Join the differences of independent data sets; None with fewer than two."""
    kept = [one for one in differences if one.usable]
    assert len({one.data_set for one in kept}) == len(kept), "a data set counts once"
    if len(kept) < 2:
        return None
    return join([one.mean for one in kept], [one.standard_error for one in kept], comparisons)


@dataclass(frozen=True)
class Slope(Estimate):
    """How a difference changes along a dose-response series, per tenfold rarer class.

    Args:
        series: The series.
        synthetic: Whether its images are synthetic.
        steps: Share of the class and difference of every step, the most common first.
    """

    series: str
    synthetic: bool
    steps: tuple[tuple[float, Difference], ...]


def slope(
    series: str, steps: Sequence[tuple[Judged, float]], first: str, second: str, comparisons: int
) -> Slope | None:
    """Fit a line to a difference against -log10 of the class's share, weighted by the steps' standard errors.

    The steps are separate trainings on the same test cases; their errors are taken as independent. Where the steps lie
    further off the line than their errors say, the difference does not change by a line, and the slope's standard error
    is larger by √(Q / (n - 2)), with Q the sum of the n squared residuals, each over its squared error.

    Args:
        series: The series.
        steps: Its studies, each with the share of the class.
        first: The loss that is better where the difference is positive.
        second: The other.
        comparisons: The interval is one of this many that hold together with 95 %.

    Returns:
        The slope; None with fewer than two different shares.
    """
    informing = [(judged, share) for judged, share in steps if judged.export.informs(first, second)]
    found = [(share, one) for judged, share in informing if (one := judged.difference(first, second)) and one.usable]
    found.sort(key=lambda step: -step[0])
    rarity = -np.log10([share for share, _ in found])
    if len(found) < 2 or np.ptp(rarity) < 1e-6:
        return None
    y, weights = np.array([one.mean for _, one in found]), np.array([one.standard_error for _, one in found]) ** -2.0
    centred = rarity - (weights * rarity).sum() / weights.sum()
    spread = (weights * centred**2).sum()
    degrees = min(one.degrees for _, one in found)
    rise = float((weights * centred * y).sum() / spread)
    residuals = y - (weights * y).sum() / weights.sum() - rise * centred
    misfit = float((weights * residuals**2).sum()) / (len(y) - 2) if len(y) > 2 else 0.0
    error = math.sqrt(max(misfit, 1.0) / spread)
    point = float(stats.t.ppf(1 - 0.025 / comparisons, degrees))
    exports = [judged.export for judged, _ in steps]
    return Slope(
        exports[0].data_set, first, second, rise, point * error, error, degrees, series,
        any(export.kind == "phantom" for export in exports), tuple(found),
    )  # fmt: skip


def series_steps(studies: Sequence[Judged]) -> dict[str, list[tuple[Judged, float]]]:
    """Return the studies of every series with their class's share, of those whose share is known."""
    steps: dict[str, list[tuple[Judged, float]]] = {}
    for judged in studies:
        export = judged.export
        for name in export.series:
            if (share := share_at(export, name)) is not None:
                steps.setdefault(name, []).append((judged, share))
    return steps


def share_at(export: Export, series: str) -> float | None:
    """How common the class is at the step of a series that an export is; None: it is not known."""
    share = export.series[series]
    if share is None and export.fingerprint is not None:
        return export.fingerprint.of(export.class_name).voxel_fraction.median
    return share


def order(export: Export) -> tuple[int, str, float, str]:
    """Sort exports by kind, those of no series first, steps of a series from the most common class to the rarest."""
    series = next(iter(export.series), "")
    share = share_at(export, series) if series else None
    return KINDS.index(export.kind), series, -(share or 0.0), export.name
