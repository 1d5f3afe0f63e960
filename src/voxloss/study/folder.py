"""The folder of a study: where every file lies, and the only code that reads and writes those that stages share.

docs/study-folder.md describes the layout. `voxloss.study.study` interprets the content.
"""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import yaml

from voxloss.config.losses import LossChoice
from voxloss.data.dataset import Dataset, data_digest, dataset_from_json, dataset_to_json
from voxloss.data.formats import MASK_ENDINGS, content_digest, exists, mask_ending
from voxloss.study.searches import Search
from voxloss.training.history import Epoch, read_history
from voxloss.utilities.errors import InputError
from voxloss.utilities.files import read_whole, write_json, write_text

if TYPE_CHECKING:
    import pandas as pd

    from voxloss.evaluation.learned import Learned

FORMAT = 2  # of the folder. 1 is that of study.yaml files without a number.

State = Literal["pending", "running", "done", "failed", "diverged", "pruned"]
FINISHED: tuple[State, ...] = ("done", "diverged", "pruned")  # a failed run is tried again
ENDED: tuple[State, ...] = (*FINISHED, "failed")


@dataclass(frozen=True)
class Run:
    """One training: a loss, the fold that is scored, and the seed of weights and patches.

    Of a search for settings also the number of the trial, which is judged on inner cases and scores no fold. In a study
    of several networks also the network's key.
    """

    loss: LossChoice
    fold: int
    seed: int
    trial: int | None = None
    network: str | None = None

    @property
    def asked_by(self) -> str:
        """The key of the loss that needs it: for a trial, of the loss as tuned."""
        return self.loss.key if self.trial is None else replace(self.loss, tuned=True).key

    def __str__(self) -> str:
        part = f"seed {self.seed}" if self.trial is None else f"trial {self.trial}"
        where = "" if self.network is None else f"{self.network}, "
        return f"{where}{self.loss.key}, fold {self.fold}, {part}"


@dataclass(frozen=True)
class RunStatus:
    """The state of a run.

    Args:
        run: The run.
        state: "done" and "diverged" runs are finished, and so are "pruned" trials, which stopped early; a "failed" one
            is tried again by the next `voxloss run`.
        epoch: Finished epochs.
        epochs: Epochs that the run will have.
        reason: Why it failed, diverged or waits.
        seconds: Duration, prediction and scoring included.
        peak_memory: Bytes; None where unknown.
        batch_digest: Digest of all training batches, by which the batches of two losses are compared.
        weight_digest: Digest of the initial weights, likewise; None of runs of earlier versions.
        environments: Versions and machines that it was trained with, in order, several if it moved while it was
            trained; empty of runs of earlier versions.
        collapsed: Classes that are in the scored cases and were never predicted.
        setting: Learning rate and parameters that a search chose; None: those of the study and its list of losses.
        value: Of a finished trial, the mean foreground Dice on inner cases.
        takeovers: How often it was taken over from a process that was dead or silent.
    """

    run: Run
    state: State = "pending"
    epoch: int = 0
    epochs: int = 0
    reason: str | None = None
    seconds: float = 0.0
    peak_memory: int | None = None
    batch_digest: str | None = None
    weight_digest: str | None = None
    environments: tuple[Mapping[str, Any], ...] = ()
    collapsed: tuple[str, ...] = ()
    setting: Mapping[str, Any] | None = None
    value: float | None = None
    takeovers: int = 0

    @property
    def loss(self) -> str:
        """The loss's key."""
        return self.run.loss.key

    @property
    def fold(self) -> int:
        """The fold that is scored."""
        return self.run.fold

    @property
    def seed(self) -> int:
        """The seed of weights and patches."""
        return self.run.seed


@dataclass(frozen=True)
class Description:
    """The content of study.yaml.

    Args:
        config: The settled configuration in plain form; of imported scores name and comparison alone.
        environment: Versions and machine that created the study; each run has its own.
        imported: Where scores were imported from; None: the study trains its runs itself.
        format: Version of the folder's format.
    """

    config: dict[str, Any]
    environment: dict[str, Any]
    imported: dict[str, Any] | None = None
    format: int = FORMAT


