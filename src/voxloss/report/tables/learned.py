"""Which losses have learned to find a class, in words and as a table."""

import math
from collections.abc import Sequence

import pandas as pd

from voxloss.evaluation.learned import Learned
from voxloss.report.names import loss_name
from voxloss.utilities.text import count_of

REMEDIES = (
    "Train longer (training.epochs), centre more patches on the class (patches.foreground_share), or try another "
    "learning rate (training.learning_rate)."
)


def nothing_learned_sentence(class_name: str, losses: int) -> str:
    """Return the headline where no loss has learned a class."""
    if losses == 1:
        return f"No network learned to find {class_name}."
    which = "which of both losses" if losses == 2 else f"which of the {losses} losses"
    return f"No network learned to find {class_name}, so this study cannot say {which} is better."


def best_unlearned_sentence(learned: Sequence[Learned]) -> str:
    """Say how far the losses that have not learned a class came, by the one with the best mean."""
    if not any(one.predicted for one in learned):
        return f"No network predicted {learned[0].class_name} in any case."
    best = max(learned, key=lambda one: one.mean)
    whose = f" ({loss_name(best.loss)})" if len(learned) > 1 else ""
    which = "best mean DSC" if len(learned) > 1 else "mean DSC"
    mean = f"Over the cases that have it, the {which} is {best.mean:.3f}"  # the tables' is over all cases
    blind = "" if math.isnan(best.blind) else f"; a mask drawn without looking at the image reaches {best.blind:.3f}"
    return f"{mean}{whose}, and {best.class_name} is predicted in {_counted(best)}{blind}."


def unlearned_sentence(learned: Sequence[Learned]) -> str:
    """Name the losses that have not learned a class, each with the reason."""
    *others, last = (f"{loss_name(one.loss)} ({_reason(one)})" for one in learned)
    subject = f"{', '.join(others)} and {last}" if others else last
    return f"{subject} did not learn to find {learned[0].class_name}."


def _reason(one: Learned) -> str:
    if not one.predicted:
        return "never predicted"
    if not one.often_predicted:
        return f"predicted in {_counted(one)}"
    mean = f"mean DSC {one.mean:.3f} over the cases that have it"
    if math.isnan(one.blind):
        return f"{mean}, not above 0 with confidence"
    return f"{mean}, not above the {one.blind:.3f} of a mask drawn without looking at the image"


def _counted(one: Learned) -> str:
    return f"{one.predicted} of {count_of(one.predictions, 'prediction')}"


def learned_frame(learned: Sequence[Learned]) -> pd.DataFrame:
    """Return a row per loss and class: the numbers of the criterion and whether the loss has learned the class."""
    return pd.DataFrame(
        [
            {
                "loss": one.loss, "class": one.class_name, "learned": one.learned, "predicted": one.predicted,
                "predictions": one.predictions, "mean": one.mean, "low": one.low, "blind": one.blind,
            }
            for one in learned
        ],
        columns=["loss", "class", "learned", "predicted", "predictions", "mean", "low", "blind"],
    )  # fmt: skip
