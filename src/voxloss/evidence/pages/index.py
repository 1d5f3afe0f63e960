"""The first page of the evidence."""

from collections.abc import Sequence
from statistics import median

from voxloss.evidence.across import Comparison, counts
from voxloss.evidence.advice import percent
from voxloss.evidence.claims import Claim, Judgement
from voxloss.evidence.comparisons import BASELINE, Judged, ended, is_joined
from voxloss.evidence.kinds import KIND_TEXTS
from voxloss.evidence.pages.claims import claims_table
from voxloss.evidence.pages.text import FIGURES, anchor, detectable_text, interval_text, listed, table
from voxloss.report.names import loss_name
from voxloss.report.tables.formats import escape_markdown
from voxloss.utilities.text import count_of, duration_text

LEAD = """\
Every number and picture of these pages comes from the scores in `evidence/results` by one command (`make evidence`).
A result against our own losses is as welcome as one for them. [Which loss should I start with?](which-loss.md) · [The
paper's claims](claims.md) · [Rarer and rarer structures](rarity.md) · [Every study](studies.md) · [Add your own
study](https://voxloss.github.io/voxloss/evidence/format/)
"""
JOINED_TEXT = """\
A positive difference is a higher mean Dice of the class that the study named before training. *Joined*: the mean over
data sets of a random-effects model with Hartung and Knapp's 95 % interval; τ is the standard deviation of the true
differences of data sets. *A new data set*: the 95 % interval of its true difference, from five data sets on.
*Detectable*: the true mean difference that would have been found with a probability of 80 %. Bold: clear, which means
that the interval still excludes 0 where the intervals of all losses in the table hold together (Bonferroni). [How
often these intervals hold](https://voxloss.github.io/voxloss/benchmarks/joined/).
"""
CLAIMS = """\
Written down [with what would refute them](claims.md) before the studies ran. *Refuted*: in one of the claim's
comparisons or more, an advantage of 0.01 is excluded, which does not say that the other loss is better.
"""
PICTURES = """\
Squares: the difference in a study with its interval, simultaneous over all pairs of losses of the study; grey, below
on an axis of their own: not joined. Diamond: joined; bar: a new data set. Grey band: differences below 0.01.
"""
SERIES = """\
The same test cases at every step of a series, with a class that gets rarer: [curves, numbers and what they say of the
claims](rarity.md).
"""
TABLES = """\
[joined.csv](joined.csv), [estimates.csv](estimates.csv) (every pair of losses and every class),
[verdicts.csv](verdicts.csv), [claims.csv](claims.csv),
[failures.csv](failures.csv); the scores are in `evidence/results/STUDY/scores.csv`.
"""


def main_finding(studies: Sequence[Judged], comparisons: Sequence[Comparison]) -> str:
    """Say in a sentence or two what the evidence shows, whatever it is."""
    sets = sorted({judged.export.data_set for judged in studies if is_joined(judged.export)})
    if not sets:
        return "No study of real images is exported yet, so there is no evidence for or against any loss."
    against = [one for one in comparisons if one.second == BASELINE and one.together is not None]
    if not against:
        count = count_of(len(sets), "real data set")
        names = escape_markdown(", ".join(sets))
        return f"So far the evidence is {count} ({names}), which is too little to say anything beyond it."
    clear = [one for one in against if one.together is not None and one.together.clear(len(against))]
    better = [_name(one.first) for one in clear if one.together is not None and one.together.mean > 0]
    worse = [_name(one.first) for one in clear if one.together is not None and one.together.mean < 0]
    known = [one.together.detectable for one in against if one.together is not None]
    baseline = loss_name(BASELINE)
    parts = [f"{listed(better)} {'has' if len(better) == 1 else 'have'} a clearly higher"] if better else []
    parts += [f"{listed(worse)} {'has' if len(worse) == 1 else 'have'} a clearly lower"] if worse else []
    says = " and ".join(parts) if parts else f"none of {count_of(len(against), 'loss')} has a clearly higher or lower"
    unseen = "A true" if parts else "That does not show that they are equal: a true"
    used = {export.name: export for one in against for found, export in one.differences if counts(found, export)}
    alone = sum(export.count("seed") == 1 for export in used.values())
    fewest, most = (pick(one.together.n for one in against if one.together is not None) for pick in (min, max))
    count = f"{fewest} to {most} real data sets" if fewest < most else count_of(most, "real data set")
    if alone:
        count += f", {'each' if alone == len(used) else alone} with a single seed"
    return (
        f"Over {count}, {says} mean Dice than {baseline}. {unseen} mean difference below about "
        f"{detectable_text(median(known))} (the median over the losses) would probably not have been seen."
    )


