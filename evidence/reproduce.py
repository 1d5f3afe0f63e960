"""Run the studies of this folder one after the other, or several at a time, with `voxloss run`.

    python evidence/reproduce.py --data DATA --work WORK emidec drive
    python evidence/reproduce.py --data DATA --work WORK --lanes 2 --parallel 14 --seconds 540

DATA has the folders emidec, hippocampus_full, drive, kits_masks and brats; the studies are in WORK/studies. Stopped at
any moment, by --seconds or by Ctrl-C, the same command resumes.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
SECONDS_TO_STOP = 15  # that a run has to reach its next step


@dataclass(frozen=True)
class Step:
    """A study.

    Args:
        config: Its file in `studies/`.
        data: The folder or table of its data, below WORK/data, or below DATA if nothing is prepared.
        prepare: Arguments of prepare.py before and after the target, for every data set that is written for it.
        options: Of `voxloss run`, beyond the file.
        pilot: Whose choice of learning rate and steps the study takes.
    """

    config: str
    data: str
    prepare: Sequence[tuple[Sequence[str], str, Sequence[str]]] = ()
    options: Sequence[str] = ()
    pilot: str = ""


def _emidec(size: int) -> tuple[Sequence[str], str, Sequence[str]]:
    return ("crop", "DATA/emidec"), f"emidec-{size}", (str(size),)


def _few(positives: int) -> Step:
    name = f"emidec-few-{positives}"
    prepare = _emidec(128), (("few", "WORK/data/emidec-128"), name, (str(positives),))
    return Step("emidec-few", f"{name}/cases.csv", prepare, ("--folds", "0"), "emidec")


def _phantom_size(fraction: str) -> Step:
    return Step("phantom-size", f"size-{fraction}", ((("size",), f"size-{fraction}", (fraction, "60")),))


def _phantom_view(slices: int, rows: int) -> Step:
    name = f"view-{slices}"
    prepare = ((("view",), name, (str(slices), str(rows), "30")),)
    return Step("phantom-view", name, prepare, ("--patches.size", f"[{slices},{rows},{rows}]"))


STEPS = {
    "emidec": Step("emidec", "emidec-128", (_emidec(128),), pilot="emidec"),
    "hippocampus": Step("hippocampus", "hippocampus_full", pilot="hippocampus"),
    "drive": Step("drive", "drive", ((("drive", "DATA/drive"), "drive", ()),), pilot="drive"),
    **{f"emidec-few-{positives}": _few(positives) for positives in (33, 16, 8, 4)},
    **{
        f"emidec-crop-{size}": Step(
            "emidec-crops",
            f"emidec-{size}",
            (_emidec(size),),
            ("--patches.size", f"[{size},{size},1]"),
            "emidec",
        )
        for size in (96, 192, 256)
    },
    **{f"size-{fraction}": _phantom_size(fraction) for fraction in ("1e-2", "3e-3", "1e-3", "3e-4", "1e-4")},
    **{
        f"view-{slices}": _phantom_view(slices, rows)
        for slices, rows in ((16, 24), (24, 32), (32, 48), (40, 80), (48, 128))
    },
    **{
        f"emidec-rate-{rate}": Step(
            "emidec-rates", "emidec-128", (_emidec(128),), ("--training.learning_rate", rate), "steps of emidec"
        )
        for rate in ("3e-3", "1e-3", "1e-2")
    },
    "kits": Step("phantom-kits", "kits", ((("kits", "DATA/kits_masks"), "kits", ()),)),
    "brats": Step("brats", "brats"),
}


@dataclass(frozen=True)
class Place:
    """Where the data are, where the studies go, and what every `voxloss run` is told."""

    data: Path
    work: Path
    options: Sequence[str]

    def command(self, name: str, *options: str) -> list[str]:
        """The command that runs a study."""
        step = STEPS[name]
        root = (self.work / "data" if step.prepare else self.data) / step.data
        run = [sys.executable, "-m", "voxloss", "run", str(HERE / "studies" / f"{step.config}.yaml")]
        return [*run, "--data", str(root), *step.options, *self.options, *options]

    def prepare(self, name: str) -> None:
        """Write the data of a study unless they are there."""
        for before, target, after in STEPS[name].prepare:
            source = [word.replace("DATA", str(self.data), 1).replace("WORK", str(self.work), 1) for word in before]
            command = [sys.executable, str(HERE / "prepare.py"), *source, str(self.work / "data" / target), *after]
            subprocess.run(command, check=True)

    def chosen(self, name: str) -> list[str]:
        """What the pilot chose for a study, in place of what its file says."""
        file, pilot = self.work / "chosen.json", STEPS[name].pilot
        choice = (
            json.loads(file.read_text())["options"].get(pilot.removeprefix("steps of "), {}) if file.exists() else {}
        )
        keys = [key for key in choice if not (pilot.startswith("steps of") and key.endswith("rate"))]
        return [word for key in keys for word in (f"--{key}", str(choice[key]))]


def execute(commands: Sequence[tuple[str, Callable[[], list[str]]]], place: Place, lanes: int, until: float) -> None:
    """Run commands by name, `lanes` at a time in this order, logged in WORK/logs; interrupt them at `until`."""
    (place.work / "logs").mkdir(parents=True, exist_ok=True)
    waiting, active = list(commands), dict[str, subprocess.Popen[bytes]]()
    try:
        while (waiting or active) and time.time() < until:
            for name, process in list(active.items()):
                if process.poll() is not None:
                    print(f"{time.strftime('%X')} {name}: exit status {process.returncode}", flush=True)
                    del active[name]
            while waiting and len(active) < lanes:
                name, make = waiting.pop(0)
                try:
                    command = make()
                except subprocess.CalledProcessError as error:  # the other studies do not need these data
                    print(f"{time.strftime('%X')} {name}: its data cannot be written ({error})", flush=True)
                    continue
                print(f"{time.strftime('%X')} {name}: starts", flush=True)
                with (place.work / "logs" / f"{name}.log").open("ab") as log:
                    active[name] = subprocess.Popen(command, stdout=log, stderr=log)
            time.sleep(0.5)
    finally:
        for process in active.values():
            process.send_signal(signal.SIGINT)
        end = time.time() + SECONDS_TO_STOP
        for name, process in active.items():
            try:
                process.wait(max(0.1, end - time.time()))
            except subprocess.TimeoutExpired:
                process.kill()
            print(f"{time.strftime('%X')} {name}: stopped", flush=True)


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line of this program or of pilot.py."""
    parser.add_argument("names", nargs="*", help="studies; all, if none is named")
    parser.add_argument("--data", type=Path, required=True, help="folder of the public data sets")
    parser.add_argument("--work", type=Path, required=True, help="folder of the studies")
    parser.add_argument("--lanes", type=int, default=1, help="studies at a time")
    parser.add_argument("--parallel", type=int, default=os.cpu_count() or 1, help="runs at a time, of all studies")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="of voxloss run; they come last")
    return parser.parse_args()


def main() -> None:
    """Run the studies."""
    given = arguments(argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter))
    until = time.time() + given.seconds
    parallel = ["--execution.parallel", str(max(1, given.parallel // given.lanes))]
    place = Place(given.data.resolve(), given.work.resolve(), [*parallel, "--no-report"])

    def ready(name: str) -> list[str]:
        place.prepare(name)
        study = ["--study", str(place.work / "studies" / name)]
        return place.command(name, *study, *place.chosen(name), *given.options)

    commands = [(name, partial(ready, name)) for name in given.names or STEPS]
    execute(commands, place, given.lanes, until)


if __name__ == "__main__":
    main()
