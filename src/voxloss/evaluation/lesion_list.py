"""The list of lesions of a run's cases: each found, missed or invented, with its volume and place."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from voxloss.evaluation.lesions import LesionMatch
from voxloss.utilities.errors import InputError
from voxloss.utilities.files import atomic_path

LESION_COLUMNS = ("case", "class", "kind", "volume_ml", "dice", "x_mm", "y_mm", "z_mm")
KINDS = ("found", "missed", "invented")
NUMBERS = LESION_COLUMNS[3:]


def lesion_rows(case_id: str, class_name: str, match: LesionMatch, affine: ArrayLike) -> list[dict[str, Any]]:
    """Return a row per lesion: found or missed in the reference, invented in the prediction.

    Args:
        case_id: The case.
        class_name: The class.
        match: Its lesions that are counted, with places in the case's grid.
        affine: 4 × 4, from voxels of that grid to mm.
    """
    kinds = ["found" if detected else "missed" for detected in match.detected]
    kinds += ["invented"] * match.false_predictions
    volumes = np.concatenate([match.volumes_ml, match.false_volumes_ml])
    dice = np.concatenate([match.dice, np.zeros(match.false_predictions)])
    places = np.concatenate([match.places, match.false_places]) @ np.asarray(affine)[:3, :3].T
    places = np.round(places + np.asarray(affine)[:3, 3], 3)
    return [
        dict(zip(LESION_COLUMNS, (case_id, class_name, kind, float(volume), float(overlap), *place), strict=True))
        for kind, volume, overlap, place in zip(kinds, volumes, dice, places.tolist(), strict=True)
    ]


def write_lesions(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows of `lesion_rows` as CSV, whole or not at all."""
    table = pd.DataFrame(list(rows), columns=list(LESION_COLUMNS))
    with atomic_path(path) as partial:
        table.to_csv(partial, index=False, encoding="utf-8", lineterminator="\n")


def read_lesions(path: Path) -> pd.DataFrame:
    """Read a file of `write_lesions`.

    Raises:
        InputError: The file is missing, is not CSV, or has other columns or values.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
        if tuple(table.columns) != LESION_COLUMNS:
            raise ValueError(f"its columns should be {', '.join(LESION_COLUMNS)}")
        for name in NUMBERS:
            table[name] = [float(value) for value in table[name]]
        if not set(table["kind"]) <= set(KINDS) or not all(map(math.isfinite, table[list(NUMBERS)].to_numpy().ravel())):
            raise ValueError(f"a kind is none of {', '.join(KINDS)}, or a number is not finite")
    except FileNotFoundError:
        raise InputError(f"{path} is missing.") from None
    except (ValueError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is damaged ({reason}); `voxloss run` on its study rebuilds it.") from None
    return table
