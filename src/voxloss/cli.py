"""The command line. Nothing heavy is imported before a command needs it, so that `--help` answers at once."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from voxloss.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from voxloss.config import StudyConfig

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
        return _fail(str(error))
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("voxloss"):
            raise
        return _fail(
            f"This command needs the package {error.name!r}; install voxloss with pip install 'voxloss[bench]'."
        )
    except BrokenPipeError:
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _fail(f"{place}{error.strerror or error}.")
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        return 130


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _fail(message: str) -> int:
    print(f"voxloss: {' '.join(message.split()).rstrip('.')}.", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="voxloss", description=_DESCRIPTION, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, action: Callable[..., int], text: str, epilog: str | None = None) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(action=action)
        return sub

    demo = command("demo", _demo, "compare the seven losses on a small synthetic CT, in minutes on two cores")
    demo.add_argument("--study", type=Path, default=Path("studies/demo"), help="folder (default: %(default)s)")

    run = command("run", _study, "run a study: train every loss on every fold, score, test and report", _OVERRIDES)
    plan = command("plan", _plan, "say what a study will cost on this machine, before it is begun", _OVERRIDES)
    for sub in (run, plan):
        sub.add_argument("config", metavar="CONFIG", help="a YAML file or a preset (`voxloss config` lists them)")
        sub.add_argument("--data", type=Path, help="folder of the images (data.root)")
        sub.add_argument("--losses", help="train only these, separated by commas (comparison.losses)")
        sub.add_argument("--seeds", help="run only these, separated by commas (comparison.seeds)")
    run.add_argument("--study", type=Path, help="folder of the study (default: studies/NAME)")
    run.add_argument("--folds", help="run only the folds of these numbers, separated by commas")

    show = command(
        "config", _config, "print a configuration, and where each value comes from, or list the presets", _OVERRIDES
    )
    show.add_argument("config", nargs="?", metavar="CONFIG", help="a YAML file or a preset")

    status = command("status", _status, "show how far every run of a study is, live while some process is at work")
    status.add_argument("study", type=Path, metavar="STUDY")
    status.add_argument("--once", action="store_true", help="show it once, also on a terminal")

    report = command("report", _report, "rebuild a study's tables, figures and page from its files")
    report.add_argument("study", type=Path, metavar="STUDY")
    report.add_argument(
        "--viewer-cases", type=int, metavar="N", default=None,
        help="give the viewer the volumes of the N cases on which the losses disagree most (default: 12)",
    )  # fmt: skip

    view = command("view", _view, "serve a study's report to this machine's browser, and open it")
    view.add_argument("study", type=Path, metavar="STUDY")
    view.add_argument("--port", type=int, default=0, help="default: a free one")
    view.add_argument("--no-browser", action="store_true", help="only say the address")

    predict = command("predict", _predict, "segment images with the network of a finished run")
    predict.add_argument("run", type=Path, metavar="RUN", help="a run's folder: STUDY/runs/LOSS/fold-K/seed-S")
    predict.add_argument("images", nargs="+", metavar="IMAGE", help="NIfTI file; the channels of a case by commas")
    predict.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="gets one mask per image")
    predict.add_argument("--device", help="default: the study's")

    losses = command("losses", _losses, "list the losses, or explain one: equation, conventions, parameters")
    losses.add_argument("name", nargs="?", metavar="NAME")
    losses.add_argument("--write", type=Path, metavar="FOLDER", help="write the cards of all losses there, as Markdown")

    _import_parsers(command("import", _import, "read results of trainings elsewhere as a study, for `voxloss report`"))

    command("nnunet-trainers", _nnunet_trainers, "print the folder that nnU-Net's variable nnUNet_extTrainer must name")

    check = command("check", _check, "say what is wrong with a data set, and how rare its structures are")
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


def _import(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from voxloss.console import preparation_bar
    from voxloss.imports import import_nnunet, import_table

    console = Console()
    if arguments.source == "csv":
        made = import_table(arguments.table, arguments.study, arguments.columns, arguments.primary_class)
    else:
        folds = None if arguments.folds is None else _numbers("--folds", arguments.folds)
        with preparation_bar(console) as bar:
            made = import_nnunet(
                arguments.folders,
                arguments.study,
                folds=folds,
                labels=arguments.labels,
                images=arguments.images,
                tolerance_mm=arguments.tolerance_mm,
                progress=bar,
            )
    console.print(f"{arguments.study}: {made}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"The report: voxloss report {arguments.study}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from voxloss.config_files import load_config
    from voxloss.data.phantom import write_phantom

    config = load_config("demo", ["--data.root", str(arguments.study / "phantom")])
    _refuse_foreign_folder(arguments.study)
    write_phantom(arguments.study / "phantom", cases=12, seed=0, setting="small")
    return _execute(config, arguments.study, None)


def _refuse_foreign_folder(study: Path) -> None:
    """Before the phantom is written into it: a folder that is neither a study nor empty is somebody's."""
    own = ("study.yaml", "phantom", "prepared")
    if study.is_dir() and any(study.iterdir()) and not any((study / name).exists() for name in own):
        raise InputError(f"{study} is not empty and not a study; name another folder with --study.")


