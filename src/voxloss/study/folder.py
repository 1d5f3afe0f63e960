"""A study's folder: its configuration, data set, folds and runs, as files that every stage reads.

The layout is described in docs/study-folder.md.
"""

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from voxloss.config.files import load_config, to_plain
from voxloss.config.losses import LossChoice, loss_choices
from voxloss.config.schema import StudyConfig
from voxloss.data.case import Case
from voxloss.data.dataset import Dataset, data_digest, dataset_from_json, dataset_to_json
from voxloss.data.folds import Split, split_of
from voxloss.utilities.errors import InputError
from voxloss.utilities.files import write_json, write_text
from voxloss.utilities.machine import environment

STATES = ("pending", "running", "done", "failed", "diverged")
FINISHED = ("done", "diverged")  # a failed run is tried again

# Values that stand for what is settled from the data when a study is made.
SETTLED_WHEN_MADE = (
    ("data.root", ""),
    ("patches.size", None),
    ("preparation.spacing_mm", "median"),
    ("comparison.primary_class", None),
    ("comparison.demonstration", False),
)


@dataclass(frozen=True)
class Run:
    """One training: a loss, the fold that is scored, and the seed of weights and patches."""

    loss: LossChoice
    fold: int
    seed: int

    def __str__(self) -> str:
        return f"{self.loss.key}, fold {self.fold}, seed {self.seed}"


@dataclass(frozen=True)
class Study:
    """An open study: what study.yaml, dataset.json and folds.json say."""

    folder: Path
    config: StudyConfig
    dataset: Dataset
    folds: Sequence[Sequence[str]]
    patients: Mapping[str, str]

    @classmethod
    def open(cls, folder: Path) -> "Study":
        """Read a study's folder.

        Raises:
            InputError: it is no study, or one of its files is damaged.
        """
        if not (folder / "study.yaml").is_file():
            raise InputError(f"{folder} is not a study: it has no study.yaml.")
        if is_imported(folder):
            raise InputError(
                f"{folder} holds imported scores, which can be reported (voxloss report {folder}) but not run."
            )
        try:
            config = _config_of(folder)
            content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
            folds = json.loads((folder / "folds.json").read_text(encoding="utf-8"))
            return cls(folder, config, dataset_from_json(content), folds["folds"], folds.get("patients", {}))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{folder} is a damaged study: {error}") from error

    def runs(self) -> list[Run]:
        """All runs, fold by fold, so that a study that is cut short has every loss on the folds it finished."""
        return [
            Run(choice, fold, seed)
            for seed in self.config.comparison.seeds
            for fold in range(len(self.folds))
            for choice in loss_choices(self.config)
        ]

    def run_folder(self, run: Run) -> Path:
        return self.folder / "runs" / run.loss.key / f"fold-{run.fold}" / f"seed-{run.seed}"

    def split(self, fold: int) -> Split:
        """The cases of a fold; some training cases are set aside where the weights are selected on them."""
        setting = self.config.splits
        inner = setting.inner_share if self.config.training.selection == "inner" else 0.0
        return split_of(self.folds, fold, setting.seed, inner, self.patients)

    def case(self, case_id: str) -> Case:
        return next(case for case in self.dataset.cases if case.case_id == case_id)

    def prepared_folder(self, case_id: str) -> Path:
        index = json.loads((self.folder / "prepared" / "index.json").read_text(encoding="utf-8"))
        return self.folder / "prepared" / index[case_id]

    def status(self, run: Run) -> dict[str, Any]:
        """What the run's status.json says; a run without one is pending."""
        try:
            return json.loads((self.run_folder(run) / "status.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return {"state": "pending", "epoch": 0}
        except ValueError as error:
            raise InputError(f"{self.run_folder(run) / 'status.json'} is damaged: {error}") from error

    def write_status(self, run: Run, state: str, **details: Any) -> None:
        """Write status.json: state, what identifies the run, and details over those written before."""
        assert state in STATES
        status = {"reason": None, **self.status(run), "state": state}
        status |= {"loss": run.loss.key, "parameters": run.loss.parameters, "fold": run.fold, "seed": run.seed}
        status |= {"epochs": self.config.training.epochs, **details}
        write_json(self.run_folder(run) / "status.json", status)

    def is_locked(self) -> bool:
        """Whether some process is at work on the study."""
        with (self.folder / ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False
            except BlockingIOError:
                return True


def is_imported(folder: Path) -> bool:
    """Whether a study's folder was written by `voxloss import`: it has scores from elsewhere, and nothing to run."""
    try:
        content = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return isinstance(content, dict) and "imported" in content


def write_study(
    folder: Path, config: StudyConfig, dataset: Dataset, folds: Sequence[Sequence[str]], patients: Mapping[str, str]
) -> Study:
    """Write a new study's files; study.yaml comes last and makes the folder a study."""
    write_json(folder / "dataset.json", dataset_to_json(dataset) | {"digest": data_digest(dataset)})
    known = {case_id: patients[case_id] for ids in folds for case_id in ids if case_id in patients}
    content = {"seed": config.splits.seed, "folds": [list(ids) for ids in folds], "patients": known}
    write_json(folder / "folds.json", content)
    _write_config(folder, config)
    return Study.open(folder)


def extend_study(study: Study, config: StudyConfig) -> Study:
    """Add the losses and seeds of `config` that the study lacks, and take over how it is executed.

    Raises:
        InputError: `config` differs from the study's in what decides its numbers; the message names the first key.
    """
    for key, old, new in _differences(to_plain(study.config), to_plain(config)):
        if (key, new) not in SETTLED_WHEN_MADE:
            raise InputError(
                f"{study.folder} was made with {key} = {old!r}, not {new!r}; give that value or another --study folder."
            )
    comparison = study.config.comparison
    known = [choice.key for choice in loss_choices(study.config)]
    asked = zip(config.comparison.losses, loss_choices(config), strict=True)
    losses = [*comparison.losses, *(loss for loss, choice in asked if choice.key not in known)]
    seeds = [*comparison.seeds, *(seed for seed in config.comparison.seeds if seed not in comparison.seeds)]
    interval = config.comparison.interval
    comparison = replace(comparison, losses=tuple(losses), seeds=tuple(seeds), interval=interval)
    extended = replace(study.config, comparison=comparison, execution=config.execution)
    if extended != study.config:
        _write_config(study.folder, extended)
    return replace(study, config=extended)


def _differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    free = ("name", "execution", "comparison.losses", "comparison.seeds", "comparison.interval")
    if key in free:
        return
    if isinstance(old, dict) and isinstance(new, dict) and key != "data.options":
        for name in old:
            yield from _differences(old[name], new.get(name), f"{key}.{name}".strip("."))
    elif old != new:
        yield key, old, new


def _write_config(folder: Path, config: StudyConfig) -> None:
    content = {"config": to_plain(config), "environment": environment()}
    write_text(folder / "study.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _config_of(folder: Path) -> StudyConfig:
    content = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
    if "environment" not in content:  # it is written last: a file that is cut off may still be YAML
        raise ValueError("study.yaml is not whole")
    arguments: list[str] = []
    for name, value in content["config"].items():
        arguments += [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return load_config(None, arguments)
