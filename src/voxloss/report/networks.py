"""The report of a study of several networks: a page of each, and a first page with all verdicts and their order."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from voxloss.evaluation.orders import Orders, orders, orders_of_some
from voxloss.report.comparison import Comparison, compare
from voxloss.report.contents import write_contents
from voxloss.report.figures.orders import orders_figure
from voxloss.report.names import slugs
from voxloss.report.page.networks import ClassOrder, NetworksPage, NetworkVerdict, render_networks
from voxloss.report.page.page import NamedTable, render_page
from voxloss.report.record import StudyRecord, record_of
from voxloss.report.summary import Summary, nothing_learned, summarise
from voxloss.report.tables.files import write_table
from voxloss.report.tables.main import primary_first
from voxloss.report.tables.orders import means_frame, means_table, order_details, order_sentence, order_table
from voxloss.study.study import Study


@dataclass(frozen=True)
class NetworkResult:
    """What the runs of a network say.

    Args:
        network: The network's key.
        record: Its part of the study.
        comparison: Its results.
    """

    network: str
    record: StudyRecord
    comparison: Comparison


def network_results(study: Study, losses: Sequence[str] | None = None) -> tuple[list[NetworkResult], list[str]]:
    """Compute the results of every network that has scores, and name the networks that have none.

    Raises:
        InputError: No network has scores, or as `compare`.
    """
    records = [(part.files.network or "", record_of(part)) for part in study.parts()]
    scored = [(network, record) for network, record in records if not record.scores.empty]
    results = [NetworkResult(network, record, compare(record, losses)) for network, record in scored or records]
    return results, [network for network, record in records if record.scores.empty]


def class_orders(results: Sequence[NetworkResult], class_name: str) -> Orders | None:
    """Compare the order of the losses between the networks with which some loss has learned a class.

    Of losses that were chosen afterwards, intervals remain those of all compared losses.
    """
    learned = [one for one in results if not one.comparison.none_learned(class_name)]
    scores = {one.network: one.comparison.family_scores for one in learned}
    found = orders(scores, class_name, results[0].comparison.primary_metric)
    shown = {loss for one in learned for loss in one.comparison.losses}
    return None if found is None else orders_of_some(found, shown)


def networks_summary(results: Sequence[NetworkResult], waiting: Sequence[str], found: Orders | None) -> Summary:
    """Return the headline on the order of the losses for the primary class, and its limits."""
    primary = results[0].comparison.primary_class
    unlearned = [one.network for one in results if nothing_learned(one.comparison)]
    details: tuple[str, ...] = ()
    if found is not None:
        headline, details = order_sentence(found), order_details(found)
    elif len(results) > 1 and unlearned and len(results) - len(unlearned) < 2:
        with_whom = "any network" if len(unlearned) == len(results) else " and ".join(unlearned)
        headline = f"The order of the losses cannot be compared: no loss learned to find {primary} with {with_whom}."
    elif len(results) == 1:
        headline = f"Only {results[0].network} has results, so the order of the losses cannot be compared."
    else:
        headline = "No two losses have results of the same cases with every network, so their order cannot be compared."
    limits = [f"No run with {network} is finished yet." for network in waiting]
    if found is not None:
        limits += [f"With {network} no loss learned to find {primary}, so it has no order." for network in unlearned]
    own_limits = [(one.network, summarise(one.record, one.comparison).limits) for one in results]
    shared = [limit for limit in own_limits[0][1] if all(limit in of_network for _, of_network in own_limits)]
    limits += shared
    limits += [f"{network}: {limit}" for network, own in own_limits for limit in own if limit not in shared]
    return Summary(headline, details, tuple(limits))


def write_networks(study: Study, folder: Path, viewer_cases: int, losses: Sequence[str] | None) -> None:
    """Write the page of every network to FOLDER/networks/NETWORK, and the first page to FOLDER."""
    results, waiting = network_results(study, losses)
    verdicts = []
    for one in results:
        own = folder / "networks" / one.network
        own.mkdir(parents=True)
        contents = write_contents(one.record, one.comparison, own, viewer_cases)
        (own / "index.html").write_text(render_page(one.record, one.comparison, contents), encoding="utf-8")
        verdicts.append(NetworkVerdict(one.network, contents.summary.headline, contents.summary.details))
    first = results[0].comparison
    found = {name: class_orders(results, name) for name in primary_first(first)}
    page = NetworksPage(
        summary=networks_summary(results, waiting, found.get(first.primary_class)),
        verdicts=tuple(verdicts),
        waiting=tuple(waiting),
        orders=tuple(_write_class(first, name, order, folder) for name, order in found.items() if order is not None),
        losses=len(first.losses),
        cases=first.n_cases,
        folds=first.n_folds,
        seeds=first.n_seeds,
        runs=tuple(run for one in results for run in one.record.runs),
    )
    (folder / "index.html").write_text(render_networks(study, page), encoding="utf-8")


def _write_class(comparison: Comparison, class_name: str, order: Orders, folder: Path) -> ClassOrder:
    slug, metric = slugs(comparison.classes)[class_name], comparison.primary_metric
    shown = [loss for loss in comparison.losses if loss in order.losses]
    named = []
    for kind, data, table in (
        ("means", means_frame(order), means_table(order, class_name, metric, shown)),
        ("order", order.changes, order_table(order, class_name, metric, shown)),
    ):
        named.append(NamedTable(f"{kind}_{slug}", table))
        write_table(folder / "tables", named[-1].name, data, table, table)
    figure = orders_figure(order, shown, class_name, metric, f"order_{slug}", folder / "figures")
    return ClassOrder(class_name, order_sentence(order), tuple(named), figure)
