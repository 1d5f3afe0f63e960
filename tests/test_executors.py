"""The processes that execute runs."""

from voxloss.study.execution.local import short_spinning


def test_threads_of_worker_processes_do_not_spin_long_unless_the_user_says_so():
    assert short_spinning({"HOME": "/"}) == {"HOME": "/", "GOMP_SPINCOUNT": "1000"}
    assert short_spinning({"OMP_WAIT_POLICY": "active"}) == {"OMP_WAIT_POLICY": "active"}
