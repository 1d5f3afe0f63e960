"""Write the tables, the figures and the viewer's volumes of a report into a folder."""

from importlib import resources
from pathlib import Path

import pandas as pd

from voxloss.evaluation.effects import friedman, paired_effects, variance_parts
from voxloss.evaluation.metrics import METRICS
from voxloss.evaluation.rankings import by_dataset, by_size, rank_stability, ways_of_ranking
from voxloss.evaluation.scores import write_scores
from voxloss.report.comparison import Comparison
from voxloss.report.figures import charts, slices
from voxloss.report.figures import losses as loss_figures
from voxloss.report.figures import operating as operating_figures
from voxloss.report.figures import scores as figures
from voxloss.report.figures import tuning as tuning_figures
from voxloss.report.figures.lesions import lesions_figure, lesions_of_losses
from voxloss.report.figures.scores import FigureFile
from voxloss.report.names import metric_name, slugs
from voxloss.report.page import cases
from voxloss.report.page.advice import advise
from voxloss.report.page.page import CasesTable, Contents, NamedTable, OperatingContents, RaceContents, TuningContents
from voxloss.report.record import StudyRecord
from voxloss.report.summary import summarise
from voxloss.report.tables import beside_paper, operating
from voxloss.report.tables import scores as tables
from voxloss.report.tables.files import write_csv, write_table
from voxloss.report.tables.learned import learned_frame
from voxloss.report.tables.lesions import lesion_tables
from voxloss.report.tables.main import further_table, main_table, own_table, primary_first
from voxloss.report.tables.paper_numbers import PAPER_RESULTS
from voxloss.report.tables.race import looks_frame, race_table
from voxloss.report.tables.tuning import settings_table, trials_table, tuning_frame, tuning_sentences, tuning_table
from voxloss.report.tables.verdict import (
    datasets_table,
    pairs_frame,
    rankings_table,
    sizes_table,
    stability_table,
    verdict_table,
)
from voxloss.report.tuning import tuning_results
from voxloss.utilities.errors import InputError

VIEWER_FILES = ("page.js", "viewer.js")
VOLUME_FILES = ("niivue.umd.js", "niivue-LICENSE.txt")
IMAGE_FILES = ("pictures.js",)


def write_contents(record: StudyRecord, comparison: Comparison, folder: Path, viewer_cases: int) -> Contents:
    """Write tables, figures and volumes into `folder`, and return what the page shows of them."""
    scores = NamedTable("table1_scores", main_table(comparison, primary_first(comparison)))
    write_table(folder / "tables", scores.name, comparison.intervals, scores.table, scores.table)
    if comparison.reader is not None:
        write_csv(folder / "tables" / "second_reader.csv", comparison.reader)
    over = "case" if comparison.over == "fold" else "fold"
    write_csv(folder / "tables" / f"intervals_over_{over}s.csv", comparison.other_intervals)
    write_scores(folder / "tables" / "scores.csv", record.scores)
    write_csv(folder / "tables" / "learned.csv", learned_frame(comparison.learned))
    further = _write_further(record, comparison, folder / "tables")
    # A look is too small for a test, and stars would say otherwise.
    matrices = () if record.study.comparison.look else _write_matrices(comparison, folder / "tables")
    verdicts, ranks = _write_verdicts(comparison, folder)
    race = _write_race(comparison, folder)
    missing: list[str] = [] if comparison.reader_fault is None else [comparison.reader_fault]
    slug = slugs(record.study.dataset.classes)
    charts_of = {
        name: figures.score_figure(comparison, name, f"{comparison.primary_metric}_{slug[name]}", folder / "figures")
        for name in primary_first(comparison)
    }
    forests = {
        name: charts.forest_figure(verdict, name, comparison.primary_metric, f"forest_{slug[name]}", folder / "figures")
        for name, verdict in comparison.verdicts.items()
        if verdict.n_folds > 1 and not comparison.none_learned(name)
    }
    main = forests.pop(comparison.primary_class, None) or charts_of.pop(comparison.primary_class)
    others = [chart[name] for name in primary_first(comparison) for chart in (forests, charts_of) if name in chart]
    return Contents(
        summary=summarise(record, comparison),
        scores=scores,
        further=further,
        verdicts=verdicts,
        race=race,
        matrices=matrices,
        beside_paper=_write_paper_tables(record, comparison, folder / "tables"),
        cases=_write_cases(record, comparison, folder, viewer_cases, missing),
        main_figure=main,
        figures=tuple(_draw_figures(record, comparison, folder / "figures", others, ranks, missing)),
        loss_figures=(
            loss_figures.family_figure(folder / "figures"),
            loss_figures.curves_of_losses_figure(folder / "figures"),
        ),
        missing=tuple(missing),
        advice=advise(record, comparison),
        operating=_write_operating(comparison, folder),
        tuning=_write_tuning(record, comparison, folder),
    )


