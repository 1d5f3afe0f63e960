"""The wheel and the source distribution: whole, accepted by the index, and usable where torch alone is installed."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import voxloss

ROOT = Path(__file__).parents[2]
STEP = """
import importlib.util
import torch
import voxloss

assert "site-packages" in voxloss.__file__, voxloss.__file__
assert importlib.util.find_spec("numpy") is None, "torch alone should be here"
logits = torch.randn(2, 3, 4, 8, 8, requires_grad=True)
labels = torch.randint(0, 3, (2, 4, 8, 8))
for name in voxloss.list_losses():
    try:
        voxloss.get_loss(name)(logits, labels).backward()
    except ModuleNotFoundError as error:
        assert name == "skeleton_recall" and "voxloss[skeletons]" in str(error), (name, error)
assert logits.grad.isfinite().all()
print(voxloss.__version__)
"""

pytestmark = pytest.mark.package


def run(*words: object, **options) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        list(map(str, words)), capture_output=True, text=True, timeout=900, env=environment, **options
    )


def succeeded(*words: object, **options) -> str:
    result = run(*words, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("dist")
    succeeded(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    return {path.suffix: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def environment(distributions, tmp_path_factory) -> Path:
    """The programs of a fresh environment with the wheel and what it requires, which is torch."""
    folder = tmp_path_factory.mktemp("environment")
    succeeded(sys.executable, "-m", "venv", folder)
    wheel, constraints = distributions[".whl"], ROOT / "constraints.txt"
    succeeded(folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--constraint", constraints, wheel)
    return folder / "bin"


def test_both_are_accepted_by_the_checks_of_the_index(distributions):
    assert set(distributions) == {".whl", ".gz"}
    said = succeeded(sys.executable, "-m", "twine", "check", "--strict", *distributions.values())
    assert said.count("PASSED") == 2


def test_both_have_every_file_of_the_package(distributions):
    source = ROOT / "src"
    files = {path.relative_to(source).as_posix() for path in (source / "voxloss").rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    wheel = set(zipfile.ZipFile(distributions[".whl"]).namelist())
    with tarfile.open(distributions[".gz"]) as archive:
        top = f"voxloss-{voxloss.__version__}/src/"
        sources = {name.removeprefix(top) for name in archive.getnames() if name.startswith(top)}
    assert files - wheel == set() and files - sources == set()
    assert any(name.endswith("licenses/LICENSE") for name in wheel)


def test_a_loss_step_with_torch_alone(environment, tmp_path):
    assert succeeded(environment / "python", "-c", STEP, cwd=tmp_path).strip() == voxloss.__version__


def test_what_the_commands_say_with_torch_alone(environment, tmp_path):
    """The losses are explained; what needs more says how it is installed, from a checkout."""
    listed = succeeded(environment / "voxloss", "losses", cwd=tmp_path)
    assert all(any(line.startswith(f"{name} ") for line in listed.splitlines()) for name in voxloss.list_losses())
    assert "Mixed Focal" in succeeded(environment / "voxloss", "losses", "mixed_focal", cwd=tmp_path)
    assert "monai is not installed" in succeeded(environment / "voxloss", "--version", cwd=tmp_path)
    for words in (["run", "folder", "--data", "."], ["quick", "."], ["plan", "folder", "--data", "."],
                  ["check", "."], ["demo"], ["config", "folder"], ["status", "."], ["report", "."],
                  ["predict", ".", "a.nii", "--output", "b"], ["view", "."], ["evidence", "add", "."],
                  ["evidence", "report"], ["advise", "."]):  # fmt: skip
        result = run(environment / "voxloss", *words, cwd=tmp_path)
        assert result.returncode == 2 and result.stderr.count("\n") == 1, (words, result.stderr)
        assert 'install it with: pip install -c constraints.txt ".[bench]" (in a checkout' in result.stderr, words
    completion = run(environment / "voxloss", "completion", "bash", cwd=tmp_path)
    assert completion.returncode == 2 and '".[completion]"' in completion.stderr
    assert not list(tmp_path.iterdir())


def test_the_source_distribution_installs_too(distributions, environment, tmp_path):
    pip = (environment / "python", "-m", "pip", "install", "--quiet")
    succeeded(*pip, "--no-deps", "--force-reinstall", distributions[".gz"])
    assert succeeded(environment / "python", "-c", STEP, cwd=tmp_path).strip() == voxloss.__version__
