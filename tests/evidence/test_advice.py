"""Advice: no evidence below three similar real data sets, what it rests on, and its error for a set left out."""

import json
import math

import pandas as pd
import pytest
from made_up_evidence import GAINS, export

from study_helpers import call
from voxloss.data.phantom.write import write_phantom
from voxloss.evaluation.joined import join
from voxloss.evidence.advice import Target, advice_sentences, advise, target_of
from voxloss.evidence.comparisons import Judged
from voxloss.evidence.estimates import COLUMNS, all_estimates, estimates_table, shipped_estimates, table_text
from voxloss.evidence.export import write_export

TARGET = Target("tumour", 0.002, 1.0, 0.2)


def table(*exports):
    return estimates_table([Judged(one) for one in exports])


def similar(count, **more):
    return [export(f"set-{number}", seed=number, noise=0.004, **more) for number in range(count)]


def test_below_three_similar_real_data_sets_there_is_no_evidence():
    far = [export("large", fraction=0.02), export("pieces", pieces=4.0), export("absent", absent=0.6)]
    others = [export("phantom", kind="phantom"), export("again", kind="variant", data_set="set-0")]
    advice = advise(TARGET, table(*similar(2), *far, *others))
    assert not advice.evidence and [one.data_set for one in advice.near] == ["set-0", "set-1"]
    text = " ".join(advice_sentences(advice))
    assert "No evidence: 2 real data sets of the 3 that advice needs lie within the range" in text
    assert "set-0" in text and "large" not in text and "Mixed Focal loss" in text  # the default losses
    assert advise(TARGET, table(*similar(3))).evidence


def test_the_range_includes_its_ends():
    near = {"fraction": 0.002 / math.sqrt(10), "pieces": 3.0, "absent": 0.5}
    advice = advise(TARGET, table(*(export(f"s{n}", seed=n, **near) for n in range(3))))
    assert len(advice.near) == 3
    assert not advise(TARGET, table(export("a", fraction=0.0006))).near


def test_a_data_set_counts_once_by_its_nearest_class():
    one = export("set-0")
    two_classes = pd.concat([table(one), table(one).assign(**{"class": "organ", "voxel_fraction": 0.0021})])
    advice = advise(TARGET, two_classes)
    assert [neighbour.class_name for neighbour in advice.neighbours] == ["lesion"]


def test_suggestions_are_ordered_by_the_joined_mean_and_the_errors_are_those_of_sets_left_out():
    exports = similar(4)
    advice = advise(TARGET, table(*exports))
    losses = [one.loss for one in advice.suggestions]
    assert losses[0] == "mixed_focal" and "dice" not in losses and "dice_cross_entropy" in losses
    pairs = []
    for one in exports:
        found = one.verdict().pairs.set_index(["better", "worse"])
        pairs.append(found.loc[("mixed_focal", "dice_cross_entropy"), ["difference", "standard_error"]].tolist())
    best = advice.suggestions[0]
    assert best.gain.mean == pytest.approx(join(*zip(*pairs, strict=True)).mean)
    errors = []
    for place, (seen, _) in enumerate(pairs):
        rest = [pair for index, pair in enumerate(pairs) if index != place]
        errors.append(abs(join(*zip(*rest, strict=True)).mean - seen))
    assert best.error == pytest.approx(sum(errors) / 4)
    assert advice.left_out_cost == pytest.approx(0.0, abs=1e-9)  # Mixed Focal is the best in each
    text = "\n".join(advice_sentences(advice))
    assert "by 4 real data sets (set-" in text and "better than it" in text and "costs 0.000 Dice" in text
    assert text.count("set-2") == 1 + sum(one.gain is not None for one in advice.suggestions)  # each names its studies


def test_losses_that_one_data_set_lacks_are_not_compared():
    fewer = {loss: gain for loss, gain in GAINS.items() if loss != "mixed_focal"}
    advice = advise(TARGET, table(*similar(3), export("less", gains=fewer)))
    assert "mixed_focal" not in [one.loss for one in advice.suggestions]
    nothing = {"dice": 0.0, "focal": 0.1}
    assert not advise(TARGET, table(*similar(3), export("less", gains=nothing))).evidence  # no baseline in common


def test_the_estimates_of_the_package_are_whole():
    assert tuple(shipped_estimates().columns) == COLUMNS
    assert tuple(table(export("a")).columns) == COLUMNS
    unlearned = export("b", unlearned={"lesion": list(GAINS)})
    assert table(unlearned).empty


