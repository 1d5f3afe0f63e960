"""What `voxloss plan` prints."""

from rich.markup import escape
from rich.table import Table

from voxloss.study.plan import Plan
from voxloss.utilities.text import count_of


def plan_table(plan: Plan) -> Table:
    """Lay out what a study will cost, a line for each part."""
    config, survey = plan.survey.config, plan.survey
    size = " × ".join(map(str, config.patches.size or ()))
    measured = "measured" if plan.patch == config.patches.size else f"projected from {' × '.join(map(str, plan.patch))}"
    losses, folds, seeds = len(config.comparison.losses), config.splits.folds, len(config.comparison.seeds)
    parallel = config.execution.parallel
    cases, channels = count_of(len(survey.shapes), "case"), count_of(survey.channels, "channel")
    lines = {
        "data": f"{cases}, {channels}, {', '.join(survey.dataset.classes[1:])}",
        "patches": f"{config.patches.batch_size} of {size}, {measured}",
        "network": f"{config.network.name}, {plan.parameters:,} parameters",
        "memory": f"{_size(plan.memory)} per run, {parallel} at a time; {_size(plan.available)} available",
        "step": f"{_duration(plan.step)}; {plan.steps:,} steps per run",
        "runs": f"{plan.runs}: {count_of(losses, 'loss')} × {count_of(folds, 'fold')} × {count_of(seeds, 'seed')}",
        "training": f"{_duration(plan.training / plan.runs)} per run, {_duration(plan.training)} in total",
        "prediction": f"{_duration(plan.prediction)} in total",
        "disk": _size(plan.disk),
        "total": _duration((plan.training + plan.prediction) / parallel)
        + (f", if {parallel} runs at a time do not slow each other down" if parallel > 1 else ""),
    }
    table = Table(title=f"{config.name} on this machine", title_justify="left", show_header=False)
    for name, text in lines.items():
        table.add_row(name, escape(text))
    return table


def _size(number: int | None) -> str:
    return "an unknown amount" if number is None else f"{number / 1e9:.2f} GB"


def _duration(seconds: float) -> str:
    """In the largest unit of which there are at least two."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{1000 * seconds:.0f} ms"
