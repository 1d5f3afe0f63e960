"""The page of the claims."""

import math
from collections.abc import Sequence

from voxloss.evidence.claims import JOINED, Answer, Claim, Judgement
from voxloss.evidence.comparisons import BALANCE, Judged, Slope
from voxloss.evidence.pages.text import FIGURES, detectable_text, interval_text, table
from voxloss.report.names import loss_name
from voxloss.report.tables.formats import escape_markdown

ANSWERS: tuple[Answer, ...] = ("held", "refuted", "undecided")
LEAD = """\
Each claim of [Yeung et al. 2021](https://arxiv.org/abs/2102.04525) as comparisons that can refute it
(`evidence/claims.yaml`, written before the studies ran). A comparison is *held* if its interval lies above 0,
*refuted* if it lies below the margin of 0.01, so that an advantage that matters is excluded, else *undecided*. A
claim is held if all of its comparisons are, and refuted if one is. Intervals hold together: over all pairs of losses
of a study, over all comparisons of the claim where data sets are joined. Synthetic images are judged by themselves.
*Refuted* does not say that the other loss is better. A study in which neither loss of a comparison has learned to find
the class says nothing of it, nor does one with a single fold, which has no interval. *Comparisons*: those with an
interval, of all that the claim makes. *Detectable*: the true difference that would have been found with a probability
of 80 %.
"""


def claims_table(claims: Sequence[Claim], judgements: dict[str, list[Judgement]]) -> str:
    """Return a row per claim: what all studies joined say of it, and each study."""
    rows = []
    for claim in claims:
        found = judgements[claim.name]
        together = next((one for one in found if one.place == JOINED), None)
        alone = {
            answer: [one.place for one in found if one.place != JOINED and one.answer == answer] for answer in ANSWERS
        }
        rows.append([
            escape_markdown(claim.claim), "–" if together is None else f"**{together.answer}**",
            "; ".join(f"{answer}: {', '.join(places)}" for answer, places in alone.items() if places),
        ])  # fmt: skip
    return table(("claim", "joined", "by study or series"), rows)


def claims_page(
    claims: Sequence[Claim],
    judgements: dict[str, list[Judgement]],
    slopes: dict[str, list[Slope]],
    studies: Sequence[Judged],
) -> str:
    """Return a section per claim: what each study or series and all joined say of it, and the curves of series."""
    kinds = {judged.export.name: judged.export.kind for judged in studies}
    parts = ["# The paper's claims\n", LEAD]
    if not claims:
        parts.append("No file of claims was given.\n")
    for claim in claims:
        parts += [f"## {claim.claim}\n", f"Refuted by: {escape_markdown(claim.refuted_by)}\n"]
        rows = []
        for one in judgements[claim.name]:
            decisive = one.decisive
            missing = sum(math.isnan(found.mean) for found in one.findings)
            place = one.place + (
                f" ({kinds[one.place]})" if one.place in kinds else " (synthetic)" if one.synthetic else ""
            )
            pair = interval = "–"
            if decisive is not None:
                pair = f"{_loss(decisive.first)} minus {_loss(decisive.second)}"
                interval = f"{decisive.mean:+.3f} ({interval_text(decisive.low, decisive.high)})"
            tested = f"{len(one.findings) - missing} of {len(one.findings)}"
            seen = "–" if decisive is None else detectable_text(decisive.detectable)
            rows.append([place, f"**{one.answer}**", tested, pair, interval, seen])
        header = ("place", "answer", "comparisons", "decisive comparison", "difference", "detectable")
        parts.append(table(header, rows) if rows else "Not tested: no study or series allows these comparisons.\n")
    for name in slopes:
        parts.append(f"![Difference in mean Dice against rarity, series {name}]({FIGURES}/slopes-{name}.svg)\n")
    return "\n".join(parts)


def _loss(key: str) -> str:
    return "0" if key == BALANCE else escape_markdown(loss_name(key))