@dataclass(frozen=True)
class RunFolder:
    """The files of a run."""

    path: Path

    @property
    def status_file(self) -> Path:
        """State, progress and what identifies the run."""
        return self.path / "status.json"

    @property
    def history_file(self) -> Path:
        """A row per epoch."""
        return self.path / "history.csv"

    @property
    def checkpoint_file(self) -> Path:
        """The training state after the last finished epoch."""
        return self.path / "checkpoint.pt"

    @property
    def best_file(self) -> Path:
        """The selected weights, unless they are those of the last epoch."""
        return self.path / "best.pt"

    @property
    def scores_file(self) -> Path:
        """The run's part of the study's scores."""
        return self.path / "scores.csv"

    @property
    def lesions_file(self) -> Path:
        """The lesions of the scored cases: found, missed and invented; earlier versions wrote none."""
        return self.path / "lesions.csv"

    @property
    def counts_file(self) -> Path:
        """The voxels of the scored cases, and of inner ones, by predicted probability; earlier versions wrote none."""
        return self.path / "probability_counts.npz"

    @property
    def error_file(self) -> Path:
        """The traceback of an unexpected failure."""
        return self.path / "error.txt"

    def prediction(self, case_id: str, like: Path | None = None) -> Path:
        """The mask predicted for a case: the file that is there, or with `like`, the one to be written on its grid."""
        endings = (*MASK_ENDINGS, "") if like is None else (mask_ending(like),)  # "" of a folder of slices
        files = [self.path / "predictions" / f"{case_id}{ending}" for ending in endings]
        return next((file for file in files if exists(file)), files[0])

    def probabilities(self, case_id: str) -> Path:
        """The probabilities predicted for a case, where the study keeps them."""
        return self.path / "probabilities" / f"{case_id}.nii.gz"

    def history(self) -> list[Epoch]:
        """The epochs that the run has finished. Raises InputError when the file is damaged."""
        return read_history(self.history_file)


