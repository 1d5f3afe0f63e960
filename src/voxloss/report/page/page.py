"""Write the page: one HTML file beside its tables and figures, readable offline."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

import voxloss
from voxloss.report.comparison import Comparison
from voxloss.report.figures.scores import FigureFile
from voxloss.report.names import loss_name, metric_name
from voxloss.report.page.advice import Advice
from voxloss.report.page.cases import CaseRow
from voxloss.report.page.templates import page_environment
from voxloss.report.record import StudyRecord
from voxloss.report.summary import Summary
from voxloss.report.tables.formats import Table, to_html
from voxloss.report.tables.scores import STARS_KEY, TEST_NAMES, TEST_NOTES
from voxloss.study.folder import FINISHED, RunStatus
from voxloss.study.machines import machine_text, machines_of
from voxloss.study.study import Study
from voxloss.training.alarm import alarms
from voxloss.utilities.text import count_of, duration_text

# As `start_check` gives it.
IMPORTED = (
    True,
    "These scores were imported, so it is not known whether the losses had the same batches and initial weights.",
)

STATE_ORDER = ("failed", "diverged", "running", "pending", "done")


@dataclass(frozen=True)
class NamedTable:
    """A table with the name of its files in tables/; a matrix also has its test and its heading on the page."""

    name: str
    table: Table
    test: str = ""
    heading: str = ""


@dataclass(frozen=True)
class CasesTable:
    """The rows of the cases' table, and the data of the viewer (`cases.viewer_index`)."""

    rows: tuple[CaseRow, ...]
    index: dict[str, Any]


@dataclass(frozen=True)
class RaceContents:
    """The table and the figure of a race."""

    table: NamedTable
    figure: FigureFile


@dataclass(frozen=True)
class TuningContents:
    """What a search for settings found: sentences, tables of scores and of chosen settings, all trials, figures."""

    sentences: tuple[str, ...]
    tables: tuple[NamedTable, ...]
    trials: NamedTable
    figures: tuple[FigureFile, ...]


@dataclass(frozen=True)
class OperatingContents:
    """The operating points of one class: sentences on both verdicts, tables and figures."""

    class_name: str
    sentences: tuple[str, ...]
    tables: tuple[NamedTable, ...]
    figures: tuple[FigureFile, ...]


@dataclass(frozen=True)
class Contents:
    """The contents of the page. `missing` has sentences about what could not be drawn."""

    summary: Summary
    scores: NamedTable
    further: tuple[NamedTable, ...]
    verdicts: tuple[NamedTable, ...]
    matrices: tuple[NamedTable, ...]
    beside_paper: tuple[NamedTable, ...]
    cases: CasesTable
    main_figure: FigureFile
    figures: tuple[FigureFile, ...]
    loss_figures: tuple[FigureFile, ...]
    missing: tuple[str, ...] = field(default=())
    advice: Advice | None = None
    race: RaceContents | None = None
    operating: tuple[OperatingContents, ...] = ()
    tuning: TuningContents | None = None


def render_page(record: StudyRecord, comparison: Comparison, contents: Contents) -> str:
    """Return the page as HTML; every name, path and reason in it is escaped."""
    tests = [(test, TEST_NAMES[test], TEST_NOTES[test]) for test in ("signed_rank", "rank_sum")]
    return (
        page_environment()
        .get_template("index.html")
        .render(
            name=str(record.study.name),
            network=record.study.files.network,
            dataset=record.study.dataset.name,
            facts=_facts(record, comparison),
            contents=contents,
            losses=[loss_name(loss) for loss in comparison.losses],
            primary=(metric_name(comparison.primary_metric), comparison.primary_class),
            number=_number,
            units=comparison.units,
            planar=record.study.dataset.flat_axis is not None,
            to_html=to_html,
            tests=tests,
            stars=STARS_KEY,
            states=_states(record.runs),
            alarms=_alarms(record),
            troubled=[_run_row(run) for run in record.runs if run.state in ("failed", "diverged")],
            runs=[_run_row(run) for run in sorted(record.runs, key=lambda run: STATE_ORDER.index(_known(run.state)))],
            settings=yaml.safe_dump(record.study.description.config, sort_keys=False, allow_unicode=True),
            environment=environment_rows(record.study),
            starts=IMPORTED if record.study.imported else start_check(record.runs),
            version=voxloss.__version__,
        )
    )


def _facts(record: StudyRecord, comparison: Comparison) -> list[tuple[str, str]]:
    n_cases = str(comparison.n_cases)
    if comparison.n_cases < len(record.study.dataset.cases):
        n_cases += f" of {len(record.study.dataset.cases)}"
    facts = [
        ("Losses", str(len(comparison.losses))),
        ("Cases", n_cases),
        ("Folds", str(comparison.n_folds)),
        ("Seeds", str(comparison.n_seeds)),
    ]
    if not record.study.imported:
        training = record.study.config.training
        facts.append(("Training", f"{training.epochs} × {training.iterations} steps"))
    return facts