def _draw_figures(
    record: StudyRecord,
    comparison: Comparison,
    folder: Path,
    others: list[FigureFile],
    ranks: list[FigureFile],
    missing: list[str],
) -> list[FigureFile]:
    drawn: list[FigureFile | None] = []
    if _has_images(record):
        try:
            drawn.append(slices.slice_figure(record, comparison, folder))
        except InputError as error:
            missing.append(f"The figure of a representative case could not be drawn: {error}")
    drawn += others
    slug = slugs(comparison.classes)
    for name in primary_first(comparison):
        drawn.append(charts.precision_recall_figure(comparison, name, f"precision_recall_{slug[name]}", folder))
        drawn.append(charts.volume_figure(comparison, name, f"{comparison.units.extent}_{slug[name]}", folder))
    lesions = None if record.study.imported else lesions_of_losses(record, comparison)
    if lesions is not None:
        for name in primary_first(comparison):
            drawn.append(lesions_figure(comparison, lesions, name, f"lesions_{slug[name]}", folder))
    drawn += ranks
    drawn.append(figures.curves_figure(record, comparison.losses, folder))
    drawn.append(charts.cost_figure(record, comparison.losses, folder))
    return [figure for figure in drawn if figure is not None]


def _write_further(record: StudyRecord, comparison: Comparison, folder: Path) -> tuple[NamedTable, ...]:
    slug, written = slugs(comparison.classes), []
    for class_name in primary_first(comparison):
        chosen = comparison.intervals[comparison.intervals["class"] == class_name]
        own = []
        surfaces = further_table(comparison, class_name)
        if surfaces is not None:
            own.append(("further", chosen, surfaces))
        of_users = own_table(comparison, class_name)
        if of_users is not None:
            own.append(("own_metrics", chosen[~chosen["metric"].isin(METRICS)], of_users))
        for name, metrics, table in lesion_tables(
            comparison, class_name, record.study.lesion_rules, comparison.units, comparison.reader
        ):
            own.append((name, chosen[chosen["metric"].isin(metrics)], table))
        for name, data, table in own:
            written.append(NamedTable(f"{name}_{slug[class_name]}", table))
            write_table(folder, written[-1].name, data, table, table)
    return tuple(written)


