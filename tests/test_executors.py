"""The processes that execute runs."""

import os

from voxloss.study.executors import short_spinning


def test_threads_of_worker_processes_do_not_spin_long_unless_the_user_says_so(monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    with short_spinning():
        assert os.environ["GOMP_SPINCOUNT"] == "1000"
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    with short_spinning():
        assert "GOMP_SPINCOUNT" not in os.environ
