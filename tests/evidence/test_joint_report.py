"""The report on exported studies: what is joined and what never is, claims, pages, and the committed pages."""

import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from made_up_evidence import GAINS, export

from study_helpers import call
from voxloss.evaluation.fold_model import Interim
from voxloss.evaluation.joined import join
from voxloss.evidence import figures
from voxloss.evidence.across import compare, counts
from voxloss.evidence.claims import Claim, judge_claim, read_claims
from voxloss.evidence.comparisons import BALANCE, Difference, Judged, series_steps, slope
from voxloss.evidence.estimates import estimates_table
from voxloss.evidence.export import LastLook, write_export
from voxloss.evidence.pages.claims import claims_table
from voxloss.evidence.pages.index import joined_table, main_finding
from voxloss.evidence.pages.studies import studies_page
from voxloss.evidence.pages.which_loss import which_loss_page
from voxloss.evidence.report import write_report
from voxloss.evidence.series import series_frame
from voxloss.utilities.errors import InputError

ROOT = Path(__file__).parents[2]


def studies(*exports):
    return [Judged(one) for one in exports]


def real(count):
    return [export(f"set-{number}", seed=number, noise=0.005 * (number + 1)) for number in range(count)]


def test_what_is_joined_is_the_verdicts_differences():
    exports = real(3)
    found = compare("mixed_focal", "dice_cross_entropy", studies(*exports))
    rows = []
    for one in exports:
        pairs = one.verdict().pairs
        row = pairs[(pairs["better"] == "mixed_focal") & (pairs["worse"] == "dice_cross_entropy")].iloc[0]
        rows.append((row["difference"], row["standard_error"]))
    assert found.together == join(*zip(*rows, strict=True))
    turned = compare("dice_cross_entropy", "mixed_focal", studies(*exports)).together
    assert turned.mean == pytest.approx(-found.together.mean)


def test_only_real_data_sets_are_joined():
    exports = real(4)
    alone = compare("mixed_focal", "dice_cross_entropy", studies(*exports)).together
    rounds = tuple((0, fold) for fold in range(5))
    others = [
        export("phantom", kind="phantom"),
        export("rarer", kind="rarer", data_set="set-0"),
        export("variant", kind="variant", data_set="set-1"),
        export("brats", kind="protocol", cases=10),
        export("race", look=LastLook(tuple(GAINS), rounds, Interim(0.05, 4))),
        export("nothing", unlearned={"lesion": list(GAINS)}),
        export("other losses", gains={"dice": 0.0, "dice_cross_entropy": 0.1}),
    ]
    found = compare("mixed_focal", "dice_cross_entropy", studies(*exports, *others))
    assert found.together == alone and found.together.predicted is None  # four data sets predict no fifth
    shown = [one.study for one, _ in found.differences]
    assert shown == ["set-0", "set-1", "set-2", "set-3", "race", "nothing", "phantom", "rarer", "variant", "brats"]
    assert compare("mixed_focal", "dice_cross_entropy", studies(*real(5))).together.predicted is not None
    assert compare("mixed_focal", "dice_cross_entropy", studies(*real(1))).together is None


def claim(*comparisons, measure="dice"):
    return Claim("c", "A claim.", "The opposite.", measure, comparisons)


def test_intervals_end_where_differences_of_shares_do():
    few = [
        export(f"set-{number}", seed=number, noise=0.3, gains={"mixed_focal": 0.0, "dice": -0.3}) for number in (0, 1)
    ]
    *alone, together = judge_claim(claim(("mixed_focal", "dice")), studies(*few))
    (found,) = together.findings
    assert found.place == "joined" and (found.low, found.high) == (-1.0, 1.0)  # t(0.975, 1) is 12.7
    assert all(-1 <= one.findings[0].low < one.findings[0].high <= 1 for one in alone)
    row = joined_table([compare("mixed_focal", "dice", studies(*few))]).splitlines()[2]
    assert "(-1.000 to +1.000)" in row and found.detectable > 1 and "| none |" in row
    wide = Difference("a", "dice", "focal", 0.8, 0.5, 0.1, 4.0, "a")
    assert (wide.low, wide.high) == (pytest.approx(0.3), 1.0)


