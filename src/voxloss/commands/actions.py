"""What each command of the command line does. Nothing heavy is imported before a command needs it."""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from voxloss.utilities.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from voxloss.config.schema import StudyConfig


def fail(message: str) -> int:
    """Print a mistake as one sentence, and give the exit status 2."""
    print(f"voxloss: {' '.join(message.split()).rstrip('.')}.", file=sys.stderr)
    return 2


def import_results(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from voxloss.commands.display import preparation_bar
    from voxloss.study.imported import import_nnunet, import_table

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


def demo(arguments: argparse.Namespace) -> int:
    from voxloss.config.files import load_config
    from voxloss.data.phantom.write import write_phantom

    config = load_config("demo", ["--data.root", str(arguments.study / "phantom")])
    _refuse_foreign_folder(arguments.study)
    write_phantom(arguments.study / "phantom", cases=12, seed=0, setting="small")
    return _execute(config, arguments.study, None)


def _refuse_foreign_folder(study: Path) -> None:
    """Before the phantom is written into it: a folder that is neither a study nor empty is somebody's."""
    own = ("study.yaml", "phantom", "prepared")
    if study.is_dir() and any(study.iterdir()) and not any((study / name).exists() for name in own):
        raise InputError(f"{study} is not empty and not a study; name another folder with --study.")


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    config = _load(arguments, overrides)
    folds = _numbers("--folds", arguments.folds) if arguments.folds is not None else None
    return _execute(config, arguments.study or Path("studies") / config.name, folds)


def plan(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from rich.console import Console

    from voxloss.commands.display import plan_table
    from voxloss.study.plan import plan

    console = Console()
    with console.status("reading the headers") as status:
        made = plan(_load(arguments, overrides), status.update)
    console.print(plan_table(made))
    for warning in made.survey.config.warnings():
        console.print(f"[yellow]note[/]: {warning}", highlight=False)
    if made.advice is not None:
        console.print(f"[red]not enough memory[/]: {made.advice}", highlight=False)
        return 1
    return 0


def _load(arguments: argparse.Namespace, overrides: list[str]) -> "StudyConfig":
    import json

    from voxloss.config.files import load_config

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

    from voxloss.commands.display import preparation_bar, run_display
    from voxloss.config.losses import loss_choices
    from voxloss.study.create import open_study
    from voxloss.study.folder import FINISHED

    for fold in folds or ():
        if fold not in range(config.splits.folds):
            raise InputError(f"--folds: there is no fold {fold}; the study has folds 0 to {config.splits.folds - 1}.")
    console = Console()
    with ExitStack() as held:
        with preparation_bar(console) as bar:
            study = held.enter_context(open_study(config, folder, bar))
        for case_id, reason in study.dataset.dropped:
            console.print(f"left out: {case_id}: {reason}", markup=False, highlight=False)
        for warning in study.config.warnings():
            console.print(f"[yellow]note[/]: {warning}", highlight=False)
        keys = [choice.key for choice in loss_choices(config.comparison.losses)]
        runs = [
            run
            for run in study.runs()
            if run.loss.key in keys and run.seed in config.comparison.seeds and (folds is None or run.fold in folds)
        ]
        waiting = [run for run in runs if study.status(run).state not in FINISHED]
        if waiting:
            from voxloss.study.executors import execute_locally

            count = f"{len(study.dataset.cases)} cases, {len(keys)} losses"
            console.print(f"{folder}: {count}, {len(waiting)} of {len(runs)} runs to do", highlight=False)
            with run_display(study, waiting, console) as display:
                execute_locally(study, waiting, display.changed, display.poll, display.stopping)
        study.merge_scores()
    _show_report(folder, console)
    failed = [run for run in runs if study.status(run).state == "failed"]
    if failed:
        number = "1 run" if len(failed) == 1 else f"{len(failed)} runs"
        reason = (study.status(failed[0]).reason or "no reason is recorded").rstrip(".")
        return fail(f"{number} failed; the first ({failed[0]}): {reason}. Run the same command to try again.")
    return 0


def _show_report(study: Path, console: "Console", viewer_cases: int | None = None) -> None:
    from voxloss.report import VIEWER_CASES, build_report, print_tables

    page = build_report(study, VIEWER_CASES if viewer_cases is None else viewer_cases)
    print_tables(study, console)
    print(f"\nThe report: {page}")


def config(arguments: argparse.Namespace, overrides: list[str]) -> int:
    from voxloss.config.files import load_config, preset_names
    from voxloss.config.origins import annotated_yaml

    if arguments.config is None:
        if overrides:
            raise InputError(f"voxloss config takes a preset or a file first; received {' '.join(overrides)}.")
        print("\n".join(preset_names()))
        return 0
    config = load_config(arguments.config, overrides)
    print(annotated_yaml(config, arguments.config, overrides), end="")
    return 0


def status(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from voxloss.commands.display import status_view, watch
    from voxloss.study.progress import progress
    from voxloss.study.study import Study

    study, console = Study.open(arguments.study), Console()
    if console.is_terminal and not arguments.once and study.is_locked():
        watch(lambda: Study.open(arguments.study), console)
    else:
        console.print(status_view(study, progress(study)))
    return 0


def report(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from voxloss.study.study import Study

    if arguments.viewer_cases is not None and arguments.viewer_cases < 0:
        raise InputError(f"--viewer-cases is a number of cases; received {arguments.viewer_cases}.")
    Study.open(arguments.study).merge_scores()
    _show_report(arguments.study, Console(), arguments.viewer_cases)
    return 0


def view(arguments: argparse.Namespace) -> int:
    import threading
    import webbrowser

    from voxloss.report import build_report
    from voxloss.report.page.server import report_server

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


def predict(arguments: argparse.Namespace) -> int:
    from voxloss.study.predict import segment_files

    cases = [[Path(part) for part in image.split(",")] for image in arguments.images]
    for path in segment_files(arguments.run, cases, arguments.output, arguments.device):
        print(path)
    return 0


def losses(arguments: argparse.Namespace) -> int:
    import voxloss
    from voxloss.losses.cards.card import describe, write_cards

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


def nnunet_trainers(arguments: argparse.Namespace) -> int:
    from voxloss.nnunet.names import trainers_folder

    print(trainers_folder())
    return 0


def check(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from voxloss.commands.check import check_data
    from voxloss.commands.display import preparation_bar
    from voxloss.config.files import load_config
    from voxloss.data.check.check import format_report

    if arguments.config is not None and arguments.layout is not None:
        raise InputError("--layout is in the configuration; give one of --config and --layout.")
    config = None if arguments.config is None else load_config(arguments.config)
    with preparation_bar(Console(stderr=True)) as bar:
        report = check_data(arguments.data, config, arguments.layout or "auto", arguments.patients, bar)
    print(format_report(report))
    if arguments.output is not None:
        from voxloss.report.page.check import write_check

        print(f"The page: {write_check(report, arguments.output)}")
    return 0 if report.ok else 1
