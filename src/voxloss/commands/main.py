"""The command line. Nothing heavy is imported before a command needs it, so that `--help` answers at once."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from voxloss.commands import actions as commands
from voxloss.utilities.errors import InputError

_DESCRIPTION = "Losses for segmenting rare structures in medical volumes, and the study that tells which one to take."
_OVERRIDES = """\
Any value of the configuration can be given as --SECTION.KEY VALUE, for example
  --training.epochs 50 --patches.size "[96,96,96]" --comparison.seeds "[0,1,2]"
`voxloss config CONFIG` prints all keys with the values that a study would have.
Stopped at any moment (Ctrl-C), the same command goes on where it stopped."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point: 0 on success, 1 where `check` or `plan` finds what to mend, 2 on a mistake, 130 when interrupted."""
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    known, rest = parser.parse_known_args(arguments)
    if rest and known.command not in ("run", "plan", "config"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if known.command in ("run", "plan", "config"):
            return known.action(known, rest)
        return known.action(known)
    except InputError as error:
        return commands.fail(str(error))
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("voxloss"):
            raise
        return commands.fail(
            f"This command needs the package {error.name!r}; install voxloss with pip install 'voxloss[bench]'."
        )
    except BrokenPipeError:
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return commands.fail(f"{place}{error.strerror or error}.")
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        return 130


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="voxloss", description=_DESCRIPTION, allow_abbrev=False)
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, action: Callable[..., int], text: str, epilog: str | None = None) -> argparse.ArgumentParser:
        sub = parsers.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(action=action)
        return sub

    demo = command("demo", commands.demo, "compare the seven losses on a small synthetic CT, in minutes on two cores")
    demo.add_argument("--study", type=Path, default=Path("studies/demo"), help="folder (default: %(default)s)")

    run = command(
        "run", commands.run, "run a study: train every loss on every fold, score, test and report", _OVERRIDES
    )
    plan = command("plan", commands.plan, "say what a study will cost on this machine, before it is begun", _OVERRIDES)
    for sub in (run, plan):
        sub.add_argument("config", metavar="CONFIG", help="a YAML file or a preset (`voxloss config` lists them)")
        sub.add_argument("--data", type=Path, help="folder of the images (data.root)")
        sub.add_argument("--losses", help="train only these, separated by commas (comparison.losses)")
        sub.add_argument("--seeds", help="run only these, separated by commas (comparison.seeds)")
    run.add_argument("--study", type=Path, help="folder of the study (default: studies/NAME)")
    run.add_argument("--folds", help="run only the folds of these numbers, separated by commas")

    show = command(
        "config",
        commands.config,
        "print a configuration, and where each value comes from, or list the presets",
        _OVERRIDES,
    )
    show.add_argument("config", nargs="?", metavar="CONFIG", help="a YAML file or a preset")

    status = command(
        "status", commands.status, "show how far every run of a study is, live while some process is at work"
    )
    status.add_argument("study", type=Path, metavar="STUDY")
    status.add_argument("--once", action="store_true", help="show it once, also on a terminal")

    report = command("report", commands.report, "rebuild a study's tables, figures and page from its files")
    report.add_argument("study", type=Path, metavar="STUDY")
    report.add_argument(
        "--viewer-cases", type=int, metavar="N", default=None,
        help="give the viewer the volumes of the N cases on which the losses disagree most (default: 12)",
    )  # fmt: skip

    view = command("view", commands.view, "serve a study's report to this machine's browser, and open it")
    view.add_argument("study", type=Path, metavar="STUDY")
    view.add_argument("--port", type=int, default=0, help="default: a free one")
    view.add_argument("--no-browser", action="store_true", help="only say the address")

    predict = command("predict", commands.predict, "segment images with the network of a finished run")
    predict.add_argument("run", type=Path, metavar="RUN", help="a run's folder: STUDY/runs/LOSS/fold-K/seed-S")
    predict.add_argument("images", nargs="+", metavar="IMAGE", help="NIfTI file; the channels of a case by commas")
    predict.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="gets one mask per image")
    predict.add_argument("--device", help="default: the study's")

    losses = command("losses", commands.losses, "list the losses, or explain one: equation, conventions, parameters")
    losses.add_argument("name", nargs="?", metavar="NAME")
    losses.add_argument("--write", type=Path, metavar="FOLDER", help="write the cards of all losses there, as Markdown")

    _import_parsers(
        command(
            "import", commands.import_results, "read results of trainings elsewhere as a study, for `voxloss report`"
        )
    )

    command(
        "nnunet-trainers",
        commands.nnunet_trainers,
        "print the folder that nnU-Net's variable nnUNet_extTrainer must name",
    )

    check = command("check", commands.check, "say what is wrong with a data set, and how rare its structures are")
    check.add_argument("data", type=Path, metavar="DATA")
    check.add_argument("--layout", choices=("kits19", "brats20", "decathlon", "folder"), help="default: recognised")
    check.add_argument("--config", help="take layout, its options, excluded cases, patch, spacing and folds from here")
    check.add_argument("--patients", type=Path, metavar="CSV", help="table with the columns case and patient")
    check.add_argument("--output", type=Path, metavar="FOLDER", help="write the report there as a page and as JSON")
    return parser


def _import_parsers(parser: argparse.ArgumentParser) -> None:
    sources = parser.add_subparsers(dest="source", metavar="SOURCE", required=True)
    text = "read the fold validations of several nnU-Net trainers"
    nnunet = sources.add_parser("nnunet", help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
    nnunet.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a trainer's folder, or a data set's")
    nnunet.add_argument("--folds", help="compare only the folds of these numbers, separated by commas")
    nnunet.add_argument("--labels", type=Path, metavar="FOLDER", help="references (default: where nnU-Net had them)")
    nnunet.add_argument("--images", type=Path, metavar="FOLDER", help="images (default: imagesTr in nnUNet_raw)")
    nnunet.add_argument("--tolerance-mm", type=float, default=1.0, help="of the NSD (default: %(default)s)")
    text = "read a long table: one row per loss, case and metric"
    table = sources.add_parser("csv", help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
    table.add_argument("table", type=Path, metavar="TABLE")
    table.add_argument("--columns", metavar="OURS=THEIRS,...", help="loss=method,case=patient: what columns are called")
    table.add_argument("--primary-class", metavar="CLASS", help="that the headline is about (default: the last)")
    for sub in (nnunet, table):
        sub.add_argument("--study", type=Path, required=True, metavar="STUDY", help="the folder to write")