def index_page(
    studies: Sequence[Judged],
    comparisons: Sequence[Comparison],
    claims: Sequence[Claim],
    judgements: dict[str, list[Judgement]],
    series: Sequence[str],
) -> str:
    """Return the first page: main finding, studies, joined differences, claims, pictures."""
    rows = []
    for judged in studies:
        export = judged.export
        fingerprint = export.fingerprint
        rarity = None if fingerprint is None else fingerprint.of(export.class_name).voxel_fraction.median
        seconds = sum(export.runs["seconds"].values())
        share = "" if rarity is None else f" ({percent(rarity)})"
        rows.append([
            f"[{export.name}](studies.md#{anchor(export.name)})", export.kind, escape_markdown(export.data_set),
            str(export.count("case")), escape_markdown(export.class_name) + share,
            f"{len(export.losses)} × {export.count('fold')} × {export.count('seed')}",
            duration_text(seconds) if seconds else "not known",
        ])  # fmt: skip
    header = (
        "study", "kind", "data set", "cases", "class (share of voxels)", "losses × folds × seeds", "time of all runs",
    )  # fmt: skip
    parts = [
        "# Evidence: what the losses do on real rare structures\n",
        f"**{main_finding(studies, comparisons)}**\n",
        LEAD,
        "## Differences from the baseline\n",
        f"The baseline is {loss_name(BASELINE)}, what most people train with. {JOINED_TEXT}",
        joined_table([one for one in comparisons if one.second == BASELINE]),
    ]
    others = [one for one in comparisons if one.second != BASELINE]
    if others:
        parts += ["## Other comparisons\n", joined_table(others)]
    if claims:
        parts += ["## The paper's claims\n", CLAIMS, claims_table(claims, judgements)]
    if series:
        parts += ["## Dose and response\n", SERIES]
        parts += [f"![Scores by rarity, series {name}]({FIGURES}/series-{name}.svg)\n" for name in series]
    parts += [
        "## Studies\n",
        table(header, rows) if rows else "No study is exported yet.\n",
        "Only studies of the kind *real* are joined, one for each data set. "
        + " ".join(f"*{kind}*: {text}." for kind, text in KIND_TEXTS.items())
        + "\n",
    ]
    if comparisons:
        pictures = (f"![{_title(one)}]({FIGURES}/{one.name}.svg)\n" for one in comparisons)
        parts += ["## Pictures\n", PICTURES, *pictures]
    parts += ["## Tables\n", TABLES]
    return "\n".join(parts)


def _title(one: Comparison) -> str:
    return f"Mean Dice of {_name(one.first)} minus that of {_name(one.second)}, by study"


def _name(loss: str) -> str:
    return escape_markdown(loss_name(loss))


def joined_table(comparisons: Sequence[Comparison]) -> str:
    """Return a row per comparison with what is joined of it."""
    if not comparisons:
        return f"No study has {loss_name(BASELINE)} and another loss.\n"
    rows, joined = [], sum(one.together is not None for one in comparisons)
    for one in comparisons:
        sets = sum(counts(found, export) for found, export in one.differences)
        name = _name(one.first)
        if one.second != BASELINE:
            name += f" minus {_name(one.second)}"
        found = one.together
        if found is None:
            cells = ["–"] * 5
        else:
            new = "–" if found.predicted is None else interval_text(*ended(*found.predicted))
            mean = f"{found.mean:+.3f} ({interval_text(*ended(found.low, found.high))})"
            cells = [f"**{mean}**" if found.clear(joined) else mean, f"{found.tau:.3f}", new]
            place = found.weights.index(max(found.weights))
            heaviest = escape_markdown(one.differences[place][0].data_set)
            cells += [detectable_text(found.detectable), f"{heaviest}, {100 * found.weights[place]:.0f} %"]
        rows.append([name, str(sets), *cells])
    return table(("loss", "real data sets", "joined", "τ", "a new data set", "detectable", "largest weight"), rows)
