"""What `voxloss plan` and `voxloss quick` print of studies that may be run."""

from collections.abc import Sequence

from rich.console import Group
from rich.text import Text

from voxloss.study.prices import Price
from voxloss.utilities.text import count_of, duration_text

_ANSWERS = {
    "look": "A look, not evidence",
    "short": "A short answer: also fewer folds and steps, a narrower network, smaller patches",
    "reasonable": "A reasonable answer: fewer losses, one seed",
    "full": "The full study",
    "race": "The full study as a race: losses leave that cannot be the best",
}


GPU_STEP = 0.2  # seconds; of a usual patch of a 3D network


def price_table(offers: Sequence[Price]) -> Group:
    """Lay out each study with its cost, and below it the command to copy."""
    lines = []
    for offer in offers:
        least, most = offer.seconds
        runs = count_of(offer.runs[0], "training")
        time = f"about {duration_text(most)}"
        if offer.runs[0] < offer.runs[1]:
            runs = f"usually {offer.runs[0]} to {offer.runs[1]} trainings"
            time = f"{duration_text(least)} to {duration_text(most)}"
        lines.append(Text(f"{_ANSWERS[offer.name]}: {runs} of {offer.steps:,} steps, {time}"))
        lines.append(Text(f"  {offer.command}", style="bold", no_wrap=True, overflow="ignore"))
    return Group(*lines)


def gpu_sentence(offers: Sequence[Price]) -> str | None:
    """Say what the reasonable study would take on a GPU, where it takes so long here that a short one is offered."""
    by_name = {offer.name: offer for offer in offers}
    if "short" not in by_name:
        return None
    reasonable = by_name["reasonable"]
    seconds = reasonable.runs[1] * reasonable.steps * GPU_STEP
    return (
        f"On a GPU that takes {GPU_STEP} s for a step, the reasonable answer takes {duration_text(seconds)}; "
        "`voxloss plan` on a machine with one measures its step."
    )
