"""Check labels, targets and voxel weights: shapes once, values chunk by chunk."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from voxloss.losses.voxel_pass.settings import PassSettings


@dataclass(frozen=True)
class Target:
    """Labels (B, *spatial), or if `dense` targets (B, C, *spatial) in [0, 1], in the type in which they came."""

    values: Tensor
    dense: bool


def plain(tensor: Tensor) -> Tensor:
    """Return the data as a plain tensor: a subclass such as MONAI's MetaTensor copies its metadata at every step.

    A subclass that stands for a tensor in torch's own machinery, such as the fake tensors of `torch.export`, is kept.
    """
    kind = type(tensor)
    if kind is Tensor or kind.__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return tensor
    return tensor.as_subclass(Tensor)


def plain_logits(logits: Any) -> Tensor:
    """Return the logits as a plain tensor.

    Raises:
        ValueError: They are no tensor; the message says what to do with a list or dictionary of outputs.
    """
    if isinstance(logits, Tensor):
        return plain(logits)
    if isinstance(logits, list | tuple):
        raise ValueError(
            f"logits must be one tensor, received a {type(logits).__name__} of {len(logits)}: for the outputs of deep "
            "supervision use voxloss.DeepSupervision(loss), else choose one of them"
        )
    if isinstance(logits, dict):
        names = ", ".join(map(repr, logits))
        raise ValueError(f"logits must be one tensor, received a dictionary of {names}: choose one of them")
    raise ValueError(f"logits must be a tensor, received {type(logits).__name__}: torch.as_tensor converts an array")


def as_tensor(name: str, values: Any, logits: Tensor) -> Tensor:
    """Return labels or weights as a plain tensor; arrays and nested lists are taken to the device of the logits.

    Raises:
        ValueError: They cannot be a tensor.
    """
    if isinstance(values, Tensor):
        return plain(values)
    try:
        array = values
        if any(stride < 0 for stride in getattr(values, "strides", None) or ()):
            array = values.copy()  # of a flipped array, which torch does not take
        return torch.as_tensor(array, device=logits.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name} must be a tensor, an array or nested lists of numbers, received {type(values).__name__}: {error}"
        ) from None


def warn_of_probabilities(logits: Tensor) -> None:
    """Warn if the channels sum to 1 in every voxel, as probabilities do and logits hardly ever."""
    if logits.ndim < 2 or not logits.is_floating_point() or logits.shape[1] < 2 or logits.numel() == 0:
        return
    try:
        values = logits.detach()
        tolerance = 0.02 if values.dtype in (torch.float16, torch.bfloat16) else 1e-3
        first = values[:1].float().sum(1)  # most logits are told by the first sample
        if not ((first - 1).abs() <= tolerance).all() or (values < 0).any():  # written so that NaN is no probability
            return
        if not ((values.float().sum(1) - 1).abs() <= tolerance).all():
            return
    except RuntimeError:  # a transform such as vmap hides the values
        return
    warnings.warn(
        "the logits sum to 1 over the channels in every voxel: they seem to be probabilities. The losses apply softmax "
        "or sigmoid themselves; remove it from the end of the network, or set inputs='probabilities'",
        stacklevel=3,
    )


def logits_of(probabilities: Tensor, activation: str) -> Tensor:
    """Return logits whose softmax or sigmoid are the probabilities, in float32 at least.

    A probability of 0, or with sigmoid of 1, is moved to the closest number that has a finite logit, where it has no
    gradient, as it has none behind the activation that gave it.
    """
    p = probabilities.to(torch.promote_types(probabilities.dtype, torch.float32))
    limits = torch.finfo(p.dtype)
    if activation == "softmax":
        return p.clamp_min(limits.tiny).log()
    return torch.logit(p.clamp(limits.tiny, 1 - limits.eps / 2))


def check_probabilities(values: Tensor, activation: str, counted: Tensor | None) -> None:
    """Check probabilities (B, C, *spatial) where `counted`, which broadcasts to them (None: everywhere).

    Raises:
        ValueError: Values outside 0 to 1, or with softmax voxels whose sum is not 1.
    """
    if values.numel() == 0:
        return
    try:
        if counted is not None:
            values = torch.where(counted, values, 0)
        lowest, highest = (float(value) for value in values.aminmax())
        if not (lowest >= 0 and highest <= 1):
            raise ValueError(
                f'inputs="probabilities" needs values in [0, 1], received {lowest if not lowest >= 0 else highest:g}; '
                'for the output of a network without softmax or sigmoid use inputs="logits"'
            )
        if activation == "softmax":
            tolerance = 0.02 if values.dtype in (torch.float16, torch.bfloat16) else 1e-3
            sums = values.float().sum(1)
            if counted is not None:
                sums = torch.where(counted[:, 0], sums, 1)
            if ((sums - 1).abs() > tolerance).any():
                raise ValueError(
                    'inputs="probabilities" needs channels that sum to 1 with activation="softmax", received a sum of '
                    f"{float(sums.flatten()[(sums - 1).abs().argmax()]):g}; for independent channels use "
                    'activation="sigmoid"'
                )
    except RuntimeError:  # a transform such as vmap hides the values
        return


TIED = 'ignore_scope="channel" needs activation="sigmoid": softmax ties the channels together'
MOST_AXES = 5  # batch, channels and three spatial axes


def check_logits(logits: Tensor, activation: str, labels: Any = None) -> None:
    """Raise ValueError unless `logits` is floating, (B, C, *spatial), with enough channels for `activation`.

    `labels`, as they were given, tell whether the two were swapped.
    """
    if logits.ndim > MOST_AXES:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} have more than three spatial axes. Stacked outputs of deep "
            "supervision (B, K, C, *spatial) are taken as a list: "
            "voxloss.DeepSupervision(loss)(list(logits.unbind(1)), labels)"
        )
    if not logits.is_floating_point():
        swapped = isinstance(labels, Tensor) and labels.is_floating_point()
        hint = "; logits come first, then labels" if swapped else ""
        raise ValueError(f"logits must be of a floating type, received {logits.dtype}{hint}")
    if logits.ndim < 3:
        raise ValueError(f"logits must have the shape (B, C, *spatial), received {tuple(logits.shape)}")
    if activation not in ("softmax", "sigmoid"):
        raise ValueError(f'activation must be "softmax" or "sigmoid", received {activation!r}')
    if activation == "softmax" and logits.shape[1] < 2:
        raise ValueError(
            f"softmax needs two channels or more, received logits of shape {tuple(logits.shape)}; "
            'a single channel is activation="sigmoid"'
        )


def read_target(logits: Tensor, labels: Tensor, ignore_index: int | None) -> Target:
    """Tell labels from soft or multi-hot targets by their shape; a single channel is always a target in [0, 1]."""
    if labels.dtype.is_complex:
        raise ValueError(f"labels must be of an integer or floating type, received {labels.dtype}")
    _check_companion("labels", logits, labels)
    batch, channels, *spatial = logits.shape
    shape = tuple(labels.shape)
    if shape == (batch, channels, *spatial):
        if channels > 1 and ignore_index in (0, 1):
            raise ValueError(f"ignore_index={ignore_index} is also a value of soft or multi-hot targets")
        return Target(labels, True)
    if shape == (batch, *spatial) and channels == 1:
        return Target(labels.unsqueeze(1), True)
    if shape == (batch, *spatial):
        return Target(labels, False)
    if shape == (batch, 1, *spatial):
        return Target(labels.squeeze(1), False)
    raise ValueError(
        f"labels of shape {shape} do not fit logits of shape {tuple(logits.shape)}: "
        f"expected {(batch, *spatial)}, {(batch, 1, *spatial)} or, for soft targets, {(batch, channels, *spatial)}"
        f"{_way_out(shape, batch, channels, spatial)}"
    )


def read_for_maps(
    labels: Any, classes: int, activation: str, ignore_index: int | None, ignore_scope: str, multi_hot: bool
) -> tuple[Tensor, bool]:
    """Return labels (B, *spatial) and False, or targets (B, C, *spatial) and True, checked, to make maps of them."""
    if activation not in ("softmax", "sigmoid"):
        raise ValueError(f'activation must be "softmax" or "sigmoid", received {activation!r}')
    if ignore_scope not in ("voxel", "channel"):
        raise ValueError(f'ignore_scope must be "voxel" or "channel", received {ignore_scope!r}')
    if ignore_scope == "channel" and activation == "softmax":
        raise ValueError(TIED)
    if classes < (2 if activation == "softmax" else 1):
        raise ValueError(f'classes must be 2 or more with "softmax", 1 or more with "sigmoid", received {classes}')
    labels = as_tensor("labels", labels, torch.empty(0))
    shape = tuple(labels.shape)
    if multi_hot and (labels.ndim < 3 or shape[1] != classes):
        raise ValueError(f"multi-hot labels must have the shape (B, {classes}, *spatial), received {shape}")
    if not multi_hot and labels.ndim > 2 and shape[1] == 1:
        labels = labels[:, 0]
    if not 2 <= labels.ndim - multi_hot < MOST_AXES:
        raise ValueError(f"labels must have the shape (B, *spatial) or (B, 1, *spatial), received {shape}")
    if classes == 1 and not multi_hot:
        labels = labels[:, None]
    dense = multi_hot or classes == 1
    if labels.numel() and dense:
        check_targets(labels, ignore_index)
    elif labels.numel():
        check_labels(labels, classes, ignore_index)
    return labels, dense


def _way_out(shape: tuple[int, ...], batch: int, channels: int, spatial: list[int]) -> str:
    """Return a hint at what may have happened to labels of the wrong shape."""
    own = list(shape[-len(spatial) :])
    if own != spatial and sorted(own) == sorted(spatial):
        return ". Their spatial axes seem to be in another order: labels.movedim brings them into that of the logits"
    if shape == (batch, *spatial, channels):
        return ". Their classes seem to come last: labels.movedim(-1, 1) brings them second"
    if shape in ((batch, *spatial[1:]), (batch, 1, *spatial[1:])):
        return (
            ". The logits seem to be stacked outputs of deep supervision (B, K, C, *spatial), which are taken as a "
            "list: voxloss.DeepSupervision(loss)(list(logits.unbind(1)), labels)"
        )
    if len(shape) == len(spatial) and batch == 1:
        return ". They seem to lack the batch axis: labels[None]"
    if shape in ((channels, *spatial), (1, channels, *spatial)):  # (C, *spatial) was read as (B, C, *spatial)
        add = "labels[None]" if len(shape) <= len(spatial) + 1 else "labels"
        return f". Is the batch axis missing? Logits are (B, C, *spatial): loss(logits[None], {add})"
    return ""


def read_companion(name: str, logits: Tensor, weight: Tensor) -> Tensor:
    """Return a voxel weight or mask as (B, *spatial)."""
    _check_companion(name, logits, weight)
    batch, _, *spatial = logits.shape
    if tuple(weight.shape) == (batch, 1, *spatial):
        return weight.squeeze(1)
    if tuple(weight.shape) != (batch, *spatial):
        raise ValueError(
            f"{name} of shape {tuple(weight.shape)} does not fit logits of shape {tuple(logits.shape)}: "
            f"expected {(batch, *spatial)} or {(batch, 1, *spatial)}"
        )
    return weight


def read_sample_weight(logits: Tensor, weight: Tensor) -> Tensor:
    """Return `weight` as (B,)."""
    _check_companion("sample_weight", logits, weight)
    if weight.shape != logits.shape[:1] and weight.shape != (len(logits), 1):
        raise ValueError(
            f"sample_weight of shape {tuple(weight.shape)} does not fit logits of shape {tuple(logits.shape)}: "
            f"expected ({len(logits)},)"
        )
    return weight.reshape(len(logits))


EXACT_IN_HALF = 256  # bfloat16 and float16 have all whole numbers up to here
# The label of voxels outside a mask, where there is no ignore_index: exact in float32 and int32, and one that labels do
# not have by themselves, as -100 may be.
MASKED = -1_000_003


def masked(target: Target, mask: Tensor, ignore_index: int | None) -> tuple[Target, int]:
    """Return the target with the ignored label where `mask` (B, *spatial) is 0, and that label."""
    outside = ~mask if mask.dtype == torch.bool else mask == 0
    label = MASKED if ignore_index is None else ignore_index
    values = target.values
    kind = values.dtype
    if kind in (torch.bool, torch.uint8, torch.uint16, torch.int8, torch.int16):
        kind = torch.int32
    elif kind in (torch.uint32, torch.uint64):
        kind = torch.int64
    if not kind.is_floating_point and abs(label) > torch.iinfo(kind).max:
        kind = torch.int64
    elif kind in (torch.float16, torch.bfloat16) and abs(label) > EXACT_IN_HALF:
        kind = torch.float32
    filled = values.to(kind).masked_fill(outside.unsqueeze(1) if target.dense else outside, label)
    return Target(filled, target.dense), label


def counted(target: Target, ignore_index: int | None, apart: bool) -> Tensor | None:
    """Return which voxels count, (B, 1, *spatial), or of targets whose channels are ignored `apart` (B, C, *spatial).

    None: all.
    """
    if ignore_index is None:
        return None
    if not target.dense:
        return (target.values != ignore_index).unsqueeze(1)
    each = target.values != ignore_index
    return each if apart else each.all(1, keepdim=True)


def _check_companion(name: str, logits: Tensor, tensor: Tensor) -> None:
    if tensor.device != logits.device:
        raise ValueError(f"{name} on {tensor.device} but logits on {logits.device}")
    if tensor.requires_grad:
        raise ValueError(f"{name} requires a gradient, but the losses have none with respect to it: detach it")


def is_hidden(tensor: Tensor) -> bool:
    """Return whether torch.vmap maps over the tensor, at any depth of transforms."""
    functions: Any = torch._C._functorch
    while functions.is_functorch_wrapped_tensor(tensor):
        if functions.is_batchedtensor(tensor):
            return True
        tensor = functions.get_unwrapped(tensor)
    return False


def check_labels(raw: Tensor, classes: int, ignore_index: int | None) -> None:
    """Raise ValueError unless every label is a class index or `ignore_index`."""
    labels = raw.to(torch.int64)
    if raw.is_floating_point():
        fractional = labels.to(raw.dtype) != raw
        if fractional.any():
            raise ValueError(fraction_message(raw[fractional][0].item()))
    if ignore_index is not None:
        labels = labels.masked_fill(labels == ignore_index, 0)
    lowest, highest = (int(value) for value in labels.aminmax())
    if message := labels_message(lowest, highest, classes, ignore_index):
        raise ValueError(message)


def check_targets(raw: Tensor, ignore_index: int | None) -> None:
    """Raise ValueError unless every soft or multi-hot target is in [0, 1] or `ignore_index`."""
    values = raw.to(torch.float64 if raw.dtype == torch.float64 else torch.float32)
    if ignore_index is not None:
        values = values.masked_fill(values == ignore_index, 0)
    lowest, highest = (value.item() for value in values.aminmax())
    if message := targets_message(lowest, highest, ignore_index):
        raise ValueError(message)


def check_weight(raw: Tensor) -> None:
    """Raise ValueError unless every voxel weight is finite and not negative."""
    lowest, highest = (value.item() for value in raw.aminmax())
    if message := weight_message(lowest, highest):
        raise ValueError(message)


def fraction_message(value: float) -> str:
    """Say that a label is no whole number."""
    return f"labels must be whole numbers, received {value:g}"


def labels_message(lowest: float, highest: float, classes: int, ignore_index: int | None) -> str:
    """Say which label is out of range; empty if none is."""
    if lowest >= 0 and highest < classes:
        return ""
    value = lowest if lowest < 0 else highest
    but = "" if ignore_index in (None, MASKED) else f" and is not ignore_index={ignore_index}"
    but += _of_255(value)
    return f"label {value:.0f} is outside the allowed range 0 to {classes - 1} of {classes} classes{but}"


def targets_message(lowest: float, highest: float, ignore_index: int | None) -> str:
    """Say which target is out of range; empty if none is."""
    if lowest >= 0 and highest <= 1:  # written so that NaN fails
        return ""
    value = highest if lowest >= 0 else lowest
    but = "" if ignore_index in (None, MASKED) else f" and is not ignore_index={ignore_index}"
    but += _of_255(value)
    return f"target {value:g} is outside the allowed range 0 to 1 of soft or single-channel targets{but}"


def _of_255(value: float) -> str:
    """Return the way out for the label 255, which either marks ignored voxels or is the 1 of a picture's mask."""
    if value != 255:
        return ""
    return ": use ignore_index=255 if 255 marks voxels to leave out, or divide a mask of 0 and 255 by 255"


