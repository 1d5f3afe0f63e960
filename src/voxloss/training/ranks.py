"""One training on several devices: each takes an equal part of every batch, and the result is that of one device.

Every process (a *rank* of torch.distributed) has a copy of the network. It computes the logits of its part; these are
gathered, and each rank computes the loss of the whole batch from them. So the value and the gradient are those of one
device for every loss, also one of the user's own that knows nothing of ranks. Then the gradients of the weights, of
which each rank has its part, are added up. Batch normalisation takes its mean and variance over all ranks.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import torch
from torch import Tensor, multiprocessing, nn
from torch import distributed as dist
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]  # public, but not in its __all__
from torch.nn.modules.batchnorm import _BatchNorm

from voxloss.utilities.errors import InputError
from voxloss.utilities.machine import end_with

_LAST_WAIT_S = 60.0  # for the others to end by themselves
_LONGEST_WAIT = timedelta(hours=6)  # of a rank for the first, which validates and writes checkpoints alone


@dataclass(frozen=True)
class Ranks:
    """This process among those that train one network together.

    Args:
        rank: Number of this process; rank 0 validates, writes the run's files and answers for the others.
        count: Number of processes; with 1, every method gives back what it takes.
    """

    rank: int = 0
    count: int = 1

    def part(self, batch: Tensor) -> Tensor:
        """Return the samples of a batch that this rank computes."""
        return batch.chunk(self.count)[self.rank]

    def whole(self, logits: Tensor) -> Tensor:
        """Return the logits of all ranks in the order of the batch; the gradient of each part goes to its rank."""
        return logits if self.count == 1 else _whole(logits, self)

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace the gradients of the weights by their sums over the ranks."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.count == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, total in zip(gradients, flat.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(total.view(gradient.shape))

    def agree(self, answer: Callable[[], bool], device: torch.device) -> bool:
        """Return rank 0's answer; the others are not asked."""
        if self.count == 1:
            return answer()
        of_first = torch.tensor([self.rank == 0 and answer()], dtype=torch.int32, device=device)
        dist.broadcast(of_first, 0)
        return bool(of_first.item())

    def share_statistics(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Return the network with batch normalisation over all ranks; the names of its weights stay."""
        if self.count == 1:
            return network
        if device.type == "cuda":
            return cast(nn.Module, nn.SyncBatchNorm.convert_sync_batchnorm(network))
        for module in network.modules():
            if isinstance(module, _BatchNorm) and type(module).forward is _BatchNorm.forward:
                module.__class__ = _SharedBatchNorm
        return network


ALONE = Ranks()


class _Whole(torch.autograd.Function):
    """Gather the parts of a tensor. Every rank goes on with the whole, so each has the full gradient of its part."""

    @staticmethod
    def forward(context: Any, part: Tensor, ranks: Ranks) -> Tensor:
        context.ranks = ranks
        parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(ranks.count)]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return context.ranks.part(gradients[0]), None


class _Sum(torch.autograd.Function):
    """Sum over the ranks; what each rank makes of the sum counts, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


_whole: Callable[[Tensor, Ranks], Tensor] = _Whole.apply
_sum: Callable[[Tensor], Tensor] = _Sum.apply


class _SharedBatchNorm(_BatchNorm):
    """Batch normalisation over the ranks on the CPU, which `torch.nn.SyncBatchNorm` does not take."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any number of axes; the module that this one replaces has checked them on one device."""

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and dist.is_initialized()):
            return super().forward(input)
        values = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(input.ndim)]
        count = dist.get_world_size() * input.numel() // input.shape[1]
        mean = _sum(values.sum(axes)) / count
        centred = values - mean.view(shape)
        variance = _sum(centred.square().sum(axes)) / count
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach() * count / max(count - 1, 1))
        normal = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


@contextmanager
def started(count: int, device: torch.device, follow: Callable[[Ranks, torch.device], None]) -> Iterator[Ranks]:
    """Start the other ranks and yield this process as rank 0; at the end, whatever it is, none of them is left.

    Args:
        count: Number of ranks; with 1 nothing is started.
        device: This rank's device. On CUDA, rank r takes the device of number r.
        follow: What each of the others does; it goes to another process, so it and what it holds must be picklable.

    Raises:
        InputError: There are fewer GPUs.
        RuntimeError: Another rank ended with an error, whose text is in the message.
    """
    if count == 1:
        yield ALONE
        return
    if device.type == "cuda" and torch.cuda.device_count() < count:
        raise InputError(f"execution.devices_per_run is {count}, but torch sees {torch.cuda.device_count()} GPU here.")
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    threads = max(1, torch.get_num_threads() // count)
    before = torch.get_num_threads()
    context = multiprocessing.get_context("spawn")
    errors = context.SimpleQueue()
    others = [
        context.Process(
            target=_other_rank,
            args=(Ranks(rank, count), store.port, device.type, threads, os.getpid(), follow, errors),
            daemon=False,
        )
        for rank in range(1, count)
    ]
    try:
        for process in others:
            process.start()
        if device.type == "cpu":
            torch.set_num_threads(threads)
        _join(Ranks(0, count), store, device)
        yield Ranks(0, count)
        for process in others:
            process.join(_LAST_WAIT_S)
    except Exception as error:
        if not errors.empty():  # the cause; here only the connection broke
            raise RuntimeError(errors.get()) from error
        raise
    finally:
        for process in others:
            process.kill()
            process.join()
        if dist.is_initialized():
            dist.destroy_process_group()
        torch.set_num_threads(before)


def _join(ranks: Ranks, store: Store, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=ranks.rank,
        world_size=ranks.count,
        timeout=_LONGEST_WAIT,
    )


def _other_rank(
    ranks: Ranks,
    port: int,
    device_type: str,
    threads: int,
    parent: int,
    follow: Callable[[Ranks, torch.device], None],
    errors: Any,
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # which all processes may get; rank 0 decides when to stop
        signal.signal(number, signal.SIG_IGN)
    end_with(parent)
    torch.set_num_threads(threads)
    device = torch.device(device_type, ranks.rank) if device_type == "cuda" else torch.device(device_type)
    try:
        _join(ranks, TCPStore("127.0.0.1", port, is_master=False), device)
        follow(ranks, device)
    except Exception as error:
        errors.put(f"rank {ranks.rank} of {ranks.count}: {type(error).__name__}: {error}")
        os._exit(1)  # at once, so that the others' connection breaks and they do not wait