def environment_rows(study: Study) -> list[tuple[str, str]]:
    """Return what a study was run with: versions, machines, data, seeds and folds."""
    rows = [(str(key), str(value)) for key, value in study.description.environment.items()]
    machines = [] if study.imported else machines_of(map(study.status, study.runs()), study.description.environment)
    if len(machines) > 1:
        rows += [(f"machine of {count_of(count, 'run')}", machine_text(machine)) for machine, count in machines]
    rows.append(("cases", f"{len(study.dataset.cases)} of {study.dataset.name}"))
    if study.data_digest:
        rows.append(("digest of images and masks", study.data_digest))
    rows.append(("seeds", ", ".join(map(str, study.comparison.seeds))))
    if not study.imported:
        own = study.dataset.own_folds if study.config.splits.from_data else None
        rows.append(("folds", f"of the data: {own.source}") if own is not None else
                    ("seed of the folds", str(study.config.splits.seed)))  # fmt: skip
    return rows


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "n/a"


def _known(state: str) -> str:
    return state if state in STATE_ORDER else "pending"


def _states(runs: Sequence[RunStatus]) -> list[tuple[str, int]]:
    counts = Counter(_known(run.state) for run in runs)
    return [(state, counts[state]) for state in reversed(STATE_ORDER) if counts[state]]


def _alarms(record: StudyRecord) -> list[str]:
    """Return a sentence for every class that an unfinished run predicted and then lost; not of a look."""
    if record.study.imported or record.study.comparison.look:
        return []
    classes = record.study.dataset.classes
    return [
        f"{loss_name(run.loss)}, fold {run.fold}, seed {run.seed}: {lost.sentences()}"
        for run in record.runs
        if run.state not in FINISHED
        for lost in alarms(record.study.run_folder(run.run).history(), classes)
    ]


def _run_row(run: RunStatus) -> dict[str, Any]:
    return {
        "loss": loss_name(run.loss),
        "fold": run.fold,
        "seed": run.seed,
        "state": _known(run.state),
        "epochs": f"{run.epoch} / {run.epochs}" if run.epochs else "",
        "time": duration_text(run.seconds) if run.seconds else "",
        "seconds": run.seconds,
        "memory": f"{run.peak_memory / 1e9:.2f} GB" if run.peak_memory else "",
        "reason": run.reason or "",
    }


def start_check(runs: Sequence[RunStatus]) -> tuple[bool, str]:
    """Return whether all finished runs of a fold and seed had the same batches and initial weights, and sentences."""
    equal, sentence = batch_check(runs)
    weights = [(run.fold, run.seed, run.weight_digest) for run in runs if run.state == "done"]
    if all(digest is None for *_, digest in weights):
        return equal, sentence
    same, of_weights, _ = _digest_check("initial weights", weights)  # of which earlier versions recorded no digest
    return equal and same, f"{sentence} {of_weights}"


def batch_check(runs: Sequence[RunStatus], of: str = "losses") -> tuple[bool, str]:
    """Return whether all finished runs of a fold and seed had the same batches, and a sentence.

    Args:
        runs: The runs.
        of: What they differ in: "losses", or "losses and networks".
    """
    done = [(run.fold, run.seed, run.batch_digest) for run in runs if run.state == "done"]
    equal, sentence, unrecorded = _digest_check("batches", done, of)
    return equal and not unrecorded, sentence


def _digest_check(what: str, runs: Sequence[tuple[int, int, str | None]], of: str = "losses") -> tuple[bool, str, int]:
    """Return whether no digests differ within a fold and seed, a sentence, and the number of runs without a digest."""
    groups: dict[tuple[int, int], set[str]] = {}
    compared: Counter[tuple[int, int]] = Counter()
    for fold, seed, digest in runs:
        if digest:
            groups.setdefault((fold, seed), set()).add(digest)
            compared[fold, seed] += 1
    several = [key for key in groups if compared[key] > 1]
    different = [f"fold {fold}, seed {seed}" for fold, seed in several if len(groups[fold, seed]) > 1]
    unrecorded = sum(not digest for *_, digest in runs)
    if different:
        where = "; ".join(different)
        return False, f"The {what} differ between {of} in {where}: these {of} are not comparable.", unrecorded
    if not several:
        return True, f"No two finished runs share a fold and seed yet, so their {what} could not be compared.", 0
    without = f" {count_of(unrecorded, 'finished run')} recorded no digest." if unrecorded else ""
    pairs = count_of(len(several), "fold-and-seed pair")
    return True, f"The {what} are identical for all {of} in each of {pairs}, by their digests.{without}", unrecorded
