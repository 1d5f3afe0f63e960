"""What a look, a reasonable study and the full study would cost, each with its command."""

import json
import math
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from voxloss.config.files import load_config
from voxloss.config.losses import loss_choices
from voxloss.config.schema import DEFAULT_LOSSES
from voxloss.study.plan import Plan, plan
from voxloss.study.quick import quick_look
from voxloss.study.settle import patch_within

FEW_LOSSES = 3
LONG = 86400  # seconds: above it, a short study is offered beside the reasonable one
SHORT_STEPS, SHORT_FILTERS, SHORT_FOLDS = 3000, 16, 3  # of a short study, at most
SHORT_SIDE, SHORT_IMAGE_SIDE = 40, 160  # of the largest cubic patch, and of the largest square one of images
RACE_SHARES = (0.2, 0.4)  # of the full study's runs, in the simulated studies of docs/benchmarks/race.md
RACE_FROM = 20  # runs: a race of fewer saves little
_CHOSEN = ("--losses", "--seeds", "--comparison.losses", "--comparison.seeds")  # which a price chooses itself


@dataclass(frozen=True)
class Price:
    """A study that may be run, and what it takes.

    Args:
        name: What kind of answer it gives.
        command: The command that runs it.
        runs: Trainings; of a race the fewest and most that are usual.
        seconds: Of training and prediction on this machine; of a race likewise.
        steps: Of each training.
    """

    name: Literal["look", "short", "reasonable", "full", "race"]
    command: str
    runs: tuple[int, int]
    seconds: tuple[float, float]
    steps: int


def prices(planned: Plan, words: Sequence[str]) -> list[Price]:
    """Return a look, a reasonable study with fewer losses and one seed, the planned study, and it as a race.

    Where the reasonable study takes more than a day, a short one goes before it: fewer folds, and fewer steps of a
    narrower network on smaller patches. A study that would be no smaller than the planned one is left out, and so is a
    race of few runs.

    Args:
        planned: The plan of the full study.
        words: What describes it after `voxloss run`.
    """
    config = planned.survey.config
    look = plan(quick_look(replace(load_config("quick"), data=config.data)))
    per_run = _seconds(planned) / planned.runs
    offers = [_price("look", ["quick", config.data.root], look.runs, _seconds(look), look.steps)]
    keys = [choice.key for choice in loss_choices(config.comparison.losses)]
    few = [name for name in (*DEFAULT_LOSSES, *keys) if name in keys]
    few = list(dict.fromkeys(few))[:FEW_LOSSES]
    tuning = config.comparison.search()
    fewer = len(few) * config.splits.folds * (1 if tuning is None else 2) * max(1, len(planned.parts))
    plain = all(isinstance(loss, str) for loss in config.comparison.losses)  # an option cannot say parameters
    searched = [name for name, own in tuning.parameters.items() if own] if tuning is not None else []
    if plain and fewer < planned.runs and set(searched) <= set(few):  # a search names no loss that is left out
        seed = str(config.comparison.seeds[0])
        shorter = ["run", *_without(words, _CHOSEN), "--losses", ",".join(few), "--seeds", seed]
        if fewer * per_run > LONG and (short := _short(planned, shorter)) is not None:
            offers.append(short)
        offers.append(_price("reasonable", shorter, fewer, fewer * per_run, planned.steps))
    if plain:  # said in full, so that they are added to a study that began with fewer
        seeds = ",".join(map(str, config.comparison.seeds))
        words = [*_without(words, _CHOSEN), "--losses", ",".join(keys), "--seeds", seeds]
    full = _price("full", ["run", *words], planned.runs, planned.runs * per_run, planned.steps)
    offers.append(full)
    if planned.runs >= RACE_FROM and len(keys) > 1 and not planned.parts:  # a race has one network
        least, most = RACE_SHARES
        offers.append(
            Price(
                "race",
                _command(["race", *words]),
                (round(least * planned.runs), round(most * planned.runs)),
                (least * full.seconds[0], most * full.seconds[1]),
                planned.steps,
            )
        )
    return offers


def _short(planned: Plan, words: Sequence[str]) -> Price | None:
    """Return the study of `words` cut to what a night may suffice for; None if there is nothing to cut."""
    survey, config = planned.survey, planned.survey.config
    training, network, patches, flat = config.training, config.network, config.patches, survey.dataset.flat_axis
    options: list[str] = []
    # Narrower, a network that leaves its filters out could be the same as another one of the comparison.
    if network.name == "unet" and network.filters > SHORT_FILTERS and not planned.parts:
        network = replace(network, filters=SHORT_FILTERS)
        options += ["--network.filters", str(SHORT_FILTERS)]
    if training.epochs * training.iterations > SHORT_STEPS:
        training = replace(training, epochs=math.ceil(SHORT_STEPS / training.iterations))
        options += ["--training.epochs", str(training.epochs)]
    splits = config.splits
    if splits.folds > SHORT_FOLDS and (survey.dataset.own_folds is None or not splits.from_data):
        splits = replace(splits, folds=SHORT_FOLDS)
        options += ["--splits.folds", str(SHORT_FOLDS)]
    if not any(extent == 1 and axis != flat for axis, extent in enumerate(patches.size)):  # slices stay slices
        side = SHORT_SIDE if flat is None else SHORT_IMAGE_SIDE
        size = patch_within(survey.shapes, side, network.depth, flat)
        if math.prod(size) < math.prod(patches.size):
            patches = replace(patches, size=size)
            options += ["--patches.size", json.dumps(size, separators=(",", ":"))]
    if not options:
        return None
    few = words[words.index("--losses") + 1].split(",")
    comparison = replace(config.comparison, losses=tuple(few), seeds=config.comparison.seeds[:1])
    config = replace(config, network=network, training=training, splits=splits, patches=patches, comparison=comparison)
    short = plan(config)
    options = ["--study", f"studies/{config.name}-short", *options]  # other settings: a study of its own
    words = [*_without(words, options[::2]), *options]
    return _price("short", words, short.runs, _seconds(short), short.steps)


def _price(
    name: Literal["look", "short", "reasonable", "full"], words: Sequence[str], runs: int, seconds: float, steps: int
) -> Price:
    return Price(name, _command(words), (runs, runs), (seconds, seconds), steps)


def _command(words: Sequence[str]) -> str:
    return shlex.join(["voxloss", *words])


def _seconds(planned: Plan) -> float:
    return (planned.training + planned.search + planned.prediction) / planned.survey.config.execution.parallel


def _without(words: Sequence[str], options: Collection[str]) -> list[str]:
    """Leave some options and their values out."""
    kept: list[str] = []
    value = False
    for word in words:
        option, given, _ = word.partition("=")
        if option in options:
            value = not given
        elif value:
            value = False
        else:
            kept.append(word)
    return kept
