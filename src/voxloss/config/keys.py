"""What each key of a configuration means: read from the docstrings of the schema's sections."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, get_type_hints

import yaml

from voxloss.config.files import in_words, to_plain
from voxloss.config.schema import StudyConfig


class Key(NamedTuple):
    """A section, or a value, of a configuration.

    Args:
        name: Dotted, such as training.epochs.
        meaning: What the docstring of its section says.
        kind: Its type.
    """

    name: str
    meaning: str
    kind: Any

    @property
    def is_section(self) -> bool:
        """Whether it has keys of its own."""
        return dataclasses.is_dataclass(self.kind)


def keys(kind: Any = StudyConfig, above: str = "") -> Iterator[Key]:
    """Yield all keys in order, a section before its keys."""
    hints, meanings = get_type_hints(kind), argument_texts(kind)
    for item in dataclasses.fields(kind):
        key = Key(f"{above}{item.name}", meanings[item.name], hints[item.name])
        yield key
        if key.is_section:
            yield from keys(key.kind, f"{key.name}.")


def argument_texts(kind: type) -> dict[str, str]:
    """Read the section `Args` of a docstring in Google style: the text of each argument as one line."""
    _, _, arguments = (inspect.getdoc(kind) or "").partition("Args:\n")
    texts: dict[str, str] = {}
    name = ""
    for line in arguments.splitlines():
        if entry := re.match(r"    (\w+): (.*)", line):
            name = entry[1]
            texts[name] = entry[2]
        elif line.strip():
            texts[name] += f" {line.strip()}"
    return texts


def keys_page() -> str:
    """Write all keys with meaning, values and default as a page in Markdown."""
    lines = [_HEAD, *_COLUMNS]
    defaults = to_plain(StudyConfig())
    for key in keys():
        value: Any = defaults
        for name in key.name.split("."):
            value = value[name]
        if key.is_section:
            lines += [
                "",
                f"## {key.name}",
                "",
                key.meaning,
                "",
                "| key | meaning | takes | default |",
                "|---|---|---|---|",
            ]
            continue
        default = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000).splitlines()[0]
        cells = (f"`{key.name}`", key.meaning, in_words(key.kind), f"`{default}`")
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


_COLUMNS = ("| key | meaning | takes | default |", "|---|---|---|---|")

_HEAD = """# Configuration

All keys of a study's configuration. A preset or a YAML file sets those that differ from the defaults, and an option
`--SECTION.KEY VALUE` of `voxloss run`, `race`, `plan`, `quick`, `check` and `config` sets one. `voxloss config CONFIG`
prints all values of a configuration with their meaning and origin. This page is written by `voxloss config --keys`.
"""
