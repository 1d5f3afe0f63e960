"""A study of four runs that last while a file is there, without work for the processor."""

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from study_helpers import TINY, call, voxloss

LOSS = '''
import time
from pathlib import Path

from torch.nn import functional


def cross_entropy(logits, labels):
    """Cross entropy that takes two seconds while the file `slowly` is in the working directory."""
    if Path("slowly").exists():
        time.sleep(2)
    return functional.cross_entropy(logits, labels)
'''

# Heartbeats so short that a test need not wait long for the run of a dead machine.
HEARTBEATS = ["--execution.heartbeat_s", "1", "--execution.stale_after_s", "15"]


RUNS = ["--losses", "slow.cross_entropy", "--seeds", "0,1", "--training.epochs", "50"]


class SlowStudy:
    """A study in a folder, whose commands run in the folder of a loss of the user's own.

    Args:
        data: The images.
        folder: The study's folder.
        options: What the study compares.
        module: The name of the loss's module; another one for every text, since a process imports it once.
        loss: Its text.
    """

    def __init__(
        self, data: Path, folder: Path, options: Sequence[object] = RUNS, module: str = "slow", loss: str = LOSS
    ) -> None:
        self.data, self.folder, self.place = data, folder, folder.with_name(f"{folder.name}-work")
        self.options = options
        self.place.mkdir()
        (self.place / f"{module}.py").write_text(loss)

    def words(self, *extra: object) -> list[object]:
        return [
            "run", "demo", "--data", self.data, "--study", self.folder, *TINY, *self.options, *HEARTBEATS,
            "--no-report", *extra,
        ]  # fmt: skip

    def start(self, *extra: object, environment: dict[str, str] | None = None) -> subprocess.Popen:
        """Start `voxloss run`. A run takes five minutes until `hurry` is called."""
        (self.place / "slowly").touch()
        return subprocess.Popen(
            voxloss(*self.words(*extra)),
            cwd=self.place,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def hurry(self) -> None:
        """Let the runs go on at full speed."""
        (self.place / "slowly").unlink(missing_ok=True)

    def end(self, process: subprocess.Popen) -> str:
        """Wait for `start`, and return what it printed."""
        out, errors = process.communicate(timeout=600)
        assert process.returncode == 0, (out, errors)
        return out

    def run(self, *extra: object) -> str:
        """Run what is left on this machine."""
        self.hurry()
        done = call(*self.words("--execution.executor", "local", *extra), cwd=self.place)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def scores(self) -> bytes:
        return (self.folder / "scores.csv").read_bytes()

    def at_work(self) -> dict[str, tuple[str, int, int]]:
        """For every run that is claimed: host and process of its owner, and the epochs that it has finished."""
        from voxloss.study.progress import run_progress
        from voxloss.study.study import Study

        if not (self.folder / "study.yaml").is_file():
            return {}
        return {
            str(one.run): (one.claim.record.host, one.claim.record.pid, one.status.epoch)
            for one in run_progress(Study.open(self.folder))
            if one.claim is not None
        }

    def ended(self) -> int:
        """How many runs are published."""
        return len(list(self.folder.glob("runs/*/*/seed-*/scores.csv")))

    def takeovers(self) -> int:
        from voxloss.study.study import Study

        study = Study.open(self.folder)
        return sum(study.status(run).takeovers for run in study.runs())


def wait_for(condition: Callable[[], object], what: str, seconds: float = 600) -> object:
    """Wait until a condition holds, and return what it gave."""
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < limit, f"waited in vain for {what}"
        time.sleep(0.2)
    return found
