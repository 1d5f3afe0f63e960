"""`voxloss import`: results from other tools as a study that `voxloss report` reads."""

import argparse
from pathlib import Path

from voxloss.commands.shared import Parsers, add_command, whole_numbers
from voxloss.evaluation.lesion_rules import LesionRules
from voxloss.utilities.text import shell_word


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss import`."""
    summary = "import results from other tools as a study for `voxloss report`"
    parser = add_command(parsers, "import", import_results, summary)
    sources = parser.add_subparsers(dest="source", metavar="SOURCE", required=True)

    text = "read the validations that several nnU-Net trainers wrote for each fold"
    nnunet = sources.add_parser("nnunet", help=text, description=f"{text[0].upper()}{text[1:]}.")
    nnunet.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a trainer's folder, or a data set's")
    nnunet.add_argument("--folds", help="compare only these folds, numbers separated by commas")
    nnunet.add_argument("--labels", type=Path, metavar="FOLDER", help="references (default: where nnU-Net had them)")
    nnunet.add_argument("--images", type=Path, metavar="FOLDER", help="images (default: imagesTr in nnUNet_raw)")
    nnunet.add_argument(
        "--tolerance-mm",
        type=float,
        default=1.0,
        help="tolerance of the normalised surface Dice (default: %(default)s)",
    )

    nnunet.add_argument(
        "--lesions", metavar="MAPPING", help='keys of evaluation.lesions: "{match: one_to_one, threshold: 0.1}"'
    )

    text = "read a long table: one row per loss, case and metric"
    table = sources.add_parser("csv", help=text, description=f"{text[0].upper()}{text[1:]}.")
    table.add_argument("table", type=Path, metavar="TABLE", help="CSV file")
    table.add_argument(
        "--columns", metavar="OURS=THEIRS,...", help="the table's names for columns: loss=method,case=patient"
    )
    table.add_argument("--primary-class", metavar="CLASS", help="class of the headline (default: the last)")

    for source in (nnunet, table):
        source.set_defaults(parser=source)
        source.add_argument("--study", type=Path, required=True, metavar="STUDY", help="folder of the new study")


def import_results(arguments: argparse.Namespace) -> int:
    """Run `voxloss import` and return its exit status."""
    # pandas, rich
    from rich.console import Console

    from voxloss.commands.display.preparation import preparation_bar
    from voxloss.study.imported import import_nnunet, import_table

    console = Console()
    if arguments.source == "csv":
        imported = import_table(arguments.table, arguments.study, arguments.columns, arguments.primary_class)
    else:
        folds = None if arguments.folds is None else whole_numbers("--folds", arguments.folds)
        lesions = None if arguments.lesions is None else _lesion_rules(arguments.lesions)
        with preparation_bar(console) as bar:
            imported = import_nnunet(
                arguments.folders,
                arguments.study,
                folds=folds,
                labels=arguments.labels,
                images=arguments.images,
                tolerance_mm=arguments.tolerance_mm,
                lesions=lesions,
                progress=bar,
            )
    command = f"voxloss report {shell_word(arguments.study)}"
    for line in (f"{arguments.study}: {imported}", f"To build the report: {command}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


def _lesion_rules(text: str) -> LesionRules:
    """Read "{match: one_to_one}"."""
    from voxloss.config.files import config_from, parse_yaml  # jsonargparse

    content = {"evaluation": {"lesions": parse_yaml(text, "--lesions")}}
    return config_from(content, where="--lesions: ").evaluation.lesions
