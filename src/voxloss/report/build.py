"""Make a study's report from its files, or print its tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from voxloss.errors import InputError
from voxloss.files import atomic_folder
from voxloss.report import figures, slices, tables
from voxloss.report.comparison import Comparison, compare
from voxloss.report.formats import Table, to_console, to_latex, to_markdown
from voxloss.report.names import metric_name, slugs
from voxloss.report.page import Contents, NamedTable, render_page
from voxloss.report.paper_numbers import PAPER_RESULTS
from voxloss.report.record import StudyRecord, open_record
from voxloss.report.summary import summarise, summary_sentence
from voxloss.report.tables import count_of
from voxloss.report.verdict_table import stability_table, verdict_table

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

METRICS = ("dice", "precision", "recall")


def build_report(study: Path) -> Path:
    """Write STUDY/report with its page, tables and figures, whole or not at all, and return the page's path.

    Only the study's own files are read, and the images and masks that dataset.json names. A study in progress gives
    a report over the cases that all losses with a finished run have in common, and says so.

    Raises:
        InputError: it is no study, a file of it is damaged, or no run is finished.
    """
    study = Path(study)
    record = open_record(study)
    comparison = compare(record)
    with atomic_folder(study / "report") as folder:
        contents = _write_contents(record, comparison, folder)
        (folder / "index.html").write_text(render_page(record, comparison, contents), encoding="utf-8")
    return study / "report" / "index.html"


def print_tables(study: Path, console: "Console") -> None:
    """Print the headline, Table 1 class by class, and the matrices of both tests; made for 80 to 120 columns."""
    from rich.text import Text

    record = open_record(Path(study))
    comparison = compare(record)
    for class_name in _primary_first(comparison):
        table = scores_table(comparison, [class_name])
        console.print(to_console(table))
        for note in table.notes:
            console.print(Text(note, style="dim"))
    console.print(Text(scores_caption(comparison), style="dim"))
    if comparison.primary_class in comparison.verdicts:
        console.print()
        primary = comparison.verdicts[comparison.primary_class]
        console.print(to_console(verdict_table(primary, comparison.primary_class, comparison.primary_metric)))
    if len(comparison.losses) > 1:
        for class_name in _primary_first(comparison):
            for test, pairs in (("signed_rank", comparison.signed_rank), ("rank_sum", comparison.rank_sum)):
                console.print()
                matrix = tables.significance_matrix(
                    pairs, class_name, comparison.primary_metric, comparison.losses, test,
                    numbered=True, p_format=tables.short_p_text,
                )  # fmt: skip
                console.print(to_console(matrix))
        console.print(Text(f"Holm-adjusted p, row against column: green higher, red lower. {tables.STARS_KEY}", "dim"))
    console.print()
    console.print(Text(summary_sentence(record, comparison), style="bold"))


def scores_table(comparison: Comparison, classes: Sequence[str]) -> Table:
    """Table 1 (or 3) of the paper's form for some of the classes."""
    title = f"Scores of {classes[0]}" if len(classes) == 1 else "Scores"
    return tables.scores_table(
        comparison.intervals, comparison.losses, classes, METRICS, title, scores_caption(comparison)
    )


def scores_caption(comparison: Comparison) -> str:
    """Which interval is printed, over what, and what bold means."""
    cases, folds = count_of(comparison.n_cases, "case"), count_of(comparison.n_folds, "fold")
    seeds = count_of(comparison.n_seeds, "seed")
    if comparison.over == "fold":
        values = f"Mean ± 95 % confidence interval over {folds} (Student's t on the fold means; {cases}, {seeds})"
        if comparison.n_folds == 1:
            values = f"Mean over 1 fold, which gives no interval over folds ({cases}, {seeds})"
    else:
        values = f"Mean ± 95 % confidence interval over {cases} (Student's t; {folds}, {seeds})"
    bold = " Bold: the highest mean of a column, failed runs and empty predictions counted as 0."
    several = " A case's score is averaged over the seeds first." if comparison.n_seeds > 1 else ""
    return f"{values}.{several}{bold if len(comparison.losses) > 1 else ''}"


def _primary_first(comparison: Comparison) -> list[str]:
    return sorted(comparison.classes, key=lambda name: name != comparison.primary_class)


