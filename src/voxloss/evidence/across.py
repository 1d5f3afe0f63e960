"""A comparison of two losses over all studies."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from voxloss.evaluation.joined import Joined
from voxloss.evidence.comparisons import Difference, Judged, is_joined, joined
from voxloss.evidence.export import Export
from voxloss.evidence.kinds import KINDS
from voxloss.report.names import slugs


@dataclass(frozen=True)
class Comparison:
    """A comparison of two losses over all studies.

    Args:
        first: The loss that is better where the difference is positive.
        second: The other.
        differences: Of the studies that have both, in their order, those that are joined first.
        together: What is joined; None with fewer than two data sets.
    """

    first: str
    second: str
    differences: tuple[tuple[Difference, Export], ...]
    together: Joined | None

    @property
    def name(self) -> str:
        """A part of a file's name."""
        return "-minus-".join(slugs([self.first, self.second]).values())


def compare(first: str, second: str, studies: Sequence[Judged]) -> Comparison:
    """Compare two losses over all studies."""
    found = [(one, judged.export) for judged in studies if (one := judged.difference(first, second)) is not None]
    found = [(one, export) for one, export in found if math.isfinite(one.half_width)]
    found.sort(key=lambda pair: (not counts(*pair), KINDS.index(pair[1].kind)))
    return Comparison(first, second, tuple(found), joined([one for one, export in found if counts(one, export)]))


def counts(one: Difference, export: Export) -> bool:
    """Whether a difference of a study is joined with others."""
    return is_joined(export) and one.usable
