"""How far each loss of a study is: finished, in progress, retired by the user, or eliminated by a race."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from voxloss.study.folder import ENDED, FINISHED, Run
from voxloss.study.study import Study
from voxloss.utilities.errors import InputError

Standing = Literal["finished", "in progress", "retired", "eliminated"]


@dataclass(frozen=True)
class LossStanding:
    """How far a loss is.

    Args:
        loss: The loss's key.
        standing: Every planned run has ended ("finished"), some have not ("in progress"), the user stopped it
            ("retired"), or a race did ("eliminated").
        ended: Number of runs that have ended with scores.
        planned: Number of runs that the study has for each loss.
        evidence: Why it was retired or eliminated, a phrase; empty for the others.
    """

    loss: str
    standing: Standing
    ended: int
    planned: int
    evidence: str = ""


def standings(study: Study) -> list[LossStanding]:
    """Return how far each loss is, in the study's order."""
    race = study.race() if study.comparison.design == "race" else None
    departures = {one.loss: (look.round, one) for look in race.looks for one in look.departures} if race else {}
    result = []
    for choice in study.losses:
        runs = [Run(choice, fold, seed, network=study.files.network) for seed, fold in study.rounds()]
        ended = sum(_has_scores(study, run) for run in runs)
        standing: Standing = "finished" if ended == len(runs) or (race and race.ended) else "in progress"
        evidence = ""
        if choice.key in departures:
            number, one = departures[choice.key]
            standing, evidence = "eliminated", f"after round {number}, {one.difference:.3f} below {one.beaten_by}"
        elif standing == "in progress" and choice.key in study.retired:
            standing, evidence = "retired", _retirement(study.retired[choice.key])
        result.append(LossStanding(choice.key, standing, ended, len(runs), evidence))
    return result


def _has_scores(study: Study, run: Run) -> bool:
    """Whether a run has ended with scores; one that failed because an image was missing has none."""
    return study.imported or (study.status(run).state in ENDED and study.run_folder(run).scores_file.is_file())


def _retirement(record: dict[str, Any]) -> str:
    scores = record.get("scores") or {}
    known = [f"mean {scores['metric']} of {name} {mean:.3f}" for name, mean in (scores.get("means") or {}).items()]
    counted = f"after {record.get('runs')} of {record.get('planned')} runs"
    what = f"; {', '.join(known)} over the {scores.get('cases')} cases scored until then" if known else ""
    return f"on {str(record.get('time'))[:10]} {counted}{what}"


def retire(parts: Sequence[Study], keys: Sequence[str]) -> list[tuple[Study, LossStanding]]:
    """Stop training losses: their missing runs are not executed any more. The current scores are recorded.

    No other process may change the study meanwhile (`claims.hold`). Runs of the losses that are at work are released.

    Args:
        parts: The study, or the parts of its networks; a loss that is finished in some is retired in the others.
        keys: The losses' keys.

    Returns:
        For every part, how far the losses are now that were retired in it.

    Raises:
        InputError: A loss is not in the study, is finished in all parts, or the study is a race or imported.
    """
    study = parts[0]
    if study.imported or study.comparison.design == "race":
        what = "holds imported scores" if study.imported else "is a race, which eliminates losses by itself"
        raise InputError(f"{study.folder} {what}; no loss of it can be retired.")
    require_losses(study, keys)
    before = [{one.loss: one for one in standings(part)} for part in parts]
    for key in keys:
        if all(of_part[key].standing == "finished" for of_part in before):
            planned = sum(of_part[key].planned for of_part in before)
            raise InputError(f"{key} is finished: all of its {planned} runs have ended.")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    result = []
    for part, of_part in zip(parts, before, strict=True):
        open_keys = [key for key in keys if of_part[key].standing != "finished"]
        records = {
            key: {
                "time": now,
                "runs": of_part[key].ended,
                "planned": of_part[key].planned,
                "scores": _scores(part, key),
            }
            for key in open_keys
        }
        if records:
            part.files.write_retired({**records, **part.retired})  # who is retired already keeps the record of then
            retired = Study.open(part.folder).part(part.files.network)
            result += [(part, one) for one in standings(retired) if one.loss in open_keys]
    return result


def restore(parts: Sequence[Study], keys: Sequence[str]) -> None:
    """Train retired losses again. As `retire`. Raises InputError if a loss is not retired in any part."""
    require_losses(parts[0], keys)
    for key in keys:
        if not any(key in part.retired for part in parts):
            raise InputError(f"{key} is not retired.")
    for part in parts:
        if any(key in part.retired for key in keys):
            part.files.write_retired({key: record for key, record in part.retired.items() if key not in keys})


def require_losses(study: Study, keys: Sequence[str]) -> None:
    """Raise InputError for a key that no loss of the study has."""
    for key in keys:
        if key not in study.loss_keys:
            raise InputError(f"{study.folder} has no loss {key!r}; it has {', '.join(study.loss_keys)}.")


def _scores(study: Study, key: str) -> dict[str, Any] | None:
    """The mean of the primary metric over the cases of a loss's finished runs; None without any."""
    from voxloss.evaluation.scores import merge_scores, seed_means, worst_filled  # pandas

    runs = [run for run in study.runs() if run.loss.key == key and study.status(run).state in FINISHED]
    if not runs:
        return None
    metric = study.comparison.primary_metric
    scores = worst_filled(merge_scores(study.run_folder(run).scores_file for run in runs))
    means = seed_means(scores[scores["metric"] == metric])
    by_class = means.groupby("class", sort=False)["value"].mean().dropna()
    return {
        "metric": metric,
        "cases": int(means["case"].nunique()),
        "means": {k: float(v) for k, v in by_class.items()},
    }
