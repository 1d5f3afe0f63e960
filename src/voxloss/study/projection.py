"""What a study takes on several workers: a model, not a measurement.

The costs of executors are those of docs/benchmarks/executors.md, where the model is compared with measurements too.
"""

import math
from dataclasses import dataclass

from voxloss.config.schema import ExecutionConfig
from voxloss.config.settled import SettledConfig
from voxloss.study.claims import LOOK_SECONDS
from voxloss.study.plan import Plan, checkpoint_bytes


@dataclass(frozen=True)
class Costs:
    """What an executor costs, in seconds.

    Args:
        start: From the command to the first run: imports in the command and in the workers, which start together. The
            start of a cluster and its queue are not in it.
        run: Of a worker beside each run: its claim, publishing, and finding the next one.
        end: From the last result to the end of the command.
    """

    start: float
    run: float
    end: float


# In benchmarks/results/executors.csv. What Ray and Slurm take to start was measured on a busy machine, and is here in
# proportion to what `local` took there and on an idle one.
COSTS = {"local": Costs(4.9, 0.2, 2.1), "ray": Costs(7.5, 0.2, 3.5), "slurm": Costs(7.5, 0.2, 2.7)}

PREPARED_VOXELS = 30e-9  # seconds per voxel, stored and prepared: measured on 63 MB of compressed int16

# Operations on files that a run makes on the shared storage, counted with strace (tests/executors/test_traffic.py):
# openings, listings, flushes and changes. Attributes of files are not among them: a machine remembers them for a while.
RUN_OPERATIONS = 92  # claim, attempt, status, results, publishing
EPOCH_OPERATIONS = 19  # checkpoint, history and status 6 each, TensorBoard's events 1; best weights would be 6 more
CASE_OPERATIONS = 6  # of a prepared case, whose files are opened once and stay open
SCORED_OPERATIONS = 8  # of a case that is predicted and scored
BEAT_OPERATIONS, LOOK_OPERATIONS = 1, 1  # at each heartbeat, and at each look whether the study is stopped


@dataclass(frozen=True)
class Traffic:
    """What a run moves to and from the shared storage.

    Args:
        operations: Openings, listings and changes of files.
        written: Bytes, mostly a checkpoint after every epoch.
        read: Bytes of patches, if none of them is still in the machine's memory.
    """

    operations: int
    written: int
    read: int


@dataclass(frozen=True)
class Projection:
    """A study on several workers.

    Args:
        workers: Each like one of this machine's `execution.parallel`.
        rounds: Most runs of a worker, one after the other.
        trials: Most trials of a worker likewise; a search chooses those of a round by the rounds before.
        run: Seconds of a run.
        preparation: Seconds until all cases are prepared.
        seconds: Of all: preparation, start, trials, runs and the end.
        least: Seconds that no number of workers falls below: the largest case, the rounds of a search, and one run.
        traffic: Of a run.
        operations_per_s: Of all workers together, on the shared storage.
        written_per_s: Bytes, likewise.
    """

    workers: int
    rounds: int
    trials: int
    run: float
    preparation: float
    seconds: float
    least: float
    traffic: Traffic
    operations_per_s: float
    written_per_s: float


def projected(plan: Plan, most: int) -> list[Projection]:
    """Project a study to 1, 2, 4, … and `most` workers; runs are independent, and none is shared by two workers.

    Each is assumed to be as fast as one alone: the file server is no bottleneck, and memory and cores are not shared.
    """
    numbers = sorted({*(2**power for power in range(most.bit_length()) if 2**power < most), most})
    return [_projection(plan, number) for number in numbers]


def _projection(plan: Plan, workers: int) -> Projection:
    config = plan.survey.config
    costs, run = COSTS[config.execution.executor], (plan.training + plan.prediction) / plan.runs
    trial, waves = plan.search / plan.trials if plan.trials else 0.0, _rounds_of_search(config)
    rounds, trials = math.ceil(plan.runs / workers), max(math.ceil(plan.trials / workers), waves)
    cases = preparation_seconds(plan)
    preparation = spread(cases, workers)
    traffic = run_traffic(plan, run)
    at_work = min(workers, plan.runs)
    return Projection(
        workers=workers,
        rounds=rounds,
        trials=trials,
        run=run,
        preparation=preparation,
        seconds=preparation + execution_seconds(costs, rounds, run, trials, trial),
        least=max(cases, default=0.0) + execution_seconds(costs, 1, run, waves, trial),
        traffic=traffic,
        operations_per_s=at_work * traffic.operations / (run + costs.run),
        written_per_s=at_work * traffic.written / (run + costs.run),
    )


def execution_seconds(costs: Costs, rounds: int, run: float, trials: int = 0, trial: float = 0.0) -> float:
    """Return the seconds from the command to its end, of a study whose cases are prepared.

    Args:
        costs: Of the executor.
        rounds: Most runs of a worker, one after the other.
        run: Seconds of each.
        trials: Most trials of a worker before them.
        trial: Seconds of each.
    """
    return costs.start + trials * (trial + costs.run) + rounds * (run + costs.run) + costs.end


def spread(parts: list[float], workers: int) -> float:
    """Return the time of parts that workers take one after the other, each part by one: at least the longest."""
    return max(sum(parts) / workers, max(parts, default=0.0))


def preparation_seconds(plan: Plan) -> list[float]:
    """Return the seconds that preparing each case takes; of the stored voxels only the sum is known."""
    survey = plan.survey
    stored = survey.original_voxels / len(survey.shapes)
    return [PREPARED_VOXELS * (stored + math.prod(shape)) for shape in survey.shapes]


def run_traffic(plan: Plan, seconds: float) -> Traffic:
    """Return what a run of some seconds moves to and from the shared storage."""
    config, execution = plan.survey.config, plan.survey.config.execution
    epochs, cases = config.training.epochs, len(plan.survey.shapes)
    operations = run_operations(epochs, cases, cases / config.splits.folds) + _signs(execution, seconds)
    patch = math.prod(config.patches.size) * (4 * plan.survey.channels + 1)
    return Traffic(
        operations=round(operations),
        written=epochs * checkpoint_bytes(config, plan.probe),
        read=plan.steps * config.patches.batch_size * patch,
    )


def run_operations(epochs: int, cases: int, scored: float) -> float:
    """Return how many operations on files a run makes, without its heartbeats.

    Args:
        epochs: Its epochs.
        cases: Cases of the study.
        scored: Cases that the run predicts and scores.
    """
    return RUN_OPERATIONS + EPOCH_OPERATIONS * epochs + CASE_OPERATIONS * cases + SCORED_OPERATIONS * scored


def _signs(execution: ExecutionConfig, seconds: float) -> float:
    """Operations of heartbeats, and of looks whether the study is stopped."""
    beat = execution.heartbeat_s
    return seconds * (BEAT_OPERATIONS / beat + LOOK_OPERATIONS / min(LOOK_SECONDS, beat))


def _rounds_of_search(config: SettledConfig) -> int:
    """Return how many rounds of trials a search has, each of which waits for the one before; 0 without a search."""
    tuning = config.comparison.search()
    if tuning is None:
        return 0
    return math.ceil(tuning.trials / tuning.batch) if tuning.prune or not tuning.grid else 1