def answers(judged):
    return {one.place: one.answer for one in judged}


def test_claims_are_held_refuted_or_undecided():
    quiet = [export(f"set-{number}", seed=number, noise=0.0005, cases=200) for number in range(4)]
    found = judge_claim(claim(("mixed_focal", "dice"), ("mixed_focal", "dice_cross_entropy")), studies(*quiet))
    assert answers(found) == {**{f"set-{number}": "held" for number in range(4)}, "joined": "held"}
    assert found[0].decisive.second == "dice_cross_entropy"  # the lower of the two intervals
    # 0.05 lower, and equal within 0.01: both exclude an advantage of 0.01.
    for pair in (("dice", "mixed_focal"), ("focal", "dice_cross_entropy")):
        assert set(answers(judge_claim(claim(pair), studies(*quiet))).values()) == {"refuted"}
    noisy = studies(export("noisy", noise=0.1))
    assert answers(judge_claim(claim(("mixed_focal", "dice")), noisy)) == {"noisy": "undecided"}
    detectable = [
        judge_claim(claim(("mixed_focal", "dice")), one)[0].decisive.detectable for one in (noisy, studies(quiet[0]))
    ]
    assert detectable[0] > 0.05 > detectable[1]


def test_a_study_without_a_loss_cannot_hold_a_claim():
    quiet = studies(export("a", noise=0.002))
    assert answers(judge_claim(claim(("mixed_focal", "dice"), ("mixed_focal", "combo")), quiet)) == {"a": "undecided"}
    assert answers(judge_claim(claim(("dice", "mixed_focal"), ("mixed_focal", "combo")), quiet)) == {"a": "refuted"}
    assert judge_claim(claim(("combo", "tversky")), quiet) == []


def test_losses_of_which_neither_has_learned_the_class_are_not_compared():
    pair, others = ("mixed_focal", "dice"), ("mixed_focal", "focal")
    judged = studies(export("a", noise=0.002, unlearned={"lesion": list(pair)}))
    (found,) = judge_claim(claim(pair, others), judged)
    assert [math.isfinite(one.mean) for one in found.findings] == [False, True]
    assert found.findings[0].answer == "undecided"
    assert judge_claim(claim(pair), judged) == []


def test_precision_and_recall_are_compared_with_balance():
    bias = {"focal": 0.1, "dice": -0.1, "mixed_focal": 0.0}
    judged = studies(export("a", bias=bias, noise=0.002))
    pairs = (("focal", BALANCE), (BALANCE, "dice"))
    (found,) = judge_claim(claim(*pairs, measure="precision_minus_recall"), judged)
    assert found.answer == "held"
    assert [one.mean for one in found.findings] == pytest.approx([0.1, 0.1], abs=1e-6)
    (balanced,) = judge_claim(claim(("mixed_focal", BALANCE), measure="precision_minus_recall"), judged)
    assert balanced.answer == "refuted"
    never = studies(export("a", bias=bias, noise=0.002, unlearned={"lesion": ["dice"]}))
    (found,) = judge_claim(claim(*pairs, measure="precision_minus_recall"), never)
    assert [one.answer for one in found.findings] == ["held", "undecided"] and found.answer == "undecided"


def test_the_slope_of_a_series_is_the_change_per_tenfold_rarer_class():
    steps = [
        export(
            f"step-{number}", kind="real" if not number else "rarer", data_set="set", series={"crops": share},
            gains=GAINS | {"mixed_focal": 0.03 * number}, noise=0.001,
        )
        for number, share in enumerate((0.01, 0.001, 0.0001))
    ]  # fmt: skip
    judged = studies(*steps)
    found = slope("crops", series_steps(judged)["crops"], "mixed_focal", "dice_cross_entropy", 1)
    assert found.mean == pytest.approx(0.03, abs=3 * found.standard_error) and found.standard_error < 0.002
    assert [share for share, _ in found.steps] == [0.01, 0.001, 0.0001]
    rarity = claim(("mixed_focal", "dice_cross_entropy"), measure="dice_by_rarity")
    assert answers(judge_claim(rarity, judged)) == {"crops": "held"}
    assert slope("crops", series_steps(judged[:1])["crops"], "mixed_focal", "dice_cross_entropy", 1) is None
    # Without a share, that of the fingerprint.
    by_voxels = studies(*(export(f"s{number}", fraction=10.0**-number, series={"s": None}) for number in (2, 3)))
    assert [share for _, share in series_steps(by_voxels)["s"]] == [0.01, 0.001]


