"""An open study: its configuration, data set, folds and runs, as its files say."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxloss.config.axes import with_three_axes
from voxloss.config.files import config_from, to_plain
from voxloss.config.losses import LossChoice, loss_choices
from voxloss.config.metrics import MetricChoice, agree, metric_choices
from voxloss.config.networks import NetworkChoice, network_choices
from voxloss.config.schema import StudyConfig
from voxloss.config.settled import SettledComparison, SettledConfig, settled_comparison
from voxloss.config.tuning import LEARNING_RATE, Setting, Tuning
from voxloss.data.case import Case
from voxloss.data.dataset import Dataset
from voxloss.data.folds import Split, split_of
from voxloss.data.readers import OPTION
from voxloss.evaluation.lesion_rules import LesionRules
from voxloss.study.claims import REPORT, hold, live_claims, of_study
from voxloss.study.folder import ENDED, FINISHED, FORMAT, Description, Run, RunFolder, RunStatus, StudyFolder
from voxloss.study.rounds import Race, looks_of
from voxloss.study.searches import Search, Trial
from voxloss.utilities.errors import InputError
from voxloss.utilities.machine import environment
from voxloss.utilities.text import did_you_mean, shell_word

if TYPE_CHECKING:
    import pandas as pd

# Values of a new configuration that an existing study has settled from its data.
OPEN_VALUES = (
    ("data.layout", "auto"),
    ("patches.size", None),
    ("preparation.spacing_mm", "median"),
    ("training.precision", "auto"),
    ("comparison.primary_class", None),
    ("comparison.demonstration", False),
    ("comparison.look", False),
    ("evaluation.lesions.size_limits_ml", None),
    ("evaluation.lesions.size_limits_mm2", None),
)

# A grid may go on as a race, whose rounds take the runs that are there. The other way would look at the data twice.
RACE = ("comparison.design", "race")

TUNING = "comparison.tuning"
MAPPINGS = ("data.options", TUNING)  # compared whole

# Keys that may differ from those of an existing study. Of data.root the content is compared (study/sources.py).
FREE_KEYS = (
    "name", "data.root", "execution", "comparison.losses", "comparison.seeds", "comparison.networks",
    "comparison.interval",
)  # fmt: skip


@dataclass(frozen=True)
class Study:
    """A study: the content of its files.

    Args:
        files: Its folder.
        description: The content of study.yaml.
        parsed: The configuration with its types. Of imported scores it is meaningless but for name, comparison and
            `lesion_rules`.
        dataset: Its data set.
        data_digest: Digest of all images and masks; None where it is not recorded.
        folds: The cases that each fold holds out.
        patients: The patient of every case whose patient is known.
    """

    files: StudyFolder
    description: Description
    parsed: StudyConfig
    dataset: Dataset
    data_digest: str | None
    folds: Sequence[Sequence[str]]
    patients: Mapping[str, str]

    @property
    def networks(self) -> list[NetworkChoice]:
        """The networks that are compared; none where there is one alone, as in the part of a network."""
        return self.parsed.networks()

    def parts(self) -> "list[Study]":
        """Return the study of every network by itself; of a study of one network, the study.

        A part has the runs and scores of its network, and its configuration has that network alone, so that all that
        works on a study of one network works on a part.
        """
        if not self.networks:
            return [self]
        return [
            replace(
                self,
                files=replace(self.files, network=choice.key),
                description=replace(self.description, config=to_plain(parsed)),
                parsed=parsed,
            )
            for choice, parsed in zip(self.networks, self.parsed.per_network(), strict=True)
        ]

    def part(self, network: str | None) -> "Study":
        """Return the part of a network by its key; of a study of one network, None gives the study.

        Raises:
            InputError: The study has no such network, or several, and none is named.
        """
        keys = [choice.key for choice in self.networks]
        if network == self.files.network:
            if keys:
                raise InputError(f"{self.folder} compares networks; name one with --network: {', '.join(keys)}.")
            return self
        if network not in keys:
            those = f"it has {', '.join(keys)}" if keys else "it does not compare networks"
            raise InputError(f"{self.folder} has no network {network!r}; {those}{did_you_mean(str(network), keys)}.")
        return self.parts()[keys.index(network)]

    @classmethod
    def open(cls, folder: Path) -> "Study":
        """Read a study's folder, also one with imported scores.

        Raises:
            InputError: The folder is not a study, one of its files is damaged, or a later version wrote it.
        """
        files = StudyFolder(Path(folder))
        description = files.read_description()
        content = description.config
        if isinstance(training := content.get("training"), dict):
            content = {**content, "training": {"precision": "float32", **training}}  # of a version without this key
        parsed = config_from(content, where=f"{files.description_file} is damaged: ")
        dataset, digest = files.read_dataset()
        folds, patients = files.read_folds()
        for metric in metric_choices(parsed.evaluation.metrics):
            from voxloss.evaluation.metrics import register_metric  # SciPy, which few studies make `status` wait for

            register_metric(metric.name, metric.range, metric.higher_is_better, metric.unit)
        return cls(files, description, parsed, dataset, digest, folds, patients)

    @property
    def folder(self) -> Path:
        """The path of the study's folder."""
        return self.files.path

    @property
    def imported(self) -> bool:
        """Whether the scores were imported (`voxloss import`), so that no run can be executed."""
        return self.description.imported is not None

    @property
    def name(self) -> str:
        """The study's name."""
        return self.parsed.name

    @cached_property
    def comparison(self) -> SettledComparison:
        """What is compared."""
        return settled_comparison(self.parsed.comparison)

    @cached_property
    def config(self) -> SettledConfig:
        """The settled configuration.

        Raises:
            InputError: The scores were imported.
        """
        if self.imported:
            raise InputError(
                f"{self.folder} holds imported scores, which can be reported (voxloss report "
                f"{shell_word(self.folder)}) but not run."
            )
        return SettledConfig.of(self.parsed)

    @property
    def lesion_rules(self) -> LesionRules | None:
        """What a lesion is and when two match; None for imported scores that do not say so."""
        known = not self.imported or "evaluation" in self.description.config
        return self.parsed.evaluation.lesions if known else None

    @cached_property
    def own_metrics(self) -> list[MetricChoice]:
        """The study's metrics of the user's own."""
        return metric_choices(self.parsed.evaluation.metrics)

    @cached_property
    def losses(self) -> list[LossChoice]:
        """The study's losses, in order; with a search, each as listed and, after all of these, each as tuned."""
        return self.comparison.compared()

    @cached_property
    def tuning(self) -> Tuning | None:
        """What is searched for every loss and fold; None where nothing is."""
        return self.comparison.search()

    @cached_property
    def digests(self) -> Mapping[str, Sequence[str]]:
        """For every case the digests of its images and its mask; empty if an earlier version created the study."""
        return self.files.read_digests()

    @property
    def loss_keys(self) -> list[str]:
        """The keys of the study's losses: their folders' names and their values in the tables."""
        return [choice.key for choice in self.losses]

    def runs(self) -> list[Run]:
        """Return all runs, fold by fold, so that a study that is stopped early has every loss on its finished folds.

        Of a race: those that it has had and may still have. Of a retired loss: those that are finished.
        """
        if self.networks:
            order = {place: number for number, place in enumerate(self.rounds())}
            every = [run for part in self.parts() for run in part.runs()]
            return sorted(every, key=lambda run: order[run.seed, run.fold])
        if self.comparison.design == "race":
            return self.race().runs()
        network = self.files.network
        runs = [Run(loss, fold, seed, network=network) for seed, fold in self.rounds() for loss in self.losses]
        return [run for run in runs if run.loss.key not in self.retired or self.status(run).state in FINISHED]

    @cached_property
    def retired(self) -> Mapping[str, dict[str, Any]]:
        """For every loss that the user retired: when, and with which scores."""
        return self.files.read_retired()

    @cached_property
    def blind(self) -> Mapping[str, Mapping[str, float]]:
        """For every class the Dice of the best mask that does not look at the image, by case; empty where unknown."""
        return self.files.read_blind()

    def rounds(self) -> list[tuple[int, int]]:
        """Seed and fold of every run that is planned for each loss."""
        held_out = [fold for fold, ids in enumerate(self.folds) if ids]  # imported results may lack some folds
        return [(seed, fold) for seed in self.comparison.seeds for fold in held_out]

    def race(self) -> Race:
        """Return the state of the race as its file says now."""
        looks = looks_of(self.files.read_looks(), self.files.race_file)
        rounds = tuple(self.rounds())
        return Race(looks, rounds, tuple(self.losses), len({fold for _, fold in rounds}))

    def run_folder(self, run: Run) -> RunFolder:
        """The files of a run."""
        return self.files.run(run)

    def split(self, fold: int) -> Split:
        """The cases of a fold; some training cases are set aside where weights or thresholds are chosen on them."""
        setting = self.config.splits
        chosen_inside = "inner" in (self.config.training.selection, self.config.evaluation.thresholds_from)
        inner = setting.inner_share if chosen_inside else 0.0
        return split_of(self.folds, fold, setting.seed, inner, self.patients)

    def trial_split(self, fold: int) -> Split:
        """The cases of a fold for trials: they train on a part of its training cases and are judged on the rest."""
        setting = self.config.splits
        return split_of(self.folds, fold, setting.seed, setting.inner_share, self.patients)

    def search(self, loss: LossChoice, fold: int, network: str | None = None) -> Search:
        """Return the search for the setting of a loss on a fold, and for a network, as its file says now."""
        return replace(self.files, network=network or self.files.network).read_search(loss, fold)

    def trial_run(self, loss: LossChoice, fold: int, trial: Trial, network: str | None = None) -> Run:
        """The training of a trial; all trials have the first seed, so that those of a fold see the same batches."""
        return Run(loss.listed, fold, self.comparison.seeds[0], trial.number, network or self.files.network)

    def setting_of(self, run: Run) -> Setting:
        """Return learning rate and parameters that a search chose for a run or trial; empty for a loss as listed.

        Raises:
            InputError: The search for the run's setting is not finished.
        """
        if run.network != self.files.network:
            return self.part(run.network).setting_of(run)
        if run.trial is not None:
            return self.search(run.loss, run.fold).trials[run.trial].setting
        if not run.loss.tuned:
            return {}
        setting = self.search(run.loss, run.fold).setting
        if setting is None:
            raise InputError(f"{run} has no setting yet: the search for it is not finished.")
        return setting

    def parameters_of(self, run: Run) -> dict[str, Any]:
        """Return the parameters of a run's loss: those that are listed, and over them those that a search chose."""
        return run.loss.parameters | {k: v for k, v in self.setting_of(run).items() if k != LEARNING_RATE}

    def config_of(self, run: Run) -> SettledConfig:
        """Return the study's configuration with the network, learning rate and epochs of a run or trial."""
        if run.network != self.files.network:
            return self.part(run.network).config_of(run)
        training = self.config.training
        rate = self.setting_of(run).get(LEARNING_RATE, training.learning_rate)
        trial_epochs = self.tuning.epochs if run.trial is not None and self.tuning is not None else None
        training = replace(training, learning_rate=rate, epochs=trial_epochs or training.epochs)
        return replace(self.config, training=training)

    def fold_of(self, case_id: str) -> int:
        """The fold that holds a case out."""
        return next(fold for fold, ids in enumerate(self.folds) if case_id in ids)

    def case(self, case_id: str) -> Case:
        """The case with this id."""
        return next(case for case in self.dataset.cases if case.case_id == case_id)

    def status(self, run: Run) -> RunStatus:
        """Return the state of a run. Raises InputError if its status file is damaged."""
        return self.files.read_status(run)

    def write_status(self, run: Run, attempt: RunFolder | None = None, **details: Any) -> None:
        """Write a run's status: `details` over what was written before, in the folder of an attempt if it is given."""
        before = self.files.read_status(run, attempt)
        known = {"epochs": self.config_of(run).training.epochs, "setting": self.setting_of(run) or None}
        self.files.write_status(replace(before, **(known | details)), attempt)

    def is_at_work(self) -> bool:
        """Return whether a process works on the study, as far as heartbeats and this machine's clock tell."""
        return bool(live_claims(self.folder))

    def scores(self) -> "pd.DataFrame":
        """Return the scores of scores.csv; if it is missing, those of all runs that have ended.

        Raises:
            InputError: The study compares networks, each of which has scores of its own (`parts`).
        """
        self.part(self.files.network)
        if self.files.scores_file.is_file():
            return self.files.read_scores()
        return _merged(self._scored)

    def merge_scores(self) -> None:
        """Merge the scores of finished and failed runs into scores.csv, and write which losses have learned what.

        Imported scores do not change.
        """
        from voxloss.evaluation.learned import learned_classes  # imports pandas
        from voxloss.evaluation.scores import write_network_scores, write_scores

        if self.imported:
            return
        if self.networks:
            for of_network in self.parts():
                of_network.merge_scores()
            files = {choice.key: replace(self.files, network=choice.key) for choice in self.networks}
            with hold(of_study(self.folder, REPORT)):  # as below
                known = {key: own.read_scores() for key, own in files.items() if own.scores_file.is_file()}
                if known:
                    write_network_scores(self.files.scores_file, known)
            return
        with hold(of_study(self.folder, REPORT)):  # else a report could put an older table in the place of a newer one
            scores = _merged(self._scored)
            if len(scores):
                write_scores(self.files.scores_file, scores)
                self.files.write_learned(learned_classes(scores, self.blind))

    def _scored(self) -> list[Path]:
        """The files with the scores of runs that have ended."""
        ended = [status for run in self.runs() if (status := self.status(run)).state in ENDED]
        parts = [(status.state, self.files.published(status.run).scores_file) for status in ended]
        # A run that failed because an image was missing has no scores; as the worst ones they would judge the loss.
        return [part for state, part in parts if state != "failed" or part.is_file()]


