"""What `voxloss plan` and `voxloss quick` print of studies that may be run."""

from collections.abc import Sequence

from rich.console import Group
from rich.text import Text

from voxloss.study.prices import Price
from voxloss.utilities.text import count_of, duration_text

_ANSWERS = {
    "look": "A look, not evidence",
    "reasonable": "A reasonable answer: fewer losses, one seed",
    "full": "The full study",
    "race": "The full study as a race: losses leave that cannot be the best",
}


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
        lines.append(Text(f"{_ANSWERS[offer.name]}: {runs}, {time}"))
        lines.append(Text(f"  {offer.command}", style="bold", no_wrap=True, overflow="ignore"))
    return Group(*lines)
