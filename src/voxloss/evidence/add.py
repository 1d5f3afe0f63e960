"""Export a study as evidence."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from voxloss.config.files import to_plain
from voxloss.config.schema import StudyConfig
from voxloss.data.check.check import check
from voxloss.data.dataset import Dataset
from voxloss.data.formats import exists
from voxloss.data.layouts import load_dataset
from voxloss.evaluation.learned import learned_classes
from voxloss.evaluation.metrics import METRICS
from voxloss.evaluation.race import interim_of
from voxloss.evidence.export import (
    METRICS_KEPT,
    Export,
    LastLook,
    counts_twice,
    read_exports,
    require_data_set,
    require_name,
    scores_digest,
    write_export,
)
from voxloss.evidence.fingerprint import Fingerprint, fingerprint_of, read_check
from voxloss.evidence.kinds import LEAST_CASES, Kind
from voxloss.report.names import loss_name, names_of
from voxloss.study.folder import ENDED, Run, RunStatus
from voxloss.study.machines import machines_of
from voxloss.study.settle import configured_dataset
from voxloss.study.standing import standings
from voxloss.study.study import Study
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import count_of, shell_word

Progress = Callable[[int, int], None]

# Sections of the configuration that decide a study's numbers and hold no path.
SETTINGS = ("preparation", "patches", "augmentation", "network", "training", "evaluation", "comparison")


def add_study(
    folder: Path,
    to: Path,
    *,
    name: str | None = None,
    kind: Kind | None = None,
    data_set: str | None = None,
    series: Sequence[str] = (),
    notes: Sequence[str] = (),
    data: Path | None = None,
    case_names: bool = False,
    replace_old: bool = False,
    network: str | None = None,
    progress: Progress | None = None,
) -> Export:
    """Export a study's scores and what says what they are worth to TO/NAME.

    Losses whose runs have not all ended are left out; if fewer than two losses are finished, seeds that not every loss
    has on every fold.

    Args:
        folder: The study, also with imported results.
        to: The folder of all exported studies.
        name: Of the export; None: the study's folder's name.
        kind: What the study is; None: "phantom" for synthetic images, "protocol" below `LEAST_CASES` cases, else
            "real".
        data_set: The data set; None: as the study calls it.
        series: The dose-response series that the study is a step of: NAME, or NAME=SHARE with how common the class is
            at this step; without it, that is its share of the voxels by the fingerprint.
        notes: Sentences for its page.
        data: Where the images are now, or the check.json of `voxloss check`, or its folder; None: where the study had
            them. Without images the export has no fingerprint.
        case_names: Whether cases keep their names; else they are numbered in the order of their names.
        replace_old: Whether an export of this name is replaced.
        network: Of a study that compares networks, the key of the one whose scores are exported.
        progress: Called with (read, of) as masks are read.

    Returns:
        The export.

    Raises:
        InputError: The folder is no study, too little of it is finished, it contradicts `kind`, or its scores are
            exported already.
    """
    study = Study.open(folder).part(network)
    of_network = [] if network is None else [re.sub("[=+,]", "-", network)]  # which `require_name` does not take
    name = name or "-".join([Path(folder).resolve().name, *of_network])
    require_name(name)
    scores, left_out = _finished_scores(study)
    settled = _settled_kind(study, scores, kind)
    with names_of(study):
        keys, seeds = dict.fromkeys(scores["loss"]), set(scores["seed"])
        titles: dict[str, str | None] = {
            key: title if "." in key and (title := loss_name(key)) != key else None for key in keys
        }
    fingerprint = _fingerprint(study, data, progress)
    _require_class(fingerprint, study)
    export = Export(
        name=name,
        kind=settled,
        data_set=require_data_set(study.dataset.name if data_set is None else data_set),
        class_name=study.comparison.primary_class,
        metric=study.comparison.primary_metric,
        losses=titles,
        scores=scores if case_names else _numbered(scores),
        fingerprint=fingerprint,
        source=_source(study),
        settings=_settings(study),
        environment=dict(study.description.environment) if not study.imported else {},
        runs=_runs(study, set(keys), seeds),
        digests={"data": study.data_digest, **_equal_starts(study, set(keys), seeds)},
        unlearned=_unlearned(study, set(keys), seeds),
        look=_last_look(study),
        series=_series(series),
        notes=(*notes, *left_out),
    )
    _require_new(export, to, replace_old)
    write_export(to / name, export)
    return export


def _finished_scores(study: Study) -> tuple[pd.DataFrame, list[str]]:
    """The exported metrics of what is finished, and a sentence if seeds are left out.

    Tuned losses are left out: against a baseline that is not tuned, they show what a search is worth.
    """
    scores = study.scores()
    metric = study.comparison.primary_metric
    if metric not in METRICS:
        raise InputError(f"{study.folder} is about {metric}, a metric of your own, which cannot be joined with others'")
    tuned = {choice.key for choice in study.losses if choice.tuned}
    ended = [one.loss for one in standings(study) if one.standing in ("finished", "eliminated")]
    ended = [loss for loss in ended if loss not in tuned]
    seeds, notes = _whole_seeds(study), []
    if len(ended) < 2 and seeds:
        ended = [loss for loss in study.loss_keys if loss not in tuned]
        scores = scores[scores["seed"].isin(seeds)]
        notes = [
            f"Every loss finished {len(seeds)} of {count_of(len(study.comparison.seeds), 'seed')} on every fold; "
            "the others are left out."
        ]
    kept = scores[scores["loss"].isin(ended) & scores["metric"].isin({*METRICS_KEPT, metric})]
    if kept["loss"].nunique() < 2:
        raise InputError(
            f"{study.folder} has {count_of(kept['loss'].nunique(), 'loss')} with all runs finished, and a comparison "
            f"needs two; finish it with: voxloss run {shell_word(study.folder)}"
        )
    if kept[(kept["class"] == study.comparison.primary_class) & (kept["metric"] == metric)].empty:
        raise InputError(f"{study.folder} has no scores of {metric} of {study.comparison.primary_class}")
    return kept.reset_index(drop=True), notes


def _whole_seeds(study: Study) -> list[int]:
    """The seeds of which every loss has ended on every fold; none of a race, whose losses leave."""
    if study.comparison.design == "race" or study.imported:
        return []
    missing = {
        seed
        for seed, fold in study.rounds()
        for loss in study.losses
        if not loss.tuned and study.status(Run(loss, fold, seed, network=study.files.network)).state not in ENDED
    }
    return [seed for seed in study.comparison.seeds if seed not in missing]


def _settled_kind(study: Study, scores: pd.DataFrame, kind: Kind | None) -> Kind:
    """Choose the kind, and refuse to take for real what cannot be."""
    cases = scores["case"].nunique()
    synthetic = study.comparison.demonstration
    small = cases < LEAST_CASES or study.comparison.look
    if kind == "real" and synthetic:
        raise InputError(f"{study.folder} is a study of synthetic images; its kind is phantom, not real")
    if kind == "real" and small:
        raise InputError(
            f"{study.folder} has {cases} cases{' and is a look' if study.comparison.look else ''}; a study that counts "
            f"as real has {LEAST_CASES} or more: take --kind protocol"
        )
    return kind or ("phantom" if synthetic else "protocol" if small else "real")


def _series(words: Sequence[str]) -> dict[str, float | None]:
    """Read "emidec-crops" and "emidec-few=0.2"."""
    series: dict[str, float | None] = {}
    for word in words:
        name, equals, share = word.partition("=")
        require_name(name, "a series", "--series")
        try:
            series[name] = float(share) if equals else None
        except ValueError:
            series[name] = -1.0
        if equals and not 0 < (series[name] or 0) <= 1:
            raise InputError(f"--series takes NAME or NAME=SHARE with a share between 0 and 1; received {word!r}")
    return series


def _numbered(scores: pd.DataFrame) -> pd.DataFrame:
    """Number the cases in the order of their names, so that the same cases have the same numbers in every export."""
    names = sorted(scores["case"].unique(), key=lambda case: (len(case), case) if case.isdigit() else (0, case))
    return scores.assign(case=scores["case"].map({case: str(number) for number, case in enumerate(names, start=1)}))


def measured_fingerprint(
    data: Path, load: Callable[[Path], Dataset], progress: Progress | None = None
) -> Fingerprint | None:
    """Return the fingerprint of images, or that of a check's report; None if no mask has a structure.

    Args:
        data: A folder of images and masks, a table or data list of them, a check.json, or the folder that has it.
        load: Loads a data set.
        progress: Called with (read, of) as masks are read.
    """
    for report in (data, data / "check.json"):
        if report.name == "check.json" and report.is_file():
            return read_check(report)
    return fingerprint_of(check(load(data), progress=progress))


def fingerprint_of_data(
    data: Path, layout: str = "auto", progress: Progress | None = None, config: StudyConfig | None = None
) -> Fingerprint | None:
    """Return the fingerprint of images, or that of a check's report, as `measured_fingerprint`.

    `config` says how a study reads the images; None: as `layout` does.
    """

    def load(root: Path) -> Dataset:
        if config is None:
            return load_dataset(layout, root)
        return configured_dataset(replace(config, data=replace(config.data, root=str(root))))

    return measured_fingerprint(data, load, progress)


def _fingerprint(study: Study, data: Path | None, progress: Progress | None) -> Fingerprint | None:
    dataset = study.dataset
    if data is not None:
        if study.imported:
            return fingerprint_of_data(data, progress=progress)
        return fingerprint_of_data(data, progress=progress, config=study.parsed)
    at_hand = [case for case in dataset.cases if case.label is not None and case.images]
    if not at_hand or not all(exists(path) for case in at_hand for path in case.files):
        return None
    return fingerprint_of(check(dataset, progress=progress))


def _require_class(fingerprint: Fingerprint | None, study: Study) -> None:
    """Refuse a fingerprint of other classes, such as one that was measured without the study's configuration."""
    name = study.comparison.primary_class
    if fingerprint is not None and name not in (known := [one.name for one in fingerprint.classes]):
        raise InputError(
            f"--data: there is no class {name!r}, which the study is about, but {', '.join(known)}; name the folder of "
            "the images, or check it with the study's configuration (voxloss check DATA --config)"
        )


