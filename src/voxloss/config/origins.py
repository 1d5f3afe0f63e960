"""Where each value of a configuration comes from, printed beside it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from voxloss.config.files import config_path, preset_names, to_plain
from voxloss.config.losses import loss_choices
from voxloss.config.schema import StudyConfig

COLUMN = 44  # of the comments
DEFAULT = "ours: the default"


def annotated_yaml(config: StudyConfig, source: str | Path, overrides: Sequence[str] = ()) -> str:
    """The configuration as YAML, with the origin of every value as a comment.

    An origin is what the preset or file says in a comment on the value's line, or on its section's; else the file's
    name; "given" for `--section.key value` of `overrides`; and "ours: the default" for what
    neither says. In the presets of the
    paper's protocol every comment begins with "paper", "MIScnn" (its framework) or "ours".
    """
    path = config_path(source)
    written = _comments(path.read_text(encoding="utf-8"))
    otherwise = f"preset {source}" if str(source) in preset_names() else path.name
    overridden = {match[1] for text in overrides if (match := re.match(r"--([\w.]+)", text))}
    lines: list[str] = []
    for section, values in to_plain(config).items():
        if isinstance(values, dict):
            lines.append(f"{section}:")
            leaves = {f"{section}.{name}": (f"  {name}", value) for name, value in values.items()}
        else:
            leaves = {section: (section, values)}
        for key, (name, value) in leaves.items():
            origin = "given" if key in overridden or section in overridden else written.get(key, DEFAULT)
            flow = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000, sort_keys=False)
            text = f"{name}: {flow.splitlines()[0]}"  # of a scalar YAML's end of document comes after
            lines.append(f"{text:<{COLUMN}}  # {origin or otherwise}")
            if key == "comparison.losses":
                lines += [
                    f"    # {_signature(choice.name, choice.parameters)}"
                    for choice in loss_choices(config.comparison.losses)
                ]
    return "\n".join(lines) + "\n"


def _comments(text: str) -> dict[str, str]:
    """Key of every value in a YAML file -> the comment on its line, or else on its section's line, or ""."""
    lines = text.splitlines()
    found: dict[str, str] = {}

    def comment(node: yaml.Node) -> str:
        match = re.search(r"\s#\s*(.*)$", lines[node.start_mark.line])
        return match[1].strip() if match else ""

    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode), "load_config has read it"
    for section, content in root.value:
        if not isinstance(content, yaml.MappingNode):
            found[section.value] = comment(section)
            continue
        for key, _ in content.value:
            found[f"{section.value}.{key.value}"] = comment(key) or comment(section)
    return found


def _signature(name: str, parameters: dict[str, Any]) -> str:
    """A loss with the values of its own parameters, such as focal(alpha=0.25, gamma=2.0)."""
    from voxloss.losses.catalogue import loss_class

    defaults = {key: argument.default for key, argument in loss_class(name).arguments.items() if not argument.shared}
    values = defaults | parameters
    return f"{name}({', '.join(f'{key}={value}' for key, value in values.items())})"
