"""How often a study of several networks names a change of the losses' order that is not there, and one that is.

    python benchmarks/orders.py [--studies 500] [--output rows.csv]

Scores are sums of normal parts: of the case (standard deviation 0.15), of every two and all three of case, loss and
network (0.07), of the fold with every loss and with every network (0.03), and of the run, whose standard deviation is
that of its network and loss. Losses and networks have effects, but no interaction ("none"); or one pair is 0.10 apart
with the first network and 0.02 with the others, in the same direction ("size"); or it is 0.10 apart with the first and
-0.10 with the others ("order"). A row has the shares of studies in which the interval of a true change misses it
(`missed`), an interval excludes 0 (`differ`), and the order of a pair is said to change or to be the same, falsely
(`false_changes`, `false_same`) or rightly (`changes`).
"""

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from voxloss.evaluation.orders import Orders, judge_orders


class Setting(NamedTuple):
    """A kind of study; `runs` has a row per network and a column per loss."""

    name: str
    runs: Sequence[Sequence[float]]
    folds: int = 5
    cases: int = 100
    interaction: str = "none"


def settings() -> Iterator[Setting]:
    """Yield all settings."""
    equal = [[0.03] * 4] * 2
    noisy = [[0.01, 0.01, 0.05, 0.05], [0.01, 0.05, 0.01, 0.05]]
    yield Setting("equal", equal)
    yield Setting("equal, small", equal, cases=30)
    yield Setting("no variance of runs", [[0.0] * 4] * 2)
    yield Setting("half noisy × 5", noisy)
    yield Setting("one network noisy × 5", [[0.01] * 4, [0.05] * 4])
    yield Setting("one loss noisy × 5", [[0.01, 0.01, 0.01, 0.05]] * 2)
    yield Setting("half noisy × 5", noisy, folds=3)
    three = [*noisy, [0.05, 0.01, 0.01, 0.05]]
    yield Setting("two losses, one noisy × 5", [[0.01, 0.05]] * 2)
    yield Setting("three networks, half noisy × 5", three)
    yield Setting("half noisy × 5", noisy, interaction="size")
    yield Setting("half noisy × 5", noisy, interaction="order")


def study(setting: Setting, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the scores (cases, networks, losses), the fold of each case, and the true means (networks, losses)."""
    runs = np.array(setting.runs)
    networks, losses = runs.shape
    folds = np.arange(setting.cases) % setting.folds
    truth = 0.6 + random.normal(0, 0.05, (1, losses)) + random.normal(0, 0.05, (networks, 1))
    if setting.interaction != "none":
        truth[:, 0] = truth[:, 1] + 0.02 * (1 if setting.interaction == "size" else -5)
        truth[0, 0] = truth[0, 1] + 0.10
    values = truth + random.normal(0, 0.15, (setting.cases, 1, 1))
    for shape in ((1, losses), (networks, 1), (networks, losses)):
        values = values + random.normal(0, 0.07, (setting.cases, *shape))
    for shape in ((1, losses), (networks, 1)):
        values = values + random.normal(0, 0.03, (setting.folds, *shape))[folds]
    return values + (random.normal(0, 1, (setting.folds, networks, losses)) * runs)[folds], folds, truth


def verdicts(found: Orders, truth: np.ndarray) -> dict[str, bool]:
    """Say what a study gets right and wrong."""
    changes, place = found.changes, {name: number for number, name in enumerate("abcdefgh")}
    row = {"missed": False, "differ": bool(changes["differ"].any())}
    for one in changes.itertuples():
        i, j = place[one.loss], place[one.other]
        a, b = int(one.network), int(one.other_network)
        true = (truth[a, i] - truth[a, j]) - (truth[b, i] - truth[b, j])
        row["missed"] |= bool(abs(one.change - true) > one.half_width)
    row |= {"changes": False, "false_changes": False, "false_same": False}
    for pair in found.pairs:
        signs = np.sign(truth[:, place[pair.loss]] - truth[:, place[pair.other]])
        one_order = len(set(signs.tolist())) == 1
        row["changes"] |= pair.order == "changes" and not one_order
        row["false_changes"] |= pair.order == "changes" and one_order
        row["false_same"] |= pair.order == "same" and not one_order
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "orders.csv")
    arguments = parser.parse_args()
    rows = []
    for setting in settings():
        random = np.random.default_rng(0)
        networks, losses = np.shape(setting.runs)
        results = []
        for _ in range(arguments.studies):
            values, folds, truth = study(setting, random)
            names = [str(number) for number in range(networks)]
            results.append(verdicts(judge_orders(values, folds, names, "abcdefgh"[:losses], 1), truth))
        shares = {key: round(float(np.mean([one[key] for one in results])), 4) for key in results[0]}
        of = {"setting": setting.name, "interaction": setting.interaction, "networks": networks, "losses": losses}
        rows.append({**of, "folds": setting.folds, "cases": setting.cases, "studies": arguments.studies, **shares})
        print(rows[-1], flush=True)
    with arguments.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
