"""The paper's numbers, and a preset's results beside them."""

import math

import pytest
from score_tables import intervals_of, pairs_of

from voxloss.report.tables.beside_paper import beside_paper, beside_paper_tests, paper_table, paper_tests_table
from voxloss.report.tables.paper_numbers import METRICS, PAPER_ORDER, PAPER_P, PAPER_RESULTS

KITS_CLASSES = ("kidney", "tumour")


def test_means_stand_above_the_papers():
    rows = [("mixed_focal", "et", metric, 0.5, 0.1, 0, 0, 0.5) for metric in METRICS]
    rows += [("dice_cross_entropy", "et", metric, 0.5, 0.1, 0, 0, 0.5) for metric in METRICS]
    beside = beside_paper(intervals_of(rows), ("mixed_focal", "dice_cross_entropy"), ("et",), "brats20")
    assert beside["paper"].tolist() == [0.775, 0.798, 0.795]
    table = paper_table(beside, ("et",), "brats20")
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["Mixed Focal loss", "0.500 ± 0.100", "0.500 ± 0.100", "0.500 ± 0.100"],
        ["Mixed Focal loss, paper", "0.775 ± 0.033", "0.798 ± 0.032", "0.795 ± 0.027"],
    ]
    assert "Table 3" in table.caption


def test_a_metric_that_was_not_scored_leaves_the_papers():
    beside = beside_paper(intervals_of([]), ("combo",), ("et",), "brats20")
    assert beside["mean"].isna().all() and beside["paper"].tolist() == [0.748, 0.833, 0.716]
    table = paper_table(beside, ("et",), "brats20")
    assert [cell.text for cell in table.rows[0]] == ["Combo loss", "n/a", "n/a", "n/a"]


def test_tests_follow_the_papers_order_and_sign():
    pairs = pairs_of(
        [
            ("tumour", "dice", "mixed_focal", "focal", 3.0, 0.01, 0.02, 10),
            ("tumour", "dice", "dice", "mixed_focal", -1.5, 0.5, 0.9, 10),  # this study's order is another
            ("tumour", "dice", "dice_cross_entropy", "focal", 1.0, 0.5, 0.9, 10),
            ("tumour", "precision", "dice", "focal", 1.0, 0.5, 0.9, 10),
        ]
    )
    beside = beside_paper_tests(pairs, KITS_CLASSES, "kits19")
    assert beside.values.tolist() == [
        ["tumour", "mixed_focal", "focal", 3.0, 0.02, 1.30e-4],
        ["tumour", "mixed_focal", "dice", 1.5, 0.9, 0.0841],
    ]


def test_the_matrix_has_both_in_a_cell():
    order = PAPER_ORDER["brats20"]
    pairs = pairs_of([("et", "dice", r, c, 1.0, 0.5, 0.5, 9) for i, r in enumerate(order) for c in order[:i]])
    table = paper_tests_table(beside_paper_tests(pairs, ("et",), "brats20"), "et", "brats20")
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["1 Focal Tversky loss", "–", "", ""],
        ["2 Combo loss", "0.500 (0.312)", "–", ""],
        ["3 Mixed Focal loss", "0.500 (0.176)", "0.500 (0.0180*)", "–"],
    ]


def test_the_papers_best_losses():
    tumour = {loss: values[1][0][0] for loss, values in PAPER_RESULTS["kits19"].items()}
    assert sorted(tumour, key=tumour.get)[::-1] == [
        "mixed_focal", "focal_tversky", "combo", "cosine_tversky", "tversky", "dice", "focal",
    ]  # fmt: skip
    # Of the text: the two corrections that the tables need.
    assert PAPER_RESULTS["kits19"]["mixed_focal"][1][0] == (0.751, 0.057)
    assert PAPER_P["brats20"][0][2] == (0.176, 0.018)


@pytest.mark.parametrize("preset", PAPER_P)
def test_the_papers_matrices_are_lower_triangles(preset):
    assert set(PAPER_ORDER[preset]) == set(PAPER_RESULTS[preset])
    for triangle in PAPER_P[preset]:
        assert [len(row) for row in triangle] == list(range(len(PAPER_ORDER[preset])))
        assert all(0 < p <= 1 and math.isfinite(p) for row in triangle for p in row)


def test_the_significant_pairs_are_those_of_the_papers_text():
    significant = {
        (class_name, row, column)
        for class_name, triangle in zip(KITS_CLASSES, PAPER_P["kits19"], strict=True)
        for row, values in zip(PAPER_ORDER["kits19"], triangle, strict=True)
        for column, p in zip(PAPER_ORDER["kits19"], values, strict=False)
        if p < 0.05
    }
    kidney = {(row, "cosine_tversky") for row in ("focal_tversky", "combo", "mixed_focal")}
    kidney |= {("mixed_focal", "tversky"), ("cosine_tversky", "focal")}
    tumour = {(row, "focal") for row in ("focal_tversky", "combo", "mixed_focal")}
    assert significant == {("kidney", *pair) for pair in kidney} | {("tumour", *pair) for pair in tumour}
