"""Render tables for console, Markdown, LaTeX and HTML."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from markupsafe import Markup, escape
from rich import box
from rich.table import Table as ConsoleTable
from rich.text import Text

Shade = Literal["", "positive", "negative"]


@dataclass(frozen=True)
class Cell:
    """Text of one cell; `shade` is the sign of a statistic, `strong` that it is significant."""

    text: str
    bold: bool = False
    shade: Shade = ""
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table as text, in plain Unicode.

    groups: (heading, number of columns) over the columns after the first; empty for none. header: of every column,
    the first included. rows: cells, the first the row's name. caption: sentences under the title. notes: footnotes.
    """

    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    groups: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()


def distinguishing(rows: Sequence[tuple[Cell, ...]]) -> tuple[tuple[Cell, ...], ...]:
    """Return the rows, with no bold in a column whose cells are all bold, where it would distinguish nothing."""
    plain = {place for place, column in enumerate(zip(*rows, strict=True)) if all(cell.bold for cell in column)}
    return tuple(
        tuple(replace(cell, bold=cell.bold and place not in plain) for place, cell in enumerate(row)) for row in rows
    )


# Tints of Okabe and Ito's green and vermilion, which stay apart in every common kind of colour blindness.
LATEX_COLOURS = {
    ("positive", False): "DFF2EC",
    ("positive", True): "99D8C7",
    ("negative", False): "FBE7DA",
    ("negative", True): "EEBF99",
}
CONSOLE_COLOURS = {"": "", "positive": "green", "negative": "red"}
ENDS = re.compile(r"([−-]?[\d.]+) (\([−-]?[\d.]+ to [−-]?[\d.]+\)†?)")
NARROW_TERMINAL = 80  # characters
NARROWEST = 8  # of a heading on several lines in a terminal
MARKS = {"": "", "positive": " ▲", "negative": " ▼"}

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "|": r"$|$", '"': r"{''}",
    "±": r"$\pm$", "×": r"$\times$", "†": r"$\dagger$", "‡": r"$\ddagger$", "–": "--", "−": "$-$", "·": r"$\cdot$",
    "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "δ": r"$\delta$", "λ": r"$\lambda$", "\u00a0": "~",
    "\n": " ", "\r": " ", "\t": " ",
}  # fmt: skip
SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def escape_latex(text: str) -> str:
    """Escape text for LaTeX: special characters, mathematical ones as math, ⁻⁵ as an exponent."""
    parts = re.split("([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", text)
    return "".join(
        f"$^{{{part.translate(SUPERSCRIPTS)}}}$" if place % 2 else "".join(LATEX.get(sign, sign) for sign in part)
        for place, part in enumerate(parts)
    )


