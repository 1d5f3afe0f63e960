"""What workers are asked to do: which runs of a study, and when to leave."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from voxloss.study.folder import ENDED, FINISHED, Run
from voxloss.study.race import next_round
from voxloss.study.search import failed_trials, is_ready, places_of
from voxloss.study.study import Study

PARENT = "VOXLOSS_PARENT"  # the environment variable with the process that a worker ends with


@dataclass(frozen=True)
class Request:
    """What `voxloss run` asks of the workers that it starts.

    Args:
        losses: The keys of the losses that are trained.
        networks: The keys of the networks that are compared; None: all.
        seeds: The seeds.
        folds: The folds; None: all.
        stop_token: What the study's stop file said at that time: once it says something else, workers leave.
        executor: The name of the executor that starts the workers.
        threads: Of each worker; None: as torch chooses.
        report: Whether the last worker writes the report.
        detached: Whether nobody waits for the workers, so that they live on when the process that starts them ends.
        wait: Whether a worker that finds nothing to claim waits, to take over what others leave; a race always waits.
    """

    losses: tuple[str, ...]
    seeds: tuple[int, ...]
    folds: tuple[int, ...] | None = None
    networks: tuple[str, ...] | None = None
    stop_token: str = ""
    executor: str = "local"
    threads: int | None = None
    report: bool = False
    detached: bool = False
    wait: bool = True

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `text` wrote."""
        content = json.loads(text).items()
        values: dict[str, Any] = {name: tuple(of) if isinstance(of, list) else of for name, of in content}
        return cls(**values)

    def words(self, study: Path) -> list[str]:
        """Return the command of a worker. The working folder counts, as modules of the user's own are in it."""
        module = "voxloss.study.execution.worker"
        return [sys.executable, "-P", "-m", module, str(study.resolve()), self.text()]

    def text(self) -> str:
        """Return the request as one word of a command."""
        return json.dumps(asdict(self))

    def is_left(self, study: Study) -> bool:
        """Whether there is work that workers should do: runs that neither ended nor wait for a trial that failed."""
        left = not_ended(study, self.runs(study))
        return any(is_ready(study, run) or not failed_trials(study, places_of([run])) for run in left)

    def runs(self, study: Study) -> list[Run]:
        """Return the runs that are asked for and may be executed now: of a race those of the next round."""
        if study.comparison.design == "race":
            upcoming = next_round(study)
            return [] if upcoming is None else upcoming[1]
        return [
            run
            for run in study.runs()
            if run.loss.key in self.losses
            and run.seed in self.seeds
            and (self.folds is None or run.fold in self.folds)
            and (run.network is None or self.networks is None or run.network in self.networks)
        ]


def unfinished(study: Study, runs: Sequence[Run]) -> list[Run]:
    """Return the runs that have no result."""
    return [run for run in runs if study.status(run).state not in FINISHED]


def not_ended(study: Study, runs: Sequence[Run]) -> list[Run]:
    """Return the runs that have neither a result nor failed."""
    return [run for run in runs if study.status(run).state not in ENDED]
