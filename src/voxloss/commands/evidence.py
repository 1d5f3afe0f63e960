"""`voxloss evidence`: studies in a form to share, and the report on all of them."""

import argparse
from pathlib import Path

from voxloss.commands.shared import Parsers, add_command, existing_path
from voxloss.evidence.kinds import KINDS
from voxloss.utilities.errors import InputError

FOLDER = Path("evidence/results")
PAGES = Path("evidence/report")


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss evidence`."""
    parser = add_command(parsers, "evidence", add, "export studies as evidence, and join them over data sets")
    actions = parser.add_subparsers(dest="evidence", metavar="TASK", required=True)

    text = "export a study's scores, settings and fingerprint, without images, as files to share"
    adding = actions.add_parser("add", help=text, description=f"{text[0].upper()}{text[1:]}.")
    adding.set_defaults(parser=adding, action=add)
    adding.add_argument("study", type=existing_path, metavar="STUDY", help="folder of the study")
    adding.add_argument(
        "--to",
        type=Path,
        default=FOLDER,
        metavar="FOLDER",
        help="folder of the exported studies (default: %(default)s)",
    )
    adding.add_argument("--name", help="of the export (default: the name of the study's folder)")
    adding.add_argument(
        "--kind",
        choices=KINDS,
        help="real: joined with other data sets; phantom: synthetic images; rarer: real images made rarer; variant: "
        "another protocol on the images of another study; protocol: too few cases for a claim (default: real, for "
        "synthetic images phantom, below 20 cases protocol)",
    )
    adding.add_argument("--data-set", metavar="NAME", help="the data set (default: as the study calls it)")
    adding.add_argument(
        "--series",
        action="append",
        default=[],
        metavar="NAME[=SHARE]",
        help="the dose-response series that the study is a step of, with how common the class is at this step "
        "(default: its share of the voxels); repeatable",
    )
    adding.add_argument(
        "--note", action="append", default=[], metavar="SENTENCE", help="a sentence for the study's page; repeatable"
    )
    adding.add_argument(
        "--data",
        type=existing_path,
        help="where the images are now, or the report of `voxloss check` (default: where the study had them)",
    )
    adding.add_argument("--network", help="where the study compares networks, the one whose scores are exported")
    adding.add_argument("--case-names", action="store_true", help="keep the names of cases, which else are numbered")
    adding.add_argument("--replace", action="store_true", help="replace the export of this name")

    text = "write the pages, tables and pictures of all exported studies"
    reporting = actions.add_parser("report", help=text, description=f"{text[0].upper()}{text[1:]}.")
    reporting.set_defaults(parser=reporting, action=report)
    reporting.add_argument(
        "folder", nargs="?", type=existing_path, default=FOLDER, metavar="FOLDER",
        help="folder of the exported studies (default: %(default)s)",
    )  # fmt: skip
    reporting.add_argument(
        "--output", type=Path, default=PAGES, metavar="FOLDER", help="folder of the pages (default: %(default)s)"
    )
    reporting.add_argument("--claims", type=Path, metavar="FILE", help="claims to judge, such as evidence/claims.yaml")
    reporting.add_argument(
        "--compare", action="append", default=[], metavar="FIRST,SECOND",
        help="two losses to compare beside those with the baseline; repeatable",
    )  # fmt: skip


def add(arguments: argparse.Namespace) -> int:
    """Run `voxloss evidence add` and return its exit status."""
    # pandas, rich
    from rich.console import Console

    from voxloss.commands.display.preparation import preparation_bar
    from voxloss.evidence.add import add_study
    from voxloss.utilities.text import count_of

    with preparation_bar(Console(stderr=True)) as bar:
        export = add_study(
            arguments.study,
            arguments.to,
            name=arguments.name,
            kind=arguments.kind,
            data_set=arguments.data_set,
            series=arguments.series,
            notes=arguments.note,
            data=arguments.data,
            case_names=arguments.case_names,
            replace_old=arguments.replace,
            network=arguments.network,
            progress=lambda finished, of: bar(finished, of, "reading"),
        )
    counts = (("loss", len(export.losses)), ("fold", export.count("fold")), ("seed", export.count("seed")))
    parts = ", ".join(count_of(number, noun) for noun, number in (*counts, ("case", export.count("case"))))
    print(f"{arguments.to / export.name}: {export.kind}, {parts}")
    if export.fingerprint is None:
        print("It has no fingerprint, as the images are not at hand: name them with --data to be used by advice.")
    return 0


def report(arguments: argparse.Namespace) -> int:
    """Run `voxloss evidence report` and return its exit status."""
    from voxloss.evidence.report import write_report  # pandas, Matplotlib

    pairs = [_pair(text) for text in arguments.compare]
    written = write_report(arguments.folder, arguments.output, arguments.claims, pairs)
    print(f"Page: {written[0]}")
    return 0


def _pair(text: str) -> tuple[str, str]:
    first, comma, second = (part.strip() for part in text.partition(","))
    if not comma or not first or not second or first == second or "," in second:
        raise InputError(f"--compare takes two losses, FIRST,SECOND; received {text!r}")
    return first, second
