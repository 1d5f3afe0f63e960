"""Fixtures that all tests share, built once for all processes: images, a finished study, and where real images are."""

import gc
import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from study_helpers import call, leave_pictures_empty, leave_steps_unmeasured, tiny_run

if not torch.cuda.is_available():
    # Triton's kernels are tested through its interpreter, which must be chosen before anything imports Triton.
    os.environ["TRITON_INTERPRET"] = "1"

torch.set_num_threads(1)  # the tests' tensors are tiny: threads would only wait for each other


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every process its share of the slow tests first, so that none is left with one when the others are done.

    pytest-xdist begins by handing each process an equal part of the list.
    """
    slow = [item for item in items if item.get_closest_marker("slow")]
    others = [item for item in items if not item.get_closest_marker("slow")]
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    items[:] = [item for part in range(count) for item in (*slow[part::count], *others[part::count])]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector from walking over everything imported, again and again, a tenth of the tests' time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


DATA = Path(os.environ.get("VOXLOSS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; tests that ask for it are skipped where it is not."""
    if not DATA.is_dir():
        pytest.skip(f"no real test images at {DATA} (name their folder in VOXLOSS_TEST_DATA)")
    return DATA


Once = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id) -> Once:
    """`once(name, build)` is a folder that `build` fills, for all processes of the test run together.

    Tests must not change it; they copy it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "shared"
    shared.mkdir(exist_ok=True)

    def build_once(name: str, build: Callable[[Path], None]) -> Path:
        folder, built = shared / name, shared / f"{name}.built"
        with FileLock(shared / f"{name}.lock"):
            if not built.exists():  # built in its place, since studies record paths
                shutil.rmtree(folder, ignore_errors=True)
                build(folder)
                built.touch()
        return folder

    return build_once


@pytest.fixture(scope="session")
def phantom(once) -> Path:
    """Four small cases in the layout of KiTS19."""
    from voxloss.data.phantom.write import write_phantom  # tests/peers has an environment without the study's packages

    return once("phantom", lambda folder: write_phantom(folder, cases=4, seed=0, setting="small"))


@pytest.fixture(scope="session")
def tiny_study(once, phantom) -> Path:
    """The finished study of `tiny_run` on `phantom`: two losses, two folds, one seed."""

    def build(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            leave_pictures_empty(patch)
            result = call(*tiny_run(phantom, folder, report=True))
        assert result.returncode == 0, result.stderr

    return once("tiny_study", build)


@pytest.fixture
def blank_figures(monkeypatch) -> None:
    """The pictures of reports that a test builds are empty, which saves most of the time; `reported_study` has some."""
    leave_pictures_empty(monkeypatch)


@pytest.fixture
def unmeasured_steps(monkeypatch) -> None:
    """Estimates of time come from made-up seconds of a training step."""
    leave_steps_unmeasured(monkeypatch)


@pytest.fixture(scope="session")
def reported_study(once) -> Path:
    """Four losses, two classes, nine cases in three folds, one seed; the report is in its report/ folder."""
    from study_files import StudyFiles  # as above
    from voxloss.report import build_report

    losses = ("focal", "dice", "focal_tversky", "mixed_focal")

    def build(folder: Path) -> None:
        build_report(StudyFiles(losses=losses, cases=9, demonstration=True).write(folder))

    return once("reported_study", build)


@pytest.fixture
def own_study(tiny_study, tmp_path) -> Path:
    """A copy of `tiny_study` that the test may change."""
    shutil.copytree(tiny_study, tmp_path / "study")
    return tmp_path / "study"
