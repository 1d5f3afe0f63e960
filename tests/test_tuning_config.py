"""What `comparison.tuning` may say, in YAML and on the command line, and the sentences about what it may not."""

import pytest
import yaml

from voxloss.config.files import config_from, load_config, to_plain
from voxloss.config.losses import LossChoice, loss_choices
from voxloss.config.schema import ComparisonConfig
from voxloss.config.tuning import Choices, Range, Tuning, check_tuning
from voxloss.utilities.errors import InputError

LOSSES = ("dice", "mixed_focal")


def tuning(entry: object, losses: tuple = LOSSES) -> Tuning:
    found = Tuning.of(yaml.safe_load(entry) if isinstance(entry, str) else entry, losses)
    assert found is not None
    return found


def test_lists_are_a_grid():
    found = tuning({"learning_rate": [1e-3, 3e-4, 1e-4]})
    assert (found.trials, found.grid, found.prune) == (3, True, False)
    assert found.combinations(LossChoice("dice", {})) == [{"learning_rate": rate} for rate in (1e-3, 3e-4, 1e-4)]


def test_a_grid_has_every_combination():
    found = tuning({"mixed_focal.weight": [0.25, 0.75], "mixed_focal.delta": [0.6, 0.7, 0.8]}, ("mixed_focal",))
    combinations = found.combinations(LossChoice("mixed_focal", {}))
    assert found.trials == len(combinations) == 6
    assert combinations[1] == {"weight": 0.25, "delta": 0.7}


def test_with_trials_two_numbers_are_a_range_and_other_lists_are_choices():
    found = tuning(
        {
            "trials": 12,
            "learning_rate": [1e-5, 1e-2, "log"],
            "mixed_focal.weight": [0, 1],
            "mixed_focal.delta": [0.6, 0.7, 0.8],
            "mixed_focal.class_reduction": ["sum", "mean"],
        }
    )
    space = found.space(LossChoice("mixed_focal", {}))
    assert space == {
        "learning_rate": Range(1e-5, 1e-2, log=True),
        "weight": Range(0, 1),
        "delta": Choices((0.6, 0.7, 0.8)),
        "class_reduction": Choices(("sum", "mean")),
    }
    assert (found.trials, found.grid, found.prune) == (12, False, True)
    assert found.space(LossChoice("dice", {})) == {"learning_rate": Range(1e-5, 1e-2, log=True)}


def test_parameters_of_a_loss_may_stand_below_its_name():
    flat = tuning({"trials": 4, "learning_rate": [1e-4, 1e-3], "mixed_focal.weight": [0, 1]})
    assert tuning({"trials": 4, "learning_rate": [1e-4, 1e-3], "mixed_focal": {"weight": [0, 1]}}) == flat


