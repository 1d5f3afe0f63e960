"""`voxloss quick`: a look at a data set in minutes, which is no evidence, and what an answer would cost."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from voxloss.commands.run import run_study
from voxloss.commands.shared import Parsers, add_command, add_overriding_options, existing_path, option_overrides
from voxloss.utilities.errors import InputError

if TYPE_CHECKING:
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

    from voxloss.commands.display.preparation import working
    from voxloss.commands.display.prices import gpu_sentence, price_table
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
        config = load_config("quick", ["--name", name, *words])
        with working(console, "reading the headers"):
            config = quick_look(config)
    console.print("[bold]A quick look, not evidence: few cases, few training steps, one seed.[/]", highlight=False)
    status = run_study(config, folder)
    if status == 0:
        with working(console, "measuring what an answer would cost"):
            offers = _answers(arguments.data, arguments.overrides)
        console.print("\n[bold]This was a quick look: do not choose a loss by it.[/]", highlight=False)
        console.print(price_table([offer for offer in offers if offer.name != "look"]), soft_wrap=True)
        if (sentence := gpu_sentence(offers)) is not None:
            console.print(sentence, highlight=False, soft_wrap=True)
    return status


def _answers(data: Path, overrides: Sequence[str] = ()) -> "list[Price]":
    """Return what studies of the data by the preset `folder` would cost, with as many folds as the cases allow.

    Of the look's options those hold for them that say how the data are read.
    """
    from voxloss.config.files import load_config  # as above
    from voxloss.study.plan import plan
    from voxloss.study.prices import prices
    from voxloss.study.settle import configured_dataset

    words = ["--data.root", str(data), *_about_data(overrides)]
    dataset = configured_dataset(config := load_config("folder", words))
    own = dataset.own_folds is not None and config.splits.from_data
    if len(dataset.cases) < config.splits.folds and not own:
        words += ["--splits.folds", str(len(dataset.cases))]
        config = load_config("folder", words)
    return prices(plan(config), ["folder", "--data", *words[1:]])


def _about_data(overrides: Sequence[str]) -> list[str]:
    kept: list[str] = []
    keep = False
    for word in overrides:
        if word.startswith("--"):
            keep = word.startswith(("--data.", "--splits.patients"))
        if keep:
            kept.append(word)
    return kept
