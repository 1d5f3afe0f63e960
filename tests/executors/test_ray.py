"""Studies on a Ray cluster of three machines, which are processes of this one."""

import socket
import subprocess
import sys

import pytest
from slow_study import wait_for

from study_helpers import call, command, tiny_run
from voxloss.config.schema import ExecutionConfig
from voxloss.study.execution.ray import resources_of
from voxloss.utilities.errors import InputError

pytest.importorskip("ray", reason="Ray is not installed (the extra ray)")

RAY = ["--execution.executor", "ray"]


@pytest.fixture
def cluster(monkeypatch):
    """A head and two more machines, with a core each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    started = Cluster(initialize_head=True, head_node_args=size)
    for _ in range(2):
        started.add_node(**size)
    yield started
    started.shutdown()


@pytest.mark.executors
@pytest.mark.slow
def test_a_machine_that_dies_changes_no_score(cluster, study, expected):
    running = study.start(*RAY, "--execution.address", cluster.address)
    wait_for(lambda: len(study.at_work()) == 3, "three workers")
    raylet = cluster.list_all_nodes()[1]
    cluster.remove_node(raylet, allow_graceful=False)
    wait_for(lambda: len(study.at_work()) < 3, "its worker to die")
    study.hurry()
    out = study.end(running)
    assert "4 of 4" in out and "raylet" not in out
    assert study.scores() == expected
    assert study.takeovers() == 1


@pytest.mark.executors
@pytest.mark.slow
def test_actors_outlive_the_command_and_are_stopped_from_another_one(cluster, study, expected):
    """Three have a place; a fourth waits for one."""
    said = study.end(study.start(*RAY, "--execution.address", cluster.address, "--detach"))
    assert "4 workers submitted to Ray.\n" in said
    wait_for(lambda: len(study.at_work()) == 3, "three workers")
    stopped = command("stop", study.folder)
    assert stopped.returncode == 0, stopped.stderr
    assert not study.at_work() and study.takeovers() == 0
    assert not list(study.folder.glob(".execution/ray-*.json"))
    study.run()
    assert study.scores() == expected


@pytest.mark.executors
@pytest.mark.slow
def test_a_cluster_is_started_where_none_is_named_and_ends_with_the_command(study, expected, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    running = study.start(*RAY)
    study.hurry()
    out = study.end(running)
    assert "4 of 4" in out
    assert study.scores() == expected


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:{port}", ["no Ray cluster answers", "ray start --head"]),
        ("nohost.invalid:6379", ["no Ray cluster answers"]),
        ("head", ["HOST:PORT"]),
        ("ray://127.0.0.1:{port}", ["no Ray cluster answers"]),
    ],
)
def test_an_address_without_a_cluster_is_said_before_anything_is_written(phantom, tmp_path, address, words):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        address = address.format(port=taken.getsockname()[1])
        done = call(*tiny_run(phantom, tmp_path / "study", *RAY, "--execution.address", address))
    assert done.returncode == 2
    assert address in done.stderr and all(word in done.stderr for word in words), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "study").exists()


def test_ray_is_named_where_it_is_missing(phantom, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = call(*tiny_run(phantom, tmp_path / "study", *RAY))
    assert done.returncode == 2 and 'pip install -c constraints.txt ".[ray]"' in done.stderr


def test_a_cluster_that_ends_with_the_command_cannot_be_left(phantom, tmp_path):
    done = call(*tiny_run(phantom, tmp_path / "study", *RAY, "--detach"))
    assert done.returncode == 2 and "--execution.address" in done.stderr
    assert not (tmp_path / "study").exists()


def test_a_worker_takes_what_the_settings_say():
    assert resources_of(ExecutionConfig(), {"CPU": 8.0}) == {"CPU": 1, "GPU": 0}
    assert resources_of(ExecutionConfig(threads=4), {"CPU": 8.0, "GPU": 2.0}) == {"CPU": 4, "GPU": 1}
    assert resources_of(ExecutionConfig(device="cpu"), {"GPU": 2.0})["GPU"] == 0
    assert resources_of(ExecutionConfig(device="cuda"), {})["GPU"] == 1
    own = ExecutionConfig(resources={"GPU": 0.5, "fast": 1})
    assert resources_of(own, {"GPU": 2.0}) == {"CPU": 1, "GPU": 0.5, "fast": 1}
    with pytest.raises(InputError, match=r"execution\.resources"):
        ExecutionConfig(resources={"CPU": -1})


def test_ray_and_submitit_are_imported_only_where_they_are_used():
    code = "import sys, voxloss.commands.main, voxloss.study.execution.ray, voxloss.study.execution.slurm; "
    code += "assert not {'ray', 'submitit'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
