"""When a worker that is not to wait leaves: once all owners of what is left have given a sign of life."""

import shutil
from dataclasses import replace

import pytest

from voxloss.study.claims import Heart, Worker, take
from voxloss.study.execution.request import Request
from voxloss.study.execution.worker import work
from voxloss.study.study import Study

ELSEWHERE = Worker("slurm", heartbeat_s=0.2, stale_after_s=2, host="elsewhere", process=None)


@pytest.fixture
def claimed(own_study):
    """A study with one run to do, and the claim of another machine on it."""
    study = Study.open(own_study)
    run = study.runs()[0]
    shutil.rmtree(study.run_folder(run).path)
    shutil.rmtree(study.files.place(run), ignore_errors=True)
    claim = take(study.files.place(run), ELSEWHERE)
    assert claim is not None
    return study, run, claim


def request_of(study: Study) -> Request:
    return Request(losses=tuple(study.loss_keys), seeds=tuple(study.comparison.seeds), executor="slurm", wait=False)


def test_a_worker_leaves_what_others_are_at(claimed):
    study, run, claim = claimed
    with Heart(claim):
        work(study.folder, request_of(study))
        claim.check()
    assert study.status(run).state == "pending"


@pytest.mark.slow
def test_a_worker_takes_over_what_a_dead_machine_has_left(claimed):
    study, run, _ = claimed
    work(study.folder, request_of(study))
    status = Study.open(study.folder).status(run)
    assert (status.state, status.takeovers) == ("done", 1)


@pytest.mark.slow
def test_a_worker_takes_what_is_released_while_it_looks(claimed):
    study, run, claim = claimed
    looks = iter([False, False])

    def leave() -> bool:
        if next(looks, None) is None and claim.record.state == "held":
            claim.release()
            claim.record = replace(claim.record, state="free")
        return False

    work(study.folder, request_of(study), leave)
    assert Study.open(study.folder).status(run).state == "done"
