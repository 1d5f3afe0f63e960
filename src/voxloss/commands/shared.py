"""What several commands need: a parser of their own, lists of numbers, the configuration and the report."""

import argparse
import dataclasses
import difflib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from voxloss.utilities.errors import InputError
from voxloss.utilities.text import did_you_mean, one_of, shell_word

if TYPE_CHECKING:
    from rich.console import Console

    from voxloss.config.schema import StudyConfig

OVERRIDES = """\
Any value of the configuration is an option, --SECTION.KEY VALUE, for example
  --training.epochs 50 --patches.size "[96,96,96]" --comparison.seeds "[0,1,2]"
`voxloss config CONFIG` prints all keys with the values that a study would have."""


def fail(message: str) -> int:
    """Print a mistake as one sentence and return the exit status 2."""
    sentence = " ".join(message.split()).rstrip(".")
    print(f"voxloss: {sentence}{'' if sentence.endswith('?') else '.'}", file=sys.stderr)
    return 2


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake as one sentence, as every other mistake is reported."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        """Print the mistake and exit with status 2."""
        sys.exit(fail(message if message.endswith("?") else f"{message}; see `{self.prog} --help`"))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Say in plain words what may be chosen; argparse lists all commands and no likely one."""
        if action.choices is None or value in action.choices:
            return
        suggestion = did_you_mean(str(value), map(str, action.choices))
        if not isinstance(action, argparse._SubParsersAction):
            raise argparse.ArgumentError(action, f"takes {one_of(action.choices)}; received {value!r}{suggestion}")
        if Path(value).exists() and action.dest == "command":
            self.error(f"{value!r} is not a command; did you mean `voxloss quick {shell_word(value)}`?")
        self.error(f"{value!r} is not a {str(action.metavar).lower()}{suggestion}")

    def refuse_unknown(self, words: Sequence[str]) -> None:
        """Exit with status 2 for the first word that this parser does not know and no key of the configuration is.

        Args:
            words: What `parse_known_args` left: for a command with overrides, --SECTION.KEY and its value.
        """
        from voxloss.config.schema import StudyConfig  # not for `--help`

        sections = (
            [item.name for item in dataclasses.fields(StudyConfig)] if self.get_default("takes_overrides") else []
        )
        after_key = False  # the word is the value of the key before it
        for word in words:
            key, given, _ = word.removeprefix("--").partition("=")
            if word.startswith("--") and key == "data":  # of commands whose positional argument is the data
                self.error(f"the data are named without --data: `{self.prog} DATA`")
            if word.startswith("--") and key.partition(".")[0] in sections:
                after_key = not given
            elif word.startswith("--") or not after_key:
                self.error(f"unknown argument {word}{self._meant(word, sections)}")
            else:
                after_key = False

    def _meant(self, word: str, sections: Sequence[str]) -> str:
        options = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        if not word.startswith("--"):
            return f"; did you mean `--data {shell_word(word)}`?" if "--data" in options and Path(word).is_dir() else ""
        section, dot, key = word.removeprefix("--").partition(".")
        if dot:
            near = difflib.get_close_matches(section, sections, 1)
            return f"; did you mean '--{near[0]}.{key}'?" if near else ""
        keys = {name: f"--{name}" for name in self._keys(sections)}
        return did_you_mean(section, [name.removeprefix("--") for name in options], "--") or next(
            (f"; did you mean '{full}'?" for name, full in keys.items() if name.endswith(f".{section}")), ""
        )

    def _keys(self, sections: Sequence[str]) -> list[str]:
        from voxloss.config.schema import StudyConfig  # as above

        kinds = {item.name: item.type for item in dataclasses.fields(StudyConfig) if item.name in sections}
        return [
            f"{name}.{item.name}"
            for name, kind in kinds.items()
            if dataclasses.is_dataclass(kind)
            for item in dataclasses.fields(kind)
        ]


Parsers: TypeAlias = "argparse._SubParsersAction[Parser]"


def add_command(
    parsers: Parsers,
    name: str,
    action: Callable[[argparse.Namespace], int],
    summary: str,
    *,
    overrides: bool = False,
    resumable: bool = False,
) -> Parser:
    """Add the parser of a command.

    Args:
        parsers: Where it is added.
        name: What users type.
        action: Receives the parsed arguments and returns the exit status.
        summary: One line of `voxloss --help`, and the description of the command's own help.
        overrides: `action` finds the arguments that the parser does not know in `arguments.overrides`.
        resumable: The same command resumes the work when it was interrupted.
    """
    epilog = [OVERRIDES] if overrides else []
    if resumable:
        epilog.append("You can stop the command at any moment with Ctrl-C. Run the same command to resume.")
    parser = parsers.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog="\n".join(epilog) or None
    )
    parser.set_defaults(parser=parser, action=action, takes_overrides=overrides, resumable=resumable)
    return parser


def add_study_options(parser: Parser) -> None:
    """Add what `run` and `plan` take, which `study_config` reads."""
    parser.add_argument(
        "config", metavar="CONFIG", help="a YAML file, a preset (`voxloss config` lists them), or a study"
    )
    parser.add_argument("--data", type=existing_path, help="folder of the data (data.root)")
    parser.add_argument("--networks", help="networks to compare, separated by commas (comparison.networks)")
    add_overriding_options(parser)