def _merged(parts: Callable[[], list[Path]]) -> "pd.DataFrame":
    """Merge the scores that are there, while others may begin to repeat runs that failed."""
    from voxloss.evaluation.scores import merge_scores  # imports pandas, which `voxloss status` need not wait for

    now = parts()
    while True:
        try:
            return merge_scores(now)
        except InputError:
            before, now = now, parts()
            if now == before:
                raise


def write_study(
    folder: Path,
    config: SettledConfig,
    dataset: Dataset,
    folds: Sequence[Sequence[str]],
    patients: Mapping[str, str],
    digests: Mapping[str, Sequence[str]] | None = None,
) -> Study:
    """Write a new study's files; study.yaml comes last and makes the folder a study."""
    files = StudyFolder(folder)
    files.write_dataset(dataset, digests)
    own = dataset.own_folds is not None and config.splits.from_data
    files.write_folds(folds, None if own else config.splits.seed, patients)
    (folder / "runs").mkdir(exist_ok=True)  # by which commands tell a study from a folder with a configuration
    files.write_description(Description(to_plain(config), environment()))
    return Study.open(folder)


def rewrite_config(before: Study, now: Study) -> Study:
    """Write the configuration of a study if it is another one than before, or in an earlier format.

    The versions and the machine stay those that created the study.
    """
    if now.config == before.config and before.description.format == FORMAT:
        return now
    now.files.write_description(Description(to_plain(now.config), before.description.environment))
    return Study.open(now.folder)


