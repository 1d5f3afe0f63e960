"""What `voxloss plan` prints."""

import os
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from voxloss.config.settled import network_title
from voxloss.evaluation.planning import Noise
from voxloss.study.design import Design
from voxloss.study.estimate import Estimate
from voxloss.study.plan import Plan
from voxloss.study.probe import Probe
from voxloss.study.projection import COSTS, Projection
from voxloss.utilities.text import count_of, duration_text


def plan_table(plan: Plan, network: str | None = None) -> Table:
    """Lay out what a study will cost, a line for each part; of a study of several networks, with one of them."""
    config, survey = plan.survey.config, plan.survey
    patch = plan.probe.patch
    size, of = (_by_axis(one, survey.dataset.flat_axis) for one in (config.patches.size, patch))
    measured = "measured" if patch == config.patches.size else f"projected from {of}"
    losses, folds, seeds = len(config.comparison.compared()), config.splits.folds, len(config.comparison.seeds)
    parallel = config.execution.parallel
    of_seeds = count_of(seeds, "seed")
    most = "at most " if config.comparison.design == "race" else ""
    cases, channels = count_of(len(survey.shapes), "case"), count_of(survey.channels, "channel")
    lines = {
        "data": f"{cases}, {channels}, {', '.join(survey.dataset.classes[1:])}",
        "patches": f"{config.patches.batch_size} of {size}, {measured}",
        "network": f"{network_title(config)}, {plan.probe.parameters:,} parameters",
        "memory": f"{_size(plan.memory)} per run, {parallel} at a time; {_size(plan.available)} available",
        "step": f"{_duration(plan.probe.step)}; {plan.steps:,} steps per run",
        "runs": f"{most}{plan.runs}: {' × '.join((count_of(losses, 'loss'), count_of(folds, 'fold'), of_seeds))}",
        "training": f"{_duration(plan.training / plan.runs)} per run, {_duration(plan.training)} in total",
        **_search_lines(plan),
        "prediction": f"{_duration(plan.prediction)} in total; {_size(plan.prediction_memory)} of the machine's memory "
        "for the largest case and its scores",
        "disk": _size(plan.disk) + _kept_text(plan),
        "total": _duration((plan.training + plan.search + plan.prediction) / parallel)
        + (f", if {parallel} runs at a time do not slow each other down" if parallel > 1 else ""),
    }
    of_network = "" if network is None else f", {network}"
    table = Table(title=escape(f"{config.name}{of_network} on this machine"), title_justify="left", show_header=False)
    for name, text in lines.items():
        table.add_row(name, escape(text))
    return table


def networks_sentence(plan: Plan) -> str:
    """Say what the networks of a study take together."""
    parallel = plan.survey.config.execution.parallel
    total = _duration((plan.training + plan.search + plan.prediction) / parallel)
    return f"All {len(plan.parts)} networks: {plan.runs:,} runs, {total}, disk {_size(plan.disk)}"


def _search_lines(plan: Plan) -> dict[str, str]:
    """Say how many trials search for settings, and how long they take."""
    tuning = plan.survey.config.comparison.search()
    if tuning is None:
        return {}
    losses, folds = plan.trials // (tuning.trials * plan.survey.config.splits.folds), plan.survey.config.splits.folds
    of = " × ".join((count_of(tuning.trials, "trial"), count_of(losses, "loss"), count_of(folds, "fold")))
    most = "at most " if tuning.prune else ""
    each, total = _duration(plan.search / plan.trials), _duration(plan.search)
    return {"search": f"{plan.trials}: {of}; {most}{each} per trial, {total} in total"}


def _kept_text(plan: Plan) -> str:
    if not plan.probabilities:
        return ""
    grid = plan.survey.config.evaluation.probabilities
    return f", of which at most {_size(plan.probabilities)} for probabilities on the {grid} grid"


