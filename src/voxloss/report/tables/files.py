"""Write the files of a table: its numbers as CSV, and the table as Markdown and LaTeX."""

from pathlib import Path

import pandas as pd

from voxloss.report.tables.formats import Table, to_latex, to_markdown


def write_table(folder: Path, name: str, data: pd.DataFrame, table: Table, printed: Table) -> None:
    """Write the numbers as CSV, and the table as Markdown and LaTeX (`printed`, which may be narrower)."""
    write_csv(folder / f"{name}.csv", data)
    (folder / f"{name}.md").write_text(to_markdown(table), encoding="utf-8")
    (folder / f"{name}.tex").write_text(to_latex(printed, f"tab:{name.replace('_', '-')}"), encoding="utf-8")


def write_csv(path: Path, data: pd.DataFrame) -> None:
    """Write a table as CSV, and its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data.to_csv(path, index=False, encoding="utf-8", lineterminator="\n")