@dataclass(frozen=True)
class StudyFolder:
    """The files of a study.

    Every method that reads raises InputError, naming the file, when it is missing or damaged.

    Args:
        path: The study's folder.
        network: Of a study of several networks, the key of the one whose runs, scores, searches and retired losses are
            meant; data, folds and prepared cases are those of the study.
    """

    path: Path
    network: str | None = None

    @property
    def own(self) -> Path:
        """The folder of what belongs to a network: runs, scores, searches, retired losses."""
        return self.path if self.network is None else self.path / "networks" / self.network

    @property
    def description_file(self) -> Path:
        """The file that makes a folder a study: configuration, versions and machine."""
        return self.path / "study.yaml"

    @property
    def dataset_file(self) -> Path:
        """Classes, mask values and the files of every case."""
        return self.path / "dataset.json"

    @property
    def folds_file(self) -> Path:
        """The assignment of cases to folds."""
        return self.path / "folds.json"

    @property
    def scores_file(self) -> Path:
        """The long table of all scores."""
        return self.own / "scores.csv"

    @property
    def race_file(self) -> Path:
        """The decisions of a race."""
        return self.path / "race.json"

    @property
    def retired_file(self) -> Path:
        """The losses that the user stopped."""
        return self.own / "retired.json"

    @property
    def blind_file(self) -> Path:
        """The Dice of the best masks that do not look at the image."""
        return self.path / "blind.json"

    @property
    def own_losses_file(self) -> Path:
        """The losses of the user's own."""
        return self.path / "losses.json"

    @property
    def learned_file(self) -> Path:
        """Which losses have learned which classes."""
        return self.own / "learned.json"

    @property
    def prepared(self) -> Path:
        """The folder of prepared cases."""
        return self.path / "prepared"

    @property
    def preparation_file(self) -> Path:
        """What is to be prepared, until the study is created."""
        return self.path / ".claims" / "preparation.json"

    @property
    def report(self) -> Path:
        """The folder of the report; that of a network lies within the study's."""
        report = self.path / "report"
        return report if self.network is None else report / "networks" / self.network

    @property
    def page(self) -> Path:
        """The report's page."""
        return self.report / "index.html"

    @property
    def stop_file(self) -> Path:
        """The last `voxloss stop`: processes that were started before it leave."""
        return self.path / ".stop"

    @property
    def execution(self) -> Path:
        """The folder of what executors note down: jobs and logs."""
        return self.path / ".execution"

    def run(self, run: Run) -> RunFolder:
        """The folder of a run: the published one, or of a run that has not ended that of its newest attempt."""
        published = self.published(run)
        if published.path.is_dir():
            return published
        attempts = self.attempts(run)
        return attempts[-1] if attempts else published

    def published(self, run: Run) -> RunFolder:
        """The folder of the result of a run: runs/LOSS/fold-K/seed-S; of a trial: tuning/LOSS/fold-K/trial-NNN.

        In a study of several networks, runs/ and tuning/ lie in networks/NETWORK/. The identity of a run is read from
        its status, never from its path.
        """
        files = replace(self, network=run.network)
        if run.trial is not None:
            return RunFolder(files.search_file(run.loss, run.fold).parent / f"trial-{run.trial:03d}")
        return RunFolder(files.own / "runs" / run.loss.key / f"fold-{run.fold}" / f"seed-{run.seed}")

    def events(self, run: Run) -> Path:
        """The folder of TensorBoard's files of a run, under one name before and after the run is published."""
        folder = self.published(run).path.relative_to(self.path)
        return self.path.joinpath("events", *folder.parts[1:])  # events/LOSS/fold-K/seed-S

    def search_file(self, loss: LossChoice, fold: int) -> Path:
        """The record of the search for the setting of a loss on a fold; its trials lie beside it."""
        return self.own / "tuning" / loss.listed.key / f"fold-{fold}" / "search.json"

    def place(self, run: Run) -> Path:
        """The folder of a run's claims and attempts."""
        published = self.published(run).path
        return published.with_name(f".{published.name}")

    def attempt(self, run: Run, generation: int) -> RunFolder:
        """The folder in which the owner of a claim works on a run."""
        return RunFolder(self.place(run) / f"attempt-{generation:04}")

    def attempts(self, run: Run) -> list[RunFolder]:
        """The folders of all attempts that are there, in order."""
        return [RunFolder(path) for path in sorted(self.place(run).glob("attempt-*"))]

    @classmethod
    def around(cls, path: Path) -> "StudyFolder | None":
        """The study that a path lies in; None where no folder above it is a study."""
        studies = (cls(folder) for folder in path.resolve().parents)
        return next((study for study in studies if study.description_file.is_file()), None)

    def is_study(self) -> bool:
        """Whether the folder is a study.

        A network file system may remember for a while that a file was missing. It looks at a folder that is listed.
        """
        if self.description_file.is_file():
            return True
        with suppress(OSError):
            return self.description_file in self.path.iterdir()
        return False

    def is_imported(self) -> bool:
        """Whether the folder holds imported scores; False where it is no study or damaged."""
        try:
            return self.read_description().imported is not None
        except InputError:
            return False

    def read_description(self) -> Description:
        """Read study.yaml, also of an earlier format; a later one is refused."""
        if not self.is_study():
            raise InputError(f"{self.path} is not a study: it has no study.yaml.")
        content = _read(self.description_file)
        version = content.get("format", 1)
        if not isinstance(version, int) or version < 1:
            raise InputError(f"{self.description_file} is damaged: its format is {version!r}, not a number.")
        if version > FORMAT:
            raise InputError(
                f"{self.path} was written by a later version of voxloss (format {version}; this one reads up to "
                f"{FORMAT}); install that version."
            )
        return Description(content["config"], content["environment"], content.get("imported"), version)

    def write_description(self, description: Description) -> None:
        """Write study.yaml, which makes the folder a study: write the other files first."""
        content: dict[str, Any] = {"format": description.format}
        if description.imported is not None:
            content["imported"] = description.imported
        content |= {"config": description.config, "environment": description.environment}
        write_text(self.description_file, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    def read_dataset(self) -> tuple[Dataset, str | None]:
        """The data set, and the digest of its images and masks where it was recorded."""
        content = _read(self.dataset_file)
        try:
            return dataset_from_json(content), content.get("digest")
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{self.dataset_file} is not a data set's description: {error!r}") from None

    def read_digests(self) -> dict[str, tuple[str, ...]]:
        """For every case the digests of its images and its mask; empty where they are not recorded."""
        try:
            return {case_id: tuple(digests) for case_id, digests in _read(self.dataset_file).get("files", {}).items()}
        except (TypeError, AttributeError) as error:
            raise InputError(f"{self.dataset_file} is damaged: {error!r}") from None

    def write_dataset(
        self, dataset: Dataset, digests: Mapping[str, Sequence[str]] | None = None, *, digest: bool = True
    ) -> None:
        """Write dataset.json.

        Args:
            dataset: The data set.
            digests: For every case the digests of its images and its mask; None: of the files as they are now.
            digest: False where the files are not at hand, so that no digest is recorded.
        """
        content = dataset_to_json(dataset)
        if digest:
            known = digests or {case.case_id: tuple(map(content_digest, case.files)) for case in dataset.cases}
            files = {case_id: list(of_case) for case_id, of_case in known.items()}
            content |= {"digest": data_digest(files), "files": files}
        write_json(self.dataset_file, content)

    def read_folds(self) -> tuple[tuple[tuple[str, ...], ...], dict[str, str]]:
        """The cases of each fold, and the patient of every case whose patient is known."""
        content = _read(self.folds_file)
        try:
            return tuple(tuple(ids) for ids in content["folds"]), dict(content.get("patients", {}))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self.folds_file} is not an assignment to folds: {error!r}") from None

    def write_folds(
        self, folds: Sequence[Sequence[str]], seed: int | None = None, patients: Mapping[str, str] | None = None
    ) -> None:
        """Write folds.json; of imported results and of folds from the data there is no seed."""
        known = {case: patients[case] for ids in folds for case in ids if case in patients} if patients else {}
        write_json(self.folds_file, {"seed": seed, "folds": [list(ids) for ids in folds], "patients": known})

    def read_prepared(self) -> dict[str, Path]:
        """The folder of every prepared case, by the case's id."""
        path = self.prepared / "index.json"
        index = _read(path)
        for name in index.values():
            if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
                raise InputError(f"{path} is damaged: {name!r} is not the name of a folder.")
        return {case_id: self.prepared / name for case_id, name in index.items()}

    def write_prepared(self, folders: Mapping[str, Path]) -> None:
        """Write which folder of prepared/ belongs to which case."""
        write_json(self.prepared / "index.json", {case_id: folder.name for case_id, folder in folders.items()})

    def read_preparation(self) -> tuple[dict[str, Any], Dataset] | None:
        """The configuration in plain form and the data set of a study that is being prepared; None if none is."""
        try:
            content = _content(self.preparation_file)
            return content["config"], dataset_from_json(content["dataset"])
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{self.preparation_file} is damaged: {error!r}") from None

    def write_preparation(self, config: Mapping[str, Any], dataset: Dataset) -> None:
        """Write what the processes that help to prepare a study need."""
        write_json(self.preparation_file, {"config": dict(config), "dataset": dataset_to_json(dataset)})

    def read_looks(self) -> list[dict[str, Any]]:
        """The looks of a race, a mapping for each; none before the first one."""
        if not self.race_file.is_file():
            return []
        looks = _read(self.race_file).get("looks")
        if not isinstance(looks, list) or not all(isinstance(look, dict) for look in looks):
            raise InputError(f"{self.race_file} is damaged: it lacks the list `looks`.")
        return looks

    def write_looks(self, looks: Sequence[Mapping[str, Any]]) -> None:
        """Write the looks of a race."""
        write_json(self.race_file, {"looks": list(looks)})

    def read_retired(self) -> dict[str, dict[str, Any]]:
        """For every retired loss's key, when it was retired and with which scores; none without the file."""
        retired = _read(self.retired_file) if self.retired_file.is_file() else {}
        if not all(isinstance(record, dict) for record in retired.values()):
            raise InputError(f"{self.retired_file} is damaged: it should hold a mapping for every loss.")
        return retired

    def write_retired(self, retired: Mapping[str, Mapping[str, Any]]) -> None:
        """Write which losses are retired."""
        write_json(self.retired_file, dict(retired))

    def read_blind(self) -> dict[str, dict[str, float]]:
        """For every class, by case, the Dice of the best mask that does not look at the image; empty without a file."""
        if not self.blind_file.is_file():
            return {}
        try:
            dice = _read(self.blind_file)["dice"]
            return {name: {case: float(value) for case, value in cases.items()} for name, cases in dice.items()}
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InputError(f"{self.blind_file} is damaged: {error!r}") from None

    def write_blind(self, predictor: str, dice: Mapping[str, Mapping[str, float]]) -> None:
        """Write blind.json: what predicts the masks, and their Dice by class and case."""
        write_json(self.blind_file, {"predictor": predictor, "dice": {name: dict(of) for name, of in dice.items()}})

    def read_own_losses(self) -> dict[str, dict[str, Any]]:
        """For every own loss's key its import path, title and digests of its source; none without the file."""
        losses = _read(self.own_losses_file) if self.own_losses_file.is_file() else {}
        if not all(isinstance(record, dict) for record in losses.values()):
            raise InputError(f"{self.own_losses_file} is damaged: it should hold a mapping for every loss.")
        return losses

    def write_own_losses(self, losses: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the records of the user's own losses; nothing where there are none."""
        if losses:
            write_json(self.own_losses_file, dict(losses))

    def read_learned(self) -> list[dict[str, Any]]:
        """What each loss had learned of each class when the scores were merged last; none without the file."""
        if not self.learned_file.is_file():
            return []
        learned = _read(self.learned_file).get("learned")
        wanted = {"loss", "class_name", "learned", "predicted", "predictions"}
        if not isinstance(learned, list) or not all(isinstance(row, dict) and wanted <= set(row) for row in learned):
            raise InputError(f"{self.learned_file} is damaged: it lacks the list `learned`.")
        return learned

    def write_learned(self, learned: "Sequence[Learned]") -> None:
        """Write what each loss has learned of each class."""
        rows = [{**asdict(one), "learned": one.learned} for one in learned]
        write_json(
            self.learned_file,
            {"learned": [row | {"blind": None if math.isnan(row["blind"]) else row["blind"]} for row in rows]},
        )

    def read_status(self, run: Run, attempt: RunFolder | None = None) -> RunStatus:
        """Read the state of a run; pending if it has no status.json.

        Args:
            run: The run.
            attempt: The folder of one of its attempts, whose status is read as it stands there.
        """
        folder = attempt or self.run(run)
        try:
            status = _read_status(run, folder.status_file)
        except FileNotFoundError:
            if attempt is None and self.run(run) != folder:  # it was published at this moment
                return self.read_status(run)
            return RunStatus(run)
        if attempt is not None:
            return status
        if status.state in ENDED and folder != self.published(run):
            return replace(status, state="running")  # it ends by being published
        return status

    def network_of(self, run_folder: Path) -> str | None:
        """The network of the run in a folder, as its status tells; None in a study of one network."""
        network = _read(RunFolder(run_folder).status_file).get("network")
        return None if network is None else str(network)

    def write_status(self, status: RunStatus, folder: RunFolder | None = None) -> None:
        """Write status.json, in `folder` or where the run is now."""
        content = asdict(status)
        del content["run"]
        run = status.run
        identity = {"loss": run.loss.key, "parameters": run.loss.parameters, "fold": run.fold, "seed": run.seed}
        if run.trial is not None:
            identity["trial"] = run.trial
        if run.network is not None:
            identity = {"network": run.network, **identity}
        file = (folder or self.run(run)).status_file
        write_json(file, {"state": content.pop("state"), **identity, **content})

    def read_search(self, loss: LossChoice, fold: int) -> Search:
        """The search for the setting of a loss on a fold; without trials before it begins."""
        file = self.search_file(loss, fold)
        if not file.is_file():
            return Search()
        try:
            return Search.of(_read(file))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file} is damaged: {error!r}.") from None

    def write_search(self, loss: LossChoice, fold: int, search: Search) -> None:
        """Write search.json, whole or not at all; one process at a time does."""
        write_json(self.search_file(loss, fold), search.to_plain())

    def read_scores(self) -> "pd.DataFrame":
        """The long table of scores."""
        from voxloss.evaluation.scores import read_scores  # pandas takes half a second, and `status` needs none of it

        return read_scores(self.scores_file)

    def stop_token(self) -> str:
        """What the last `voxloss stop` wrote; empty where there was none."""
        try:
            return read_whole(self.stop_file, str.strip)
        except FileNotFoundError:
            return ""


