"""Claims that were written down before the studies ran, and what the evidence says of each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from voxloss.evaluation.verdict import MARGIN
from voxloss.evidence.comparisons import (
    Difference,
    Estimate,
    Judged,
    Measure,
    ended,
    is_joined,
    joined,
    series_steps,
    slope,
)
from voxloss.utilities.errors import InputError

Answer = Literal["held", "refuted", "undecided"]
ClaimMeasure = Literal["dice", "precision_minus_recall", "dice_by_rarity"]
JOINED = "joined"  # in the place of a study's name


@dataclass(frozen=True)
class Claim:
    """A claim as comparisons that can refute it.

    Args:
        name: Its short name.
        claim: The claim, a sentence.
        refuted_by: What refutes it, a sentence.
        measure: What is compared.
        comparisons: Pairs of losses, of which the first exceeds the second if the claim is true.
        margin: The smallest advantage that matters.
    """

    name: str
    claim: str
    refuted_by: str
    measure: ClaimMeasure
    comparisons: tuple[tuple[str, str], ...]
    margin: float = MARGIN


@dataclass(frozen=True)
class Finding:
    """What a study, a series or all joined say of one comparison of a claim.

    Args:
        claim: The claim's name.
        place: The study or series, or "joined".
        data_sets: Number of data sets.
        first: The loss that exceeds the other if the claim is true.
        second: The other loss.
        mean: The difference; NaN where the losses are not in the study.
        low: Lower end of its interval.
        high: Upper end.
        detectable: The true difference that the interval excludes from 0 with a probability of 80 %.
        answer: What it says.
    """

    claim: str
    place: str
    data_sets: int
    first: str
    second: str
    mean: float
    low: float
    high: float
    detectable: float
    answer: Answer


@dataclass(frozen=True)
class Judgement:
    """What a study, a series or all joined say of a claim: its comparisons together.

    Args:
        claim: The claim.
        place: The study or series, or "joined".
        synthetic: Whether the images are synthetic.
        answer: Held if all comparisons are, refuted if one is.
        findings: Of every comparison.
    """

    claim: Claim
    place: str
    synthetic: bool
    answer: Answer
    findings: tuple[Finding, ...]

    @property
    def decisive(self) -> Finding | None:
        """The comparison that refutes the claim, or else that with the lowest interval; None if none was possible."""
        known = [one for one in self.findings if math.isfinite(one.mean)]
        return min(known, key=lambda one: one.high if self.answer == "refuted" else one.low, default=None)


def read_claims(path: Path) -> list[Claim]:
    """Read a file of claims.

    Raises:
        InputError: The file is missing or damaged, or a claim lacks a key; the message names it.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        margin = float(content["margin"])
        claims = [_claim(entry, margin) for entry in content["claims"]]
    except FileNotFoundError:
        raise InputError(f"there is no file of claims {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a file of claims: {' '.join(str(error).split())}") from None
    return claims


def _claim(entry: dict[str, Any], margin: float) -> Claim:
    measure = entry["measure"]
    if measure not in get_args(ClaimMeasure):
        raise ValueError(
            f"{entry['name']}: measure must be one of {', '.join(get_args(ClaimMeasure))}, got {measure!r}"
        )
    comparisons = tuple((str(first), str(second)) for first, second in entry["comparisons"])
    if not comparisons:
        raise ValueError(f"{entry['name']} has no comparison")
    return Claim(str(entry["name"]), str(entry["claim"]), str(entry["refuted_by"]), measure, comparisons, margin)


def judge_claim(claim: Claim, studies: Sequence[Judged]) -> list[Judgement]:
    """Judge a claim by every study (or series), and by those that may be joined together.

    Returns:
        A judgement per study or series that has an interval of one of the comparisons, then the joined one, if there is
        one.
    """
    if claim.measure == "dice_by_rarity":
        return _by_series(claim, studies)
    measure: Measure = claim.measure

    def difference(judged: Judged, first: str, second: str) -> Difference | None:
        return judged.difference(first, second, measure) if judged.export.informs(first, second) else None

    judgements = []
    for judged in studies:
        found = [_of(difference(judged, first, second)) for first, second in claim.comparisons]
        if any(one[0] for one in found):
            judgements.append(_judgement(claim, judged.export.name, judged.export.kind == "phantom", found))
    together = [judged for judged in studies if is_joined(judged.export)]
    numbers = []
    for first, second in claim.comparisons:
        differences = [difference(judged, first, second) for judged in together]
        numbers.append(_joined(claim, [one for one in differences if one is not None]))
    return [*judgements, *_together(claim, numbers)]


Numbers = tuple[int, float, float, float, float]  # data sets, mean, low, high, detectable
UNKNOWN: Numbers = (0, math.nan, math.nan, math.nan, math.nan)


def _of(one: Estimate | None) -> Numbers:
    if one is None or not math.isfinite(one.half_width):
        return UNKNOWN
    return 1, one.mean, one.low, one.high, one.detectable


def _joined(claim: Claim, differences: Sequence[Estimate]) -> Numbers:
    found = joined(differences, len(claim.comparisons))
    if found is None:
        return UNKNOWN
    ends = (found.low, found.high) if claim.measure == "dice_by_rarity" else ended(found.low, found.high)
    return found.n, found.mean, *ends, found.detectable


def _together(claim: Claim, numbers: list[Numbers]) -> list[Judgement]:
    return [_judgement(claim, JOINED, False, numbers)] if any(one[0] for one in numbers) else []


def _by_series(claim: Claim, studies: Sequence[Judged]) -> list[Judgement]:
    judgements, slopes = [], []
    for name, steps in series_steps(studies).items():
        found = [slope(name, steps, first, second, len(claim.comparisons)) for first, second in claim.comparisons]
        slopes.append(found)
        known = [one for one in found if one is not None]
        if known:
            judgements.append(_judgement(claim, name, known[0].synthetic, [_of(one) for one in found]))
    together = []
    for place in range(len(claim.comparisons)):
        real = [one for found in slopes if (one := found[place]) is not None and not one.synthetic]
        # Series of one data set have the same test cases, so only the first one counts.
        distinct = {one.data_set: one for one in reversed(real)}
        together.append(_joined(claim, list(distinct.values())))
    return [*judgements, *_together(claim, together)]


def _judgement(claim: Claim, place: str, synthetic: bool, numbers: Sequence[Numbers]) -> Judgement:
    findings = tuple(
        Finding(claim.name, place, n, first, second, mean, low, high, detectable, _answer(low, high, claim.margin))
        for (first, second), (n, mean, low, high, detectable) in zip(claim.comparisons, numbers, strict=True)
    )
    answers = {one.answer for one in findings}
    answer: Answer = "refuted" if "refuted" in answers else "held" if answers == {"held"} else "undecided"
    return Judgement(claim, place, synthetic, answer, findings)


def _answer(low: float, high: float, margin: float) -> Answer:
    """NaN, of a comparison that was not possible, is undecided."""
    return "held" if low > 0 else "refuted" if high < margin else "undecided"