def made_up_step(mean, error, degrees=4.0):
    return SimpleNamespace(
        export=SimpleNamespace(kind="phantom", data_set="set", informs=lambda first, second: True),
        difference=lambda first, second: Difference("set", first, second, mean, 1.0, error, degrees, "a"),
    )


def test_a_slope_is_that_of_weighted_least_squares():
    """By hand: weights 10000, 10000 and 2500 at 2, 3 and 4, so the mean rarity is 8/3 and the spread 10000."""

    steps = [
        (made_up_step(0.0, 0.01, 4.0), 1e-2),
        (made_up_step(0.09, 0.02, 3.0), 1e-4),
        (made_up_step(0.03, 0.01, 8.0), 1e-3),
    ]
    equal = (made_up_step(0.5, 0.0, 4.0), 1e-5)  # two losses that never differ have no standard error
    for given in (steps, [*steps, equal]):
        found = slope("size", given, "dice", "focal", 2)
        assert (found.mean, found.standard_error, found.degrees) == pytest.approx((0.04, 0.01, 3.0))
        assert found.half_width == pytest.approx(0.01 * 4.1765, abs=1e-5)  # t(0.9875, 3)
        assert [share for share, _ in found.steps] == [1e-2, 1e-3, 1e-4] and found.synthetic


def test_a_slope_through_steps_that_lie_off_the_line_is_less_certain():
    """By hand: with half the standard errors of the test before, Q is 4 by one degree of freedom: SE is 0.005 × 2."""
    steps = [(made_up_step(0.0, 0.005), 1e-2), (made_up_step(0.03, 0.005), 1e-3), (made_up_step(0.09, 0.01), 1e-4)]
    found = slope("size", steps, "dice", "focal", 2)
    assert (found.mean, found.standard_error) == pytest.approx((0.04, 0.01))
    assert slope("size", steps[:2], "dice", "focal", 2).standard_error == pytest.approx(0.005 * 2**0.5)  # always fits


def test_the_series_of_a_data_set_are_joined_once_and_synthetic_ones_never():
    def series(name, data_set, kind):
        return [
            export(f"{name}-{n}", kind=kind, data_set=data_set, series={name: 10.0**-n}, noise=0.002, seed=n)
            for n in (2, 3)
        ]

    rarity = claim(("mixed_focal", "dice_cross_entropy"), measure="dice_by_rarity")
    judged = studies(*series("a", "one", "rarer"), *series("b", "one", "rarer"), *series("p", "two", "phantom"))
    assert set(answers(judge_claim(rarity, judged))) == {"a", "b", "p"}
    found = judge_claim(rarity, [*judged, *studies(*series("c", "three", "rarer"))])
    assert found[-1].place == "joined" and found[-1].findings[0].data_sets == 2