def extended(study: Study, config: StudyConfig) -> Study:
    """Return the study with the losses and seeds of `config` that it lacks, and the section `execution` of `config`.

    Nothing is written.

    Raises:
        InputError: `config` differs from the study's in a key that affects its numbers; the message names the first.
            Or it makes a race of a grid that has retired losses.
    """
    own_folds = study.dataset.own_folds is not None and study.config.splits.from_data and config.splits.from_data
    config = with_three_axes(config, study.dataset.flat_axis)
    options = study.config.data.options
    if OPTION in config.data.options:  # which no loss is judged by, so it may be named later
        options = options | {OPTION: config.data.options[OPTION]}
    now = replace(study.config, data=replace(study.config.data, options=options))
    if OPTION in options:
        config = replace(config, data=replace(config.data, options=config.data.options | {OPTION: options[OPTION]}))
    if agree(study.config.evaluation.metrics, config.evaluation.metrics):
        config = replace(config, evaluation=replace(config.evaluation, metrics=study.config.evaluation.metrics))
    for key, old, new in _differences(to_plain(now), to_plain(config)):
        if own_folds and key == "splits.folds":  # which the data decide
            continue
        if key == TUNING and not old:  # a search may be added to what was compared before
            continue
        if (key, new) not in (*OPEN_VALUES, RACE):
            raise InputError(
                f"{study.folder} was created with {key} = {old!r}, not {new!r}; use that value or another --study "
                "folder."
            )
    if config.comparison.design == "race" and study.comparison.design != "race" and study.retired:
        keys = " ".join(study.retired)
        raise InputError(
            f"{study.folder} has retired losses, but a race eliminates losses itself; take them up again first: "
            f"voxloss retire {shell_word(study.folder)} {keys} --undo."
        )
    networks = _extended_networks(study, config)
    known = study.loss_keys
    asked = zip(config.comparison.losses, loss_choices(config.comparison.losses), strict=True)
    losses = [*study.comparison.losses, *(loss for loss, choice in asked if choice.key not in known)]
    seeds = list(dict.fromkeys((*study.comparison.seeds, *config.comparison.seeds)))
    comparison = replace(
        study.comparison,
        losses=tuple(losses),
        seeds=tuple(seeds),
        interval=config.comparison.interval,
        design=config.comparison.design,
        tuning=config.comparison.tuning,
        networks=networks,
    )
    return replace(study, parsed=replace(now, comparison=comparison, execution=config.execution))


def _extended_networks(study: Study, config: StudyConfig) -> tuple[str | dict[str, Any], ...]:
    """Return the networks of a study with those of `config` that it lacks."""
    asked = config.comparison.networks
    if not asked or (not study.networks and [one.setting for one in config.networks()] == [study.config.network]):
        return study.comparison.networks
    if not study.networks:
        raise InputError(
            f"{study.folder} was created with one network, {study.config.network.name}; compare networks in another "
            "--study folder."
        )
    known = {choice.key: choice.setting for choice in study.networks}
    new = []
    for entry, choice in zip(asked, network_choices(asked, study.config.network), strict=True):
        before = known.setdefault(choice.key, choice.setting)
        if before is choice.setting:
            new.append(entry)
        elif before != choice.setting:
            raise InputError(
                f"{study.folder} was created with another setting of the network {choice.key}; give the changed one "
                "another label."
            )
    return (*study.comparison.networks, *new)


def _differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if key in FREE_KEYS:
        return
    if isinstance(old, dict) and isinstance(new, dict) and key not in MAPPINGS:
        for name in old:
            yield from _differences(old[name], new.get(name), f"{key}.{name}".strip("."))
    elif old != new:
        yield key, old, new
