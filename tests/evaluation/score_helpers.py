"""Small score tables for the tests."""

from voxloss.evaluation.scores import score_table


def row(loss="dice", case="a", metric="dice", value=0.5, fold=0, seed=0, class_name="tumour", status=None):
    status = status or ("ok" if value is not None else "undefined")
    return {
        "dataset": "toy", "fold": fold, "seed": seed, "loss": loss, "case": case, "class": class_name,
        "metric": metric, "value": value, "status": status,
    }  # fmt: skip


def dice_table(values, fold_of=None, **common):
    """A table of Dice from {loss: [a value per case]}; None is undefined. `fold_of` maps a case's index to its fold."""
    fold_of = fold_of or (lambda index: 0)
    return score_table(
        row(loss, f"case-{index}", value=value, fold=fold_of(index), **common)
        for loss, per_case in values.items()
        for index, value in enumerate(per_case)
    )
