"""Build a study's report from its files, or print its tables."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from voxloss.report.comparison import Comparison, compare
from voxloss.report.contents import write_contents
from voxloss.report.names import names_of
from voxloss.report.networks import class_orders, left_out, network_results, networks_summary, write_networks
from voxloss.report.page.page import render_page
from voxloss.report.record import StudyRecord, record_of
from voxloss.report.summary import summary_sentence
from voxloss.report.tables import scores as tables
from voxloss.report.tables.formats import to_console
from voxloss.report.tables.main import main_table, primary_first, scores_caption
from voxloss.report.tables.verdict import verdict_table
from voxloss.study.claims import REPORT, hold, of_study
from voxloss.study.folder import StudyFolder
from voxloss.study.study import Study
from voxloss.utilities.files import atomic_folder

VIEWER_CASES = 12  # those that the losses disagree on most; a large CT is some megabytes each


def build_report(study: Path, viewer_cases: int = VIEWER_CASES, losses: Sequence[str] | None = None) -> Path:
    """Write STUDY/report with its page, tables and figures, whole or not at all, and return the page's path.

    Of a study of several networks the page has all verdicts and the order of the losses, and every network a page of
    its own, report/networks/NETWORK.

    Only the study's own files are read, and the images and masks that dataset.json names. If another process is writing
    the report, this one waits for it. Of a study in progress, finished losses are compared on all cases; before two are
    finished, all losses with a finished run on the cases that they have in common.

    Args:
        study: The study's folder.
        viewer_cases: The number of cases in the viewer: those on which the losses disagree most.
        losses: The keys of the losses to show; None: all. As they are chosen afterwards, intervals and tests remain
            those of all compared losses, and the page says so.

    Raises:
        InputError: The folder is not a study, one of its files is damaged, or no run is finished.
    """
    study = Path(study)
    StudyFolder(study).read_description()  # before anything is written: it may be no study
    with hold(of_study(study, REPORT)), atomic_folder(study / "report") as folder:
        opened = Study.open(study)
        with names_of(opened):
            if opened.networks:
                write_networks(opened, folder, viewer_cases, losses)
                return study / "report" / "index.html"
            record = record_of(opened)
            comparison = compare(record, losses)
            contents = write_contents(record, comparison, folder, viewer_cases)
            (folder / "index.html").write_text(render_page(record, comparison, contents), encoding="utf-8")
    return study / "report" / "index.html"


def print_tables(study: Path, console: Console, losses: Sequence[str] | None = None) -> None:
    """Print the headline, Table 1 by class, and the matrices of both tests, for 80 to 120 columns."""
    opened = Study.open(Path(study))
    with names_of(opened):
        if not opened.networks:
            record = record_of(opened)
            _print_tables(record, compare(record, losses), console)
            return
        results, without = network_results(opened, losses)
        for one in results:
            console.rule(Text(one.network), align="left")
            _print_tables(one.record, one.comparison, console)
        found = class_orders(results, results[0].comparison.primary_class)
        summary = networks_summary(results, without, found)
        console.rule(Text("All networks"), align="left")
        sentences = (summary.headline, *summary.details, *left_out(results, without, found))
        console.print(Text(" ".join(sentences), style="bold"))


def _print_tables(record: StudyRecord, comparison: Comparison, console: Console) -> None:
    for class_name in primary_first(comparison):
        table = main_table(comparison, [class_name])
        console.print(to_console(table))
        for note in table.notes:
            console.print(Text(note, style="dim"))
    console.print(Text(scores_caption(comparison), style="dim"))
    if comparison.primary_class in comparison.verdicts:
        console.print()
        primary = comparison.verdicts[comparison.primary_class]
        unlearned = [one.loss for one in comparison.unlearned(comparison.primary_class)]
        table = verdict_table(primary, comparison.primary_class, comparison.primary_metric, unlearned=unlearned)
        console.print(to_console(table))
    if len(comparison.losses) > 1 and not record.study.comparison.look:
        for class_name in primary_first(comparison):
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
