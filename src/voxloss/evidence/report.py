"""The report on all exported studies: pages, tables and pictures, from their scores and the file of claims alone."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from voxloss.evidence import figures
from voxloss.evidence.across import Comparison, compare, counts
from voxloss.evidence.claims import Claim, Judgement, judge_claim, read_claims
from voxloss.evidence.comparisons import BASELINE, Difference, Judged, Slope, ended, order, series_steps, slope
from voxloss.evidence.estimates import SHIPPED, estimates_table, table_text
from voxloss.evidence.export import Export, read_exports
from voxloss.evidence.failures import COLUMNS as FAILURES
from voxloss.evidence.failures import failures_frame
from voxloss.evidence.pages.claims import claims_page
from voxloss.evidence.pages.index import index_page
from voxloss.evidence.pages.rarity import rarity_page
from voxloss.evidence.pages.studies import studies_page
from voxloss.evidence.pages.text import FIGURES
from voxloss.evidence.pages.which_loss import which_loss_page
from voxloss.evidence.series import series_frame
from voxloss.report.names import own_names
from voxloss.utilities.errors import InputError
from voxloss.utilities.files import write_text


def write_report(
    results: Path, output: Path, claims: Path | None = None, pairs: Sequence[tuple[str, str]] = ()
) -> list[Path]:
    """Write the pages, tables and pictures of all exported studies.

    Args:
        results: The folder of the exported studies.
        output: The folder of the pages. Files of an earlier report are replaced, others stay.
        claims: The file of claims; None: no page of claims.
        pairs: More comparisons than those with the baseline: the loss that is better where the difference is positive,
            and the other.

    Returns:
        The files.

    Raises:
        InputError: The folder is missing, an export is damaged, no study has a loss of `pairs`, or the claims cannot
            be read.
    """
    exports = sorted(read_exports(results), key=order)
    titles = {key: title for export in exports for key, title in export.losses.items() if title and "." in key}
    with own_names(titles):
        return _write(exports, output, claims, pairs)


def _write(
    exports: Sequence[Export], output: Path, claims: Path | None, pairs: Sequence[tuple[str, str]]
) -> list[Path]:
    known = list(dict.fromkeys(loss for export in exports for loss in export.losses))
    for loss in (loss for pair in pairs for loss in pair):
        if loss not in known:
            raise InputError(f"no exported study has the loss {loss!r}; they have {', '.join(known)}")
    read = read_claims(claims) if claims is not None else []
    studies = [Judged(export) for export in exports]
    claiming = [judged for judged in studies if judged.export.kind != "protocol"]
    wanted = dict.fromkeys([*((loss, BASELINE) for loss in sorted(known) if loss != BASELINE), *pairs])
    comparisons = [one for pair in wanted if (one := compare(*pair, claiming)).differences]
    judgements = {claim.name: judge_claim(claim, claiming) for claim in read}
    slopes = _slopes(read, claiming)
    estimates, series = estimates_table(studies), series_frame(claiming)
    contents = {
        "index.md": index_page(studies, comparisons, read, judgements, list(dict.fromkeys(series["series"]))),
        "studies.md": studies_page(studies),
        "claims.md": claims_page(read, judgements, slopes, studies),
        "rarity.md": rarity_page(series, slopes, read, judgements),
        "which-loss.md": which_loss_page(estimates),
        "joined.csv": table_text(_joined_frame(comparisons)),
        "claims.csv": table_text(_claims_frame(judgements)),
        "verdicts.csv": table_text(_verdicts_frame(studies)),
        "series.csv": table_text(series),
        "failures.csv": table_text(_failures_frame(claiming)),
        SHIPPED: table_text(estimates),
    }
    folder = output / FIGURES
    for old in folder.glob("*.svg") if folder.is_dir() else ():
        old.unlink()
    for one in comparisons:
        rows = [(found, _row_label(found, export), counts(found, export)) for found, export in one.differences]
        figures.forest(rows, one.together, folder / f"{one.name}.svg")
    for name, rows in series.groupby("series", sort=False):
        figures.scores_by_rarity(rows, folder / f"series-{name}.svg")
    for name, of_series in slopes.items():
        figures.dose_response(of_series, folder / f"slopes-{name}.svg")
    for name, text in contents.items():
        write_text(output / name, text)
    return [output / name for name in contents]


def _slopes(claims: Sequence[Claim], studies: Sequence[Judged]) -> dict[str, list[Slope]]:
    """The dose-response curves of every series, of the comparisons that claims make."""
    pairs = dict.fromkeys(pair for claim in claims if claim.measure == "dice_by_rarity" for pair in claim.comparisons)
    found = {
        name: [one for first, second in pairs if (one := slope(name, steps, first, second, len(pairs))) is not None]
        for name, steps in series_steps(studies).items()
    }
    return {name: slopes for name, slopes in found.items() if slopes}


def _joined_frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    rows = []
    for one in comparisons:
        found = one.together
        row: dict[str, object] = {"first": one.first, "second": one.second}
        row["data_sets"] = sum(counts(difference, export) for difference, export in one.differences)
        if found is not None:
            names = ("mean", "low", "high", "standard_error", "tau", "heterogeneity", "p_heterogeneity", "detectable")
            row |= {name: getattr(found, name) for name in names}
            row["low"], row["high"] = ended(found.low, found.high)
            low, high = ended(*(found.predicted or (math.nan, math.nan)))
            row |= {"new_low": low, "new_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def _claims_frame(judgements: dict[str, list[Judgement]]) -> pd.DataFrame:
    findings = [(finding, one.answer) for found in judgements.values() for one in found for finding in one.findings]
    return pd.DataFrame([{**asdict(finding), "claim_is": answer} for finding, answer in findings])


def _failures_frame(studies: Sequence[Judged]) -> pd.DataFrame:
    rows = [row for judged in studies for row in failures_frame(judged.export).to_dict("records")]
    return pd.DataFrame(rows, columns=list(FAILURES))


def _verdicts_frame(studies: Sequence[Judged]) -> pd.DataFrame:
    rows = []
    for judged in studies:
        export = judged.export
        verdict = export.verdict()
        if verdict is None:
            continue
        for loss, mean in zip(verdict.losses, verdict.means, strict=True):
            rows.append({
                "study": export.name, "kind": export.kind, "class": export.class_name, "metric": export.metric,
                "loss": loss, "mean": mean, "may_be_best": loss in verdict.may_be_best,
                "learned": loss not in export.unlearned.get(export.class_name, []), "detectable": verdict.detectable,
            })  # fmt: skip
    return pd.DataFrame(rows)


def _row_label(found: Difference, export: Export) -> str:
    """The study's name, and why it is not joined."""
    if counts(found, export):
        return export.name
    reason = (
        ", not learned" if not export.informs(found.first, found.second) else "" if found.usable else ", never varies"
    )
    return f"{export.name} ({export.kind}{reason})"
