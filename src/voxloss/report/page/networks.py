"""Write the first page of a study of several networks: all verdicts, and whether the order of the losses changes."""

from collections.abc import Mapping
from dataclasses import dataclass

import yaml

import voxloss
from voxloss.report.figures.scores import FigureFile
from voxloss.report.page.page import NamedTable, batch_check, environment_rows
from voxloss.report.page.templates import page_environment
from voxloss.report.summary import Summary
from voxloss.report.tables.formats import to_html
from voxloss.study.folder import RunStatus
from voxloss.study.study import Study


@dataclass(frozen=True)
class NetworkVerdict:
    """The verdict with a network: its headline, and the sentences that follow it."""

    network: str
    headline: str
    details: tuple[str, ...]


@dataclass(frozen=True)
class ClassOrder:
    """The order of the losses for a class: what it says, its tables and its figure."""

    class_name: str
    sentence: str
    tables: tuple[NamedTable, ...]
    figure: FigureFile


@dataclass(frozen=True)
class NetworksPage:
    """The contents of the page.

    Args:
        summary: Headline and limits.
        verdicts: Those of the networks that have results.
        without: For every other network, why it has no results.
        orders: The orders by class, the primary class first.
        losses, cases, folds, seeds: Their numbers with the first network that is compared.
        runs: All runs.
    """

    summary: Summary
    verdicts: tuple[NetworkVerdict, ...]
    without: Mapping[str, str]
    orders: tuple[ClassOrder, ...]
    losses: int
    cases: int
    folds: int
    seeds: int
    runs: tuple[RunStatus, ...]


def render_networks(study: Study, page: NetworksPage) -> str:
    """Return the page as HTML; every name, path and reason in it is escaped."""
    training = study.config.training
    facts = [
        ("Networks", len(page.verdicts) + len(page.without)),
        ("Losses", page.losses),
        ("Cases", page.cases),
        ("Folds", page.folds),
        ("Seeds", page.seeds),
        ("Training", f"{training.epochs} × {training.iterations} steps"),
    ]
    return (
        page_environment()
        .get_template("networks.html")
        .render(
            name=str(study.name),
            dataset=study.dataset.name,
            page=page,
            facts=facts,
            to_html=to_html,
            settings=yaml.safe_dump(study.description.config, sort_keys=False, allow_unicode=True),
            environment=environment_rows(study),
            batches=batch_check(page.runs, "losses and networks"),
            version=voxloss.__version__,
        )
    )