def add_overriding_options(parser: Parser) -> None:
    """Add short forms of keys of the configuration, which `option_overrides` reads."""
    parser.add_argument("--losses", help="losses to train, separated by commas (comparison.losses)")
    parser.add_argument("--seeds", help="seeds of weights and patches, separated by commas (comparison.seeds)")


def add_study_folder(parser: Parser) -> None:
    """Add the study's folder, which `study_and_config` reads."""
    parser.add_argument(
        "--study", type=Path, help="folder of the study (default: studies/NAME, or the study that CONFIG is)"
    )


def study_and_config(arguments: argparse.Namespace, *overrides: str) -> tuple[Path, "StudyConfig"]:
    """Return the folder of the study that the arguments describe, and its configuration.

    What neither CONFIG nor an option says has the value that the study was created with, if it exists, so that a
    study goes on as it is.

    Args:
        arguments: Of a command with `add_study_options` and `add_study_folder`.
        overrides: More of `arguments.overrides`.
    """
    from voxloss.config.files import load_config, study_folder  # jsonargparse
    from voxloss.study.folder import StudyFolder  # NumPy

    words = [*option_overrides(arguments), *overrides]
    config = load_config(arguments.config, words)
    folder: Path = arguments.study or study_folder(arguments.config) or Path("studies") / config.name
    if StudyFolder(folder).is_study():
        config = load_config(arguments.config, words, StudyFolder(folder).read_description().config)
        config = _with_known_networks(config, folder)
    return folder, config


def study_config(arguments: argparse.Namespace) -> "StudyConfig":
    """Load the configuration that the arguments of `plan` describe."""
    from voxloss.config.files import load_config, study_folder  # jsonargparse

    config = load_config(arguments.config, option_overrides(arguments))
    folder = study_folder(arguments.config)
    return config if folder is None else _with_known_networks(config, folder)


def _with_known_networks(config: "StudyConfig", folder: Path) -> "StudyConfig":
    """Put the entries of a study's networks in the place of their labels in `comparison.networks`.

    Raises:
        InputError: A name is neither a label nor that of a network that could be added.
    """
    from voxloss.config.networks import UNET
    from voxloss.study.study import Study  # NumPy

    if not config.comparison.networks:
        return config
    study = Study.open(folder)
    known = {one.key: entry for one, entry in zip(study.networks, study.comparison.networks, strict=True)}
    for name in config.comparison.networks:
        if not isinstance(name, str) or "." in name or name in (UNET, "unet3d"):
            continue  # a new network has a path, if it is not a U-Net
        if known and name not in known:
            raise InputError(
                f"comparison.networks: {folder} has no network {name!r}; it has {', '.join(known)}, and a new one is "
                f"{UNET} or an import path such as monai.networks.nets.SegResNet{did_you_mean(name, known) or '.'}"
            )
    networks = tuple(known.get(one, one) if isinstance(one, str) else one for one in config.comparison.networks)
    return dataclasses.replace(config, comparison=dataclasses.replace(config.comparison, networks=networks))


def option_overrides(arguments: argparse.Namespace) -> list[str]:
    """Return the options of `add_overriding_options`, and --data, as keys of the configuration."""
    overrides = list(arguments.overrides)
    if arguments.data is not None:
        overrides += ["--data.root", str(arguments.data)]
    if arguments.losses is not None:
        names = [name.strip() for name in arguments.losses.split(",")]
        overrides += ["--comparison.losses", json.dumps(names)]
    if getattr(arguments, "networks", None) is not None:  # a quick look has one
        names = [name.strip() for name in arguments.networks.split(",")]
        overrides += ["--comparison.networks", json.dumps(names)]
    if arguments.seeds is not None:
        overrides += ["--comparison.seeds", json.dumps(whole_numbers("--seeds", arguments.seeds))]
    return overrides


def whole_numbers(option: str, text: str) -> list[int]:
    """Read "0,1,2".

    Raises:
        InputError: Naming the option and the text.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} takes whole numbers separated by commas; received {text!r}.") from None


def existing_path(text: str) -> Path:
    """Read the value of an option that names a file or folder, and suggest one where it does not exist.

    Where none is close, the path is returned, and whoever reads it says what is missing.
    """
    path = Path(text)
    if path.exists() or not path.parent.is_dir():
        return path
    names = [entry.name for entry in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, names, 1)
    if near:
        raise argparse.ArgumentTypeError(f"{text} does not exist; did you mean {str(path.parent / near[0])!r}?")
    return path


def whole_number(text: str) -> int:
    """Read the value of an option that takes a whole number; argparse says which option it is of."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"takes a whole number; received {text!r}") from None


def show_report(
    study: Path, console: "Console", viewer_cases: int | None = None, losses: Sequence[str] | None = None
) -> None:
    """Build the study's report, of some of its losses or all, print its tables and where its page is."""
    from voxloss.commands.display.preparation import working  # rich
    from voxloss.report import VIEWER_CASES, build_report, print_tables  # pandas

    with working(console, "building the report"):
        page = build_report(study, VIEWER_CASES if viewer_cases is None else viewer_cases, losses)
    print_tables(study, console, losses)
    print(f"\nReport: {page}")