def test_an_own_loss_is_named_by_its_import_path():
    found = tuning({"trials": 2, "mypackage.losses.MyLoss.sharpness": [1, 4]}, ("mypackage.losses.MyLoss",))
    assert found.space(LossChoice("mypackage.losses.MyLoss", {})) == {"sharpness": Range(1, 4)}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"learning_rates": [1e-3]}, r"no key 'learning_rates'.*did you mean 'learning_rate'"),
        ({"learning_rate": [1e-3], "focal.gamma": [1]}, r"'focal' is not in comparison.losses, which are dice"),
        ({"learning_rate": [1e-3], "mixed_focl.delta": [1]}, r"did you mean 'mixed_focal'"),
        ({"trials": 3, "learning_rate": [1e-2, 1e-5, "log"]}, "empty range"),
        ({"trials": 3, "learning_rate": [1e-3, 1e-3]}, "empty range"),
        ({"trials": 3, "learning_rate": [0, 1e-3, "log"]}, "cannot begin at 0 on a logarithmic scale"),
        ({"trials": 3, "learning_rate": [1e-4, 1e-3, 1e-2, "log"]}, r"takes \[low, high\] or \[low, high, log\]"),
        ({"learning_rate": [1e-4, 1e-2, "log"]}, "is a range, so say how many trials"),
        ({"learning_rate": []}, "takes a list"),
        ({"learning_rate": 1e-3}, "takes a list"),
        ({"learning_rate": [1e-3, "high"]}, "positive numbers"),
        ({"trials": 3, "learning_rate": [-1e-3, 1e-3]}, "positive numbers"),
        ({"learning_rate": [1e-3, 1e-3]}, "lists a value twice"),
        ({"trials": 3}, "searches nothing"),
        ({"trials": 0, "learning_rate": [1e-4, 1e-3]}, "trials must be a whole number of at least 1"),
        ({"trials": True, "learning_rate": [1e-4, 1e-3]}, "trials must be a whole number"),
        ({"trials": 3, "batch": 0, "learning_rate": [1e-4, 1e-3]}, "batch must be"),
        ({"trials": 3, "epochs": 1.5, "learning_rate": [1e-4, 1e-3]}, "epochs must be"),
        ({"trials": 3, "prune": "no", "learning_rate": [1e-4, 1e-3]}, "prune must be true or false"),
        (
            {"mixed_focal.weight": [0.1, 0.2]},
            "tunes mixed_focal but not dice.*add learning_rate, or a parameter of dice",
        ),
        ({"trials": 9, "mixed_focal.weight": [0, 1]}, "tunes mixed_focal but not dice"),
        ({"learning_rate": [1e-3, 1e-4], "mixed_focal.delta": [0.6, 0.7]}, "dice 2 and mixed_focal 4 trials"),
        ({"learning_rate": [1e-3], "dice.learning_rate": [1e-3]}, "searched for all losses"),
    ],
)
def test_what_makes_no_sense_is_named(entry, words):
    with pytest.raises(InputError, match=f"comparison.tuning.*{words}"):
        ComparisonConfig(losses=LOSSES, tuning=entry)


@pytest.mark.parametrize(
    ("parameter", "values", "words"),
    [
        ("weight", [0, 2], r"weight must be in \[0, 1\]"),
        ("wait", [0, 1], "has no parameter 'wait'"),
        ("class_reduction", ["sum", "none"], "gives several values"),
    ],
)
def test_parameters_and_their_ends_are_tried(parameter, values, words):
    found = tuning({"trials": 3, f"mixed_focal.{parameter}": values}, ("mixed_focal",))
    with pytest.raises(InputError, match=f"comparison.tuning mixed_focal.{parameter}: .*{words}"):
        check_tuning(loss_choices(("mixed_focal",)), found)


def test_a_rate_below_the_schedules_end_is_refused():
    with pytest.raises(InputError, match=r"at least training\.minimum_learning_rate, 1e-06"):
        load_config("demo", ["--comparison.tuning", "{learning_rate: [1e-3, 1e-8]}"])


def test_the_command_line_says_the_same_as_a_file():
    whole = load_config(None, ["--comparison.tuning", "{trials: 6, learning_rate: [1e-4, 1e-2, log]}"])
    parts = load_config(
        None, ["--comparison.tuning.trials", "6", "--comparison.tuning.learning_rate", "[1e-4, 1e-2, log]"]
    )
    assert whole == parts
    assert config_from(yaml.safe_load(yaml.safe_dump(to_plain(whole)))) == whole
    assert whole.comparison.tuning["learning_rate"] == [1e-4, 1e-2, "log"]


def test_every_loss_is_compared_as_listed_and_as_tuned():
    comparison = ComparisonConfig(losses=("dice", {"name": "focal", "gamma": 3}), tuning={"learning_rate": [1e-3]})
    keys = [choice.key for choice in comparison.compared()]
    assert keys == ["dice", "focal-gamma=3", "dice-tuned", "focal-gamma=3-tuned"]
    assert [choice.key for choice in ComparisonConfig(losses=("dice",)).compared()] == ["dice"]
