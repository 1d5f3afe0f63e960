"""The report of a study of several networks: a page of each, and a first page with all verdicts and their order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from voxloss.evaluation.orders import Orders, orders, orders_of_some
from voxloss.report.comparison import Comparison, compare
from voxloss.report.contents import write_contents
from voxloss.report.figures.orders import orders_figure
from voxloss.report.names import loss_name, metric_name, slugs
from voxloss.report.page.networks import ClassOrder, NetworksPage, NetworkVerdict, render_networks
from voxloss.report.page.page import NamedTable, render_page
from voxloss.report.record import StudyRecord, record_of
from voxloss.report.summary import FINAL, Summary, nothing_learned, summarise
from voxloss.report.tables.files import write_table
from voxloss.report.tables.main import primary_first
from voxloss.report.tables.orders import means_frame, means_table, order_details, order_sentence, order_table
from voxloss.study.study import Study
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import count_of


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

    @property
    def is_ready(self) -> bool:
        """Whether every loss that is not retired has all of its scores."""
        return all(one.standing != "in progress" for one in self.comparison.standings)


def network_results(study: Study, losses: Sequence[str] | None = None) -> tuple[list[NetworkResult], dict[str, str]]:
    """Compute the results of every network that has some, and say of the others why they have none.

    Raises:
        InputError: No network has results, for the reason that `compare` gives.
    """
    results: list[NetworkResult] = []
    without: dict[str, str] = {}
    refused: InputError | None = None
    for part in study.parts():
        network, record = part.files.network or "", record_of(part)
        if (reason := _without_results(record)) is not None:
            without[network] = reason
            continue
        try:
            results.append(NetworkResult(network, record, compare(record, losses)))
        except InputError as error:
            refused = refused or error
            without[network] = str(error).rstrip(".")
    if not results:
        reasons = "; ".join(f"{network}: {reason}" for network, reason in without.items())
        raise refused or InputError(f"{study.folder} has no finished run yet; a report needs at least one ({reasons}).")
    return results, without


def _without_results(record: StudyRecord) -> str | None:
    """Say why a network has no results: no run is finished; None if some are."""
    if not record.runs:
        return "all of its losses are retired"
    if not record.scores.empty and any(run.state in FINAL for run in record.runs):
        return None
    runs, failed = count_of(len(record.runs), "run"), [run for run in record.runs if run.state == "failed"]
    if not failed:
        return f"none of its {runs} is finished yet"
    first = f"the first: {failed[0].reason.rstrip('.')}" if failed[0].reason else "without a recorded reason"
    if len(failed) == len(record.runs):
        return f"all of its {runs} failed ({first})"
    return f"none of its {runs} is finished yet, and {len(failed)} failed ({first})"


def class_orders(results: Sequence[NetworkResult], class_name: str) -> Orders | None:
    """Compare the order of the losses between the networks with which some loss has learned a class.

    As losses in progress do not cut the cases of those that are finished, networks in progress do not cut losses and
    cases of the others: two or more networks with which every loss is finished are compared without them. A network
    that has too little in common with the others is left out.

    Of losses that were chosen afterwards, intervals remain those of all compared losses.
    """
    learned = [one for one in results if not one.comparison.none_learned(class_name)]
    found = _most_in_common([one for one in learned if one.is_ready], class_name) or _most_in_common(
        learned, class_name
    )
    shown = {loss for one in learned for loss in one.comparison.losses}
    return None if found is None else orders_of_some(found, shown)


def _most_in_common(results: Sequence[NetworkResult], class_name: str) -> Orders | None:
    """Compare as many networks as have losses and cases in common; of equally many, those with the most."""
    for size in range(len(results), 1, -1):
        found = [
            order
            for chosen in combinations(results, size)
            if (
                order := orders(
                    {one.network: one.comparison.family_scores for one in chosen},
                    class_name,
                    chosen[0].comparison.primary_metric,
                )
            )
            is not None
        ]
        if found:
            return max(found, key=lambda order: (len(order.losses), order.n_cases))
    return None


def left_out(results: Sequence[NetworkResult], without: Mapping[str, str], found: Orders | None) -> list[str]:
    """Say of every network that is not compared with the others why it is not, a sentence each."""
    primary = results[0].comparison.primary_class
    sentences = [f"{network} is not compared: {reason}." for network, reason in without.items()]
    if found is None:
        return sentences
    for one in results:
        if one.network in found.networks:
            continue
        if nothing_learned(one.comparison):
            sentences.append(f"With {one.network} no loss learned to find {primary}, so it has no order.")
        else:
            sentences.append(f"{one.network} is not compared with the other networks{_why(one, found)}.")
    return sentences


def _why(one: NetworkResult, found: Orders) -> str:
    """Say what keeps a network with results out of a comparison."""
    if not one.is_ready:
        finished = sum(run.state in FINAL for run in one.record.runs)
        return f" yet: {finished} of its {count_of(len(one.record.runs), 'run')} finished"
    shared = [loss for loss in found.losses if loss in one.comparison.family_losses]
    if not shared:
        return ": it has no loss in common with them"
    if len(shared) == 1:
        return f": {loss_name(shared[0])} is the only loss that it has in common with them"
    return f": no case has a {metric_name(one.comparison.primary_metric)} for every loss with it and with them"


def networks_summary(results: Sequence[NetworkResult], without: Mapping[str, str], found: Orders | None) -> Summary:
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
        headline = (
            "No two networks have results of two losses on the same cases, so the order of the losses cannot be "
            "compared."
        )
    limits = left_out(results, without, found)
    compared = [one for one in results if found is None or one.network in found.networks]
    own_limits = [(one.network, summarise(one.record, one.comparison).limits) for one in compared]
    shared = [limit for limit in own_limits[0][1] if all(limit in of_network for _, of_network in own_limits)]
    limits += shared
    limits += [f"{network}: {limit}" for network, own in own_limits for limit in own if limit not in shared]
    return Summary(headline, details, tuple(limits))


def write_networks(study: Study, folder: Path, viewer_cases: int, losses: Sequence[str] | None) -> None:
    """Write the page of every network to FOLDER/networks/NETWORK, and the first page to FOLDER."""
    results, without = network_results(study, losses)
    verdicts = []
    for one in results:
        own = folder / "networks" / one.network
        own.mkdir(parents=True)
        contents = write_contents(one.record, one.comparison, own, viewer_cases)
        (own / "index.html").write_text(render_page(one.record, one.comparison, contents), encoding="utf-8")
        verdicts.append(NetworkVerdict(one.network, contents.summary.headline, contents.summary.details))
    first = results[0].comparison
    found = {name: class_orders(results, name) for name in primary_first(first)}
    if (primary := found.get(first.primary_class)) is not None:
        first = next(one.comparison for one in results if one.network in primary.networks)
    page = NetworksPage(
        summary=networks_summary(results, without, primary),
        verdicts=tuple(verdicts),
        without=without,
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
