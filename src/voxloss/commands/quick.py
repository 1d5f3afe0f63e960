"""`voxloss quick`: a look at a data set in minutes, which is no evidence, and what an answer would cost."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from voxloss.commands.run import run_study
from voxloss.commands.shared import Parsers, add_command, add_overriding_options, existing_path, option_overrides
from voxloss.utilities.errors import InputError

if TYPE_CHECKING:
    from voxloss.config.schema import DataConfig
    from voxloss.study.prices import Price


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss quick`."""
    summary = "take a quick look at your data: three losses in minutes on two cores, not evidence"
    parser = add_command(parsers, "quick", quick, summary, overrides=True, resumable=True)
    parser.add_argument("data", type=existing_path, metavar="DATA", help="folder of the data")
    add_overriding_options(parser)
    parser.add_argument("--study", type=Path, help="folder of the study (default: studies/quick-NAME of the data)")


def quick(arguments: argparse.Namespace) -> int:
    """Run `voxloss quick` and return its exit status."""
    # jsonargparse, NumPy, torch, rich
    from rich.console import Console

    from voxloss.commands.display.prices import price_table
    from voxloss.config.files import load_config
    from voxloss.study.folder import StudyFolder
    from voxloss.study.quick import quick_look

    console = Console()
    name = f"quick-{arguments.data.resolve().name}"
    folder: Path = arguments.study or Path("studies") / name
    words = option_overrides(arguments)
    if StudyFolder(folder).is_study():  # a look that goes on keeps its cases
        config = load_config(folder, words)
        if not config.comparison.look:
            raise InputError(f"{folder} holds a study that is no quick look; name another folder with --study.")
    else:
        config = quick_look(load_config("quick", ["--name", name, *words]))
    console.print("[bold]A quick look, not evidence: few cases, few training steps, one seed.[/]", highlight=False)
    status = run_study(config, folder)
    if status == 0:
        with console.status("measuring what an answer would cost"):
            offers = _answers(arguments.data, config.data)
        console.print("\n[bold]This was a quick look: do not choose a loss by it.[/]", highlight=False)
        console.print(price_table([offer for offer in offers if offer.name != "look"]), soft_wrap=True)
    return status


def _answers(data: Path, settings: "DataConfig") -> "list[Price]":
    """Return what studies of the data by the preset `folder` would cost, with as many folds as the cases allow.

    Args:
        data: The data set.
        settings: Those of the look, whose layout and options the studies share.
    """
    from voxloss.config.files import load_config  # as above
    from voxloss.study.plan import plan
    from voxloss.study.prices import prices
    from voxloss.study.settle import configured_dataset

    shared = ["--data.layout", settings.layout] if settings.layout != "auto" else []
    if settings.options:
        shared += ["--data.options", json.dumps(settings.options)]
    config = load_config("folder", ["--data.root", str(data), *shared])
    words, cases = ["folder", "--data", str(data), *shared], len(configured_dataset(config).cases)
    if cases < config.splits.folds:
        fewer = ["--splits.folds", str(cases)]
        words, config = [*words, *fewer], load_config("folder", ["--data.root", str(data), *shared, *fewer])
    return prices(plan(config), words)
