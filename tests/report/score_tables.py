"""Tables of `voxloss.evaluation.significance`, from a few numbers."""

import pandas as pd

from voxloss.evaluation.significance import INTERVAL_COLUMNS, PAIR_COLUMNS


def intervals_of(rows):
    """Rows: loss, class, metric, mean, half width, undefined, failed, ranking mean."""
    full = [(*row[:5], row[3] - row[4], row[3] + row[4], 3, 9, row[5], row[6], row[7]) for row in rows]
    return pd.DataFrame(full, columns=list(INTERVAL_COLUMNS))


def pairs_of(rows):
    return pd.DataFrame(rows, columns=list(PAIR_COLUMNS))
