"""The output folder: its records are checked before work, and added to after it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from mint.config.locations import check_writable
from mint.errors import InputError

# Pandas and what a report takes are left until they are needed.
if TYPE_CHECKING:
    import pandas as pd

    from mint.tracking.mlflow_store import Tracker


def kept_records(output: Path) -> "pd.DataFrame":
    """Return the records that are in the output folder already.

    Raises:
        InputError: there is a records.csv that is none.
    """
    from mint.trial.table_row import as_records, read_records

    path = output / "records.csv"
    if path.exists():
        return read_records(path, option=f"--output {output}:")

    return as_records([])


def check_results(output: Path) -> None:
    """Refuse, before hours of work, an output folder that cannot be added to.

    Raises:
        InputError: as of check_folder and kept_records.
    """
    check_writable("--output", output)
    kept_records(output)


def rebuild_report(
    output: Path,
    *,
    of_disk: "pd.DataFrame | None" = None,
    of_store: "pd.DataFrame | None" = None,
    say: Callable[[str], None] = print,
) -> None:
    """Write the tables and plots of all trials: of those already there, and of these.

    Args:
        output: folder of the report.
        of_disk: records of trials that the store may not have yet.
        of_store: records of the tracking store; None where it is away.
        say: told where they are.

    Raises:
        OSError: they cannot be written.
    """
    from mint.reporting.pages import write_report
    from mint.trial.table_row import merge_records

    output.mkdir(parents=True, exist_ok=True)
    with FileLock(output / ".lock"):  # sweeps that end together would lose each other's records
        records = kept_records(output)
        if of_disk is not None:
            # Of the same result, a row that knows its run says more.
            finished = records[records["status"] == "finished"]
            known = dict(zip(finished["key"], finished["run_id"], strict=True))
            run_ids = [known.get(key, "") for key in of_disk["key"]]
            records = merge_records(records, of_disk.assign(run_id=run_ids))
        if of_store is not None:
            records = merge_records(records, of_store)
        write_report(output, records)
    say(f"tables: {output / 'RESULTS.md'}")


def store_records(tracker: "Tracker") -> "pd.DataFrame | None":
    """Return the records of a tracking store; None, and a word to the user, where it has gone."""
    try:
        return tracker.records()
    except InputError as error:
        print(f"the tables are made without it: {error}", file=sys.stderr)
        return None