def test_own_studies_replace_those_of_the_package_on_the_same_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr("voxloss.evidence.estimates.shipped_estimates", lambda: table(export("a"), export("b")))
    write_export(tmp_path / "mine", export("mine", data_set="a"))
    found = all_estimates(tmp_path)
    assert set(found["study"]) == {"mine", "b"}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for one in similar(3, fraction=0.01, absent=0.0):
        write_export(folder / one.name, one)
    return folder


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    data, report = tmp_path_factory.mktemp("d") / "data", tmp_path_factory.mktemp("r") / "check"
    write_phantom(data, cases=3, seed=0, setting="small")
    assert call("check", data, "--output", report).returncode in (0, 1)
    return data, report


def test_the_command_takes_images_or_a_check(results, checked):
    data, report = checked
    outs = [call("advise", place, "--evidence", results) for place in (data, report, report / "check.json")]
    assert all(out.returncode == 0 for out in outs), [out.stderr for out in outs]
    assert len({out.stdout for out in outs}) == 1
    content = json.loads((report / "check.json").read_text())
    rarest = min(content["classes"][1:], key=lambda one: one["voxel_fraction"]["median"])
    assert outs[0].stdout.startswith(f"{rarest['name']}: {100 * rarest['voxel_fraction']['median']:.2g} %")
    other = call("advise", report, "--evidence", results, "--class", "kidney")
    assert other.stdout.startswith("kidney: ")
    less = call("advise", data, "--evidence", results, "--data.exclude", "case_00000")
    assert less.returncode == 0 and less.stdout.splitlines()[0] != outs[0].stdout.splitlines()[0], less.stderr


def test_the_command_without_evidence_says_so(checked):
    result = call("advise", checked[1])
    assert result.returncode == 0
    assert "No evidence" in result.stdout or "Put into the study first" in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["advise", "{check}", "--class", "liver"], "there is no class 'liver'; there are kidney, tumour"),
        (["advise", "{tmp}/check.json"], "is not the check.json of `voxloss check DATA --output FOLDER`"),
        (["advise", "{check}", "--evidence", "{tmp}"], "holds no exported study"),
        (["advise", "{data}", "--data.exclude", "nobody"], "data.exclude names 'nobody', but phantom has no such case"),
        (["advise", "{data}", "--training.epochs", "3"], "takes the keys --data.KEY alone; received --training.epochs"),
    ],
)
def test_a_mistake_in_advice_is_one_sentence(checked, tmp_path, words, message):
    (tmp_path / "check.json").write_text("[]")
    result = call(*(word.format(data=checked[0], check=checked[1], tmp=tmp_path) for word in words))
    assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1, result.stderr


def test_target_is_the_rarest_class_unless_named():
    assert target_of(export("a").fingerprint).name == "lesion"


def test_a_table_keeps_six_digits():
    row = table(export("a")).head(1)
    again = pd.read_csv(pd.io.common.StringIO(table_text(row)))
    assert again["difference"][0] == pytest.approx(row["difference"][0], rel=1e-5)


def test_losses_that_never_vary_in_a_data_set_do_not_stop_the_advice():
    """Two losses that find nothing differ by exactly 0 there, without a standard error."""
    still = export("still", gains={**GAINS, "tversky": -1.0, "combo": -1.0})
    others = [export(f"o{n}", seed=n, gains={**GAINS, "tversky": 0.2, "combo": 0.2}) for n in range(3)]
    found = [one.loss for one in advise(TARGET, table(*others, still)).suggestions]
    assert {"mixed_focal", "dice_cross_entropy"} < set(found)
    nothing = export("still", gains={"dice_cross_entropy": -1.0, "focal": -1.0, "mixed_focal": 0.0, "dice": 0.0})
    found = [one.loss for one in advise(TARGET, table(*similar(3), nothing)).suggestions]
    assert "focal" not in found and "mixed_focal" in found


def test_a_neighbour_is_described_by_all_that_makes_it_one():
    text = " ".join(advice_sentences(advise(Target("spots", 0.002, 36.0, 0.0), table(export("a", absent=0.6)))))
    assert "The nearest is lesion of a (0.2 % of the voxels, 1 piece, absent in 60 % of the cases; study a)." in text


def test_the_command_says_of_how_many_classes_it_took_the_rarest(results, checked):
    lines = call("advise", checked[1], "--evidence", results).stdout.splitlines()
    assert "tumour is the rarest of 2 classes; --class kidney asks about another." in lines
    assert "rarest" not in call("advise", checked[1], "--evidence", results, "--class", "kidney").stdout
