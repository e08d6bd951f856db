"""What benchmarks left beside records.csv, for pages that are made from more than trials."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pandas as pd

from mint.errors import InputError

LIMITS, MASKING = "limits.csv", "masking.csv"
_COLUMNS: Mapping[str, Mapping[str, type]] = {
    LIMITS: {"seed": int, "asked": float, "distinct": int, "by_quantile": float, "exactly": float},
    MASKING: {
        "seed": int,
        "ways": str,
        "grouping": str,
        "floor": int,
        "share": float,
        "score": str,
        "accuracy": float,
    },
}


@dataclass(frozen=True)
class Measured:
    """Tables of benchmarks; None where one was not run.

    Attributes:
        limits: of benchmarks/limits.py: what the original's limit and an exact one prune (percent).
        masking: of benchmarks/masking.py: validation accuracy (percent) of ways to mask.
    """

    limits: pd.DataFrame | None = None
    masking: pd.DataFrame | None = None

    @classmethod
    def beside(cls, output: Path) -> Self:
        """Read what is in a folder of results.

        Raises:
            InputError: a file there is not what its benchmark writes.
        """
        return cls(_read(output / LIMITS), _read(output / MASKING))


def _read(path: Path) -> pd.DataFrame | None:
    columns = _COLUMNS[path.name]
    try:
        return pd.read_csv(path)[list(columns)].astype(columns)
    except FileNotFoundError:
        return None
    except (KeyError, ValueError, OSError) as error:
        told = ", ".join(columns)
        raise InputError(f"{path}: is no table of {told}: {error}") from None
