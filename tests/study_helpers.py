"""A study small enough for tests: four phantom cases, two folds, two losses."""

import subprocess
import sys
from pathlib import Path

TINY = [
    "--splits.folds", "2",
    "--patches.size", "[8,16,16]", "--patches.overlap", "0",
    "--network.filters", "2", "--network.depth", "2",
    "--training.epochs", "2", "--training.iterations", "2", "--training.validation_batches", "1",
    "--preparation.spacing_mm", "[11,11,11]",
    "--execution.device", "cpu", "--execution.threads", "1", "--execution.parallel", "1",
]  # fmt: skip


def command(*arguments: object, **options) -> subprocess.CompletedProcess:
    """Run `voxloss ARGUMENTS` as a user would and return what it printed."""
    return subprocess.run(voxloss(*arguments), capture_output=True, text=True, timeout=300, **options)


def voxloss(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "voxloss", *map(str, arguments)]


def tiny_run(data: Path, study: Path, *extra: object, report: bool = False) -> list[object]:
    """The words of a run of two losses; without a report, which takes as long as everything else."""
    words = ["run", "demo", "--data", data, "--study", study, "--losses", "dice,mixed_focal", *TINY, *extra]
    return words if report else [*words, "--no-report"]


def assert_only_prepared_cases(study: Path) -> None:
    """Of a study that could not be created: nothing is left, or the cases that were prepared before the mistake."""
    if study.exists():
        assert {path.name for path in study.iterdir()} <= {"prepared", ".lock"}
        cases = [path for path in (study / "prepared").iterdir() if path.name != "index.json"]
        assert cases
        assert all((case / "geometry.json").is_file() and not case.name.startswith(".") for case in cases)