def to_latex(table: Table, label: str) -> str:
    """Return a floating table for an article that loads booktabs and xcolor with its `table` option."""
    columns = "l" + "c" * (len(table.header) - 1)
    size = r"\footnotesize" if len(table.header) <= 5 else r"\scriptsize"
    lines = [
        r"% \usepackage{booktabs} \usepackage[table]{xcolor}",
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{escape_latex(table.title)}. {escape_latex(table.caption)}}}",
        rf"\label{{{label}}}",
        rf"{size}\setlength{{\tabcolsep}}{{3pt}}",
        # Centred on the text, so that a table wider than it hangs out evenly on both sides.
        rf"\makebox[\linewidth][c]{{\begin{{tabular}}{{{columns}}}",
        r"\toprule",
    ]
    if table.groups:
        start, rules = 2, []
        for _, width in table.groups:
            rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
            start += width
        spans = [rf"\multicolumn{{{width}}}{{c}}{{{escape_latex(name)}}}" for name, width in table.groups]
        lines += [" & ".join(["", *spans]) + r" \\", "".join(rules)]
    lines += [" & ".join(escape_latex(name) for name in table.header) + r" \\", r"\midrule"]
    lines += [" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in table.rows]
    lines += [r"\bottomrule", r"\end{tabular}}"]
    lines += [rf"\par\smallskip {escape_latex(note)}" for note in table.notes]
    lines += [r"\end{table}", ""]
    return "\n".join(lines)


def _latex_cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    if cell.bold:
        # Math does not follow \textbf by itself.
        text = rf"\textbf{{\boldmath {text}}}"
    colour = LATEX_COLOURS.get((cell.shade, cell.strong))
    return rf"\cellcolor[HTML]{{{colour}}}{text}" if colour else text


def escape_markdown(text: str) -> str:
    """Escape text for a cell of a Markdown table, so that nothing is read as markup or HTML."""
    text = re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", re.sub(r"\s+", " ", text))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def to_markdown(table: Table) -> str:
    """Return a pipe table under its title; the sign of a statistic is ▲ or ▼, because Markdown has no colours."""
    groups = [name for name, width in table.groups for _ in range(width)] or [""] * (len(table.header) - 1)
    header = [
        table.header[0],
        *(f"{name} {group}".strip() for name, group in zip(table.header[1:], groups, strict=True)),
    ]
    lines = [f"**{escape_markdown(table.title)}.** {escape_markdown(table.caption)}", ""]
    lines.append("| " + " | ".join(map(escape_markdown, header)) + " |")
    lines.append("|---|" + "---:|" * (len(header) - 1))
    for row in table.rows:
        texts = [escape_markdown(cell.text) + MARKS[cell.shade] for cell in row]
        texts = [f"**{text}**" if cell.bold else text for text, cell in zip(texts, row, strict=True)]
        lines.append("| " + " | ".join(texts) + " |")
    for note in table.notes:
        lines += ["", escape_markdown(note)]
    return "\n".join(lines) + "\n"


def to_html(table: Table, sortable: bool = False) -> Markup:
    """Return a `<table>` with every name and value escaped, and its footnotes; the page adds the caption.

    sortable: the page's script lets its rows be sorted by a click on a column's heading.
    """
    head = Markup("")
    if table.groups:
        spans = (
            Markup('<th colspan="{}" scope="colgroup">{}</th>').format(width, name) for name, width in table.groups
        )
        head += Markup('<tr class="groups"><td></td>{}</tr>').format(Markup("").join(spans))
    # A corner without a name is no heading.
    names = (Markup('<th scope="col">{}</th>').format(name) if name else Markup("<td></td>") for name in table.header)
    head += Markup("<tr>{}</tr>").format(Markup("").join(names))
    body = Markup("\n").join(Markup("<tr>{}</tr>").format(_html_row(row)) for row in table.rows)
    notes = Markup("").join(Markup('<p class="note">{}</p>').format(note) for note in table.notes)
    label = escape(table.title)
    return Markup(
        '<div class="scroll" tabindex="0" role="region" aria-label="{}"><table{}>\n<thead>{}</thead>\n'
        "<tbody>{}</tbody>\n</table></div>{}"
    ).format(label, Markup(" data-sortable") if sortable else "", head, body, notes)


def _html_row(row: tuple[Cell, ...]) -> Markup:
    cells = [Markup('<th scope="row">{}</th>').format(row[0].text)]
    for cell in row[1:]:
        kind = " ".join(part for part in (cell.shade, "strong" if cell.strong else "") if part)
        text = _html_text(cell.text)
        text = Markup("<strong>{}</strong>").format(text) if cell.bold else text
        attribute = Markup(' class="{}"').format(kind) if kind else ""
        cells.append(Markup("<td{}>{}</td>").format(attribute, text))
    return Markup("").join(cells)


def _html_text(text: str) -> Markup:
    """Put what is in parentheses after a number, the ends of an interval or a range, on a line of its own."""
    found = ENDS.fullmatch(text)
    return escape(text) if found is None else Markup('{} <span class="ends">{}</span>').format(*found.groups())


def to_console(table: Table) -> ConsoleTable:
    """Return a rich table, denser where it is wide for a terminal; names are printed as text, never read as markup."""
    # Intervals and headings on two lines, or little width is left for names.
    texts = [[ENDS.sub(r"\1\n\2", cell.text) for cell in row] for row in table.rows]
    widths = [max((_width(row[place]) for row in texts), default=0) for place in range(len(table.header))]
    header = [
        textwrap.fill(name, max(width, NARROWEST), break_long_words=False)
        for name, width in zip(table.header, widths, strict=True)
    ]
    needed = sum(max(width, _width(name)) + 3 for width, name in zip(widths, header, strict=True)) - 1
    console_table = ConsoleTable(
        title=Text(table.title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, int(needed <= NARROW_TERMINAL)),
        show_edge=False,
    )
    for place, name in enumerate(header):
        console_table.add_column(Text(name), justify="right" if place else "left", no_wrap=place > 0, overflow="fold")
    for row, row_texts in zip(table.rows, texts, strict=True):
        styles = [f"{'bold ' if cell.bold or cell.strong else ''}{CONSOLE_COLOURS[cell.shade]}".strip() for cell in row]
        console_table.add_row(*(Text(text, style=style) for text, style in zip(row_texts, styles, strict=True)))
    return console_table


def _width(text: str) -> int:
    return max(map(len, text.split("\n")))
