"""Reading configurations: a preset or a YAML file over the defaults, and command-line values over both."""

import dataclasses
import json
import re
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import yaml
from yaml.composer import ComposerError

from voxloss.config.schema import StudyConfig
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import did_you_mean, one_of, shell_word


class _Loader(yaml.SafeLoader):
    """YAML whose scalars are those of the command line: 1e-3 is a number, and 2020-01-01 is text.

    A key that is given twice is an error: otherwise the second value would count, and nobody would notice.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Read a mapping, before what `<<` names is merged into it."""
        node = super().compose_mapping_node(anchor)
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for number, key in enumerate(keys):
            if any((key.tag, key.value) == (other.tag, other.value) for other in keys[:number]):
                raise ComposerError(None, None, f"the key {key.value!r} is given twice", key.start_mark)
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def preset_names() -> list[str]:
    """The presets shipped with the package."""
    folder = resources.files("voxloss.config") / "presets"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def load_config(
    source: str | Path | None, overrides: list[str] | None = None, recorded: Mapping[str, Any] | None = None
) -> StudyConfig:
    """Read a preset or a YAML file over the defaults, and `--section.key value` arguments over both.

    Args:
        source: Name of a preset or path of a YAML file; None: the defaults alone.
        overrides: Command-line arguments.
        recorded: The configuration of an existing study, whose values are its defaults.

    Raises:
        InputError: No such preset or file, not YAML, an unknown key or a value of the wrong type; the message names it.
    """
    content = {} if source is None else read_config(source)
    if recorded is not None:
        content = {
            name: {**values, **content.get(name, {})} if isinstance(values, dict) else content.get(name, values)
            for name, values in recorded.items()
        } | {name: values for name, values in content.items() if name not in recorded}
    return config_from(content, overrides, where=f"{source}: " if source is not None else "")


def config_from(content: Mapping[str, Any], overrides: list[str] | None = None, where: str = "") -> StudyConfig:
    """A configuration from the mappings, lists and scalars that YAML gives, over the defaults.

    Args:
        content: Sections and their keys, as `to_plain` returns them.
        overrides: Command-line arguments, over `content`.
        where: Put before messages about keys and types.

    Raises:
        InputError: An unknown key, or a value of the wrong type or one that makes no sense.
    """
    # jsonargparse takes a fifth of a second to import, which commands that read no configuration need not wait for.
    from jsonargparse import ArgumentParser

    _require_mappings(content, StudyConfig, where)
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_class_arguments(StudyConfig, None)
    try:
        namespace = parser.parse_object(dict(content))
        values = parser.instantiate(parser.parse_args(_with_lists(overrides or []), namespace=namespace))
    except ArgumentError as error:
        raise InputError(where + _one_sentence(str(error))) from error
    return StudyConfig(**{item.name: getattr(values, item.name) for item in dataclasses.fields(StudyConfig)})


def _with_lists(overrides: Sequence[str]) -> list[str]:
    """Write `a,b` and `a` as `["a", "b"]` and `["a"]` where a key takes a list of texts."""
    words: list[str] = []
    key = ""
    for word in overrides:
        option, given, value = word.partition("=") if word.startswith("--") else (key, "", word)
        kind = _type_of(option.removeprefix("--"))
        parts = get_args(kind)
        texts = get_origin(kind) is tuple and str in (parts[0], *get_args(parts[0]))
        if texts and value and _PLAIN_LIST.fullmatch(value):
            listed = json.dumps([part.strip() for part in value.split(",")])
            word = f"{option}={listed}" if given else listed
        words.append(word)
        key = word if word.startswith("--") and not given else ""
    return words


_PLAIN_LIST = re.compile(r"\w[\w.+-]*(, *\w[\w.+-]*)*")  # without spaces, as a line of a shell is one text


def read_config(source: str | Path) -> dict[str, Any]:
    """The content of a preset or configuration file. Raises InputError when there is none or it is not a mapping."""
    path = config_path(source)
    if path.suffix.lower() == ".csv":
        raise InputError(
            f"{source} is a table, so it is no configuration; if it lists your images, name it with --data: "
            f"folder --data {shell_word(source)}."
        )
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not readable as YAML: {' '.join(str(error).split())}.") from error
    if path.name == "study.yaml" and isinstance(content, dict) and {"format", "config"} & set(content):
        content = content.get("config")  # a study's own description has it beside versions and machine
        _open_limits_of_slices(content)
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a configuration: it holds no `section: {{key: value}}` mapping.")
    _require_mappings(content, StudyConfig, f"{path}: ")
    return content


def _open_limits_of_slices(config: Any) -> None:
    """Leave size limits open where a version for which every image was a volume of one slice settled them in ml.

    It knew no limits in mm², in which they are chosen from the data again if the cases are images.
    """
    try:
        rules, size = config["evaluation"]["lesions"], config["patches"]["size"]
        if "size_limits_mm2" not in rules and isinstance(rules["size_limits_ml"], dict) and 1 in size:
            rules["size_limits_ml"] = None
    except (KeyError, TypeError):  # other keys, or no mappings, which is told where they are read
        return