def _write_verdicts(comparison: Comparison, folder: Path) -> tuple[tuple[NamedTable, ...], list[FigureFile]]:
    """Write verdict, ways of ranking and rank stability of every class, and the sizes of all differences as CSV."""
    slug, metric = slugs(comparison.classes), comparison.primary_metric
    verdicts, others, ranks = [], [], []
    effects = paired_effects(comparison.scores, [metric], comparison.losses)
    for class_name in primary_first(comparison):
        verdict = comparison.verdicts.get(class_name)
        if verdict is None:
            continue
        own = effects[effects["class"] == class_name]
        chosen = (comparison.scores, class_name, metric)
        unlearned = [one.loss for one in comparison.unlearned(class_name)]
        table = verdict_table(verdict, class_name, metric, own, friedman(*chosen), variance_parts(*chosen), unlearned)
        verdicts.append(NamedTable(f"verdict_{slug[class_name]}", table))
        write_table(folder / "tables", verdicts[-1].name, pairs_frame(verdict, metric), table, table)
        write_csv(folder / "tables" / f"effects_{slug[class_name]}.csv", own)
        if comparison.none_learned(class_name):  # an order of losses that learned nothing is none
            continue
        family = (comparison.family_scores, class_name, metric)
        ways, sizes = (
            _of_losses(ranking(*family, comparison.interim), comparison) for ranking in (ways_of_ranking, by_size)
        )
        stability = rank_stability(verdict)
        written = [("rankings", ways, rankings_table(ways, class_name, metric))]
        datasets = _of_losses(by_dataset(*family, comparison.interim), comparison)
        if len(datasets):
            written.insert(0, ("datasets", datasets, datasets_table(datasets, class_name, metric)))
        if len(sizes):
            written.append(("sizes", sizes, sizes_table(sizes, class_name, metric)))
        if len(stability):
            written.append(("ranks", stability, stability_table(stability, class_name, metric)))
            name = f"ranks_{slug[class_name]}"
            ranks.append(charts.ranks_figure(stability, class_name, metric, name, folder / "figures"))
        for kind, data, table in written:
            others.append(NamedTable(f"{kind}_{slug[class_name]}", table))
            write_table(folder / "tables", others[-1].name, data, table, table)
    return (*verdicts, *others), ranks


def _of_losses(table: pd.DataFrame, comparison: Comparison) -> pd.DataFrame:
    """The rows of the shown losses; values and ranks are those among all compared losses."""
    return table[table["loss"].isin(comparison.losses)].reset_index(drop=True)


def _write_race(comparison: Comparison, folder: Path) -> RaceContents | None:
    """Write the looks of a race as a table and a figure; None without a look."""
    if comparison.race is None or not comparison.race.looks:
        return None
    table = race_table(comparison.race, comparison.primary_class, comparison.primary_metric)
    looks = looks_frame(comparison.race)
    write_table(folder / "tables", "race", looks, table, table)
    figure = charts.race_figure(looks, comparison.primary_class, comparison.primary_metric, "race", folder / "figures")
    return RaceContents(NamedTable("race", table), figure)


def _write_tuning(record: StudyRecord, comparison: Comparison, folder: Path) -> TuningContents | None:
    """Write what a search for settings found as tables and figures; None without one."""
    results = tuning_results(record)
    if results is None:
        return None
    frame, settings, trials = tuning_frame(results, comparison), settings_table(results), trials_table(results)
    compared, chosen = tuning_table(frame, comparison), results.trials[results.trials["chosen"]]
    for name, data, table in (
        ("tuning", frame, compared),
        ("settings", chosen, settings),
        ("trials", results.trials, trials),
    ):
        write_table(folder / "tables", name, data, table, table)
    slug = slugs(loss.key for loss in results.losses)
    drawn = [tuning_figures.budget_figure(results, folder / "figures")]
    drawn += [
        tuning_figures.response_figure(results, loss, f"response_{slug[loss.key]}", folder / "figures")
        for loss in results.losses
    ]
    figures_of = tuple(figure for figure in drawn if figure is not None)
    sentences = tuning_sentences(results)
    named = [NamedTable("tuning", compared), *([NamedTable("settings", settings)] if settings.rows else [])]
    return TuningContents(sentences, tuple(named), NamedTable("trials", trials), figures_of)


def _write_operating(comparison: Comparison, folder: Path) -> tuple[OperatingContents, ...]:
    """Write scores at tuned thresholds, calibration and their curves for every class; nothing without counts."""
    points = comparison.operating
    if points is None:
        return ()
    write_csv(folder / "tables" / "operating_points.csv", points.points)
    write_scores(folder / "tables" / "scores_at_thresholds.csv", points.scores)
    slug, written = slugs(comparison.classes), []
    for class_name in primary_first(comparison):
        named = []
        frame = operating.operating_frame(comparison, points, class_name)
        calibrated = operating.calibration_frame(comparison, points, class_name)
        for kind, data, table in (
            ("operating", frame, operating.operating_table(comparison, points, class_name, frame)),
            ("calibration", calibrated, operating.calibration_table(comparison, class_name, calibrated)),
        ):
            named.append(NamedTable(f"{kind}_{slug[class_name]}", table))
            write_table(folder / "tables", named[-1].name, data, table, table)
        figures_of = [
            draw(comparison, points, class_name, f"{kind}_{slug[class_name]}", folder / "figures")
            for kind, draw in (
                ("thresholds", operating_figures.threshold_figure),
                ("curves", operating_figures.precision_recall_curves),
                ("froc", operating_figures.froc_figure),
                ("reliability", operating_figures.reliability_figure),
            )
        ]
        sentences = tuple(operating.operating_sentences(points, class_name))
        drawn = tuple(figure for figure in figures_of if figure is not None)
        written.append(OperatingContents(class_name, sentences, tuple(named), drawn))
    return tuple(written)