def test_scores_along_a_series_are_means_over_folds():
    """By hand: Dice of three folds, two cases each, where t(0.975, 2) is 4.302653."""
    values = {0: (0.6, 0.8), 1: (0.0, 0.6), 2: (0.5, 0.5)}  # fold means 0.7, 0.3, 0.5: mean 0.5, SD 0.2
    rows = [
        ("dice", fold, 0, f"{fold}-{case}", "lesion", metric, value)
        for fold, pair in values.items()
        for case, value in enumerate(pair)
        for metric, value in (("dice", value), ("precision", value), ("recall", value), ("lesion_recall", value))
    ]
    frame = pd.DataFrame(rows, columns=["loss", "fold", "seed", "case", "class", "metric", "value"]).assign(
        dataset="a", status="ok"
    )
    empty = (frame["case"] == "1-0") & (frame["metric"] == "precision")  # its prediction is empty, so Dice is 0
    frame.loc[empty, ["value", "status"]] = [float("nan"), "undefined"]
    one = replace(export("a", series={"crops": 0.01}), scores=frame)
    found = series_frame(studies(one, export("b"))).set_index("loss")
    assert list(found["study"].unique()) == ["a"]
    row = found.loc["dice"]
    assert (row["runs"], row["cases"], row["collapsed"]) == (3, 6, 0)
    half_width = 4.302653 * 0.2 / 3**0.5
    assert (row["dice"], row["dice_low"]) == pytest.approx((0.5, 0.5 - half_width), abs=1e-6)
    assert row["dice_high"] == pytest.approx(0.5 + half_width, abs=1e-6)
    assert row["lesion_recall"] == pytest.approx(0.5)
    # Folds: 0, 1/2 and 0 of the cases; SD 0.288675. The lower end is not below 0.
    assert (row["empty"], row["empty_low"]) == pytest.approx((1 / 6, 0.0))
    assert row["empty_high"] == pytest.approx(1 / 6 + 4.302653 * 0.288675 / 3**0.5, abs=1e-5)


def test_cases_without_the_class_are_not_counted_as_empty():
    """An empty prediction is right there; and a prediction where nothing is has a precision, of 0."""
    one = export("a", cases=20, series={"crops": 0.01})
    scores = pd.concat(
        [one.scores, one.scores[one.scores["metric"] == "recall"].assign(metric="lesion_recall")], ignore_index=True
    )
    nothing = (scores["loss"] == "dice") & (scores["fold"] == 0)  # 4 cases, which have the class
    scores.loc[nothing, "value"] = 0.0
    scores.loc[nothing & (scores["metric"] == "precision"), ["value", "status"]] = [float("nan"), "undefined"]
    absent = scores["case"].isin(["2", "3"])  # of the folds 1 and 2
    scores.loc[absent & scores["metric"].isin(["recall", "lesion_recall"]), ["value", "status"]] = [
        float("nan"), "undefined",
    ]  # fmt: skip
    found = series_frame(studies(replace(one, scores=scores))).set_index("loss")
    assert (found["cases"] == 18).all() and (found["runs"] == 5).all()
    assert found["collapsed"].to_dict() == pytest.approx({loss: 0.2 * (loss == "dice") for loss in GAINS})
    assert found["empty"].to_dict() == pytest.approx({loss: 0.2 * (loss == "dice") for loss in GAINS})


def test_a_failed_run_has_collapsed_and_predicted_nothing():
    one = export("a", cases=20, series={"crops": 0.01})
    failed = (one.scores["loss"] == "dice") & (one.scores["fold"] == 3)
    one.scores.loc[failed, ["value", "status"]] = [float("nan"), "failed"]
    row = series_frame(studies(one)).set_index("loss").loc["dice"]
    assert (row["collapsed"], row["empty"], row["cases"]) == pytest.approx((0.2, 0.2, 20))
    others = one.scores[~failed & (one.scores["loss"] == "dice") & (one.scores["metric"] == "dice")]
    assert row["dice"] == pytest.approx(0.8 * others.groupby("fold")["value"].mean().mean())


def test_a_case_without_the_class_is_not_counted_as_empty_in_a_failed_run_either():
    one = export("a", cases=20, series={"crops": 0.01})
    failed = (one.scores["loss"] == "dice") & (one.scores["fold"] == 3)
    absent = one.scores["case"] == one.scores["case"][failed].iloc[0]
    one.scores.loc[absent & (one.scores["metric"] == "recall"), ["value", "status"]] = [float("nan"), "undefined"]
    one.scores.loc[failed, ["value", "status"]] = [float("nan"), "failed"]
    found = series_frame(studies(one)).set_index("loss")
    assert (found["cases"] == 19).all()
    assert found.loc["dice", "empty"] == pytest.approx(0.2)