def _write_contents(record: StudyRecord, comparison: Comparison, folder: Path) -> Contents:
    scores = NamedTable("table1_scores", scores_table(comparison, comparison.classes))
    _write_table(folder / "tables", scores.name, comparison.intervals, scores.table, scores.table)
    matrices = _write_matrices(comparison, folder / "tables")
    verdicts = _write_verdicts(comparison, folder / "tables")
    beside_paper = _write_paper_table(record, comparison, folder / "tables")

    slug = slugs(record.dataset.classes)
    charts = {
        name: figures.score_figure(comparison, name, f"{comparison.primary_metric}_{slug[name]}", folder / "figures")
        for name in _primary_first(comparison)
    }
    drawn = [charts[name] for name in _primary_first(comparison)[1:]]
    missing = []
    try:
        drawn.insert(0, slices.slice_figure(record, comparison, folder / "figures"))
    except InputError as error:
        missing.append(f"The figure of a representative case could not be drawn: {error}.")
    curves = figures.curves_figure(record, comparison.losses, folder / "figures")
    return Contents(
        summary=summarise(record, comparison),
        scores=scores,
        verdicts=verdicts,
        matrices=matrices,
        beside_paper=beside_paper,
        main_figure=charts[comparison.primary_class],
        figures=tuple(drawn) + ((curves,) if curves else ()),
        missing=tuple(missing),
    )


def _write_verdicts(comparison: Comparison, folder: Path) -> tuple[NamedTable, ...]:
    """The verdict and the stability of the ranking of every class, and the sizes of all differences as CSV."""
    from voxloss.evaluation.effects import friedman, paired_effects, rank_stability, variance_parts

    slug, metric = slugs(comparison.classes), comparison.primary_metric
    verdicts, stabilities = [], []
    effects = paired_effects(comparison.scores, [metric], comparison.losses)
    for class_name in _primary_first(comparison):
        verdict = comparison.verdicts.get(class_name)
        if verdict is None:
            continue
        own = effects[effects["class"] == class_name]
        chosen = (comparison.scores, class_name, metric)
        table = verdict_table(verdict, class_name, metric, own, friedman(*chosen), variance_parts(*chosen))
        verdicts.append(NamedTable(f"verdict_{slug[class_name]}", table))
        _write_table(folder, verdicts[-1].name, verdict.pairs, table, table)
        own.to_csv(folder / f"effects_{slug[class_name]}.csv", index=False, encoding="utf-8", lineterminator="\n")
        stability = rank_stability(*chosen)
        table = stability_table(stability, class_name, metric)
        stabilities.append(NamedTable(f"ranks_{slug[class_name]}", table))
        _write_table(folder, stabilities[-1].name, stability, table, table)
    return (*verdicts, *stabilities)


def _write_matrices(comparison: Comparison, folder: Path) -> tuple[NamedTable, ...]:
    if len(comparison.losses) < 2:
        return ()
    slug = slugs(comparison.classes)
    matrices = []
    for class_name in _primary_first(comparison):
        for test, pairs in (("signed_rank", comparison.signed_rank), ("rank_sum", comparison.rank_sum)):
            name = f"table2_{slug[class_name]}_{test}"
            metric, losses = comparison.primary_metric, comparison.losses
            matrix = tables.significance_matrix(pairs, class_name, metric, losses, test)
            printed = tables.significance_matrix(pairs, class_name, metric, losses, test, numbered=True)
            _write_table(folder, name, pairs[pairs["class"] == class_name], matrix, printed)
            matrices.append(NamedTable(name, matrix, test, f"{metric_name(metric)} of {class_name}"))
    return tuple(matrices)


def _write_paper_table(record: StudyRecord, comparison: Comparison, folder: Path) -> NamedTable | None:
    preset = record.config.get("name")
    if preset not in PAPER_RESULTS or preset != record.dataset.name or record.setting("comparison", "demonstration"):
        return None
    beside = tables.beside_paper(comparison.intervals, comparison.losses, comparison.classes, preset)
    if beside.empty:
        return None
    table = tables.paper_table(beside, comparison.classes)
    _write_table(folder, "beside_paper", beside, table, table)
    return NamedTable("beside_paper", table)


def _write_table(folder: Path, name: str, data: "pd.DataFrame", table: Table, printed: Table) -> None:
    """The numbers as CSV, and the table as Markdown and LaTeX (`printed`, which may be narrower)."""
    folder.mkdir(parents=True, exist_ok=True)
    data.to_csv(folder / f"{name}.csv", index=False, encoding="utf-8", lineterminator="\n")
    (folder / f"{name}.md").write_text(to_markdown(table), encoding="utf-8")
    (folder / f"{name}.tex").write_text(to_latex(printed, f"tab:{name.replace('_', '-')}"), encoding="utf-8")
