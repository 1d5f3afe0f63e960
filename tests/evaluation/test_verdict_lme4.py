"""The verdict beside a mixed model in R (lme4, emmeans): equal estimates, and equal intervals where the models agree.

The mixed model has one variance of runs for all losses, which the verdict estimates for each. So the intervals agree
for two losses, whose difference has one variance, and where the variances of all losses are equal. Elsewhere the
verdict's are wider for losses whose folds vary more, and narrower for those whose folds vary less.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from voxloss.evaluation.verdict import Verdict, judge

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent / "lme4"  # verdict_lme4.R writes verdict_lme4.csv
TABLES = {
    "equal": HERE / "equal-scores.csv",  # eight losses whose fold means have equal variances and correlations
    "two": HERE / "two-scores.csv",  # two of them
    "hippocampus": ROOT / "benchmarks" / "results" / "hippocampus-scores.csv",
    "evidence-hippocampus": ROOT / "evidence" / "results" / "hippocampus" / "scores.csv",  # of the class "posterior"
}


def both(name: str) -> tuple[pd.DataFrame, Verdict]:
    """The rows of R with our numbers beside them, and the verdict."""
    scores = pd.read_csv(TABLES[name])
    if "class" in scores:
        scores = scores[scores["class"] == "posterior"]
    table = scores.groupby(["fold", "case", "loss"])["dice"].mean().unstack("loss")
    verdict = judge(table.to_numpy(), table.index.get_level_values("fold").to_numpy(), list(table.columns), 1)
    ours = verdict.pairs.set_index(["better", "worse"])
    rows = pd.read_csv(HERE / "verdict_lme4.csv")
    rows = rows[rows["scores"] == name]
    found = []
    for row in rows.to_dict("records"):
        pair, sign = (row["first"], row["second"]), 1
        if pair not in ours.index:
            pair, sign = pair[::-1], -1
        one = ours.loc[pair]
        found.append((sign * one["difference"], one["standard_error"], one["degrees"], one["half_width"]))
    columns = ["our_difference", "our_standard_error", "our_degrees", "our_half_width"]
    rows = pd.concat([rows.reset_index(drop=True), pd.DataFrame(found, columns=columns)], axis=1)
    return rows.assign(half_width=(rows["high"] - rows["low"]) / 2), verdict


@pytest.mark.parametrize("name", TABLES)
def test_the_estimates_are_equal(name):
    rows, _ = both(name)
    assert len(rows) == {"equal": 28, "two": 1, "hippocampus": 28, "evidence-hippocampus": 36}[name]
    np.testing.assert_allclose(rows["our_difference"], rows["difference"], atol=1e-7)


def test_two_losses_have_the_same_interval():
    (row,) = both("two")[0].to_dict("records")
    assert row["our_standard_error"] == pytest.approx(row["standard_error"], rel=1e-4)
    assert row["our_degrees"] == row["degrees"] == pytest.approx(9)
    assert row["our_half_width"] == pytest.approx(row["half_width"], rel=1e-4)


def test_equal_variances_give_the_same_intervals():
    """The verdict's standard error is 1 % larger, since it moderates, and its level makes up for it."""
    rows, _ = both("equal")
    np.testing.assert_allclose(rows["our_degrees"], rows["degrees"], rtol=1e-6)
    np.testing.assert_allclose(rows["our_standard_error"], rows["standard_error"], rtol=0.015)
    np.testing.assert_allclose(rows["our_half_width"], rows["half_width"], rtol=0.002)


def test_unequal_variances_widen_the_intervals_of_the_losses_that_vary():
    rows, verdict = both("hippocampus")
    assert (rows["our_degrees"] < rows["degrees"]).all()  # each variance is known less well than one of all
    variances = dict(zip(verdict.losses, np.square(verdict.fold_sds), strict=True))
    of_pair = np.sqrt([variances[row.first] + variances[row.second] for row in rows.itertuples()])
    assert np.corrcoef(of_pair, rows["our_half_width"] / rows["half_width"])[0, 1] > 0.99
    assert (rows["our_half_width"] / rows["half_width"]).between(0.95, 1.35).all()


def test_a_study_of_the_evidence_has_the_same_verdict():
    """Nine losses, 240 cases, five folds, three seeds, whose folds vary about alike: the same 24 of 36 pairs differ."""
    rows, _ = both("evidence-hippocampus")
    differ, ours = (rows["low"] > 0) | (rows["high"] < 0), rows["our_difference"].abs() > rows["our_half_width"]
    assert differ.sum() == 24 and (differ == ours).all()
    ratio = rows["our_half_width"] / rows["half_width"]
    assert ratio.between(0.95, 1.4).all() and ratio.mean() == pytest.approx(1.04, abs=0.01)
