"""Two `voxloss run` on a study that each sees through a mount of its own: the same scores as on this machine alone."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from shared_mounts import MEMORY, two_mounts
from slow_study import wait_for

from study_helpers import call, tiny_run, voxloss
from voxloss.study.claims import live_claims, read_claim

pytestmark = pytest.mark.executors

LONGER = ["--training.epochs", "6"]
HEARTBEATS = ["--execution.heartbeat_s", "1", "--execution.stale_after_s", f"{4 * MEMORY}"]


@pytest.fixture(scope="module")
def undisturbed(phantom, tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("local") / "study"
    result = call(*tiny_run(phantom, folder, *LONGER))
    assert result.returncode == 0, result.stderr
    return (folder / "scores.csv").read_bytes()


def started(words: list[object], host: str) -> subprocess.Popen:
    environment = {**os.environ, "VOXLOSS_HOST": host}
    return subprocess.Popen(voxloss(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def ended(process: subprocess.Popen) -> None:
    out, errors = process.communicate(timeout=600)
    assert process.returncode == 0, (out, errors)
    assert "Traceback" not in errors


def at_work(study: Path, host: str) -> int | None:
    """The process of a machine that has finished an epoch of a run."""
    for claim in live_claims(study):
        if claim.record.host == host and (claim.place / "attempt-0001" / "checkpoint.pt").is_file():
            return claim.record.pid
    return None


@pytest.mark.parametrize(("kind", "how"), [("sshfs", signal.SIGSTOP), ("bindfs", signal.SIGKILL)])
def test_two_machines_share_a_study_and_one_of_them_is_halted_or_dies(phantom, undisturbed, tmp_path, kind, how):
    with two_mounts(kind, tmp_path) as (server, *mounts):
        study = server / "study"
        one, two = (started(tiny_run(phantom, at / "study", *LONGER, *HEARTBEATS), at.name) for at in mounts)
        try:
            worker = wait_for(lambda: at_work(study, "one") or one.poll() is not None, "an epoch on the first machine")
            assert one.poll() is None, one.communicate()
            halted = (one.pid, worker)  # the command, so that it starts no other
            for process in halted:
                os.kill(process, how)
            ended(two)
            assert (study / "scores.csv").read_bytes() == undisturbed
            before = {path: path.stat().st_mtime_ns for path in (study / "runs").rglob("*") if path.is_file()}
            if how == signal.SIGSTOP:
                for process in reversed(halted):
                    os.kill(process, signal.SIGCONT)
                ended(one)
        finally:
            one.kill()
            two.kill()
        after = {path: path.stat().st_mtime_ns for path in (study / "runs").rglob("*") if path.is_file()}
        assert after == before
        assert (study / "scores.csv").read_bytes() == undisturbed
        assert len(list(study.glob("runs/*/fold-*/seed-*"))) == 4
        assert not live_claims(study) and not list(study.rglob("attempt-*")) and not list(study.rglob(".partial-*"))
        places = list(study.glob("runs/*/fold-*/.seed-*"))
        assert {read_claim(place, 1).record.host for place in places} == {"one", "two"}
        statuses = [json.loads(path.read_text()) for path in study.glob("runs/*/*/seed-*/status.json")]
        assert sum(status["takeovers"] for status in statuses) == 1
