"""What each executor costs, and how a study's time falls with workers.

    python benchmarks/executors.py --output executors.csv                           # runs that wait, on all executors
    python benchmarks/executors.py --work train --executors local --workers 1 2     # runs that train

Runs that wait (`--wait` seconds each) compute next to nothing, so that more workers than cores make sense: these are
figures of the engine, not of training. Runs that train take one thread each, and no more workers than cores say
something. Ray and Slurm are started on this machine, with a machine for each worker.

The study exists and its cases are prepared before the clock starts. `start_s` is the time from the command to the
first claim, without Slurm's or Ray's own start; `run_s` the mean time of executing a run; `overhead_s` what a worker
spends on a run beside executing it (claim, publishing, finding the next one); `end_s` the time from the last result to
the command's end; `total_s` that of the whole command. `busy_s` counts from the first claim to the last result, and
`runs_per_hour` is by it. `cores_of_others` is what other programs took of the machine right before.
"""

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from voxloss.data.phantom.write import write_phantom
from voxloss.study.study import Study
from voxloss.utilities.machine import busy_seconds, environment

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "executors"))
import slurm_lab

LOSS = """
import time
from torch.nn import functional

def cross_entropy(logits, labels):
    time.sleep({wait} / {calls})
    return functional.cross_entropy(logits, labels)
"""
STEPS = 4
SETTINGS = [
    "--splits.folds", "2", "--patches.overlap", "0", "--network.depth", "2", "--training.validation_batches", "1",
    "--execution.device", "cpu", "--execution.threads", "1", "--no-report",
]  # fmt: skip
WORK = {
    "wait": [
        "--losses", "waiting.cross_entropy", "--patches.size", "[8,16,16]", "--network.filters", "2",
        "--training.epochs", "1", "--training.iterations", str(STEPS), "--preparation.spacing_mm", "[11,11,11]",
    ],
    "train": [
        "--losses", "dice", "--patches.size", "[16,32,32]", "--network.filters", "8",
        "--training.epochs", "12", "--training.iterations", "20", "--preparation.spacing_mm", "[6,6,6]",
    ],
}  # fmt: skip


@contextmanager
def words_of(executor: str, workers: int, folder: Path) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Start what an executor needs, and yield its options and environment."""
    if executor == "slurm":
        with slurm_lab.slurm_lab(folder / f"lab-{workers}", nodes=workers) as lab:
            options = ["--execution.jobs", str(workers), "--execution.sbatch", '["--exclusive"]']
            yield options, lab.environment
    elif executor == "ray":
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        from ray.cluster_utils import Cluster

        size = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=size)
        for _ in range(workers - 1):
            cluster.add_node(**size)
        try:
            yield ["--execution.address", cluster.address], dict(os.environ)
        finally:
            cluster.shutdown()
    else:
        yield ["--execution.parallel", str(workers)], dict(os.environ)


def measure(executor: str, work: str, data: Path, folder: Path, runs: int, workers: int) -> dict[str, Any]:
    """Have runs of a study that exists executed, and return the row of the executor."""
    study = folder / f"{executor}-{work}-{workers}"
    words = [sys.executable, "-m", "voxloss", "run", "demo", "--data", str(data), "--study", str(study)]
    words += [*SETTINGS, *WORK[work]]
    subprocess.run([*words, "--seeds", "0", "--folds", "0"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    seeds = ",".join(str(1 + number) for number in range(runs // 2))  # of two folds
    with words_of(executor, workers, folder) as (options, variables):
        chosen = [*words, "--seeds", seeds, "--execution.executor", executor, *options]
        others, first = cores_in_use(), None
        begin = time.time()
        process = subprocess.Popen(chosen, cwd=folder, env=variables, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            if first is None and any(study.glob("runs/*/*/.seed-[!0]*/claim-0001.json")):
                first = time.time()
            time.sleep(0.02)
        end = time.time()
    assert process.returncode == 0 and first is not None
    results = [path.stat().st_mtime for path in study.glob("runs/*/*/seed-[!0]*/status.json")]
    opened = Study.open(study)
    executing = [opened.status(run).seconds for run in opened.runs() if run.seed != 0]
    assert len(results) == len(executing) == runs
    busy = max(results) - first
    return {
        "work": work,
        "executor": executor,
        "workers": workers,
        "runs": runs,
        "start_s": round(first - begin, 2),
        "run_s": round(sum(executing) / runs, 2),
        "overhead_s": round((busy * workers - sum(executing)) / runs, 2),
        "busy_s": round(busy, 1),
        "end_s": round(end - max(results), 2),
        "total_s": round(end - begin, 1),
        "runs_per_hour": round(3600 * runs / busy),
        "cores_of_others": round(others, 2),
    }


def cores_in_use(seconds: float = 3.0) -> float:
    """How many cores other programs use now."""
    before = busy_seconds() or 0.0
    time.sleep(seconds)
    return ((busy_seconds() or 0.0) - before) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--executors", nargs="+", default=["local", "ray", "slurm"], choices=["local", "ray", "slurm"])
    parser.add_argument("--work", choices=list(WORK), default="wait", help="what runs do")
    parser.add_argument("--runs", type=int, default=12, help="an even number")
    parser.add_argument("--each", type=int, help="instead of --runs: runs of each worker")
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--wait", type=float, default=4.0, help="seconds that each run waits")
    parser.add_argument("--output", type=Path, help="a CSV file that rows are added to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="executors") as name:
        folder, data = Path(name), Path(name) / "phantom"
        write_phantom(data, cases=4, seed=0, setting="small")
        (folder / "waiting.py").write_text(LOSS.format(wait=arguments.wait, calls=STEPS + 1))
        for executor in arguments.executors:
            for workers in arguments.workers:
                runs = arguments.runs if arguments.each is None else 2 * math.ceil(arguments.each * workers / 2)
                row = measure(executor, arguments.work, data, folder, runs, workers)
                row["wait_s"] = arguments.wait if arguments.work == "wait" else 0.0
                print(row, flush=True)
                if arguments.output is not None:
                    add(arguments.output, row)


def add(file: Path, row: dict[str, Any]) -> None:
    """Add a row to a CSV file."""
    new = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, [*row, "machine"], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow({**row, "machine": json.dumps(environment())})


if __name__ == "__main__":
    main()