def estimate_sentence(expected: Estimate, runs: int, parallel: int, at_most: bool) -> str:
    """Say what the runs of a study will take, before they start."""
    source = (
        f"as the {count_of(expected.finished, 'finished run')} took"
        if expected.finished
        else "by training steps measured now"
    )
    several = f" with {parallel} at a time" if parallel > 1 and runs > 1 else ""
    trainings = ("at most " if at_most else "") + count_of(runs, "training")
    return (
        f"{trainings}, about {duration_text(expected.each)} each, {source}: about "
        f"{duration_text(expected.total)}{several}; memory {_size(expected.memory)} each "
        f"({_size(expected.available)} free), disk {_size(expected.disk)}"
    )


def load_sentence(probe: Probe) -> str:
    """Say that other programs use the machine, and what it means for the estimates."""
    cores = os.cpu_count() or 1
    slowed = f"; a step took {probe.slowed:.1f} times as long as it is expected to alone" if probe.slowed > 1.1 else ""
    meaning = "The times are those of an idle machine."
    if probe.too_busy:
        meaning = "This machine is too busy to measure: the times may be several times too long."
    return f"other programs took {probe.others:.1f} of {cores} cores while this was measured{slowed}. {meaning}"


def design_table(designs: Sequence[Design], noises: Sequence[Noise]) -> Table:
    """Lay out what the study will detect, and what more seeds, folds or cases would buy."""
    of_noises = "; ".join(f"{noise.name}: {noise.pair_sd:.3f} by case, {noise.run_sd:.3f} by run" for noise in noises)
    table = Table(
        title="Differences between losses that are detected with a probability of 80 %",
        title_justify="left",
        caption=escape(f"Standard deviations. {of_noises[0].upper()}{of_noises[1:]}."),
        caption_justify="left",
    )
    for name in ("Folds", "Seeds", "Cases", "Runs", "Time"):
        table.add_column(name, justify="right")
    for noise in noises:
        table.add_column(escape(noise.name), justify="right")
    for place, design in enumerate(designs):
        numbers = (design.folds, design.seeds, design.cases, design.runs)
        detected = ["none" if value >= 1 else f"{value:.3f}" for value in design.detectable]
        style = "bold" if place == 0 else ""
        table.add_row(*map(str, numbers), _duration(design.seconds), *detected, style=style)
    return table


def workers_table(projections: Sequence[Projection], executor: str) -> Table:
    """Lay out what a study takes on several workers of an executor."""
    first, last, costs = projections[0], projections[-1], COSTS[executor]
    search = "; the rounds of a search wait for each other" if first.trials else ""
    traffic = first.traffic
    table = Table(
        title=f"On several workers ({executor}): a model, not a measurement",
        title_justify="left",
        caption=f"Each worker is as fast as this machine alone, and the file server keeps up. A run takes "
        f"{_duration(first.run)}, and the study at least {_duration(first.least)} with any number of workers{search}. "
        f"Included: {_duration(first.preparation)} of preparation ({_duration(last.preparation)} on "
        f"{count_of(last.workers, 'worker')}), {costs.start:.1f} s to start, {costs.run:.1f} s beside each run, "
        f"{costs.end:.1f} s at the end. Waiting for a cluster is not included. A run makes about "
        f"{traffic.operations:,} operations on files, writes {_size(traffic.written)}, mostly checkpoints, and reads "
        f"{_size(traffic.read)} of patches at most. Files/s: operations of all workers; MB/s: what they write.",
        caption_justify="left",
    )
    trials = ["Trials each"] if first.trials else []
    for name in ("Workers", "Runs each", *trials, "Time", "Faster", "Files/s", "MB/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in projections:
        table.add_row(
            str(one.workers), str(one.rounds), *([str(one.trials)] if trials else []), _duration(one.seconds),
            f"{first.seconds / one.seconds:.1f}", f"{one.operations_per_s:.1f}", f"{one.written_per_s / 1e6:.2f}",
        )  # fmt: skip
    return table


def _by_axis(size: Sequence[int], flat_axis: int | None) -> str:
    return " × ".join(str(extent) for axis, extent in enumerate(size) if axis != flat_axis)


def _size(number: int | None) -> str:
    return "an unknown amount" if number is None else f"{number / 1e9:.2f} GB"


def _duration(seconds: float) -> str:
    """In the largest unit of which there are at least two."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{1000 * seconds:.0f} ms"
