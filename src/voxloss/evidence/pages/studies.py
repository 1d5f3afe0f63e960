"""The page with every study."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from voxloss.evidence.advice import percent
from voxloss.evidence.comparisons import Judged
from voxloss.evidence.export import Export
from voxloss.evidence.failures import failures_frame
from voxloss.evidence.kinds import KIND_TEXTS
from voxloss.evidence.pages.text import anchor, listed, table
from voxloss.report.names import loss_name, metric_name
from voxloss.report.tables.formats import escape_markdown, to_markdown
from voxloss.report.tables.learned import nothing_learned_sentence
from voxloss.report.tables.verdict import verdict_details, verdict_sentence, verdict_table
from voxloss.study.machines import machine_text
from voxloss.utilities.text import count_of, duration_text

LEAD = """\
The [verdict](https://voxloss.github.io/voxloss/concepts/verdict/) of each study on the class and metric that it named
before training: the losses that may be the best, and differences from the best mean with simultaneous 95 % intervals.
"""


def studies_page(studies: Sequence[Judged]) -> str:
    """Return a section per study: what it is, its verdict, and how rare its classes are."""
    parts = ["# Every study\n", LEAD, _contents([judged.export for judged in studies])]
    for judged in studies:
        export = judged.export
        parts.append(f"## {export.name}\n")
        facts = [_facts(export), *(f"{escape_markdown(note)}\n" for note in export.notes)]
        if export.kind == "protocol":
            parts += [f"{count_of(export.count('case'), 'case')} support no comparison of losses.\n", *facts]
            continue
        verdict = export.verdict()
        unlearned = export.unlearned.get(export.class_name, [])
        if verdict is None:
            name = escape_markdown(export.class_name)
            parts += [f"There is no case with {metric_name(export.metric)} of {name} for every loss.\n", *facts]
            continue
        if export.learned:
            left = export.look is not None and len(export.look.losses) < len(export.losses)
            sentence = verdict_sentence(verdict, export.class_name, export.metric, others_left=left)
            details = verdict_details(verdict, export.metric)
        else:
            sentence, details = nothing_learned_sentence(export.class_name, len(export.losses)), ()
        text = " ".join(map(escape_markdown, (sentence, *details)))
        verdicts = verdict_table(verdict, export.class_name, export.metric, unlearned=unlearned)
        parts += [
            f"**{text}**\n",
            *facts,
            to_markdown(replace(verdicts, caption="")),
            _failures(failures_frame(export), export),
        ]
        if export.fingerprint is not None:
            parts.append(_fingerprint_table(export))
    return "\n".join(parts)


def _contents(exports: Sequence[Export]) -> str:
    """Return a line of links per kind."""
    lines = []
    for kind, text in KIND_TEXTS.items():
        links = [f"[{export.name}](#{anchor(export.name)})" for export in exports if export.kind == kind]
        if links:
            lines.append(f"- {text[0].upper()}{text[1:]}: {listed(links)}.")
    return "\n".join(lines) + "\n"


def _facts(export: Export) -> str:
    source = export.source["from"]
    seconds = export.runs["seconds"]
    states = ", ".join(f"{number} {escape_markdown(state)}" for state, number in export.runs["states"].items())
    facts = [
        f"{KIND_TEXTS[export.kind].capitalize()}; data set {escape_markdown(export.data_set)}; "
        f"{count_of(export.count('case'), 'case')}, {count_of(export.count('fold'), 'fold')}, "
        f"{count_of(export.count('seed'), 'seed')}, {count_of(len(export.losses), 'loss')}.",
    ]
    if source == "voxloss":
        facts.append(
            f"Runs: {states}; {duration_text(sum(seconds.values()))} in all. Batches: {_equal(export, 'batches')}. "
            f"Initial weights: {_equal(export, 'weights')}. {_machines(export)}"
        )
    else:
        configuration = export.source.get("configuration")
        detail = f" ({escape_markdown(str(configuration))})" if configuration else ""
        facts.append(
            f"Imported from {escape_markdown(str(source))}{detail}. Settings, machine, batches and initial weights are "
            "not known."
        )
    if export.look is not None:
        left = [escape_markdown(loss_name(loss)) for loss in export.losses if loss not in export.look.losses]
        facts.append("A race" + (f", which {listed(left)} left" if left else "") + "; not joined.")
    if export.series:
        facts.append(f"A step of the series {listed(list(export.series))}.")
    return " ".join(facts) + "\n"


def _equal(export: Export, what: str) -> str:
    """Say whether all losses had the same batches or initial weights; exports of earlier versions lack the weights."""
    found = export.digests.get(what) or {"equal": None, "unrecorded_runs": 0, "digests": {}}
    if found["equal"] is None:
        return "recorded for too few runs to compare them" if found["digests"] else "not recorded"
    if not found["equal"]:
        return "NOT equal for all losses"
    runs, without = sum(export.runs["states"].values()), found["unrecorded_runs"]
    some = f", in the {runs - without} of {count_of(runs, 'run')} that recorded one" if without else ""
    return f"equal for all losses by digest{some}"


def _machines(export: Export) -> str:
    """Say which machine trained the runs; with several, how many each."""
    machines = export.runs.get("machines") or [{"runs": 0, **export.environment}]
    texts = [escape_markdown(machine_text(machine)) for machine in machines]
    if len(texts) == 1:
        return f"{texts[0]}."
    parts = [f"{count_of(machine['runs'], 'run')}: {text}" for machine, text in zip(machines, texts, strict=True)]
    return f"More than one machine trained them: {'. '.join(parts)}."


def _failures(rows: pd.DataFrame, export: Export) -> str:
    """Return a table of what each loss missed as a whole, what it invented, and its worst case."""
    absent = bool((rows["without_class"] > 0).any())
    header = ["loss", "missed as a whole", *(["invented"] if absent else []), "worst case"]
    lines = []
    for row in rows.to_dict("records"):
        cells = [f"{row['missed']} of {row['with_class']}"]
        cells += [f"{row['invented']} of {row['without_class']}"] if absent else []
        worst = "–"
        if not pd.isna(row["worst_case"]):
            worst = f"no. {escape_markdown(row['worst_case'])}: Dice {row['worst_dice']:.2f}"
        lines.append([escape_markdown(loss_name(row["loss"])), *cells, worst])
    name = escape_markdown(export.class_name)
    lead = f"Failures: predictions of cases with {name} that find no voxel of it"
    lead += f", and of cases without {name} that have some" if absent else ""
    return f"{lead}.\n\n{table(header, lines)}"


def _fingerprint_table(export: Export) -> str:
    assert export.fingerprint is not None
    rows = []
    for one in export.fingerprint.classes:
        share, pieces = one.voxel_fraction, one.pieces
        rows.append([
            escape_markdown(one.name), f"{one.cases} of {export.fingerprint.cases}",
            f"{percent(share.median)} ({percent(share.low)} to {percent(share.high)})",
            f"{pieces.median:g} ({pieces.low:g} to {pieces.high:g})",
        ])  # fmt: skip
    return table(("class", "cases with it", "share of the voxels", "connected pieces"), rows)
