"""The tables of lesions: what they print, what they leave out, and which rules their captions state."""

import math
from types import SimpleNamespace

import pytest
from score_tables import intervals_of

from voxloss.evaluation.lesion_rules import LesionRules
from voxloss.report.tables.lesions import lesion_tables, rules_sentences


def comparison(values):
    """Two losses with the means of `values` by metric; None: without a value in any case."""
    rows = []
    for place, loss in enumerate(("dice", "focal")):
        for metric, means in values.items():
            mean = math.nan if means is None else means[place]
            rows.append((loss, "cyst", metric, mean, 0.1, 0, 0, mean))
    intervals = intervals_of(rows)
    intervals.loc[intervals["mean"].isna(), "n_cases"] = 0
    return SimpleNamespace(
        intervals=intervals, losses=("dice", "focal"), over="fold", n_cases=9, n_folds=3, n_seeds=1,
        none_learned=lambda class_name: False,
    )  # fmt: skip


def test_columns_are_those_with_values_and_the_best_is_bold():
    results = comparison(
        {
            "dice": (0.5, 0.6), "lesion_recall": (0.4, 0.3), "false_positive_lesions": (2.5, 1.25),
            "false_positive_lesions_negative": None, "case_sensitivity": (0.9, 0.9), "case_specificity": None,
            "lesion_recall_small": (0.2, 0.1), "lesion_recall_middle": (0.5, 0.7), "lesion_recall_large": (1.0, 1.0),
        }
    )  # fmt: skip
    tables = {name: table for name, _, table in lesion_tables(results, "cyst", LesionRules(size_limits_ml=(0.25, 3)))}
    assert tables["lesions"].header == ("Loss", "Lesion recall")
    assert tables["cases_with_lesions"].header == ("Loss", "False positives per case", "Case sensitivity")
    by_size = ("Recall of small lesions", "Recall of middle lesions", "Recall of large lesions")
    assert tables["lesion_sizes"].header == ("Loss", *by_size)
    assert "Small: up to 0.25 ml; middle: up to 3 ml; large: above." in tables["lesion_sizes"].caption
    false_positives = [(row[1].text, row[1].bold) for row in tables["cases_with_lesions"].rows]
    assert false_positives == [("2.50 ± 0.10", False), ("1.25 ± 0.10", True)]  # fewer are better


def test_scores_without_lesions_have_no_such_table():
    assert list(lesion_tables(comparison({"dice": (0.5, 0.6), "lesion_f1": None}), "cyst", LesionRules())) == []


def test_the_caption_of_imported_scores_states_no_rule():
    [(_, metrics, table)] = lesion_tables(comparison({"lesion_f1": (0.5, 0.6)}), "cyst", None)
    assert metrics == ["lesion_f1"]
    assert "neighbours" not in table.caption and "match" not in table.caption


@pytest.mark.parametrize(
    ("rules", "sentences"),
    [
        (
            LesionRules(),
            "A lesion is a connected component (26 neighbours). Lesions of reference and prediction match if they "
            "share a voxel.",
        ),
        (
            LesionRules(connectivity=6, match="one_to_one", threshold=0.1, minimum_volume_ml=0.03),
            "A lesion is a connected component (6 neighbours); smaller ones than 0.03 ml are not counted. Lesions of "
            "reference and prediction match if the intersection over union exceeds 0.1, each with one at most.",
        ),
        (
            LesionRules(dilation=1),
            "A lesion is a connected component (26 neighbours); those of the reference that touch after a dilation by "
            "1 voxel are one. Lesions of reference and prediction match if they share a voxel after the dilation.",
        ),
    ],
)
def test_captions_state_the_rules(rules, sentences):
    assert rules_sentences(rules) == sentences