def weight_message(lowest: float, highest: float) -> str:
    """Say which voxel weight is not allowed; empty if all are."""
    if lowest >= 0 and highest < float("inf"):
        return ""
    return f"voxel_weight must be finite and not negative, received {highest if lowest >= 0 else lowest:g}"


def check_values(target: Tensor, weight: Tensor | None, classes: int, settings: PassSettings) -> None:
    """Check whole tensors, sample by sample."""
    for sample, raw in enumerate(target):
        if raw.numel() == 0:
            continue
        if settings.dense:
            check_targets(raw, settings.ignore_index)
        else:
            check_labels(raw, classes, settings.ignore_index)
        if weight is not None:
            check_weight(weight[sample])


def label_chunk(raw: Tensor, classes: int, ignore_index: int | None, checked: bool) -> tuple[Tensor, Tensor | None]:
    """Labels (n,) as int64, safe to index with, and which voxels count (None: all).

    Unchecked labels that are out of range count as ignored, so that they never index outside a tensor.
    """
    labels = raw.to(torch.int64)
    if checked and ignore_index is None:
        return labels, None
    counted = torch.ones_like(labels, dtype=torch.bool) if checked else (labels >= 0) & (labels < classes)
    if ignore_index is not None:
        counted &= torch.ne(labels, ignore_index)
    return labels.masked_fill(~counted, 0), counted


def dense_chunk(raw: Tensor, ignore_index: int | None, out: Tensor) -> tuple[Tensor, Tensor | None]:
    """Targets (C, n) written to `out`, and which voxels count: those with no ignored channel (None: all)."""
    out.copy_(raw)
    if ignore_index is None:
        return out, None
    counted = (out != ignore_index).all(0)
    return out.masked_fill_(~counted, 0), counted
