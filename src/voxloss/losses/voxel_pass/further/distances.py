"""Signed distances to the border of every class, by torch alone and on the device of the labels."""

import importlib.util
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from voxloss.losses.voxel_pass import library, targets
from voxloss.losses.voxel_pass.further import nearest
from voxloss.losses.voxel_pass.reading import TargetReading


def distance_maps(
    labels: Tensor,
    classes: int,
    *,
    spacing: Sequence[float] | None = None,
    activation: str = "softmax",
    ignore_index: int | None = None,
    ignore_scope: str = "voxel",
    multi_hot: bool = False,
    background: bool = False,
) -> Tensor:
    """Measure every voxel's distance to the border of every class: the `distances` of the boundary loss.

    Outside a structure it is the Euclidean distance to the nearest voxel of the structure. Inside it is minus the
    distance to the nearest voxel outside, less the smallest spacing, so that it is 0 in a voxel at the border. A class
    has 0 everywhere in samples that do not have it, or that have nothing else. Voxels that are ignored are neither
    inside nor outside: distances are to voxels that count.

    `voxloss.transforms.DistanceMaps` makes the same maps in a loader. This function needs torch alone and does not
    leave the device, but waits for it. With n voxels and a longest distance of r voxels it takes O(r·n) steps for each
    class and side: for 96³ voxels on one core of a CPU about 0.02 s with a C compiler, and 0.1 s without one, as with
    SciPy.

    Args:
        labels: (B, *spatial) or (B, 1, *spatial), whole numbers. With one class always a target of it, in [0, 1].
        classes: C, the channels of the logits.
        spacing: Of the voxels along each axis, in mm. None counts voxels.
        activation: "softmax", where class 0 is the background, or "sigmoid", where every channel is a structure.
        ignore_index: Label of ignored voxels.
        ignore_scope: That of the loss: whether such a value in a target ignores the "voxel" in all channels, or with
            "sigmoid" in its own "channel" alone.
        multi_hot: Whether `labels` are multi-hot or soft targets (B, C, *spatial), of which a voxel of 1/2 or more is
            one of the structure.
        background: Whether to measure to the border of class 0 under "softmax" too.

    Returns:
        (B, F, *spatial), float32, on the device of the labels; F is C-1 with "softmax" without background, else C.

    Raises:
        ValueError: The shape of the labels or the number of spacings does not fit, a spacing is not above 0, a label is
            out of range, or fewer than two classes with "softmax".
    """
    return measure_labels(
        labels, classes, signed_distances, spacing, activation, ignore_index, ignore_scope, multi_hot, background
    )


# Of the voxels inside a structure, those outside and the spacing: every voxel's signed distance.
Measure = Callable[[Tensor, Tensor, Sequence[float]], Tensor]


def measure_labels(
    labels: Tensor,
    classes: int,
    measure: Measure,
    spacing: Sequence[float] | None,
    activation: str,
    ignore_index: int | None,
    ignore_scope: str,
    multi_hot: bool,
    background: bool,
) -> Tensor:
    """Return the maps of `distance_maps`, measured by `measure`."""
    target, dense = targets.read_for_maps(labels, classes, activation, ignore_index, ignore_scope, multi_hot)
    sizes = check_spacing(spacing, target.ndim - 1 - dense)
    first = 1 if activation == "softmax" and not background else 0
    reading = TargetReading(activation, dense, ignore_index, apart=ignore_scope == "channel")
    return find_distances(target, classes, first, sizes, reading, measure)


def check_spacing(spacing: Sequence[float] | None, axes: int) -> tuple[float, ...]:
    """Return one spacing for each axis, 1 by default.

    Raises:
        ValueError: Their number does not fit, or one is not a finite number above 0.
    """
    if spacing is None:
        return (1.0,) * axes
    sizes = tuple(float(size) for size in spacing)
    if len(sizes) != axes:
        raise ValueError(f"spacing has {len(sizes)} values {sizes} for {axes} spatial axes")
    if not all(0 < size < float("inf") for size in sizes):
        raise ValueError(f"spacing must be finite and above 0, received {sizes}")
    return sizes


