"""Two processes with a part of the batch each, against one with all of it."""

import os
import socket

import pytest
import torch
import torch.multiprocessing
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from voxloss import Compound, get_loss

pytestmark = pytest.mark.slow

LOSSES = [
    "dice",
    "mixed_focal",
    "cross_entropy",
    "generalised_dice",
    "mcc",
    "asymmetric_unified_focal",
    "dice_topk",
    "ml1_ace",
    "skeleton_recall",
    "cl_dice",
    "cc_dice_ce",
    "blob",
    "boundary",
    "hausdorff",
]
PARTS = [slice(0, 3), slice(3, 4)]  # of unequal size


def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 1, 5, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (4, 5, 6), generator=generator)
    labels[3], labels[0, 1] = 0, 9  # the second process has one class alone, the first counts fewer voxels
    return images, labels


def network():
    torch.manual_seed(0)
    return torch.nn.Conv2d(1, 3, 3, padding=1).double()


def losses(pool):
    options = {"pool": pool, "ignore_index": 9}
    made = {name: get_loss(name, **options) for name in LOSSES}
    made["skip"] = get_loss("tversky", absent_class="skip", **options)
    partly = get_loss("dice_focal", activation="sigmoid", ignore_scope="channel", **options)
    made["channels"] = lambda logits, labels: partly(logits, partly_labelled(labels))
    correlation = get_loss("mcc", activation="sigmoid", **options)
    made["targets"] = lambda logits, labels: correlation(logits, partly_labelled(labels))
    made["compound"] = Compound([get_loss("dice", **options), get_loss("focal", **options)], weights=[2, 1])
    return made


def partly_labelled(labels):
    """Targets of each class, with 9 where class 1 has no labels, in samples without it."""
    target = torch.stack([torch.where(labels == 9, 9, (labels == c).long()) for c in range(3)], 1)
    target[~(labels == 1).flatten(1).any(1), 1] = 9
    return target


def train_one_step(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    images, labels = (tensor[PARTS[rank]] for tensor in batch())
    results = {}
    for name, loss in losses("world").items():
        for compiled in (False, True) if name == "mixed_focal" else (False,):
            model = DistributedDataParallel(network())
            step = torch.compile(loss, fullgraph=True, backend="aot_eager") if compiled else loss
            value = step(model(images), labels)
            value.backward()
            results[name, compiled] = (value.item(), model.module.weight.grad)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_world_is_one_batch(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(train_one_step, args=(port, tmp_path), nprocs=2)
    images, labels = batch()
    whole = losses("batch")
    for rank in (0, 1):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        assert len(results) == len(whole) + 1
        for (name, _), (value, gradient) in results.items():
            model = network()
            expected = whole[name](model(images), labels)
            expected.backward()
            assert value == pytest.approx(expected.item(), rel=1e-12), name
            torch.testing.assert_close(gradient, model.weight.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_world_without_processes_is_the_batch(name):
    images, labels = batch()
    logits = network()(images)
    options = {"ignore_index": 9}
    assert torch.equal(
        get_loss(name, pool="world", **options)(logits, labels), get_loss(name, pool="batch", **options)(logits, labels)
    )
