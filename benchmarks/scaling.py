"""How a study's time falls with workers, and how many operations on files a run makes.

    python benchmarks/scaling.py --output benchmarks/results/scaling.csv

The same twelve small runs, with real training, are executed by one worker and by two, of one thread each; the data are
prepared before. Then one run of two epochs and one of twelve are executed while openings, renames, links, removals,
times that are set, and folders made and listed in the study are counted (`stat` is not): the shared storage sees these.
Each row says how many cores other programs took meanwhile; on a busy machine the times mean little.
"""

import argparse
import collections
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import torch

import voxloss
from voxloss.data.phantom.write import write_phantom
from voxloss.study.execution.request import Request
from voxloss.study.execution.worker import work
from voxloss.study.study import Study
from voxloss.utilities.machine import busy_seconds

SETTINGS = [
    "--splits.folds", "2", "--patches.size", "[16,32,32]", "--patches.overlap", "0", "--network.filters", "8",
    "--network.depth", "2", "--training.iterations", "20", "--training.validation_batches", "1",
    "--preparation.spacing_mm", "[6,6,6]", "--execution.device", "cpu", "--execution.threads", "1", "--no-report",
]  # fmt: skip
CHANGES = ("os.rename", "os.mkdir", "os.utime", "os.link", "os.remove", "os.rmdir")


def run(data: Path, study: Path, *more: object) -> None:
    """Run a small study."""
    words = ["run", "demo", "--data", data, "--study", study, *SETTINGS, *more]
    subprocess.run([sys.executable, "-m", "voxloss", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def scaling(data: Path, folder: Path) -> Iterator[tuple[str, float, str]]:
    """Yield the time of the runs with one worker and with two, and the ratio."""
    seconds = {}
    for workers in (1, 2):
        study = folder / f"workers-{workers}"
        run(data, study, "--losses", "dice", "--folds", "0", "--training.epochs", 12, "--seeds", "9")  # prepares
        start = time.perf_counter()
        more = ["--execution.parallel", workers, "--seeds", "0,1,2"]
        run(data, study, "--losses", "dice,focal", "--training.epochs", 12, *more)
        seconds[workers] = time.perf_counter() - start
        yield f"12 runs, {workers} worker(s) of one thread", seconds[workers], "s"
        opened = Study.open(study)
        each = [opened.status(one).seconds for one in opened.runs() if one.seed != 9]
        yield f"mean run with {workers} worker(s)", sum(each) / len(each), "s"
    yield "speed of two workers against one", seconds[1] / seconds[2], "times"


def operations(data: Path, folder: Path) -> Iterator[tuple[str, float, str]]:
    """Yield the operations on files of a run without its epochs, of an epoch, and of a step."""
    counts: dict[int, collections.Counter[str]] = {}
    for epochs in (2, 12):
        study = folder / f"counted-{epochs}"
        run(data, study, "--losses", "dice", "--training.epochs", epochs, "--folds", "0")
        with counted(study) as counts[epochs]:  # of the run on the other fold
            work(study, Request(losses=("dice",), seeds=(0,), report=False))
    for kind in ("changing", "reading"):
        each = (counts[12][kind] - counts[2][kind]) / 10
        yield f"{kind} operations of a run without its epochs", counts[2][kind] - 2 * each, "operations"
        yield f"{kind} operations of an epoch", each, "operations"
    yield "openings of prepared cases in a step", (counts[12]["cases"] - counts[2]["cases"]) / 200, "operations"


_counting: list[tuple[str, collections.Counter[str]]] = []


def _count(event: str, arguments: tuple[object, ...]) -> None:
    if not _counting or not arguments or not isinstance(arguments[0], str | bytes | Path):
        return
    root, counter = _counting[-1]
    path = os.fsdecode(arguments[0])
    if not path.startswith(root):
        return
    if event == "open":
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        kind = "cases" if "/prepared/" in path else "changing" if flags & (os.O_WRONLY | os.O_RDWR) else "reading"
        counter[kind] += 1
    elif event in CHANGES:
        counter["changing"] += 1
    elif event in ("os.listdir", "os.scandir"):
        counter["reading"] += 1


@contextmanager
def counted(study: Path) -> Iterator[collections.Counter[str]]:
    """Count the operations on files of a study."""
    counter: collections.Counter[str] = collections.Counter()
    _counting.append((str(study), counter))
    try:
        yield counter
    finally:
        _counting.pop()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="a CSV file that rows are added to")
    arguments = parser.parse_args()
    sys.addaudithook(_count)
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory(prefix="scaling") as name:
        folder = Path(name)
        write_phantom(folder / "phantom", cases=4, seed=0, setting="small")
        for measured in (scaling, operations):
            start, busy, own = time.perf_counter(), busy_seconds() or 0.0, sum(os.times()[:4])
            found = list(measured(folder / "phantom", folder))
            spent = (busy_seconds() or 0.0) - busy - (sum(os.times()[:4]) - own)
            others = max(0.0, spent / (time.perf_counter() - start))
            rows += [(measure, f"{value:.4g}", unit, f"{others:.1f}") for measure, value, unit in found]
    for row in rows:
        print(*row, sep="\t")
    if arguments.output is not None:
        new = not arguments.output.exists()
        with arguments.output.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                header = ("date", "version", "torch", "cores", "measure", "value", "unit", "cores_of_others")
                writer.writerow(header)
            origin = (date.today().isoformat(), voxloss.__version__, torch.__version__, os.cpu_count())
            writer.writerows((*origin, *row) for row in rows)


if __name__ == "__main__":
    main()
