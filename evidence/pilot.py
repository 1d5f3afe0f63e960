"""Choose learning rate and steps on the baseline alone, by the rule of protocol.md, and write them to WORK/chosen.json.

    python evidence/pilot.py --data DATA --work WORK emidec hippocampus drive

The baseline is trained with each rate and each number of steps, with a seed that no study has, on folds 0 and 1. A part
of the training cases is set aside (`training.selection: inner`); the scored cases of the folds are not looked at.
"""

import argparse
import csv
import itertools
import json
import time
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from reproduce import Place, arguments, execute

BASELINE, SEED, FOLDS = "dice_cross_entropy", 100, (0, 1)
RATES = ("1e-3", "3e-3")
ITERATIONS = {"emidec": (60, 120), "hippocampus": (30, 60), "drive": (40, 80)}  # of ten epochs
WORTH = 0.01  # of Dice, for which twice the steps are taken


def curves(study: Path) -> list[list[float]]:
    """The inner Dice after each epoch, for each finished fold."""
    found = []
    for file in sorted(study.glob(f"runs/{BASELINE}/fold-*/seed-{SEED}/history.csv")):
        with file.open() as lines:
            rows = list(csv.DictReader(lines))
        if len(rows) == 10:
            found.append([float(row["validation_dice"]) for row in rows])
    return found


def choose(name: str, pilots: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what is chosen for a study, and what was seen: the inner Dice at the end and what the last epoch added."""
    seen, value = [], dict[tuple[str, int], float]()
    for rate, iterations in itertools.product(RATES, ITERATIONS[name]):
        of_folds = curves(pilots / f"{name}-{rate}-{iterations}")
        if of_folds:
            value[rate, iterations] = mean(curve[-1] for curve in of_folds)
            added = mean(curve[-1] - curve[-2] for curve in of_folds)
            row = {"study": name, "learning_rate": rate, "iterations": iterations, "folds": len(of_folds)}
            seen.append({**row, "inner_dice": round(value[rate, iterations], 4), "last_tenth_adds": round(added, 4)})
    short, long = ITERATIONS[name]
    complete = [rate for rate in RATES if (rate, short) in value and (rate, long) in value]
    if not complete:
        return {}, seen
    rate = max(complete, key=lambda rate: value[rate, long])
    iterations = long if value[rate, long] > value[rate, short] + WORTH else short
    return {"training.learning_rate": rate, "training.iterations": iterations}, seen


def main() -> None:
    """Run the pilots of some studies and choose for each."""
    given = arguments(argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter))
    until = time.time() + given.seconds
    options = ["--losses", BASELINE, "--seeds", str(SEED), "--folds", ",".join(map(str, FOLDS)), "--no-report"]
    options += ["--training.selection", "inner", "--training.validation_batches", "8"]
    place = Place(given.data.resolve(), given.work.resolve(), options)
    commands = []
    for name in given.names:
        place.prepare(name)
        for rate, iterations in itertools.product(RATES, sorted(ITERATIONS[name], reverse=True)):
            pilot = f"{name}-{rate}-{iterations}"
            setting = ["--training.learning_rate", rate, "--training.iterations", str(iterations)]
            study = ["--study", str(place.work / "pilots" / pilot), "--execution.parallel", str(len(FOLDS))]
            commands.append((pilot, partial(place.command, name, *study, *setting, *given.options)))
    execute(commands, place, max(1, given.parallel // len(FOLDS)), until)
    file = place.work / "chosen.json"
    record = json.loads(file.read_text()) if file.exists() else {"options": {}, "seen": []}
    for name in given.names:
        choice, seen = choose(name, place.work / "pilots")
        record["options"][name] = choice
        record["seen"] = [row for row in record["seen"] if row["study"] != name] + seen
    file.write_text(json.dumps(record, indent=2) + "\n")
    print(file.read_text())


if __name__ == "__main__":
    main()