def test_one_fold_has_an_interval_over_its_seeds():
    one = export("few", series={"few": 0.1}).scores
    one = one[one["fold"] == 0]
    seeds = pd.concat([one, one.assign(seed=1, value=one["value"] - 0.1)], ignore_index=True)
    alone = studies(replace(export("few", series={"few": 0.1}), scores=seeds))
    row = series_frame(alone).set_index("loss").loc["dice"]
    mean = one[(one["loss"] == "dice") & (one["metric"] == "dice")]["value"].mean()
    half_width = 12.706205 * 0.05  # t(0.975, 1), and the standard error of two values that are 0.1 apart
    assert (row["dice"], row["runs"]) == pytest.approx((mean - 0.05, 2))
    assert (row["dice_low"], row["dice_high"]) == (max(0, mean - 0.05 - half_width), min(1, mean - 0.05 + half_width))


def test_a_study_with_one_fold_has_a_curve_and_no_claim():
    one = export("few", series={"few": 0.1})
    alone = studies(replace(one, scores=one.scores[one.scores["fold"] == 0]))
    assert len(series_frame(alone)) == len(GAINS)
    assert compare("mixed_focal", "dice", alone).differences == ()
    assert judge_claim(claim(("mixed_focal", "dice")), alone) == []
    assert estimates_table(alone)["standard_error"].isna().all()


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evidence")
    exports = [
        *real(5),
        export("crop", kind="rarer", data_set="set-0", series={"crops": 0.0001}),
        export("set-9", series={"crops": 0.001}, notes=("A | note with <b>.",)),
        export("brats", kind="protocol", cases=10),
    ]
    for one in exports:
        write_export(folder / "results" / one.name, one)
    write_report(folder / "results", folder / "pages", ROOT / "evidence" / "claims.yaml", [("mixed_focal", "dice")])
    return folder


def test_the_pages_name_every_study_and_picture(reported):
    pages = {path.name: path.read_text() for path in (reported / "pages").glob("*.md")}
    assert set(pages) == {"index.md", "studies.md", "claims.md", "which-loss.md", "rarity.md"}
    assert all(f"## {path.name}\n" in pages["studies.md"] for path in (reported / "results").iterdir())
    assert "No part of this map" not in pages["which-loss.md"]
    assert "Start with Dice + cross entropy" in which_loss_page(estimates_table([]))
    pictures = set(re.findall(r"\((figures/[^)]+)\)", "".join(pages.values())))
    assert pictures == {f"figures/{path.name}" for path in (reported / "pages" / "figures").iterdir()}
    assert (
        "figures/mixed-focal-minus-dice.svg" in pictures
        and {"figures/series-crops.svg", "figures/slopes-crops.svg"} < pictures
    )
    joined = pd.read_csv(reported / "pages" / "joined.csv").set_index(["first", "second"])
    assert joined.loc[("mixed_focal", "dice_cross_entropy"), "data_sets"] == 6
    assert (
        "Over 6 real data sets, each with a single seed, Mixed Focal loss has a clearly higher and Dice loss has"
        " a clearly lower mean Dice" in pages["index.md"]
    )
    assert "A \\| note with &lt;b&gt;." in pages["studies.md"]
    assert "brats (protocol)" not in pages["claims.md"]  # four cases support no claim
    assert "brats" not in (reported / "pages" / "figures" / "mixed-focal-minus-dice.svg").read_text()


def test_the_first_sentence_says_that_no_difference_is_not_equality():
    equal = studies(*(export(f"set-{n}", seed=n, gains=dict.fromkeys(GAINS, 0.0)) for n in range(3)))
    text = main_finding(equal, [compare(loss, "dice_cross_entropy", equal) for loss in ("dice", "focal")])
    assert (
        "none of 2 losses has a clearly higher or lower mean Dice than Dice + cross entropy. That does not show" in text
    )
    assert "that they are equal: a true mean difference below about 0.0" in text


