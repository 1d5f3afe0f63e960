"""What a study will detect, and what more folds, seeds or cases would buy, with the cost of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from voxloss.evaluation.planning import TYPICAL, Noise, expected_detectable, noise_of
from voxloss.evaluation.scores import common_scores
from voxloss.evaluation.verdict import verdict
from voxloss.study.plan import Plan
from voxloss.study.study import Study
from voxloss.utilities.errors import InputError


@dataclass(frozen=True)
class Design:
    """A design of a study.

    Args:
        folds: Number of folds.
        seeds: Number of seeds.
        cases: Number of cases.
        runs: Number of trainings.
        seconds: Of training and prediction on this machine, `execution.parallel` runs at a time.
        detectable: The difference that is detected with a probability of 80 %, for every noise of the table.
    """

    folds: int
    seeds: int
    cases: int
    runs: int
    seconds: float
    detectable: tuple[float, ...]


def pilot_noise(folder: Path) -> Noise:
    """Return the noise of another study, which may be in progress.

    Raises:
        InputError: The folder is not a study, or has too few finished runs.
    """
    study = Study.open(folder)
    if study.networks:
        raise InputError(
            f"{folder} compares networks, whose noise may differ; take a study of one network as the pilot"
        )
    scores = common_scores(study.scores())
    comparison = study.comparison
    result = verdict(scores, comparison.primary_class, comparison.primary_metric) if len(scores) else None
    if result is None:
        raise InputError(f"{folder} has no finished runs of two losses yet, so it cannot be a pilot")
    try:
        return noise_of(result, str(study.name))
    except ValueError as error:
        raise InputError(f"{folder}: {error}") from None


def designs(plan: Plan, noises: Sequence[Noise] = TYPICAL) -> list[Design]:
    """Return the planned design, then designs with more folds, seeds and cases.

    Args:
        plan: The plan of the study.
        noises: The noises for which the detectable difference is computed.
    """
    config = plan.survey.config
    losses, folds, networks = len(config.comparison.compared()), config.splits.folds, max(1, len(plan.parts))
    seeds, cases = len(config.comparison.seeds), len(plan.survey.shapes)
    wider = [(folds, seeds, cases), (folds, max(3, seeds + 2), cases), (folds, max(5, seeds + 4), cases)]
    if 2 * folds <= cases:
        wider.append((2 * folds, seeds, cases))
    wider.append((folds, seeds, 2 * cases))
    per_run = (plan.training + plan.search + plan.prediction) / plan.runs
    return [
        Design(
            folds=f,
            seeds=s,
            cases=n,
            runs=networks * losses * f * s,
            seconds=networks * losses * f * s * per_run / config.execution.parallel,
            detectable=tuple(expected_detectable(noise, losses, f, s, n) for noise in noises),
        )
        for f, s, n in wider
    ]
