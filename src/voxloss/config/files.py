"""Reading configurations: a preset or a user's YAML file over the defaults, and command-line values over both."""

import dataclasses
import re
from argparse import ArgumentError
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from voxloss.config.schema import StudyConfig
from voxloss.utilities.errors import InputError


def preset_names() -> list[str]:
    """The presets shipped with the package."""
    folder = resources.files("voxloss.config") / "presets"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def load_config(source: str | Path | None, overrides: list[str] | None = None) -> StudyConfig:
    """Read a preset or a YAML file over the defaults, and `--section.key value` arguments over both.

    Raises:
        InputError: no such preset or file, not YAML, an unknown key or a value of the wrong type; the message names it.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(StudyConfig, None)
    arguments = list(overrides or [])
    if source is not None:
        arguments = ["--config", str(config_path(source)), *arguments]
    try:
        values = parser.instantiate(parser.parse_args(arguments))
    except ArgumentError as error:
        where = f"{source}: " if source is not None else ""
        raise InputError(where + _one_sentence(str(error))) from error
    return StudyConfig(**{item.name: getattr(values, item.name) for item in dataclasses.fields(StudyConfig)})


def config_path(source: str | Path) -> Path:
    """The file of a preset or configuration. Raises InputError when there is none or it is not a YAML mapping."""
    if str(source) in preset_names():
        return Path(str(resources.files("voxloss.config") / "presets" / f"{source}.yaml"))
    path = Path(source)
    if not path.is_file():
        raise InputError(
            f"{str(source)!r} is neither a file nor a preset; the presets are {', '.join(preset_names())}."
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not readable as YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a configuration: it holds no `section: {{key: value}}` mapping.")
    for item in dataclasses.fields(StudyConfig):
        section = content.get(item.name, {})
        if item.default is dataclasses.MISSING and not isinstance(section, dict):  # the others are single values
            raise InputError(f"{path}: {item.name} must be a mapping of its keys; received {section!r}.")
    return path


def _one_sentence(message: str) -> str:
    """jsonargparse's explanation of several lines, shortened to the key, what was expected and what was received."""
    text = " ".join(message.split()).replace("typing.", "").rstrip(".")
    text = re.sub(r"<class '([\w.]+)'>", r"\1", text)
    key = re.match(r'Parser key "([^"]+)": (.*)', text)
    if key is None:
        return text + "."
    reason = key[2]
    union = re.search(r"Subtypes: \[(.*)\] Errors: .* Given value: (.*)", reason)
    if union:
        kinds = union[1].replace("NoneType", "null")
        reason = f"Expected one of {kinds}. Got value: {union[2]}"
    return f"{key[1]}: {reason[0].lower()}{reason[1:].replace('. Got value:', '; received')}."


def to_plain(config: StudyConfig) -> dict[str, Any]:
    """The configuration as plain mappings, lists and scalars, for YAML."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value

    return plain(config)