@pytest.mark.parametrize(("single", "text"), [(0, ""), (1, ", 1 with a single seed"), (3, ", each with a single seed")])
def test_the_first_sentence_names_what_a_single_seed_cannot_tell(single, text):
    exports = [export(f"set-{n}", seed=n, cases=10) for n in range(3)]
    for one in exports[single:]:
        again = one.scores.assign(seed=1)
        object.__setattr__(one, "scores", pd.concat([one.scores, again], ignore_index=True))
    judged = studies(*exports)
    found = main_finding(judged, [compare("dice", "dice_cross_entropy", judged)])
    assert found.startswith(f"Over 3 real data sets{text}, Dice loss has a clearly lower")


def test_the_first_sentence_counts_what_is_joined_and_not_what_is_there(tmp_path):
    """A difference that never varies has no standard error, so it is not joined, and its picture says so."""
    still = {"dice_cross_entropy": 1.0, "dice": 1.0}  # clipped to a Dice of 1 everywhere
    exports = [export(f"set-{n}", seed=n) for n in range(2)] + [
        export("still", gains=still),
        export("other", gains={"dice": 0.0, "focal": 0.1}),
    ]
    judged = studies(*exports)
    found = main_finding(judged, [compare("dice", "dice_cross_entropy", judged)])
    assert found.startswith("Over 2 real data sets, each")
    more = studies(*exports, export("third", gains={"dice_cross_entropy": 0.0, "dice": -0.1}))
    found = main_finding(more, [compare(loss, "dice_cross_entropy", more) for loss in ("dice", "focal")])
    assert found.startswith("Over 2 to 3 real data sets, each")
    for one in exports:
        write_export(tmp_path / "r" / one.name, one)
    write_report(tmp_path / "r", tmp_path / "pages")
    picture = (tmp_path / "pages" / "figures" / "dice-minus-dice-cross-entropy.svg").read_text()
    assert "still (real, never varies)" in picture


def test_what_is_not_joined_has_an_axis_of_its_own(tmp_path):
    """Beside the intervals of phantoms, those of real data sets would be points."""

    def drawn(*exports):
        one = compare("dice", "dice_cross_entropy", studies(*exports))
        rows = [(found, export.name, counts(found, export)) for found, export in one.differences]
        figures.forest(rows, one.together, tmp_path / "a.svg")
        return (tmp_path / "a.svg").read_text()

    phantom = export("synthetic", kind="phantom", noise=0.3)
    for exports, axes in (((*real(2), phantom), 2), (real(2), 1), ((phantom,), 1), (real(1), 1), (real(5), 1)):
        text = drawn(*exports)
        assert text.count('id="axes_') == axes
        assert ("joined, " in text) == (len(exports) > 1) and ("a new data set" in text) == (len(exports) == 5)


def test_a_study_begins_with_its_verdict():
    page = studies_page(studies(export("a", notes=("A note.",))))
    assert (
        page.index("**Mixed Focal loss")
        < page.index("Real images; data set a")
        < page.index("A note.")
        < page.index("| Loss")
    )


def test_claims_are_listed_by_answer():
    quiet = studies(*(export(f"set-{n}", seed=n, noise=0.001) for n in range(2)), export("loud", noise=0.2))
    one = claim(("mixed_focal", "dice"))
    row = claims_table([one], {"c": judge_claim(one, quiet)}).splitlines()[2]
    assert row.endswith("| held: set-0, set-1; undecided: loud |")


def test_steps_of_a_series_follow_each_other_the_most_common_first(tmp_path, monkeypatch):
    for name in ("forest", "scores_by_rarity"):
        monkeypatch.setattr(figures, name, lambda *_: None)
    shares = {"s-1e-2": 0.01, "s-1e-3": 0.001, "s-3e-3": 0.003}
    for name, share in shares.items():
        write_export(tmp_path / "r" / name, export(name, kind="rarer", data_set="a", series={"s": share}, cases=10))
    write_export(tmp_path / "r" / "z", export("z", kind="rarer", data_set="z", cases=10))
    write_report(tmp_path / "r", tmp_path / "pages")
    page = (tmp_path / "pages" / "studies.md").read_text()
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == ["z", "s-1e-2", "s-3e-3", "s-1e-3"]
    assert "Real images made rarer: [z](#z), [s-1e-2](#s-1e-2), [s-3e-3](#s-3e-3) and [s-1e-3](#s-1e-3)." in page


