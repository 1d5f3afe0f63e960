"""Processes that read batches ahead: they can be sent their work, and a small shared memory does not stop them."""

import errno
import multiprocessing
import os
import pickle
import shutil
import signal

import numpy as np
import pytest
import torch
from test_train import CPU, run

from voxloss.config.settled import SettledConfig
from voxloss.training import batches as module
from voxloss.training.augment import Augmenter
from voxloss.training.batches import shared_memory_warning, training_batches
from voxloss.utilities import machine
from voxloss.utilities.errors import InputError

OFTEN = ("--augmentation.probability", "1")


def dataset(job) -> module._TrainingBatches:
    return module._TrainingBatches(job, 0, Augmenter(job.patches.size, job.config.augmentation))


@pytest.mark.parametrize("on_device", [False, True])
def test_the_work_of_a_process_can_be_sent_to_it(tmp_path, on_device):
    """Spawned processes get it pickled; it gives the same patches there."""
    job = run(tmp_path, *OFTEN)
    own = module._TrainingBatches(job, 0, Augmenter(job.patches.size, job.config.augmentation, on_device))
    for mine, sent in zip(own[3], pickle.loads(pickle.dumps(own))[3], strict=True):
        assert torch.equal(mine, sent)


@pytest.mark.parametrize("room", [0, 10**9])
def test_processes_give_the_batches_of_the_runs_own(tmp_path, monkeypatch, room):
    """Also without shared memory, where batches go through pipes."""
    own = list(training_batches(run(tmp_path / "own", *OFTEN), 2, CPU))
    monkeypatch.setattr(module, "shared_memory_room", lambda: room)
    loader = module.DataLoader
    # Spawned processes would not see the small room, and import torch anew, which takes long.
    monkeypatch.setattr(module, "DataLoader", lambda *a, **o: loader(*a, **o, multiprocessing_context="fork"))
    ahead = list(training_batches(run(tmp_path / "ahead", *OFTEN, "--execution.workers", "2"), 2, CPU))
    assert len(own) == len(ahead) == 2 * 3
    for mine, other in zip(own, ahead, strict=True):
        assert all(map(torch.equal, mine, other))
        assert [part.dtype for part in other] == [torch.float32, torch.uint8]


def test_a_worker_sends_arrays_where_shared_memory_is_small(tmp_path, monkeypatch):
    data = dataset(run(tmp_path, "--execution.parallel", "3"))
    size = sum(part.nbytes for part in data[0])
    assert size == 2 * 8 * 16 * 16 * (4 + 1)  # what the warning counts too

    class Worker:
        num_workers = 4

    monkeypatch.setattr(module, "get_worker_info", Worker)
    for room, kind in ((2 * 4 * 3 * size, torch.Tensor), (2 * 4 * 3 * size - 1, np.ndarray), (None, torch.Tensor)):
        monkeypatch.setattr(module, "shared_memory_room", lambda room=room: room)
        assert [type(part) for part in data[0]] == [kind, kind]


def test_a_small_shared_memory_is_named_beforehand(tmp_path, monkeypatch):
    settled = (
        "--training.precision",
        "float32",
        "--preparation.spacing_mm",
        "stored",
        "--comparison.primary_class",
        "a",
    )
    config = SettledConfig.of(run(tmp_path, "--execution.workers", "4", *settled).config)
    monkeypatch.setattr(module, "shared_memory_room", lambda: 100_000)
    warning = shared_memory_warning(config, 1, CPU)
    assert warning is not None and "/dev/shm has 0.00 GB left" in warning and "--shm-size" in warning
    monkeypatch.setattr(module, "shared_memory_room", lambda: 2 * 4 * 2 * 8 * 16 * 16 * 5)
    assert shared_memory_warning(config, 1, CPU) is None
    assert shared_memory_warning(config, 2, CPU) is not None


def test_a_full_shared_memory_is_named_where_processes_cannot_be_started(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.DataLoader, "__iter__", full)
    with pytest.raises(InputError, match=r"No space left on device.*/dev/shm has"):
        next(training_batches(run(tmp_path, "--execution.workers", "1"), 0, CPU))


def test_the_room_is_that_of_the_system(monkeypatch):
    room = machine.shared_memory_room()
    assert room is None or room == pytest.approx(shutil.disk_usage("/dev/shm").free, abs=2**27)
    monkeypatch.setattr(machine.sys, "platform", "darwin")
    assert machine.shared_memory_room() is None


def test_a_system_without_it_has_no_room(monkeypatch):
    def absent(path):
        raise FileNotFoundError(errno.ENOENT, "No such file", path)

    monkeypatch.setattr(machine.shutil, "disk_usage", absent)
    monkeypatch.setattr(machine.sys, "platform", "linux")
    assert machine.shared_memory_room() == 0


def test_processes_that_are_told_to_end_go_on_until_the_run_ends(tmp_path, monkeypatch):
    """Slurm tells all processes of a job that is preempted; the run would fail if they went before its step ends."""
    loader = module.DataLoader
    monkeypatch.setattr(module, "DataLoader", lambda *a, **o: loader(*a, **o, multiprocessing_context="fork"))
    batches = training_batches(run(tmp_path, "--execution.workers", "1"), 0, CPU)
    next(batches)
    (process,) = multiprocessing.active_children()
    os.kill(process.pid, signal.SIGTERM)
    assert len(list(batches)) == 4 * 3 - 1
