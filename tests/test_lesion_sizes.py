"""Limits of small and middle lesions: settled from the data when a study is created, and open in what is run again."""

from dataclasses import replace
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest

from voxloss.config.files import config_from, load_config
from voxloss.config.schema import PrimaryMetric
from voxloss.data.dataset import Dataset
from voxloss.data.phantom.write import write_phantom
from voxloss.evaluation.lesion_rules import LesionRules
from voxloss.evaluation.metrics import METRICS
from voxloss.study.settle import configured_dataset, settle_sizes
from voxloss.utilities.errors import InputError

CLASSES = ("background", "lesion", "organ", "nowhere")


def prepared(*rows, spacing_mm=(10, 10, 10)):
    return [SimpleNamespace(label=np.array([[row]], dtype=np.uint8), spacing_mm=spacing_mm) for row in rows]


def settled(cases, rules):
    return settle_sizes(rules, Dataset("toy", (), CLASSES, {}), cases).size_limits_ml


def test_the_limits_are_the_thirds_of_all_lesions_of_a_class():
    cases = prepared([1, 0, 1, 1, 0, 2], [0, 1, 1, 1, 2, 2], [0, 1, 1, 1, 1, 1], [1, 0, 1, 1, 1, 1])
    # 1, 2, 3, 5, 1 and 4 ml of the first class, 1 and 2 ml of the second.
    assert settled(cases, LesionRules()) == {"lesion": (1, 3), "organ": (1, 2)}
    assert settled(cases, LesionRules(minimum_volume_ml=2)) == {"lesion": (3, 4), "organ": (2, 2)}
    # Joined, 3, 3, 5 and 5 ml.
    assert settled(cases, LesionRules(dilation=1)) == {"lesion": (3, 5), "organ": (1, 2)}
    assert settled(prepared([1, 1, 1], spacing_mm=(1, 2, 5)), LesionRules()) == {"lesion": (0.03, 0.03)}
    assert settled(prepared([0, 0, 0]), LesionRules()) == {}


def test_limits_that_are_given_stay():
    cases = prepared([1, 0, 1, 1])
    for limits in ((0.1, 1.0), {"lesion": (0.1, 1.0)}, {}):
        assert settled(cases, LesionRules(size_limits_ml=limits)) == limits


def test_limits_of_an_unknown_class_are_refused(tmp_path):
    write_phantom(tmp_path, cases=1, seed=0, setting="small")
    words = ["--data.root", str(tmp_path), "--evaluation.lesions.size_limits_ml", "{kidny: [1, 2]}"]
    config = load_config("demo", words)
    with pytest.raises(InputError, match="size_limits_ml: 'kidny' is not a class of the data; it has kidney, tumour"):
        configured_dataset(config)
    rules = replace(config.evaluation.lesions, size_limits_ml={"tumour": (1.0, 2.0)})
    configured_dataset(replace(config, evaluation=replace(config.evaluation, lesions=rules)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"lesions": 3}, "evaluation.lesions must be a mapping of its keys; received 3"),
        ({"lesions": None}, "evaluation.lesions must be a mapping of its keys; received None"),
        (3, "evaluation must be a mapping of its keys; received 3"),
        ({"lesions": {"match": "any"}}, "evaluation.lesions.match takes touch or one_to_one; received any"),
        ({"lesions": {"dilation": 0.5}}, "evaluation.lesions.dilation takes a whole number; received 0.5"),
        (
            {"lesions": {"minimum_volume": 1}},
            "evaluation.lesions has no key 'minimum_volume'; its keys are connectivity, match, threshold, ",
        ),
        (
            {"lesions": {"threshold": -0.1}},
            "evaluation.lesions.threshold must be at least 0 and below 1; received -0.1",
        ),
        ({"lesions": {"size_limits_ml": {"a": 1}}}, "evaluation.lesions.size_limits_ml takes a list of 2 numbers"),
    ],
)
def test_a_mistake_names_the_key(content, message):
    with pytest.raises(InputError) as caught:
        config_from({"evaluation": content})
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_recall_by_size_cannot_be_primary_without_a_size():
    words = ["--comparison.primary_metric", "lesion_recall_small", "--evaluation.lesions.size_limits_ml"]
    load_config("demo", [*words, "{tumour: [1, 2]}"])
    with pytest.raises(InputError, match=r"primary_metric must be another metric, as .* has no limits for tumour"):
        load_config("demo", [*words, "{kidney: [1, 2]}"])


def test_primary_metrics_are_the_shares():
    shares = {name for name, metric in METRICS.items() if not metric.unit and metric.higher_is_better}
    assert set(get_args(PrimaryMetric)) == shares