def _write_matrices(comparison: Comparison, folder: Path) -> tuple[NamedTable, ...]:
    if len(comparison.losses) < 2:
        return ()
    slug = slugs(comparison.classes)
    matrices = []
    for class_name in primary_first(comparison):
        for test, pairs in (("signed_rank", comparison.signed_rank), ("rank_sum", comparison.rank_sum)):
            name = f"table2_{slug[class_name]}_{test}"
            metric, losses = comparison.primary_metric, comparison.losses
            matrix = tables.significance_matrix(pairs, class_name, metric, losses, test)
            printed = tables.significance_matrix(pairs, class_name, metric, losses, test, numbered=True)
            write_table(folder, name, pairs[pairs["class"] == class_name], matrix, printed)
            matrices.append(NamedTable(name, matrix, test, f"{metric_name(metric)} of {class_name}"))
    return tuple(matrices)


def _write_paper_tables(record: StudyRecord, comparison: Comparison, folder: Path) -> tuple[NamedTable, ...]:
    """Write this study's results beside the paper's, only for the paper's own presets on its own data."""
    preset = record.study.name
    if preset not in PAPER_RESULTS or preset != record.study.dataset.name or record.study.comparison.demonstration:
        return ()
    losses, classes = comparison.losses, comparison.classes
    beside = beside_paper.beside_paper(comparison.intervals, losses, classes, preset)
    if beside.empty:
        return ()
    table = beside_paper.paper_table(beside, classes, preset)
    write_table(folder, "beside_paper", beside, table, table)
    written = [NamedTable("beside_paper", table)]
    tests = beside_paper.beside_paper_tests(comparison.rank_sum, classes, preset)
    for class_name, slug in slugs(classes).items():
        own = tests[tests["class"] == class_name]
        if len(own):
            table = beside_paper.paper_tests_table(own, class_name, preset)
            written.append(NamedTable(f"beside_paper_{slug}_rank_sum", table))
            write_table(folder, written[-1].name, own, table, table)
    return tuple(written)


def _write_cases(
    record: StudyRecord, comparison: Comparison, folder: Path, viewer_cases: int, missing: list[str]
) -> CasesTable:
    rows = cases.case_rows(comparison)
    frame = cases.cases_frame(rows, comparison.losses).rename(columns={"volume_ml": comparison.units.column})
    write_csv(folder / "tables" / "cases.csv", frame)
    chosen = [row.case_id for row in rows[:viewer_cases]]
    files: dict[str, str] = {}
    if _has_images(record):
        files, failed = cases.write_viewer_cases(record, comparison, chosen, folder / "viewer" / "cases")
        missing += failed
    else:
        missing.append("The viewer is empty: these scores came without images and masks.")
    (folder / "viewer").mkdir(exist_ok=True)
    source = resources.files("voxloss.report.page") / "viewer"
    planar = record.study.dataset.flat_axis is not None
    for name in (*VIEWER_FILES, *(IMAGE_FILES if planar else VOLUME_FILES)):
        (folder / "viewer" / name).write_bytes((source / name).read_bytes())
    return CasesTable(tuple(rows), cases.viewer_index(record, comparison, files))


def _has_images(record: StudyRecord) -> bool:
    """Return whether the data set names image and mask of any case; imported scores may come without them."""
    return any(case.images and case.label for case in record.study.dataset.cases)