def find_distances(
    target: Tensor,
    classes: int,
    first: int,
    spacing: Sequence[float],
    reading: TargetReading,
    measure: Measure,
    kind: torch.dtype = torch.float32,
) -> Tensor:
    """Return the maps (B, C - first, *spatial) of labels (B, *spatial) or targets (B, C, *spatial)."""
    counted = reading.counted(target, classes)
    inside = reading.members(target, classes)[:, first:]
    outside = counted[:, first:] & ~inside if counted.shape[1] == classes > 1 else counted & ~inside
    maps = torch.zeros(inside.shape, dtype=kind, device=target.device)
    for b in range(inside.shape[0]):
        for c in range(inside.shape[1]):
            if inside[b, c].any() and outside[b, c].any():
                maps[b, c] = measure(inside[b, c], outside[b, c], spacing)
    return maps


def signed_distances(
    inside: Tensor, outside: Tensor, spacing: Sequence[float], kind: torch.dtype = torch.float32
) -> Tensor:
    """Return the distance to `inside`, negative in it, as `distance_maps` says; neither mask may be empty."""
    depth = distances_to(outside, spacing, kind) - min(spacing)
    return torch.where(inside, -depth, distances_to(inside, spacing, kind))


def quick_measure() -> Measure:
    """Return the distances of this module, or SciPy's on a CPU without a compiler, where it is installed."""
    if library.is_there() or importlib.util.find_spec("scipy") is None:
        return signed_distances
    from voxloss.geometry import distances  # needs SciPy, which losses alone do not

    def measure(inside: Tensor, outside: Tensor, spacing: Sequence[float]) -> Tensor:
        if inside.device.type != "cpu":
            return signed_distances(inside, outside, spacing)
        return torch.from_numpy(distances.signed_distances(inside.numpy(), outside.numpy(), spacing))

    return measure


def border_distances(mask: Tensor, counted: Tensor, spacing: Sequence[float], kind: torch.dtype) -> Tensor:
    """Return every voxel's distance to the nearest counted voxel on the other side of a mask's border.

    Args:
        mask: (B, F, *spatial).
        counted: The voxels that count, which broadcasts to the mask.
        spacing: Of the voxels along each axis.
        kind: Type of the distances.

    Returns:
        The distances, 0 everywhere where one of the sides is empty.
    """
    inside, outside = mask & counted, ~mask & counted
    maps = torch.zeros(mask.shape, dtype=kind, device=mask.device)
    for b in range(mask.shape[0]):
        for c in range(mask.shape[1]):
            own, rest = inside[b, c], outside[b, c]
            if own.any() and rest.any():
                maps[b, c] = torch.where(
                    mask[b, c], distances_to(rest, spacing, kind), distances_to(own, spacing, kind)
                )
    return maps


def distances_to(mask: Tensor, spacing: Sequence[float], kind: torch.dtype = torch.float32) -> Tensor:
    """Return the Euclidean distance of every voxel to the nearest set voxel of a mask that is not empty.

    Along the first axis in two sweeps. Along each other axis the squared distance is the least, over all shifts, of
    that at the shifted voxel plus the square of the shift; a shift longer than the longest distance is never nearest.
    """
    unit = min(spacing)
    steps = [size / unit for size in spacing]  # of equal spacings the squares are whole numbers, exact in float32
    if nearest.takes(mask, kind):
        return nearest.squares(mask, steps).sqrt_().mul_(unit)
    longest = _longest_way(mask, steps)
    square = (_sweeps(torch.where(mask, 0.0, torch.inf).to(kind), 0) * steps[0]) ** 2
    for axis in range(1, mask.ndim):
        length = mask.shape[axis]
        least = square.clone()
        for shift in range(1, min(length - 1, int(longest / steps[axis])) + 1):
            cost = (shift * steps[axis]) ** 2
            for to, source in ((shift, 0), (0, shift)):
                part = least.narrow(axis, to, length - shift)
                torch.minimum(part, square.narrow(axis, source, length - shift) + cost, out=part)
        square = least
    return square.sqrt() * unit


def _longest_way(mask: Tensor, steps: Sequence[float]) -> float:
    """Return the longest way along the axes to a set voxel, which no straight distance exceeds."""
    way = torch.where(mask, 0.0, torch.inf)
    for axis, step in enumerate(steps):
        way = _sweeps(way / step, axis) * step
    return float(way.max()) * (1 + 1e-5)  # its rounding


def _sweeps(way: Tensor, axis: int) -> Tensor:
    """Return the least of `way` + the number of steps along one axis."""
    length = way.shape[axis]
    place = torch.arange(length, dtype=way.dtype, device=way.device)
    place = place.view([-1 if other == axis else 1 for other in range(way.ndim)])
    before = torch.cummin(way - place, axis).values + place
    after = torch.cummin((way + place).flip(axis), axis).values.flip(axis) - place
    return torch.minimum(before, after)
