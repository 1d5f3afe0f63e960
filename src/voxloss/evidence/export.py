"""A study as evidence: a small folder with its scores and everything that says what they are worth.

docs/evidence/format.md describes the files. This is the only code that reads and writes them.
"""

import hashlib
import itertools
import math
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from voxloss.evaluation.fold_model import Interim
from voxloss.evaluation.metrics import METRICS
from voxloss.evaluation.scores import common_scores, score_table
from voxloss.evaluation.verdict import Verdict, verdict
from voxloss.evidence.fingerprint import Fingerprint, fingerprint_from, plain_fingerprint
from voxloss.evidence.kinds import KINDS, Kind
from voxloss.utilities.errors import InputError
from voxloss.utilities.files import atomic_folder
from voxloss.utilities.text import shell_word

FORMAT = 1
DESCRIPTION, SCORES = "evidence.yaml", "scores.csv"
DIGITS = 6  # of a score

# The metrics that are exported, beside the study's primary one: shares, which need no voxel size.
METRICS_KEPT = ("dice", "precision", "recall", "lesion_recall", "lesion_precision")
IDENTITY = ["loss", "fold", "seed", "case", "class"]
FAILED = "failed"  # in the place of a value


@dataclass(frozen=True)
class LastLook:
    """What the verdict of a race is about: its last look.

    Args:
        losses: The losses in it.
        rounds: Seed and fold of the rounds until then.
        interim: What the look knew beyond the scores.
    """

    losses: tuple[str, ...]
    rounds: tuple[tuple[int, int], ...]
    interim: Interim