def _source(study: Study) -> dict[str, Any]:
    """Where the scores come from, without paths."""
    imported = study.description.imported
    if imported is None:
        return {"from": "voxloss"}
    return {key: imported[key] for key in ("from", "configuration", "metrics") if key in imported}


def _settings(study: Study) -> dict[str, Any]:
    if study.imported:
        return {"comparison": dict(study.description.config["comparison"])}
    content = to_plain(study.config)
    settings = {name: content[name] for name in SETTINGS if name in content}
    splits = {key: value for key, value in content["splits"].items() if key != "patients"}
    return {
        "data": {"layout": study.config.data.layout},
        "splits": splits | {"by_patient": bool(study.patients)},
        **settings,
        "device": study.config.execution.device,
    }


def _runs(study: Study, losses: set[str], seeds: set[int]) -> dict[str, Any]:
    """Number of runs by state, the seconds of every loss, and the machines with the number of runs of each."""
    statuses = _statuses(study, losses, seeds)
    states = Counter(status.state for status in statuses)
    seconds: dict[str, float] = defaultdict(float)
    for status in statuses:
        seconds[status.loss] += status.seconds
    known = {loss: round(spent, 1) for loss, spent in seconds.items() if spent > 0}
    result: dict[str, Any] = {"states": dict(states), "seconds": known}
    if not study.imported:
        machines = machines_of(statuses, study.description.environment)
        result["machines"] = [{"runs": count, **environment} for environment, count in machines]
    return result


