"""Predict whole volumes by overlapping windows whose probabilities are averaged.

Windows go through a volume row by row (its first axis), and a row's probabilities are kept only until no further window
covers it: those of all rows of a large volume with many classes would not fit in memory.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from voxloss.config.settled import SettledConfig
from voxloss.data.patches import padding_before
from voxloss.data.prepare.resample import Columns, Watch, columns_of, label_of_rows
from voxloss.training.networks import outputs
from voxloss.training.precision import autocast, layout
from voxloss.utilities.arrays import ClassIndices, Float32s

MOST_BYTES = 2_000_000_000  # of probabilities at a time; a plane that needs more is predicted in parts
BYTES_PER_VOXEL = 16  # of the volume as stored: two masks, and what their resampling and scores take, measured
BYTES_PER_CLASS = 2**20  # the counts of its voxels by probability


def predict_label(
    network: torch.nn.Module | Sequence[torch.nn.Module],
    image: Float32s,
    config: SettledConfig,
    shape: tuple[int, int, int],
    classes: int,
    before_windows: Callable[[], None] = lambda: None,
    watch: Watch | None = None,
    watch_prepared: Watch | None = None,
) -> ClassIndices:
    """Predict the class of every voxel of a grid over a prepared volume.

    Each class's probabilities are resampled linearly to the grid, then the largest wins; of equals the lower class.

    Args:
        network: As for `predict_probabilities`; of several networks the mean of the probabilities is taken.
        image: float32 (channels, *prepared_shape).
        config: As for `predict_probabilities`.
        shape: The grid's shape; its field of view is that of the prepared volume.
        classes: Number of classes.
        before_windows: Called before every few windows; an exception from it ends the prediction.
        watch: Gets the probabilities of every class on the grid, box by box, each voxel once.
        watch_prepared: The same on the grid of the prepared volume; of a large one some voxels more than once.

    Returns:
        Class indices uint8 (*shape).
    """
    networks = (network,) if isinstance(network, torch.nn.Module) else tuple(network)
    source = image.shape[1:]
    label = np.empty(shape, dtype=np.uint8)
    padded = _Padded.of(image, config.patches.size)
    for part in plane_parts(source, shape, config.patches.size, classes * len(networks)):
        columns = columns_of(source, shape, part)
        rows = _mean([_probability_rows(one, padded, config, columns, before_windows) for one in networks])
        if watch_prepared is not None:
            rows = _watched(rows, columns, watch_prepared)
        label_of_rows(rows, source, shape, part, label[(slice(None), *part)], watch)
    return label


def _watched(pieces: Iterator[Float32s], columns: Columns, watch: Watch) -> Iterator[Float32s]:
    first = 0
    for piece in pieces:
        box = (slice(first, first + piece.shape[1]), *columns)
        for index, values in enumerate(piece):
            watch(index, box, values)
        yield piece
        first = box[0].stop


def _mean(networks: Sequence[Iterator[Float32s]]) -> Iterator[Float32s]:
    """Yield the mean of the probabilities of several networks, piece by piece, so that no volume is kept whole."""
    if len(networks) == 1:
        yield from networks[0]
        return
    for pieces in zip(*networks, strict=True):
        total = pieces[0].copy()
        for piece in pieces[1:]:
            total += piece
        total /= len(pieces)
        yield total


def predict_probabilities(
    network: torch.nn.Module,
    image: Float32s,
    config: SettledConfig,
    before_windows: Callable[[], None] = lambda: None,
) -> Float32s:
    """Predict the class probabilities of a prepared volume, all at once.

    Args:
        network: Maps patches of `config.patches.size` to logits; of several outputs the first is used. The windows are
            computed on its device.
        image: float32 (channels, *spatial). A volume smaller than a patch is padded like a training patch.
        config: Has patch size, overlap (share of a patch), the windows' weights, precision and memory layout.
        before_windows: Called before every few windows; an exception from it ends the prediction.

    Returns:
        float32 (classes, *spatial), which sum to one over the classes.
    """
    whole = (slice(0, image.shape[2]), slice(0, image.shape[3]))
    padded = _Padded.of(image, config.patches.size)
    return np.concatenate(
        [rows.copy() for rows in _probability_rows(network, padded, config, whole, before_windows)], axis=1
    )


def plane_parts(source: Sequence[int], shape: Sequence[int], size: Sequence[int], classes: int) -> list[Columns]:
    """Return the parts of the grid's planes that are predicted one after the other: all at once, unless they are large.

    A part is not made smaller than a window, since every window that reaches into it is computed for it.
    """
    counts = [1, 1]

    def extents() -> list[int]:  # of a part, in prepared voxels
        return [
            max(extent // count, length) for extent, count, length in zip(source[1:], counts, size[1:], strict=True)
        ]

    while 4 * classes * size[0] * math.prod(extents()) > MOST_BYTES:
        larger = [part - length for part, length in zip(extents(), size[1:], strict=True)]
        if max(larger) <= 0:
            break
        counts[larger.index(max(larger))] += 1
    edges = [np.linspace(0, extent, count + 1).astype(int) for extent, count in zip(shape[1:], counts, strict=True)]
    first, second = ([slice(int(a), int(b)) for a, b in itertools.pairwise(cuts)] for cuts in edges)
    return list(itertools.product(first, second))


def prediction_memory(
    source: Sequence[int], shape: Sequence[int], config: SettledConfig, channels: int, classes: int
) -> int:
    """Bytes that the prediction of a volume and its scores take at most, about, beyond the network.

    Args:
        source: Shape of the prepared volume.
        shape: Shape of the volume as stored.
        config: The study's configuration.
        channels: Number of channels.
        classes: Number of classes.
    """
    size, batch = config.patches.size, config.patches.batch_size
    padded = [max(extent, length) for extent, length in zip(source, size, strict=True)]
    parts = plane_parts(source, shape, size, classes)
    columns = [part.stop - part.start for part in columns_of(source, shape, parts[len(parts) // 2])]
    rows: int = 4 * (classes + 2) * size[0] * math.prod(columns)  # and the weights, and a class that is moved
    windows = 4 * 3 * batch * classes * math.prod(size)  # logits, probabilities, and those weighted
    kept = {"none": 0, "prepared": math.prod(source), "original": math.prod(shape)}[config.evaluation.probabilities]
    probabilities = (classes - 1) * kept + math.prod(shape)  # those of one class find its lesions by threshold
    scored = BYTES_PER_VOXEL * math.prod(shape) + BYTES_PER_CLASS * classes + probabilities
    return rows + windows + 4 * channels * math.prod(padded) + scored


@torch.no_grad()
def _probability_rows(
    network: torch.nn.Module,
    image: "_Padded",
    config: SettledConfig,
    columns: Columns,
    before_windows: Callable[[], None],
) -> Iterator[Float32s]:
    """Yield the probabilities of consecutive rows of a volume, float32 (classes, rows, *columns).

    Each piece is valid until the next is asked for. Windows, their order and their sums are those of MONAI's
    `sliding_window_inference` on the whole volume.
    """
    # MONAI takes seconds to import, which a run should not spend before it trains.
    from monai.data.utils import compute_importance_map

    setting, size = config.patches, config.patches.size
    network.eval()
    device = next(network.parameters()).device
    padded, before = image.volume, image.before
    weight = compute_importance_map(size, mode=setting.window, sigma_scale=0.125, device=device)[None]
    starts = [_starts(*axis, setting.overlap) for axis in zip(padded.shape[1:], size, strict=True)]
    # The columns in the padded volume; windows beside them are left out.
    wanted = [slice(part.start + first, part.stop + first) for part, first in zip(columns, before[1:], strict=True)]
    for axis, (part, length) in enumerate(zip(wanted, size[1:], strict=True), start=1):
        starts[axis] = [start for start in starts[axis] if start < part.stop and start + length > part.start]
    places = list(itertools.product(*starts))

    def probabilities(windows: torch.Tensor) -> torch.Tensor:
        before_windows()
        windows = windows.to(device).contiguous(memory_format=layout(config))
        with autocast(device, config.training):
            logits = outputs(network(windows))[0]
        return torch.softmax(logits.float(), dim=1)

    total: torch.Tensor | None = None
    weights = torch.zeros(1, size[0], *(part.stop - part.start for part in wanted))
    done = 0  # rows that have been yielded; the first row of `total`
    end = before[0] + image.rows
    for number in range(0, len(places), setting.batch_size):
        batch = places[number : number + setting.batch_size]
        windows = torch.stack([padded[:, a : a + size[0], b : b + size[1], c : c + size[2]] for a, b, c in batch])
        for window, (row, *corner) in zip(probabilities(windows), batch, strict=True):
            if total is None:
                total = torch.zeros(len(window), *weights.shape[1:])
            if row > done:
                yield from _finished(total, weights, done, row, before[0], end)
                done = row
            into, out_of = _overlap(corner, size[1:], wanted)
            window *= weight
            total[(slice(None), slice(None), *into)] += window.cpu()[(slice(None), slice(None), *out_of)]
            weights[(slice(None), slice(None), *into)] += weight.cpu()[(slice(None), slice(None), *out_of)]
    assert total is not None
    yield from _finished(total, weights, done, padded.shape[1], before[0], end)


@dataclass(frozen=True)
class _Padded:
    """A volume that is at least as large as a window.

    Args:
        volume: Float32 (channels, *spatial).
        before: Voxels of padding before the image along each axis.
        rows: Of the image.
    """

    volume: torch.Tensor
    before: list[int]
    rows: int

    @classmethod
    def of(cls, image: Float32s, size: Sequence[int]) -> "_Padded":
        before = [padding_before(extent, length) for extent, length in zip(image.shape[1:], size, strict=True)]
        extents = [max(extent, length) for extent, length in zip(image.shape[1:], size, strict=True)]
        padded = np.empty((len(image), *extents), dtype=np.float32)
        for channel, target in zip(image, padded, strict=True):
            target[:] = channel.min()
        inside = tuple(slice(start, start + extent) for start, extent in zip(before, image.shape[1:], strict=True))
        padded[(slice(None), *inside)] = image
        return cls(torch.from_numpy(padded), before, image.shape[1])


def _starts(extent: int, length: int, overlap: float) -> list[int]:
    """Return the first voxels of the windows along an axis; the last window ends with the volume."""
    step = length if extent == length else max(1, int(length * (1 - overlap)))
    return [min(number * step, extent - length) for number in range(math.ceil((extent - length) / step) + 1)]


def _overlap(
    corner: Sequence[int], size: Sequence[int], wanted: Sequence[slice]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return where a window lies in the wanted columns, and which part of the window that is."""
    into, out_of = [], []
    for start, length, part in zip(corner, size, wanted, strict=True):
        first, last = max(start, part.start), min(start + length, part.stop)
        into.append(slice(first - part.start, last - part.start))
        out_of.append(slice(first - start, last - start))
    return tuple(into), tuple(out_of)


def _finished(
    total: torch.Tensor, weights: torch.Tensor, first: int, last: int, start: int, end: int
) -> Iterator[Float32s]:
    """Yield the mean of rows `first` to `last` as far as they are not padding, then move the others to the front."""
    count = last - first
    total[:, :count] /= weights[:, :count]
    inside = slice(max(start - first, 0), min(end - first, count))
    if inside.start < inside.stop:
        yield total[:, inside].numpy()
    for rows in (*total, *weights):  # one after the other, as each is copied on its way
        rows[:-count] = rows[count:].clone()
        rows[-count:] = 0