@dataclass(frozen=True)
class Export:
    """A study as evidence.

    Args:
        name: Its name, that of its folder.
        kind: What it is: one of `KINDS`.
        data_set: The data set. Studies of one data set are not independent.
        class_name: The class of the headline, fixed before training.
        metric: The metric of the headline, fixed before training.
        losses: Display names of the losses that have none of their own, by key; None for those of the package.
        scores: The long table, with `METRICS_KEPT` and the primary metric.
        fingerprint: How rare the classes are; None if the images were not at hand.
        source: Where the scores come from, at least `from`: "voxloss", "nnU-Net" or "a table".
        settings: The study's configuration, without paths and names of cases.
        environment: Versions and machine.
        runs: Number of runs by state, seconds spent by loss, and the machines with the number of runs of each.
        digests: Of the data, and of the batches and the initial weights of every fold and seed.
        unlearned: By class the losses that have not learned to find it (`voxloss.evaluation.learned`).
        look: Of a race, what its verdict is about; None for a grid.
        series: The dose-response series that it is a step of, each with how common the class is at this step; None: its
            share of the voxels by the fingerprint.
        notes: Sentences about the study for its page.
    """

    name: str
    kind: Kind
    data_set: str
    class_name: str
    metric: str
    losses: dict[str, str | None]
    scores: pd.DataFrame
    fingerprint: Fingerprint | None
    source: dict[str, Any]
    settings: dict[str, Any]
    environment: dict[str, Any]
    runs: dict[str, Any]
    digests: dict[str, Any]
    unlearned: dict[str, list[str]] = field(default_factory=dict)
    look: LastLook | None = None
    series: dict[str, float | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The scored classes."""
        return tuple(dict.fromkeys(self.scores["class"]))

    def count(self, column: str) -> int:
        """The number of cases, folds, seeds, ... in the scores."""
        return int(self.scores[column].nunique())

    @property
    def learned(self) -> bool:
        """Whether any loss has learned to find the class of the headline."""
        return not set(self.unlearned.get(self.class_name, ())).issuperset(self.losses)

    def informs(self, first: str, second: str) -> bool:
        """Whether either loss has learned to find the class; else nothing is known of which one is better."""
        return not {first, second} <= set(self.unlearned.get(self.class_name, ()))

    def judged_scores(self) -> pd.DataFrame:
        """The scores that the verdict is about: of all losses; of a race those of its last look."""
        if self.look is None:
            return common_scores(self.scores)
        runs = [(loss, seed, fold) for seed, fold in self.look.rounds for loss in self.look.losses]
        rows = pd.MultiIndex.from_frame(self.scores[["loss", "seed", "fold"]]).isin(pd.MultiIndex.from_tuples(runs))
        return common_scores(self.scores[rows])

    def verdict(self, class_name: str | None = None, metric: str | None = None) -> Verdict | None:
        """The verdict on a class and metric, by default those of the headline; None where it cannot be judged."""
        interim = None if self.look is None else self.look.interim
        return verdict(self.judged_scores(), class_name or self.class_name, metric or self.metric, interim=interim)


def write_export(folder: Path, export: Export) -> None:
    """Write FOLDER with its two files, whole or not at all; an export in its place is replaced."""
    table = _wide(export.scores).to_csv(index=False, lineterminator="\n").encode()
    content: dict[str, Any] = {
        "format": FORMAT,
        "name": export.name,
        "kind": export.kind,
        "data_set": export.data_set,
        "class": export.class_name,
        "metric": export.metric,
        "series": export.series,
        "notes": list(export.notes),
        "source": export.source,
        "losses": export.losses,
        "fingerprint": None if export.fingerprint is None else plain_fingerprint(export.fingerprint),
        "runs": export.runs,
        "unlearned": export.unlearned,
        "look": None if export.look is None else _plain(asdict(export.look)),
        "settings": export.settings,
        "environment": export.environment,
        "digests": {**export.digests, "scores": _digest(table)},
    }
    with atomic_folder(folder) as partial:
        (partial / SCORES).write_bytes(table)
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
        (partial / DESCRIPTION).write_text(text, encoding="utf-8")


def read_export(folder: Path) -> Export:
    """Read an export.

    Raises:
        InputError: It is none, damaged, or of a later format; the message names the file.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise InputError(f"{folder} is not an exported study: it has no {DESCRIPTION}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())}") from None
    version = content.get("format") if isinstance(content, dict) else None
    if not isinstance(version, int) or version < 1:
        raise InputError(f"{path} is damaged: it lacks a `format`")
    if version > FORMAT:
        raise InputError(f"{path} was written by a later version of voxloss (format {version}); install that version")
    try:
        export = _parsed(content, path)
        digest = content["digests"]["scores"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged: {error!r}") from None
    try:
        table = (folder / SCORES).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{folder} is damaged: it has no {SCORES}") from None
    if _digest(table) != digest:
        raise InputError(f"{folder / SCORES} is damaged or was changed: its digest is not that of {DESCRIPTION}")
    export = replace(export, scores=_long(folder / SCORES, export.data_set))
    _require_consistent(export, path)
    return export


def read_exports(folder: Path) -> list[Export]:
    """Read all exports of a folder, sorted by name.

    Raises:
        InputError: One of them is damaged, two have the same scores, or two of one data set would both count as real;
            the message names them.
    """
    if not folder.is_dir():
        command = f"voxloss evidence add STUDY --to {shell_word(folder)}"
        raise InputError(f"there is no folder {folder}; `{command}` makes one")
    exports = [
        read_export(path) for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")
    ]
    seen: dict[str, str] = {}
    for export in exports:
        digest = scores_digest(export)
        if digest in seen:
            raise InputError(f"{folder}: {seen[digest]} and {export.name} hold the same scores; remove one of them")
        seen[digest] = export.name
    for one, other in itertools.combinations(exports, 2):
        if counts_twice(one, other):
            raise InputError(
                f"{folder}: {one.name} and {other.name} are both of the data set {one.data_set}, which counts once; "
                f"remove one of them, or let it be a variant (`kind: variant` in its {DESCRIPTION})"
            )
    return exports


def counts_twice(one: Export, other: Export) -> bool:
    """Whether two exports would both count as studies of one data set of real images."""
    real = all(export.kind == "real" and export.look is None for export in (one, other))
    data = one.digests.get("data")
    return real and (one.data_set == other.data_set or (data is not None and data == other.digests.get("data")))


def scores_digest(export: Export) -> str:
    """The digest of the exported scores, by which the same study under two names is recognised."""
    return _digest(_wide(export.scores).to_csv(index=False, lineterminator="\n").encode())


def _parsed(content: dict[str, Any], path: Path) -> Export:
    name, kind = content["name"], content["kind"]
    require_name(name)
    if name != path.parent.name:
        raise InputError(f"{path} is the export {name!r}; its folder must have that name")
    if kind not in KINDS:
        raise InputError(f"{path}: the kind {kind!r} is none of {', '.join(KINDS)}")
    look = content["look"]
    if look is not None:
        interim = look["interim"]
        look = LastLook(
            tuple(map(str, look["losses"])),
            tuple((int(seed), int(fold)) for seed, fold in look["rounds"]),
            Interim(
                float(interim["level"]),
                int(interim["family"]),
                tuple(map(float, interim["own"])),
                tuple(map(int, interim["degrees"])),
            ),
        )
    fingerprint = content["fingerprint"]
    return Export(
        name=name,
        kind=kind,
        data_set=require_data_set(content["data_set"], f"{path}: "),
        class_name=str(content["class"]),
        metric=str(content["metric"]),
        losses=dict(content["losses"]),
        scores=pd.DataFrame(),
        fingerprint=None if fingerprint is None else fingerprint_from(fingerprint, str(path)),
        source=_source_from(content["source"], path),
        settings=dict(content["settings"]),
        environment=dict(content["environment"]),
        runs=_runs_from(content["runs"], path),
        digests=_digests_from(content["digests"], path),
        unlearned={str(key): list(map(str, losses)) for key, losses in content["unlearned"].items()},
        look=look,
        series=_series_from(content["series"], path),
        notes=_notes_from(content["notes"], path),
    )


def _source_from(source: Any, path: Path) -> dict[str, Any]:
    if not isinstance(source, dict) or "from" not in source:
        raise InputError(f"{path} is damaged: `source` does not say where the scores come `from`")
    return source


def _runs_from(runs: Any, path: Path) -> dict[str, Any]:
    try:
        states = {str(state): int(number) for state, number in runs["states"].items()}
        seconds = {str(loss): float(spent) for loss, spent in runs["seconds"].items()}
        found = {**runs, "states": states, "seconds": seconds}
        if "machines" in runs:
            found["machines"] = [{**machine, "runs": int(machine["runs"])} for machine in runs["machines"]]
        valid = all(0 <= number < math.inf for number in (*states.values(), *seconds.values()))
    except (KeyError, TypeError, ValueError, AttributeError):
        valid = False
    if not valid:
        raise InputError(
            f"{path} is damaged: `runs` needs the number of runs by `states`, the `seconds` of losses, and of each of "
            "its `machines` the number of `runs`"
        )
    return found


def _digests_from(digests: Any, path: Path) -> dict[str, Any]:
    for name in ("batches", "weights"):
        one = digests.get(name)
        if one is not None and not (isinstance(one, dict) and {"equal", "unrecorded_runs", "digests"} <= set(one)):
            raise InputError(f"{path} is damaged: `digests` lacks whether the {name} of all losses were equal")
    return {key: value for key, value in digests.items() if key != "scores"}


def _series_from(series: Any, path: Path) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, share in series.items():
        require_name(name, f"a series in {path}", "`series`")
        found[name] = None if share is None else float(share)
        if not 0 < (1.0 if share is None else float(share)) <= 1:
            raise InputError(f"{path}: the series {name} needs a share between 0 and 1, got {share}")
    return found


def _notes_from(notes: Any, path: Path) -> tuple[str, ...]:
    if not isinstance(notes, list):
        raise InputError(f"{path} is damaged: `notes` must be a list of sentences")
    return tuple(map(str, notes))


def require_data_set(name: object, source: str = "") -> str:
    """Return the name of a data set. Raises InputError unless it is a line of text."""
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise InputError(f"{source}{name!r} cannot be the name of a data set; take a line of text (--data-set)")
    return name


def require_name(name: object, of: str = "an exported study", option: str = "--name") -> None:
    """Raise InputError unless a name is one for a folder and a page: letters, digits, hyphens, points, underscores."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name):
        raise InputError(
            f"{name!r} cannot be the name of {of}; take letters, digits, points, hyphens and underscores ({option})"
        )


def _require_consistent(export: Export, path: Path) -> None:
    scores = export.scores
    if export.metric not in set(scores["metric"]) or export.class_name not in export.classes:
        raise InputError(f"{path}: there are no scores of {export.metric} of {export.class_name}")
    rarities = export.fingerprint.classes if export.fingerprint is not None else ()
    if rarities and export.class_name not in {one.name for one in rarities}:
        raise InputError(f"{path}: the fingerprint lacks the class {export.class_name}")
    missing = sorted(set(scores["loss"]) ^ set(export.losses))
    if missing:
        raise InputError(f"{path}: `losses` and the scores differ in {', '.join(missing)}")
    if len(export.losses) < 2:
        raise InputError(
            f"{path}: a study that is evidence compares at least two losses, got {', '.join(export.losses)}"
        )
    unknown = sorted({loss for losses in export.unlearned.values() for loss in losses} - set(export.losses))
    if unknown:
        raise InputError(f"{path}: `unlearned` has {', '.join(unknown)}, of which there are no scores")


def _wide(scores: pd.DataFrame) -> pd.DataFrame:
    """A row per loss, fold, seed, case and class, with a column per metric."""
    scores = scores.assign(
        text=[_text(value, status) for value, status in zip(scores["value"], scores["status"], strict=True)]
    )
    wide = scores.pivot(index=IDENTITY, columns="metric", values="text").fillna("")
    metrics = [name for name in METRICS if name in wide.columns]
    table: pd.DataFrame = wide[metrics].reset_index()
    return table.sort_values(IDENTITY, kind="stable", key=_order)


def _order(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Sort numbered cases by their number."""
    text = column.astype(str)
    width = int(text.str.len().max() or 0)
    return text.str.zfill(width) if column.name == "case" and text.str.isdigit().all() else column


def _text(value: float, status: str) -> str:
    if status == "failed":
        return FAILED
    return "" if math.isnan(value) else f"{value:.{DIGITS}g}"


def _long(path: Path, data_set: str) -> pd.DataFrame:
    try:
        wide = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a table: {' '.join(str(error).split())}") from None
    lacking = [name for name in IDENTITY if name not in wide.columns]
    metrics = [name for name in wide.columns if name not in IDENTITY]
    unknown = [name for name in metrics if name not in METRICS]
    if lacking or unknown or not metrics:
        wrong = f"lacks {', '.join(lacking)}" if lacking else f"has the unknown metric {', '.join(unknown) or 'none'}"
        raise InputError(f"{path} {wrong}")
    long = wide.melt(IDENTITY, metrics, var_name="metric", value_name="text")
    text = long.pop("text")
    long["status"] = np.select([text == FAILED, text == ""], ["failed", "undefined"], "ok")
    long["value"] = text.where(text != FAILED, "")
    return score_table(long.assign(dataset=data_set), source=str(path))


def _digest(table: bytes) -> str:
    return hashlib.blake2b(table, digest_size=16).hexdigest()


def _plain(value: Any) -> Any:
    """Replace tuples by lists and NumPy's numbers by Python's, for YAML."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