def _statuses(study: Study, losses: set[str], seeds: set[int]) -> list[RunStatus]:
    return [study.status(run) for run in study.runs() if run.loss.key in losses and run.seed in seeds]


def _equal_starts(study: Study, losses: set[str], seeds: set[int]) -> dict[str, Any]:
    """Whether all losses had the same batches and the same initial weights, by the digests of their trainings."""
    done = [status for status in _statuses(study, losses, seeds) if status.state == "done"]
    places = [f"fold-{one.fold}/seed-{one.seed}" for one in done]
    return {
        "batches": _equal(places, [one.batch_digest for one in done]),
        "weights": _equal(places, [one.weight_digest for one in done]),
    }


def _equal(places: Sequence[str], of_runs: Sequence[str | None]) -> dict[str, Any]:
    """Whether the digests of all runs of a place are equal, and these digests; None: no place has two to compare."""
    digests: dict[str, set[str]] = defaultdict(set)
    compared: Counter[str] = Counter()
    unrecorded = 0
    for place, digest in zip(places, of_runs, strict=True):
        if digest:
            digests[place].add(digest)
            compared[place] += 1
        else:
            unrecorded += 1
    several = [digests[place] for place, count in compared.items() if count > 1]
    equal = all(len(found) == 1 for found in several) if several else None
    kept = {place: next(iter(found))[:32] for place, found in sorted(digests.items()) if len(found) == 1}
    return {"equal": equal, "unrecorded_runs": unrecorded, "digests": kept}


def _unlearned(study: Study, losses: set[str], seeds: set[int]) -> dict[str, list[str]]:
    scores = study.scores()
    scores = scores[scores["seed"].isin(seeds)]
    unlearned: dict[str, list[str]] = defaultdict(list)
    for one in learned_classes(scores[scores["loss"].isin(losses)], study.blind):
        if not one.learned:
            unlearned[one.class_name].append(one.loss)
    return dict(unlearned)


def _last_look(study: Study) -> LastLook | None:
    if study.comparison.design != "race":
        return None
    race = study.race()
    if not race.looks:
        folder = study.folder
        raise InputError(f"{folder} is a race without a look yet; go on with: voxloss run {shell_word(folder)}")
    *before, last = race.looks
    interim = interim_of(before, last.round, race.n_folds, last.passes, last.family)
    return LastLook(tuple(last.losses), race.rounds[: last.round], interim)


def _require_new(export: Export, to: Path, replace_old: bool) -> None:
    """Refuse the name or the scores of another export."""
    if to.exists() and not to.is_dir():
        raise InputError(f"{to} is a file, not a folder for exported studies")
    target = to / export.name
    there = read_exports(to) if to.is_dir() else []
    if target.exists() and export.name not in {one.name for one in there}:
        raise InputError(f"{target} exists and is not an exported study; take another --name")
    digest = scores_digest(export)
    for one in there:
        if one.name == export.name and replace_old:
            continue
        if scores_digest(one) == digest:
            raise InputError(f"the scores of this study are in {to} already, as {one.name}")
        if one.name == export.name:
            raise InputError(f"{target} is another study's; take another --name, or --replace it")
        if counts_twice(export, one):
            raise InputError(
                f"{one.name} is of the data set {one.data_set} too, which counts once: take --kind variant, or "
                "name another --data-set"
            )