def _study(arguments: argparse.Namespace, overrides: list[str]) -> int:
    config = _load(arguments, overrides)
    folds = _numbers("--folds", arguments.folds) if arguments.folds is not None else None
    return _execute(config, arguments.study or Path("studies") / config.name, folds)


def _plan(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from rich.console import Console

    from voxloss.config_checks import warnings_about
    from voxloss.console import plan_table
    from voxloss.plan import plan

    console = Console()
    with console.status("reading the headers") as status:
        made = plan(_load(arguments, overrides), status.update)
    console.print(plan_table(made))
    for warning in warnings_about(made.survey.config):
        console.print(f"[yellow]note[/]: {warning}", highlight=False)
    if made.advice is not None:
        console.print(f"[red]not enough memory[/]: {made.advice}", highlight=False)
        return 1
    return 0


def _load(arguments: argparse.Namespace, overrides: list[str]) -> "StudyConfig":
    import json

    from voxloss.config_files import load_config

    extra = list(overrides)
    if arguments.data is not None:
        extra += ["--data.root", str(arguments.data)]
    if arguments.losses is not None:
        names = [name.strip() for name in arguments.losses.split(",")]
        extra += ["--comparison.losses", json.dumps(names)]
    if arguments.seeds is not None:
        extra += ["--comparison.seeds", json.dumps(_numbers("--seeds", arguments.seeds))]
    return load_config(arguments.config, extra)


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} takes whole numbers separated by commas; received {text!r}.") from None


def _execute(config: "StudyConfig", folder: Path, folds: list[int] | None) -> int:
    from rich.console import Console

    from voxloss.config import loss_choices
    from voxloss.config_checks import warnings_about
    from voxloss.console import preparation_bar, run_display
    from voxloss.experiment import open_study
    from voxloss.runs import merge_study_scores
    from voxloss.study import FINISHED

    for fold in folds or ():
        if fold not in range(config.splits.folds):
            raise InputError(f"--folds: there is no fold {fold}; the study has folds 0 to {config.splits.folds - 1}.")
    console = Console()
    with ExitStack() as held:
        with preparation_bar(console) as bar:
            study = held.enter_context(open_study(config, folder, bar))
        for case_id, reason in study.dataset.dropped:
            console.print(f"left out: {case_id}: {reason}", markup=False, highlight=False)
        for warning in warnings_about(study.config):
            console.print(f"[yellow]note[/]: {warning}", highlight=False)
        keys = [choice.key for choice in loss_choices(config)]
        runs = [
            run
            for run in study.runs()
            if run.loss.key in keys and run.seed in config.comparison.seeds and (folds is None or run.fold in folds)
        ]
        waiting = [run for run in runs if study.status(run)["state"] not in FINISHED]
        if waiting:
            from voxloss.executors import execute_locally

            count = f"{len(study.dataset.cases)} cases, {len(keys)} losses"
            console.print(f"{folder}: {count}, {len(waiting)} of {len(runs)} runs to do", highlight=False)
            with run_display(study, waiting, console) as display:
                execute_locally(study, waiting, display.changed, display.poll, display.stopping)
        merge_study_scores(study)
    _show_report(folder, console)
    failed = [run for run in runs if study.status(run)["state"] == "failed"]
    if failed:
        reason = study.status(failed[0])["reason"]
        return _fail(
            f"{len(failed)} runs failed; the first ({failed[0]}): {reason}. The same command tries them again."
        )
    return 0


