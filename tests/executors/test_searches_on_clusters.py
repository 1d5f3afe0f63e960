"""A search for parameters and learning rates on Ray and Slurm has the trials and values that it has on this machine."""

import json
import os
import signal
import tempfile
from pathlib import Path

import pytest
import slurm_lab
from slow_study import SlowStudy, wait_for

from study_helpers import command
from voxloss.study.claims import live_claims
from voxloss.study.search import places_of, trials_of
from voxloss.study.study import Study

pytest.importorskip("optuna", reason="Optuna is not installed (the extra search)")

LOSS = '''
import time
from pathlib import Path

from voxloss.losses.functional import mixed_focal_loss


def mixed(logits, labels, weight=0.5, delta=0.7, gamma=1.0):
    """Mixed Focal, which takes two seconds while the file `slowly` is in the working directory."""
    if Path("slowly").exists():
        time.sleep(2)
    return mixed_focal_loss(logits, labels, weight=weight, delta=delta, gamma_focal=gamma)
'''
# Two rounds; the trials of the second one are those that TPE chooses by the scores of the first.
TUNING = {
    "trials": 4,
    "batch": 2,
    "prune": False,
    "learning_rate": [1e-4, 1e-1, "log"],
    "slow_search.mixed": {"weight": [0, 1], "delta": [0.1, 0.9], "gamma": [0, 4]},
}
OPTIONS = [
    "--losses", "slow_search.mixed", "--seeds", "0", "--folds", "0", "--training.epochs", "3",
    "--comparison.tuning", json.dumps(TUNING),
]  # fmt: skip


def found(study: SlowStudy) -> tuple[object, dict[str, tuple[object, ...]], bytes]:
    """The record of the search, what came of every training, and the scores."""
    opened = Study.open(study.folder)
    runs = [run for run in opened.runs() if run.fold == 0]
    trials = trials_of(opened, places_of(runs))
    assert len(trials) == 4
    statuses = [opened.status(run) for run in (*trials, *runs)]
    assert {status.state for status in statuses} == {"done"}
    return (
        json.loads(opened.files.search_file(runs[0].loss, 0).read_text()),
        {str(one.run): (one.setting, one.value, one.batch_digest) for one in statuses},
        study.scores(),
    )


@pytest.fixture(scope="module")
def here(phantom, tmp_path_factory):
    """What the search finds on this machine, one training after the other."""
    study = SlowStudy(phantom, tmp_path_factory.mktemp("here") / "study", OPTIONS, "slow_search", LOSS)
    study.run()
    return found(study)


def interrupt(study: SlowStudy) -> None:
    """Kill a worker in the middle of the search, wait for the one that goes on, and stop the study."""
    trials = lambda: [claim for claim in live_claims(study.folder) if "trial-" in str(claim.place)]  # noqa: E731
    first = wait_for(trials, "a trial")[0]
    os.kill(first.record.pid, signal.SIGKILL)
    wait_for(lambda: any(claim.record.why == "takeover" for claim in trials()), "another worker to go on with it")
    stopped = command("stop", study.folder)
    assert stopped.returncode == 0, stopped.stderr
    opened = Study.open(study.folder)
    assert any(opened.status(run).state == "pending" for run in trials_of(opened, places_of(opened.runs())))
    study.hurry()


def interrupted_and_resumed(study: SlowStudy, *executor: str) -> tuple[object, dict[str, tuple[object, ...]], bytes]:
    """What the search finds on a cluster, killed, stopped and resumed."""
    study.end(study.start(*executor, "--detach"))
    interrupt(study)
    resumed = study.start(*executor)
    study.hurry()
    study.end(resumed)
    return found(study)


@pytest.mark.executors
@pytest.mark.slow
def test_a_search_on_ray_that_is_killed_and_resumed(phantom, tmp_path, here, monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed (the extra ray)")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=size)
    cluster.add_node(**size)
    try:
        study = SlowStudy(phantom, tmp_path / "study", OPTIONS, "slow_search", LOSS)
        on_ray = ["--execution.executor", "ray", "--execution.address", cluster.address]
        assert interrupted_and_resumed(study, *on_ray) == here
    finally:
        cluster.shutdown()


@pytest.mark.executors
@pytest.mark.slow
def test_a_search_on_slurm_that_is_killed_and_resumed(phantom, tmp_path, here, monkeypatch):
    pytest.importorskip("submitit", reason="submitit is not installed (the extra slurm)")
    if (reason := slurm_lab.why_not()) is not None:
        pytest.skip(reason)
    with (
        tempfile.TemporaryDirectory(prefix="lab") as folder,
        slurm_lab.slurm_lab(Path(folder) / "slurm", nodes=2) as lab,
    ):
        monkeypatch.setenv("SLURM_CONF", lab.environment["SLURM_CONF"])
        study = SlowStudy(phantom, tmp_path / "study", OPTIONS, "slow_search", LOSS)
        on_slurm = ["--execution.executor", "slurm", "--execution.jobs", "2", "--execution.sbatch", '["--exclusive"]']
        assert interrupted_and_resumed(study, *on_slurm) == here