def _read_status(run: Run, file: Path) -> RunStatus:
    content = _content(file)
    details = {item.name: content[item.name] for item in fields(RunStatus) if content.get(item.name) is not None}
    lists = {name: tuple(details.get(name, ())) for name in ("collapsed", "environments")}
    status = RunStatus(run, **(details | lists))
    if status.state not in get_args(State):
        raise InputError(f"{file} is damaged: it has the unknown state {status.state!r}.")
    return status


def _read(path: Path) -> dict[str, Any]:
    try:
        return _content(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing.") from None


def _content(path: Path) -> dict[str, Any]:
    """Read a file that others may write, move or remove in this moment; raises FileNotFoundError where it is missing.

    Whether it is there is not asked in a call of its own: the answer may be of another moment, or one that a network
    file system remembers.
    """
    try:
        content = read_whole(path, _parsed_description if path.suffix == ".yaml" else json.loads)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged: it should hold a mapping, but holds {type(content).__name__}.")
    return content


def _parsed_description(text: str) -> Any:
    """Return the content of study.yaml. The environment is written last: a file that was cut off may still be YAML."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(error) from None
    if isinstance(content, dict) and content.get("format", FORMAT) in range(FORMAT + 1):
        lacking = [key for key in ("config", "environment") if not isinstance(content.get(key), dict)]
        if lacking:
            raise ValueError(f"it is not whole: it lacks `{lacking[0]}`")
    return content
