"""The table of all differences between losses that the evidence has, from which joined results and advice come."""

import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import pandas as pd

from voxloss.evidence.comparisons import METRIC, Judged, is_joined
from voxloss.evidence.export import read_exports
from voxloss.utilities.errors import InputError
from voxloss.utilities.text import shell_word

COLUMNS = (
    "study", "data_set", "kind", "joined", "class", "headline", "cases", "folds", "seeds", "voxel_fraction", "pieces",
    "absent_share", "first", "second", "difference", "half_width", "standard_error", "degrees",
)  # fmt: skip
SHIPPED = "estimates.csv"  # of this package: what `voxloss evidence report` wrote for the studies in the repository


def estimates_table(studies: Sequence[Judged]) -> pd.DataFrame:
    """Return a row per study, class and two losses: difference in mean Dice, its uncertainty, the class's rarity.

    The first loss is the one with the better mean. Classes that no loss has learned to find are left out.
    """
    rows = []
    for judged in studies:
        export = judged.export
        for name in export.classes:
            verdict = judged.verdict(name, METRIC)
            if verdict is None or set(export.unlearned.get(name, ())).issuperset(export.losses):
                continue
            rarity = None
            if export.fingerprint is not None and name in {one.name for one in export.fingerprint.classes}:
                rarity = export.fingerprint.of(name)
            numbers = (math.nan,) * 3
            if rarity is not None and export.fingerprint is not None:
                absent = export.fingerprint.absent_share(name)
                numbers = (rarity.voxel_fraction.median, rarity.pieces.median, absent)
            design = (verdict.n_cases, verdict.n_folds, verdict.n_seeds)
            origin = (export.name, export.data_set, export.kind, is_joined(export), name, name == export.class_name)
            for pair in verdict.pairs.to_dict("records"):
                of_pair = [pair[column] for column in ("better", "worse", "difference", "half_width")]
                rows.append((*origin, *design, *numbers, *of_pair, pair["standard_error"], pair["degrees"]))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def table_text(table: pd.DataFrame) -> str:
    """Return a table as CSV with six significant digits."""
    text: str = table.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    return text


def shipped_estimates() -> pd.DataFrame:
    """Return the estimates that come with the package."""
    with files("voxloss.evidence").joinpath(SHIPPED).open(encoding="utf-8") as file:
        return pd.read_csv(file)


def all_estimates(folder: Path | None) -> pd.DataFrame:
    """Return the estimates that come with the package, and those of exported studies of the user's own.

    Raises:
        InputError: The folder has no exported study, or one is damaged.
    """
    shipped = shipped_estimates()
    if folder is None:
        return shipped
    exports = read_exports(folder)
    if not exports:
        command = f"voxloss evidence add STUDY --to {shell_word(folder)}"
        raise InputError(f"{folder} holds no exported study; `{command}` adds one")
    own = estimates_table([Judged(export) for export in exports])
    # A data set counts once; the user's own export of it is taken.
    return pd.concat([shipped[~shipped["data_set"].isin(own["data_set"])], own], ignore_index=True)
