"""Docstrings of losses: read from the class, completed with the shared parameters, written for class and function.

A loss's source docstring has its title, its equation (indented), and sections of which each entry is written once:
`Where` for symbols of its own, `Args` for its own parameters, `Example`. The base class has the sections that all
losses share.
"""

import re
import textwrap
from dataclasses import dataclass, field

_SECTIONS = ("Where", "Args", "Shape", "Raises", "Example")
_HEADING = re.compile(r"([A-Z]\w+):")
_ENTRY = re.compile(r"(\S[^:]*):(?: (.*))?")
_WIDTH = 116


@dataclass(frozen=True)
class Documentation:
    """The parts of a docstring. `text` is everything beside title, equation and sections."""

    title: str
    equation: str = ""
    text: str = ""
    where: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    shape: dict[str, str] = field(default_factory=dict)
    raises: dict[str, str] = field(default_factory=dict)
    example: str = ""


def read(docstring: str, title: str) -> Documentation:
    """Read the parts of a docstring without indentation; an empty one gets `title`.

    Any docstring can be read: sections of other names, such as `Returns`, become part of the text.
    """
    blocks: dict[str, list[str]] = {"": []}
    section = ""
    for line in docstring.splitlines():
        heading = _HEADING.fullmatch(line)
        section = heading[1] if heading else section
        if heading:
            blocks[section] = []
        else:
            blocks[section].append(line)
    first, *rest = blocks[""] or [""]
    equation = "\n".join(line[4:] for line in rest if line.startswith("    "))
    paragraphs = ["\n".join(line for line in rest if not line.startswith("    ")).strip()]
    others = [name for name in blocks if name and name not in _SECTIONS]
    paragraphs += ["\n".join([f"{name}:", *blocks[name]]).strip() for name in others]
    text = "\n\n".join(filter(None, paragraphs))
    return Documentation(
        first.rstrip(".") or title,
        equation,
        re.sub(r"\n{3,}", "\n\n", text),
        _entries(blocks.get("Where", [])),
        _entries(blocks.get("Args", [])),
        _entries(blocks.get("Shape", [])),
        _entries(blocks.get("Raises", [])),
        textwrap.dedent("\n".join(blocks.get("Example", []))).strip(),
    )


def _entries(lines: list[str]) -> dict[str, str]:
    """Read entries "name: text" at four spaces, with deeper continuation lines; ignore text before the first entry."""
    entries: dict[str, str] = {}
    name = ""
    for line in textwrap.dedent("\n".join(lines)).splitlines():
        entry = _ENTRY.fullmatch(line)
        if entry:
            name = entry[1]
            entries[name] = entry[2] or ""
        elif name and line.strip():
            entries[name] = f"{entries[name]} {line.strip()}".strip()
    return entries


def write(documentation: Documentation, reference: str) -> str:
    """Write a docstring: title, equation, symbols, arguments, shapes, errors, example, reference."""
    parts = [documentation.title + "."]
    if documentation.equation:
        parts.append(textwrap.indent(documentation.equation, "    "))
    if documentation.text:
        parts.append(documentation.text)
    sections = {
        "Where": (documentation.where, "- "),  # a list, which Markdown renders as one
        "Args": (documentation.arguments, ""),
        "Shape": (documentation.shape, "- "),
        "Raises": (documentation.raises, ""),
    }
    for heading, (entries, mark) in sections.items():
        if entries:
            lines = (_wrapped(f"{mark}{name}: {text}") for name, text in entries.items())
            parts.append("\n".join([f"{heading}:", *lines]))
    if documentation.example:
        parts.append("Example:\n" + textwrap.indent(documentation.example, "    "))
    if reference:
        parts.append("Reference:\n" + _wrapped(reference, "    "))
    return "\n\n".join(parts) + "\n"


def _wrapped(text: str, later: str = "        ") -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent="    ",
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )
