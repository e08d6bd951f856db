"""Tables that the benchmarks of this folder leave in results/, for PUZZLES.md."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from mint.errors import InputError

LIMITS, MASKING = "limits.csv", "masking.csv"
_COLUMNS: Mapping[str, Mapping[str, type]] = {
    # What an upper limit prunes (percent), by the original's quantile and exactly.
    LIMITS: {"seed": int, "limit": float, "distinct": int, "by_quantile": float, "exactly": float},
    # Validation accuracy (percent) of masking variants.
    MASKING: {
        "seed": int,
        "steps": str,
        "grouping": str,
        "keep_connected": int,
        "fraction": float,
        "score": str,
        "accuracy": float,
    },
}


def read_benchmark(output: Path, name: str) -> pd.DataFrame | None:
    """Return a benchmark's table from a results folder; None if there is none.

    Raises:
        InputError: the file is not such a table.
    """
    path, columns = output / name, dict(_COLUMNS[name])
    try:
        return pd.read_csv(path)[list(columns)].astype(columns)
    except FileNotFoundError:
        return None
    except (KeyError, ValueError, OSError) as error:
        raise InputError(f"{path}: is not a table of {', '.join(columns)}: {error}") from None