def test_a_loss_of_one_s_own_has_its_title_on_the_pages(tmp_path):
    own = export("a", gains={"dice_cross_entropy": 0.0, "mine.Loss": 0.0, "dice": 0.0}, cases=10)
    titles = {"dice_cross_entropy": None, "mine.Loss": "Wing loss", "dice": "The best loss"}
    write_export(tmp_path / "r" / "a", replace(own, losses=titles))
    write_report(tmp_path / "r", tmp_path / "pages")
    page = (tmp_path / "pages" / "studies.md").read_text()
    assert "Wing loss" in page and "mine.Loss" not in page
    assert "The best loss" not in page and "Dice loss" in page  # those of the package keep theirs


def test_a_report_is_the_same_again_to_the_byte(reported, tmp_path):
    words = ["evidence", "report", reported / "results", "--output", tmp_path, "--compare", "mixed_focal,dice"]
    result = call(*words, "--claims", ROOT / "evidence" / "claims.yaml")
    assert result.returncode == 0 and result.stdout == f"Page: {tmp_path / 'index.md'}\n", result.stderr
    for path in sorted((reported / "pages").rglob("*")):
        if path.is_file():
            assert (tmp_path / path.relative_to(reported / "pages")).read_bytes() == path.read_bytes(), path.name


def test_the_committed_pages_are_those_of_the_committed_scores(tmp_path):
    """`make evidence` writes them; SVG may differ with another version of Matplotlib, so their names are compared."""
    write_report(ROOT / "evidence" / "results", tmp_path, ROOT / "evidence" / "claims.yaml")
    committed = ROOT / "docs" / "evidence"
    for path in tmp_path.glob("*.*"):
        assert (committed / path.name).read_text() == path.read_text(), f"{path.name}: run `make evidence`"
    assert {path.name for path in committed.glob("figures/*")} == {path.name for path in tmp_path.glob("figures/*")}
    finding = re.search(r"\*\*Over (.*?)\*\*", (committed / "index.md").read_text())
    assert finding is None or finding[1] in " ".join((ROOT / "README.md").read_text().split()), "update the README"
    shipped = ROOT / "src" / "voxloss" / "evidence" / "estimates.csv"
    assert shipped.read_text() == (tmp_path / "estimates.csv").read_text(), "run `make evidence`"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evidence", "report", "{tmp}/none"], "there is no folder {tmp}/none; `voxloss evidence add STUDY"),
        (["evidence", "report", "{results}", "--compare", "dice"], "--compare takes two losses, FIRST,SECOND"),
        (["evidence", "report", "{results}", "--compare", "dice,dice"], "--compare takes two losses"),
        (
            ["evidence", "report", "{results}", "--compare", "dice,boundary"],
            "no exported study has the loss 'boundary'",
        ),
        (["evidence", "report", "{results}", "--claims", "{tmp}/c.yaml"], "there is no file of claims {tmp}/c.yaml"),
        (["evidence"], "the following arguments are required: TASK"),
    ],
)
def test_a_mistake_in_a_report_is_one_sentence(reported, tmp_path, words, message):
    names = {"tmp": tmp_path, "results": reported / "results"}
    result = call(*(word.format(**names) for word in words), cwd=tmp_path)
    assert result.returncode == 2 and message.format(**names) in result.stderr and result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


CLAIM = """\
margin: 0.01
claims: [{{name: a, claim: b, refuted_by: c, measure: {measure}, comparisons: {comparisons}}}]
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("margin: 0.01", "claims"),
        ("- a list", "is not a file of claims"),
        (CLAIM.format(measure="ice", comparisons="[[a, b]]"), "measure must be"),
        (CLAIM.format(measure="dice", comparisons="[[a]]"), "is not a file of claims"),
        (CLAIM.format(measure="dice", comparisons="[]"), "no comparison"),
    ],
)
def test_a_wrong_file_of_claims_is_refused(tmp_path, text, message):
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_claims(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
