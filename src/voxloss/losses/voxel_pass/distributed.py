"""Sums over the ranks of torch.distributed, as an operator that torch.compile takes as it is."""

# mypy: disable-error-code="no-untyped-call, no-any-return"
# torch has no types for its library of operators.

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def sum_over_ranks(sums: Tensor, voxels: Tensor) -> tuple[Tensor, Tensor]:
    """Add both tensors over all ranks of the default process group in one all-reduce; without a group, return them.

    The gradient with respect to `sums` is the sum of all ranks' upstream gradients. With R ranks that each return the
    same loss it is R times that of one, and averaged over the ranks, as DistributedDataParallel does, the gradient of
    the loss of the whole batch.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return sums, voxels
    total = torch.ops.voxloss.sum_over_ranks(torch.cat([sums.flatten(), voxels]))
    return total[: sums.numel()].view_as(sums), total[sums.numel() :].detach()


def _all_reduce(values: Tensor) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def _backward(ctx: Any, upstream: Tensor) -> Tensor:
    return torch.ops.voxloss.sum_over_ranks(upstream)


if not hasattr(torch.ops.voxloss, "sum_over_ranks"):  # else an earlier import of this package registered it
    _LIBRARY = torch.library.Library("voxloss", "FRAGMENT")
    _LIBRARY.define("sum_over_ranks(Tensor values) -> Tensor")
    _LIBRARY.impl("sum_over_ranks", _all_reduce, "CompositeExplicitAutograd")
    torch.library.register_fake("voxloss::sum_over_ranks", lambda values: values.new_empty(values.shape), lib=_LIBRARY)
    torch.library.register_autograd("voxloss::sum_over_ranks", _backward, lib=_LIBRARY)
    vars(torch.ops.voxloss)["library of sums over ranks"] = _LIBRARY  # the registration lasts as long as this object
