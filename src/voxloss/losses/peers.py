from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Peer:
    library: str
    function: str
    ours: dict[str, Any] | None
    difference: str


PEERS: dict[str, tuple[Peer, ...]] = {}
