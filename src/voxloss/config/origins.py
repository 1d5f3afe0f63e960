"""Where each value of a configuration comes from, printed beside it."""

import dataclasses
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from voxloss.config.files import config_path, preset_names, to_plain
from voxloss.config.keys import keys
from voxloss.config.losses import loss_choices
from voxloss.config.schema import StudyConfig

COLUMN = 44  # of the origins
WIDTH = 120
DEFAULT = "ours: the default"


def annotated_yaml(config: StudyConfig, source: str | Path, overrides: Sequence[str] = ()) -> str:
    """The configuration as YAML, with the meaning of every key above it and the origin of its value beside it.

    An origin is what the preset or file says in a comment on the value's line, or on its section's; else the file's
    name; "given" for `--section.key value` of `overrides`; and "ours: the default" for what
    neither says. In the presets of the
    paper's protocol every comment begins with "paper", "MIScnn" (its framework) or "ours".
    """
    path = config_path(source)
    written = _comments(path.read_text(encoding="utf-8"))
    otherwise = f"preset {source}" if str(source) in preset_names() else path.name
    overridden = {match[1] for text in overrides if (match := re.match(r"--([\w.]+)", text))}
    meanings = {key.name: key.meaning for key in keys()}
    lines: list[str] = []

    def add(values: dict[str, Any], typed: Any, above: tuple[str, ...]) -> None:
        for name, value in values.items():
            names = (*above, name)
            key, part = ".".join(names), getattr(typed, name)
            indent = "  " * len(above)
            lines.extend(
                textwrap.wrap(meanings[key], WIDTH, initial_indent=f"{indent}## ", subsequent_indent=f"{indent}## ")
            )
            if dataclasses.is_dataclass(part):
                lines.append(f"{indent}{name}:")
                add(value, part, names)
                continue
            given = any(".".join(names[:length]) in overridden for length in range(1, len(names) + 1))
            origin = "given" if given else written.get(key, DEFAULT)
            flow = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000, sort_keys=False)
            text = f"{indent}{name}: {flow.splitlines()[0]}"  # of a scalar YAML's end of document comes after
            lines.append(f"{text:<{COLUMN}}  # {origin or otherwise}")
            if key == "comparison.losses":
                lines.extend(
                    f"    # {_signature(choice.name, choice.parameters)}"
                    for choice in loss_choices(config.comparison.losses)
                )

    add(to_plain(config), config, ())
    return "\n".join(lines) + "\n"


def _comments(text: str) -> dict[str, str]:
    """Key of every value in a YAML file -> the comment on its line, or else on that of what it is in, or ""."""
    lines = text.splitlines()
    found: dict[str, str] = {}

    def comment(node: yaml.Node) -> str:
        match = re.search(r"\s#\s*(.*)$", lines[node.start_mark.line])
        return match[1].strip() if match else ""

    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode), "load_config has read it"

    def add(mapping: yaml.MappingNode, above: str, otherwise: str) -> None:
        for key, content in mapping.value:
            found[above + key.value] = comment(key) or otherwise
            if isinstance(content, yaml.MappingNode):
                add(content, f"{above}{key.value}.", found[above + key.value])

    # A study's own description has the configuration beside versions and machine.
    config = next((part for key, part in root.value if key.value == "config"), root)
    assert isinstance(config, yaml.MappingNode), "load_config has read it"
    add(config, "", "")
    return found


def _signature(name: str, parameters: dict[str, Any]) -> str:
    """A loss with the values of its own parameters, such as focal(alpha=0.25, gamma=2.0)."""
    from voxloss.losses.catalogue import loss_class

    defaults = {key: argument.default for key, argument in loss_class(name).arguments.items() if not argument.shared}
    values = defaults | parameters
    return f"{name}({', '.join(f'{key}={value}' for key, value in values.items())})"