def _show_report(study: Path, console: "Console", viewer_cases: int | None = None) -> None:
    from voxloss.report import VIEWER_CASES, build_report, print_tables

    page = build_report(study, VIEWER_CASES if viewer_cases is None else viewer_cases)
    print_tables(study, console)
    print(f"\nThe report: {page}")


def _config(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from voxloss.config_files import load_config, preset_names
    from voxloss.origins import annotated_yaml

    if arguments.config is None:
        if overrides:
            raise InputError(f"voxloss config takes a preset or a file first; received {' '.join(overrides)}.")
        print("\n".join(preset_names()))
        return 0
    config = load_config(arguments.config, overrides)
    print(annotated_yaml(config, arguments.config, overrides), end="")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from voxloss.status import progress, status_view, watch
    from voxloss.study import Study

    study, console = Study.open(arguments.study), Console()
    if console.is_terminal and not arguments.once and study.is_locked():
        watch(lambda: Study.open(arguments.study), console)
    else:
        console.print(status_view(study, progress(study)))
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from voxloss.study import Study, is_imported

    if arguments.viewer_cases is not None and arguments.viewer_cases < 0:
        raise InputError(f"--viewer-cases is a number of cases; received {arguments.viewer_cases}.")
    if not is_imported(arguments.study):  # whose scores are not those of runs
        from voxloss.runs import merge_study_scores

        merge_study_scores(Study.open(arguments.study))
    _show_report(arguments.study, Console(), arguments.viewer_cases)
    return 0


def _view(arguments: argparse.Namespace) -> int:
    import threading
    import webbrowser

    from voxloss.report import build_report
    from voxloss.report.server import report_server

    if not (arguments.study / "report" / "index.html").is_file():
        build_report(arguments.study)
    with report_server(arguments.study, arguments.port) as server:
        print(f"{server.address}  (Ctrl-C ends it)", flush=True)
        if not arguments.no_browser:  # beside the server, which a browser in this terminal would keep waiting
            threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    from voxloss.apply import segment_files

    cases = [[Path(part) for part in image.split(",")] for image in arguments.images]
    for path in segment_files(arguments.run, cases, arguments.output, arguments.device):
        print(path)
    return 0


def _losses(arguments: argparse.Namespace) -> int:
    import voxloss
    from voxloss.losses.card import describe, write_cards

    if arguments.write is not None:
        write_cards(arguments.write)
        return 0
    if arguments.name is None:
        print("\n".join(voxloss.list_losses()))
        return 0
    try:
        print(describe(arguments.name))
    except ValueError as error:
        raise InputError(str(error)) from error
    return 0


def _nnunet_trainers(arguments: argparse.Namespace) -> int:
    from voxloss.nnunet.names import trainers_folder

    print(trainers_folder())
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from voxloss.config_files import load_config
    from voxloss.console import preparation_bar
    from voxloss.data.doctor import format_report
    from voxloss.experiment import check_data

    if arguments.config is not None and arguments.layout is not None:
        raise InputError("--layout is in the configuration; give one of --config and --layout.")
    config = None if arguments.config is None else load_config(arguments.config)
    with preparation_bar(Console(stderr=True)) as bar:
        report = check_data(arguments.data, config, arguments.layout or "auto", arguments.patients, bar)
    print(format_report(report))
    if arguments.output is not None:
        from voxloss.report.check_page import write_check

        print(f"The page: {write_check(report, arguments.output)}")
    return 0 if report.ok else 1
