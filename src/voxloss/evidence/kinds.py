"""What an exported study is, and whether it is joined with others."""

from typing import Literal, get_args

# Only "real" ones are joined over data sets.
Kind = Literal["real", "phantom", "rarer", "variant", "protocol"]
KINDS: tuple[Kind, ...] = get_args(Kind)
KIND_TEXTS: dict[Kind, str] = {
    "real": "real images",
    "phantom": "synthetic images",
    "rarer": "real images made rarer",
    "variant": "another protocol on the images of another study",
    "protocol": "too few cases for a claim: the protocol runs",
}
LEAST_CASES = 20  # of a study that may count as real
