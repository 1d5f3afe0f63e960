"""Prepare the cases of a data set, several at the same time within a limit of memory."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from voxloss.data.case import Case
from voxloss.data.dataset import Dataset
from voxloss.data.formats import open_image
from voxloss.data.grid import Turn
from voxloss.data.prepare.case import Preparation, PreparedCase, prepare_case
from voxloss.data.prepare.resample import resampled_shape

# Measured on the largest cases: the image as float32, the mask and what is made of both slab by slab.
BYTES_BESIDE_IMAGE, FIXED_BYTES = 2, 500_000_000


Claimed = Callable[[str, bool], AbstractContextManager[bool]]  # of `prepare_cases`


def prepare_cases(
    cases: Sequence[Case],
    dataset: Dataset,
    preparation: Preparation,
    cache: Path,
    workers: int = 1,
    memory: int | None = None,
    progress: Callable[[int, int, str], None] = lambda *_: None,
    claimed: Claimed = lambda *_: nullcontext(True),
    wait: bool = True,
) -> list[PreparedCase]:
    """Prepare cases, or open those that are in the cache, as `prepare_case` does.

    Args:
        cases: The cases.
        dataset: Their data set.
        preparation: How they are prepared.
        cache: The folder of prepared cases.
        workers: Most cases at the same time.
        memory: Bytes that cases at the same time may need, estimated from their headers; a larger case is prepared
            alone. None: no limit.
        progress: Called with (finished, of, what) after each case.
        claimed: Called with a case's id and whether to wait; the context tells whether this process has the case for
            itself meanwhile. Cases that other processes have are left to them, and opened at the end.
        wait: Whether to wait for these; else they are left out.

    Returns:
        The prepared cases, in the order of `cases`.

    Raises:
        InputError: A case cannot be prepared. If several cannot, the first in order is named. Cases that are being
            prepared are finished and kept.
    """
    budget = _Budget(math.inf if memory is None else memory)

    def prepare(case: Case, waits: bool) -> list[PreparedCase]:  # none if another process has it
        with claimed(case.case_id, waits) as own:
            if not own:
                return []
            with budget.hold(memory_needed(case, preparation, dataset.axes)):
                return [prepare_case(case, dataset, preparation, cache)]

    found: dict[str, PreparedCase] = {}
    for waits in (False, True) if wait else (False,):
        left = [case for case in cases if case.case_id not in found]
        with ThreadPoolExecutor(workers) as pool:  # reading, resampling and writing run outside the interpreter's lock
            futures: dict[Future[list[PreparedCase]], Case] = {pool.submit(prepare, case, waits): case for case in left}
            try:
                for future in as_completed(futures):
                    if future.exception() is not None:
                        break
                    for entry in future.result():
                        case_id = futures[future].case_id
                        found[case_id] = entry
                        progress(len(found), len(cases), f"prepared {case_id}")
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        failed = next((future for future in futures if not future.cancelled() and future.exception() is not None), None)
        if failed is not None:
            failed.result()
    return [found[case.case_id] for case in cases if case.case_id in found]


def memory_needed(case: Case, preparation: Preparation, axes: str | None = None) -> int:
    """Bytes that preparing a case takes at most, about; 0 for one whose header cannot be read, which fails soon."""
    try:
        opened = [open_image(path) for path in case.images]
        geometry = case.placed(opened[0].geometry)
        geometry = Turn.between(geometry.axes, axes).geometry(geometry)
        channels = sum(file.channels for file in opened)
        reading = max(file.at_once for file in opened)
    except (ValueError, OSError, IndexError):
        return 0
    prepared = math.prod(resampled_shape(geometry.shape, geometry.spacing_mm, preparation.spacing_mm))
    original = math.prod(geometry.shape)
    return (4 * channels + BYTES_BESIDE_IMAGE) * original + (4 * channels + 1) * prepared + reading + FIXED_BYTES


class _Budget:
    """Hands out bytes of a limit; who asks for more than is left waits, unless nobody holds any."""

    def __init__(self, limit: float) -> None:
        self._limit, self._held = limit, 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._held == 0 or self._held + amount <= self._limit)
            self._held += amount
        try:
            yield
        finally:
            with self._changed:
                self._held -= amount
                self._changed.notify_all()
