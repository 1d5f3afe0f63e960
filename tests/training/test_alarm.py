"""Classes that vanish while a network is trained: when there is an alarm, and what it says of the cause."""

import math

import pytest

from voxloss.training.alarm import alarms, lost_classes
from voxloss.training.history import COLUMNS, read_history, write_history
from voxloss.utilities.errors import InputError

CLASSES = ("background", "kidney", "cyst; small", "tumour")


def epochs(folder, missing, **columns):
    """A history by what every epoch lacks; `columns`: a value for all epochs, or one for each."""
    rows = []
    for place, text in enumerate(missing):
        row = dict.fromkeys(COLUMNS, "") | {"epoch": place + 1, "not_predicted": text, "learning_rate": 3e-4}
        row |= {name: value[place] if isinstance(value, list) else value for name, value in columns.items()}
        rows.append(row)
    write_history(folder / "history.csv", rows)
    return read_history(folder / "history.csv")


@pytest.mark.parametrize(
    ("missing", "lost"),
    [
        ([], []),
        (["", "", ""], []),
        (["", "", "", "tumour"], [("tumour", 3, 4)]),  # at once
        (["", "", "", "tumour", "tumour"], [("tumour", 3, 5)]),
        (["", "", "", "tumour", ""], []),  # it came back
        (["tumour", "", "", "", "tumour"], [("tumour", 4, 5)]),
        (["", "", "tumour"], []),  # the first epochs of a network: two are no habit
        (["", "", "tumour", "", "", "tumour"], []),
        (["", "", "", "tumour", "", "tumour"], [("tumour", 5, 6)]),
        (["tumour", "tumour", "tumour", "tumour"], []),  # never predicted: nothing vanished
        (["", "", "", "kidney; tumour"], [("kidney", 3, 4), ("tumour", 3, 4)]),
        (["kidney", "kidney", "kidney", "kidney; cyst; small"], [("cyst; small", 3, 4)]),
    ],
)
def test_an_alarm_is_for_what_was_predicted_and_is_not_any_more(tmp_path, missing, lost):
    found = alarms(epochs(tmp_path, missing), CLASSES)
    assert [(one.name, one.last, one.now) for one in found] == lost


def test_events_get_the_same_by_rows():
    rows = [{"not_predicted": text} for text in ("tumour", "", "", "", "tumour")]
    assert lost_classes(rows, CLASSES) == {"tumour": True}
    assert lost_classes(rows[1:3] + rows[:1], CLASSES) == {"tumour": False}
    assert lost_classes(rows[:4], CLASSES) == {"tumour": False}
    assert lost_classes(rows[:1], CLASSES) == {"tumour": False}
    assert lost_classes([{}], CLASSES) == {}  # a row of an earlier version


def test_the_sentences_have_what_the_history_knows(tmp_path):
    rows = epochs(
        tmp_path, ["", "", "", "tumour", "tumour"],
        patches_with_class=['{"tumour": 0.5}'] * 1 + ['{"tumour": 0.04}'] * 4,
        gradient_shares="cross_entropy=0.9700 dice=0.0300",
        learning_rate=[3e-4, 2.9e-4, 2.8e-4, 2.7e-4, 2.6e-4],
    )  # fmt: skip
    [one] = alarms(rows, CLASSES)
    assert one.patches == pytest.approx(0.04)  # epochs 2 to 4
    assert one.sentences() == (
        "tumour was predicted in validation patches until epoch 3 and is not in the 2 epochs since. Around then, 4 % "
        "of the training patches had it, cross_entropy had 97 % of the gradient and the learning rate was 0.00027. "
        "Possible causes: the class is seldom seen (raise patches.foreground_share, or take patches.sampling: "
        "classes); cross_entropy decides nearly alone (change the weights of the loss's terms); the steps were large "
        "(if it does not come back, lower training.learning_rate)."
    )


def test_a_low_learning_rate_leaves_little_hope_and_nothing_else_is_blamed(tmp_path):
    rows = epochs(
        tmp_path, ["", "", "", "tumour"], patches_with_class='{"tumour": 0.6}',
        gradient_shares="focal=0.5 focal_tversky=0.5", learning_rate=[1e-3, 1e-3, 1e-4, 5e-5],
    )  # fmt: skip
    [one] = alarms(rows, CLASSES)
    text = one.sentences()
    assert "Possible causes" not in text and text.endswith("The steps were already small, so it will hardly come back.")


def test_a_history_of_an_earlier_version_gives_an_alarm_without_causes(tmp_path):
    (tmp_path / "history.csv").write_text(
        "epoch,train_loss,validation_loss,validation_dice,not_predicted,seconds\n"
        "1,1,1,1,,1\n2,1,1,1,,1\n3,1,1,1,,1\n4,1,1,1,tumour,1\n"
    )
    [one] = alarms(read_history(tmp_path / "history.csv"), CLASSES)
    assert math.isnan(one.patches) and math.isnan(one.learning_rate) and one.term == ""
    assert one.sentences() == "tumour was predicted in validation patches until epoch 3 and is not in epoch 4."


@pytest.mark.parametrize("value", ["[1]", "{", '{"tumour": "x"}'])
def test_a_damaged_column_is_named(tmp_path, value):
    with pytest.raises(InputError, match=r"history\.csv"):
        epochs(tmp_path, [""], patches_with_class=value)
