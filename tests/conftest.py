"""Shared fixtures: where the real test images are, if they are."""

import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    # Triton's kernels are tested through its interpreter, which must be chosen before anything imports Triton.
    os.environ["TRITON_INTERPRET"] = "1"

torch.set_num_threads(1)  # the tests' tensors are tiny: threads would only wait for each other

DATA = Path(os.environ.get("VOXLOSS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; tests that ask for it are skipped where it is not."""
    if not DATA.is_dir():
        pytest.skip(f"no real test images at {DATA} (name their folder in VOXLOSS_TEST_DATA)")
    return DATA
