"""Several processes train one network: the batches, the loss and the weights are those of one process."""

import math
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from voxloss.config.files import load_config
from voxloss.training.batches import TrainingJob
from voxloss.training.checkpoint import load_state
from voxloss.training.ranks import ALONE, Ranks
from voxloss.training.train import InterruptedRunError, train
from voxloss.utilities.errors import InputError

CPU = torch.device("cpu")


class Volume:
    """A prepared case in memory: a bright box (class 1), in some with a small brighter one (class 2), in noise."""

    inside = None  # no region of interest
    shape, spacing_mm = (8, 16, 16), (1.0, 1.0, 1.0)

    def __init__(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self.label = np.zeros(self.shape, dtype=np.uint8)
        y, x = generator.integers(2, 9, 2)
        self.label[2:6, y : y + 5, x : x + 5] = 1
        self.label[3:5, y : y + 2, x : x + 2] = 2 * (seed % 2)
        self.label[0] = 255  # ignored, in other numbers of voxels by patch
        self.image = (self.label * 0.01 + generator.normal(0, 0.3, self.shape)).astype(np.float32)[None]
        self.foreground = {c: np.argwhere(self.label == c).astype(np.int32) for c in (1, 2)}


CASES = [Volume(seed) for seed in range(5)]
SMALL = [
    "--patches.size", "[8,8,16]", "--patches.batch_size", "4",
    "--network.filters", "4", "--network.depth", "2",
    "--training.epochs", "2", "--training.iterations", "2", "--training.validation_batches", "1",
]  # fmt: skip


def job(folder: Path, loss: str, *overrides: str, ranks: int = 1) -> TrainingJob:
    folder.mkdir(parents=True, exist_ok=True)
    config = load_config(None, [*SMALL, *overrides, "--execution.devices_per_run", str(ranks)])
    classes = ("background", "box", "core")
    return TrainingJob(folder, config, loss, {}, 0, 0, CASES[:4], CASES[4:], classes, ignore_index=255)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "overrides"),
    [
        ("dice_cross_entropy", ["--network.norm", "batch"]),
        ("cc_dice_ce", ["--network.norm", "instance", "--training.selection", "inner"]),
        ("mixed_focal", ["--network.name", "monai.networks.nets.DynUNet", "--network.arguments",
            "{kernel_size: [3, 3, 3], strides: [1, 2, 2], upsample_kernel_size: [2, 2], norm_name: batch, "
            "filters: [4, 4, 8], "
            "deep_supervision: true, deep_supr_num: 1, spatial_dims: 3}",
            "--execution.workers", "1"]),
    ],
)  # fmt: skip
def test_two_ranks_train_what_one_process_trains(tmp_path, loss, overrides):
    states = {}
    for ranks in (1, 2):
        train(job(tmp_path / str(ranks), loss, *overrides, ranks=ranks), CPU)
        states[ranks] = load_state(tmp_path / str(ranks) / "checkpoint.pt")
    one, two = states[1], states[2]
    for first, second in zip(one["history"], two["history"], strict=True):
        assert first["batch_digest"] == second["batch_digest"]
        assert first["patches_with_class"] == second["patches_with_class"]
        assert first["train_loss"] == pytest.approx(second["train_loss"], rel=1e-4)
        assert first["validation_dice"] == pytest.approx(second["validation_dice"], abs=5e-3)
    for name, value in one["network"].items():
        # The gradient of a bias before a normalisation is rounding alone, of which Adam makes a step of full size.
        if not name.endswith(("0.bias", "3.bias")):
            torch.testing.assert_close(two["network"][name], value, rtol=1e-3, atol=2e-5, msg=name)
    assert set(one["network"]) == set(two["network"])


@pytest.mark.slow
def test_the_number_of_ranks_may_change_in_the_middle(tmp_path):
    with pytest.raises(InterruptedRunError):
        train(job(tmp_path / "run", "dice", ranks=2), CPU, stop=lambda: (tmp_path / "run" / "checkpoint.pt").exists())
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {"checkpoint.pt", "history.csv", "events"}
    train(job(tmp_path / "run", "dice"), CPU)
    train(job(tmp_path / "whole", "dice"), CPU)
    parts, whole = (load_state(tmp_path / name / "checkpoint.pt")["history"] for name in ("run", "whole"))
    assert [row["batch_digest"] for row in parts] == [row["batch_digest"] for row in whole]
    assert [row["train_loss"] for row in parts] == pytest.approx([row["train_loss"] for row in whole], rel=1e-4)


def _children() -> set[int]:
    return {int(child) for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads the child processes from /proc")
def test_a_rank_that_dies_ends_the_training_with_an_error_and_leaves_no_process(tmp_path):
    before, killed = _children(), []

    def kill_the_other() -> bool:
        others = [pid for pid in _children() - before if b"multiprocessing.spawn" in _command(pid)]
        if not killed:
            killed.extend(others)
            for pid in others:
                os.kill(pid, signal.SIGKILL)
        return False

    with pytest.raises(RuntimeError):
        train(job(tmp_path / "run", "dice", ranks=2), CPU, stop=kill_the_other)
    assert len(killed) == 1
    assert not torch.distributed.is_initialized()
    deadline = time.monotonic() + 30
    while any(b"multiprocessing.spawn" in _command(pid) for pid in _children() - before):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.slow
def test_the_error_of_another_rank_is_the_one_that_is_raised(tmp_path):
    network = ["--network.name", "tests.training.test_ranks.OfRankZero"]
    with pytest.raises(RuntimeError, match=r"rank 1 of 2: InputError: network.name .*: no network here"):
        train(job(tmp_path / "run", "dice", *network, ranks=2), CPU)


class OfRankZero(torch.nn.Conv3d):
    """A network that only rank 0 can build."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        if torch.distributed.is_initialized() and torch.distributed.get_rank():
            raise ValueError("no network here")
        super().__init__(in_channels, out_channels, 1)


def test_a_process_alone_gives_back_what_it_takes():
    batch = torch.randn(4, 2, 3)
    assert ALONE.part(batch).equal(batch) and ALONE.whole(batch) is batch
    assert ALONE.agree(lambda: True, CPU) is True
    network = torch.nn.BatchNorm3d(2)
    assert ALONE.share_statistics(network, CPU) is network and type(network) is torch.nn.BatchNorm3d
    assert torch.cat([Ranks(rank, 2).part(batch) for rank in (0, 1)]).equal(batch)


def test_the_batch_is_shared_out_equally():
    with pytest.raises(InputError, match=r"execution.devices_per_run must be a divisor of the batch size, 4"):
        load_config(None, [*SMALL, "--execution.devices_per_run", "3"])
    assert math.gcd(load_config(None, [*SMALL, "--execution.devices_per_run", "4"]).patches.batch_size, 4) == 4