def _require_mappings(content: Mapping[str, Any], kind: type, where: str, prefix: str = "") -> None:
    """Raises InputError when a section, or a part of a section, is not a mapping."""
    for name, part in get_type_hints(kind).items():
        if not dataclasses.is_dataclass(part):  # a single value
            continue
        section = content.get(name, {})
        if not isinstance(section, dict):
            raise InputError(f"{where}{prefix}{name} must be a mapping of its keys; received {section!r}.")
        _require_mappings(section, cast(type, part), where, f"{prefix}{name}.")


def parse_yaml(text: str, where: str) -> Any:
    """The content of a text in YAML; InputError says where it is from."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{where} is not readable as YAML: {' '.join(str(error).split())}.") from error


def study_folder(source: str | Path) -> Path | None:
    """Return the folder of the study that `source` names, by its folder or its study.yaml; None if it names none."""
    path = Path(source)
    folder = path.parent if path.name == "study.yaml" else path
    is_study = str(source) not in preset_names() and (folder / "study.yaml").is_file() and (folder / "runs").is_dir()
    return folder if is_study else None


def config_path(source: str | Path) -> Path:
    """The file of a preset, configuration or study. Raises InputError when there is none."""
    if str(source) in preset_names():
        return Path(str(resources.files("voxloss.config") / "presets" / f"{source}.yaml"))
    folder = study_folder(source)
    path = Path(source) if folder is None else folder / "study.yaml"
    if not path.is_file():
        presets = preset_names()
        if path.is_dir():
            raise InputError(
                f"{source} is a folder without a study, so it is no configuration; if it holds your images, name it "
                f"with --data, as in `voxloss run folder --data {shell_word(source)}`."
            )
        raise InputError(
            f"{str(source)!r} is neither a file, a study nor a preset; the presets are {', '.join(presets)}"
            f"{did_you_mean(str(source), presets) or '.'}"
        )
    return path


def _one_sentence(message: str) -> str:
    """Jsonargparse's explanation of several lines as one sentence: the key, what it takes and the value received."""
    text = " ".join(message.split()).rstrip(".")
    for pattern in (r"Group '([^']+)' does not accept option '([^']+)'", r"Option '()([^']+)' is not accepted",
                    r"unrecognized arguments: --()([\w.]+)"):  # fmt: skip
        if (unknown := re.match(pattern, text)) and (said := _unknown_key(f"{unknown[1]}.{unknown[2]}".strip("."))):
            return said
    key = re.match(r'Parser key "([^"]+)": ', text)
    value = re.search(r".*Given value: (.*)", text) or re.search(r"Got value: (.*)", text)  # of a union the whole
    kind = _type_of(key[1]) if key else None
    if key is None or value is None or kind is None:
        return re.sub(r'^Parser key "([^"]+)": ', r"\1: ", text) + "."
    received = value[1].rstrip(".")
    words = [part for choice in (kind, *get_args(kind)) if get_origin(choice) is Literal for part in get_args(choice)]
    return f"{key[1]} takes {in_words(kind)}; received {received}{did_you_mean(received, map(str, words)) or '.'}"


def _unknown_key(key: str) -> str | None:
    """Say where a dotted key goes wrong, which keys there are, and which was probably meant; None where it does not."""
    section, kind = "", StudyConfig
    for name in key.split("."):
        if not dataclasses.is_dataclass(kind):
            return None
        keys = [item.name for item in dataclasses.fields(kind)]
        if name not in keys:
            what = f"{section} has no key {name!r}; its keys are" if section else f"there is no section {name!r}, but"
            return f"{what} {', '.join(keys)}{did_you_mean(name, keys) or '.'}"
        section, kind = f"{section}.{name}".strip("."), get_type_hints(kind)[name]
    return None


def _type_of(key: str) -> Any:
    """The type of the value at a dotted key; None where there is no such key."""
    kind: Any = StudyConfig
    for name in key.split("."):
        if not dataclasses.is_dataclass(kind):
            return None
        kind = get_type_hints(kind).get(name)
    return kind


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}


def in_words(kind: Any) -> str:
    """A type as a reader of YAML would say it: "a list of 3 whole numbers or null"."""
    if kind in _WORDS:
        return _WORDS[kind]
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return one_of(parts)
    if origin in (Union, UnionType):
        return one_of(map(in_words, parts))
    if origin is tuple:
        number = "" if parts[-1] is Ellipsis else f"{len(parts)} "
        plural = {int: "whole numbers", float: "numbers", str: "texts"}.get(parts[0], "texts or mappings")
        return f"a list of {number}{plural}"
    return "a mapping" if origin is dict else "another value"


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

    return {item.name: plain(getattr(config, item.name)) for item in dataclasses.fields(config)}
