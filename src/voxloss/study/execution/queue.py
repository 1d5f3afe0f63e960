"""What an engine was asked to start, and has not started yet."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Queue:
    """What an engine was asked to start for a study.

    Args:
        engine: Its name, as it is written.
        submitted: Number of workers, as the study's folder says.
        waiting: How many of them wait to be started; None where the engine gives no answer on this machine.
    """

    engine: str
    submitted: int
    waiting: int | None
