"""What a run asks of the file server, counted by strace: what `voxloss plan --workers` and the docs say."""

import re
import shutil
import subprocess
import sys
from unittest import mock

import pytest

from study_helpers import call, tiny_run
from voxloss.study.execution.request import Request
from voxloss.study.projection import run_operations

pytestmark = pytest.mark.executors

WORKER = """
import sys
from pathlib import Path
from voxloss.study.execution.request import Request
from voxloss.study.execution.worker import work
work(Path(sys.argv[1]), Request.parse(sys.argv[2]))
"""
COUNTED = (
    "?open,?openat,?creat,?link,?linkat,?symlink,?unlink,?unlinkat,?rename,?renameat,?renameat2,?mkdir,?mkdirat,?rmdir,"
    "?chmod,?fchmod,?fchmodat,?utimensat,?getdents64,?fsync,?fdatasync,?ftruncate,?truncate"
)


@pytest.mark.parametrize(("epochs", "steps"), [(2, 2), (5, 6)])
def test_the_operations_of_a_run_are_as_the_projection_says(phantom, tmp_path, epochs, steps):
    if shutil.which("strace") is None:
        pytest.skip("operations are counted by Debian's package strace")
    study = tmp_path / "study"
    words = tiny_run(phantom, study, "--training.epochs", epochs, "--training.iterations", steps)
    with mock.patch("voxloss.study.execution.worker.work"):  # the study is created, and nothing trained
        call(*words)
    request = Request(losses=("dice",), seeds=(0,), folds=(0,)).text()
    traced = ["strace", "-f", "-y", "-s", "0", "-e", f"trace={COUNTED}", "-o", str(tmp_path / "log")]
    done = subprocess.run(
        [*traced, sys.executable, "-c", WORKER, str(study), request], capture_output=True, text=True, check=False
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert len(list(study.glob("runs/dice/fold-0/seed-0/scores.csv"))) == 1
    lines = (tmp_path / "log").read_text().splitlines()
    calls = [line for line in lines if str(study) in line and re.match(r"\d+ +\w+\(", line)]  # not those resumed
    looks = [line for line in calls if "/.stop" in line or "utimensat" in line]  # by the clock
    counted = len(calls) - len(looks)
    assert counted == pytest.approx(run_operations(epochs, cases=4, scored=2), rel=0.1)
    assert not [line for line in calls if "chmod" in line]
    assert (study / "events/dice/fold-0/seed-0").is_dir()
