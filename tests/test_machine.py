"""What a process has taken of the machine, where the system tells."""

from pathlib import Path

import numpy as np
import pytest

from voxloss.utilities.machine import available_memory, forget_peak_memory, peak_memory

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")


def test_peak_memory_rises_with_what_is_touched_and_can_be_forgotten():
    before = peak_memory()
    taken = np.ones(200_000_000, dtype=np.uint8)
    high = peak_memory()
    assert before is not None and high is not None and high >= before
    assert high > taken.nbytes
    del taken
    forget_peak_memory()
    after = peak_memory()
    assert after is not None and after < high - 100_000_000


def test_available_memory_is_some():
    memory = available_memory()
    assert memory is not None and memory > 10_000_000
