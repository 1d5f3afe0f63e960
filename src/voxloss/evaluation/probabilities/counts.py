"""Count the voxels of a case by predicted probability and reference: all curves and thresholds come from these counts.

A case's counts are some kilobytes, whatever its size, so that no volume of probabilities has to be kept.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloss.utilities.arrays import AnyArray, ClassIndices, Float32s, Float64s, Integers
from voxloss.utilities.errors import InputError
from voxloss.utilities.files import atomic_path

LEVELS = 65536  # to which probabilities are rounded: k / (LEVELS - 1)
PIECE = 1 << 20  # voxels at a time; bincount widens its input to 8 bytes a voxel


def _first_levels() -> NDArray[np.int64]:
    """Return the first level of every bin.

    The bins are even in the log odds, since the thresholds of a rare structure may lie close to 0. Multiples of 1/15
    and 1/20 are borders too, so that the usual bins of reliability curves are unions of these.
    """
    odds = 1 / (1 + np.exp(-np.linspace(-10, 10, 401)))
    borders = np.concatenate([[0.0, 0.01], odds, np.arange(1, 15) / 15, np.arange(1, 20) / 20])
    return np.unique(np.floor(borders * (LEVELS - 1) + 0.5).astype(np.int64))


FIRST_LEVELS = _first_levels()

# Voxels of bin j and above have at least this probability. The first is 0: all voxels.
THRESHOLDS: Float64s = FIRST_LEVELS / (LEVELS - 1)

BINS = len(FIRST_LEVELS)


def threshold_place(threshold: float) -> int:
    """Return the place of the nearest of `THRESHOLDS`."""
    return int(np.abs(THRESHOLDS - threshold).argmin())


@dataclass(frozen=True)
class ProbabilityCounts:
    """Voxels of one case by class, reference and bin of the predicted probability.

    Args:
        voxels: Number of voxels, int64 (classes, 2, BINS): of every foreground class those of other classes in the
            reference, then its own, by `THRESHOLDS`.
        sums: Sum of their probabilities, float64 of the same shape.
    """

    voxels: NDArray[np.int64]
    sums: Float64s

    def __add__(self, other: "ProbabilityCounts") -> "ProbabilityCounts":
        """Return the counts of both, pooled."""
        return ProbabilityCounts(self.voxels + other.voxels, self.sums + other.sums)


class ProbabilityCounter:
    """Counts the voxels of a case piece by piece, as they are predicted."""

    def __init__(self, reference: ClassIndices, n_classes: int, ignore_index: int | None = None) -> None:
        """Begin to count.

        Args:
            reference: Class indices (*shape).
            n_classes: Number of classes with the background, which is not counted.
            ignore_index: The value in `reference` of voxels that do not count; None: all count.
        """
        self._reference, self._ignore = reference, ignore_index
        self._levels = np.zeros((n_classes - 1, 2, LEVELS), dtype=np.int64)

    def add(self, index: int, box: tuple[slice, ...], values: Float32s) -> None:
        """Count a box of the volume: the probabilities of one class there. The background is left out."""
        if index == 0:
            return
        reference = self._reference[box].ravel()
        probabilities = values.ravel()
        for start in range(0, reference.size, PIECE):
            labels, piece = reference[start : start + PIECE], probabilities[start : start + PIECE]
            if self._ignore is not None:
                counted = labels != self._ignore
                labels, piece = labels[counted], piece[counted]
            piece = np.minimum(piece, np.float32(1))  # a mean of windows may exceed 1 by a rounding
            piece = np.nan_to_num(piece, nan=0.0)  # of a network whose weights are not finite; its mask is background
            levels = (piece * np.float32(LEVELS - 1) + np.float32(0.5)).astype(np.uint16)
            own = np.bincount(levels[labels == index], minlength=LEVELS)
            self._levels[index - 1, 0] += np.bincount(levels, minlength=LEVELS) - own
            self._levels[index - 1, 1] += own

    def counts(self) -> ProbabilityCounts:
        """Return the counts so far."""
        probabilities = np.arange(LEVELS) / (LEVELS - 1)
        voxels = np.add.reduceat(self._levels, FIRST_LEVELS, axis=2)
        # Class by class, as the levels of many classes take much memory.
        sums = np.stack([np.add.reduceat(levels * probabilities, FIRST_LEVELS, axis=1) for levels in self._levels])
        return ProbabilityCounts(voxels, sums)


def count_probabilities(
    probabilities: Float32s, reference: ClassIndices, ignore_index: int | None = None
) -> ProbabilityCounts:
    """Count the voxels of a whole case.

    Args:
        probabilities: Of every class, the background first: (classes, *shape).
        reference: Class indices (*shape).
        ignore_index: The value in `reference` of voxels that do not count; None: all count.
    """
    counter = ProbabilityCounter(reference, len(probabilities), ignore_index)
    everything = (slice(None),) * reference.ndim
    for index, values in enumerate(probabilities):
        counter.add(index, everything, values)
    return counter.counts()


@dataclass(frozen=True)
class RunCounts:
    """The counts of a run: the content of its probability_counts.npz.

    Args:
        cases: Ids of the cases.
        inner: Whether each is an inner case, which was set aside from training and is not scored.
        classes: The foreground classes.
        counts: The counts of every case.
        lesion_class: The class of `lesions`; empty without one.
        lesions: Lesions of that class at every threshold of `froc.LESION_THRESHOLDS`: int64 (cases, thresholds, 3) with
            the lesions of the reference, those detected, and the false positives.
    """

    cases: tuple[str, ...]
    inner: tuple[bool, ...]
    classes: tuple[str, ...]
    counts: tuple[ProbabilityCounts, ...]
    lesion_class: str
    lesions: Integers

    def of_class(self, name: str, *, inner: bool = False) -> dict[str, ProbabilityCounts]:
        """Return the counts of one class by case: `voxels` and `sums` of shape (2, BINS)."""
        place = self.classes.index(name)
        return {
            case: ProbabilityCounts(counts.voxels[place], counts.sums[place])
            for case, is_inner, counts in zip(self.cases, self.inner, self.counts, strict=True)
            if is_inner == inner
        }


def write_counts(path: Path, run: RunCounts) -> None:
    """Write the counts of a run, compressed, whole or not at all."""
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez_compressed(
            file,
            cases=np.array(run.cases, dtype=str),
            inner=np.array(run.inner, dtype=bool),
            classes=np.array(run.classes, dtype=str),
            thresholds=THRESHOLDS,
            voxels=_stack([counts.voxels for counts in run.counts], len(run.classes), np.dtype(np.int64)),
            sums=_stack([counts.sums for counts in run.counts], len(run.classes), np.dtype(np.float64)),
            lesion_class=np.array(run.lesion_class),
            lesions=run.lesions,
        )


def _stack(arrays: Sequence[NDArray[np.int64]] | Sequence[Float64s], classes: int, dtype: "np.dtype[Any]") -> AnyArray:
    return np.stack(arrays) if arrays else np.zeros((0, classes, 2, BINS), dtype=dtype)


def read_counts(path: Path) -> RunCounts:
    """Read a file of `write_counts`.

    Raises:
        InputError: The file is missing, damaged, or has other bins than this version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        cases, inner = tuple(map(str, arrays["cases"])), tuple(map(bool, arrays["inner"]))
        classes, lesions = tuple(map(str, arrays["classes"])), arrays["lesions"]
        voxels, sums = arrays["voxels"], arrays["sums"]
        shape = (len(cases), len(classes), 2, BINS)
        if arrays["thresholds"].shape != (BINS,) or not np.allclose(arrays["thresholds"], THRESHOLDS, atol=1e-9):
            raise ValueError("its thresholds are others than this version's")
        if voxels.shape != shape or sums.shape != shape or len(inner) != len(cases) or len(lesions) != len(cases):
            raise ValueError(f"it has {len(cases)} cases and arrays of the shape {voxels.shape}")
    except FileNotFoundError:
        raise InputError(f"{path} is missing.") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is damaged ({reason}); `voxloss run` on its study rebuilds it.") from None
    counts = tuple(ProbabilityCounts(*pair) for pair in zip(voxels.astype(np.int64), sums, strict=True))
    return RunCounts(cases, inner, classes, counts, str(arrays["lesion_class"]), lesions)
