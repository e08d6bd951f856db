"""The results folder: checked before work, and rebuilt after it."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from mint.config.locations import check_writable

# Pandas takes a second to import, and a check of a new folder does without it.
if TYPE_CHECKING:
    import pandas as pd

    from mint.reporting.pages import Report


def check_results(output: Path, references: Iterable[Path] = ()) -> None:
    """Check before the work that a results folder can be rebuilt after it.

    Raises:
        InputError: the folder cannot be written, its trial table is none, or one of the reference
            files that exist is malformed.
    """
    from mint.reporting.reference import check_references, copied_references

    check_writable("output", output)
    if output.exists():
        _kept_trials(output)
    check_references(output, [*references, *copied_references(output)])


def _kept_trials(output: Path) -> "pd.DataFrame":
    from mint.reporting.trials_csv import TRIALS_FILE, read_trials, table_of_rows

    path = output / TRIALS_FILE
    return read_trials(path) if path.exists() else table_of_rows([])


def rebuild_report(
    output: Path,
    *,
    of_disk: "pd.DataFrame | None" = None,
    of_store: "pd.DataFrame | None" = None,
    references: Iterable[Path] = (),
    say: Callable[[str], None] = print,
) -> "Report":
    """Add trials to a results folder, write its pages and figures anew, and return them.

    Args:
        output: results folder.
        of_disk: trials that the tracking store may not have yet.
        of_store: trials of the tracking store.
        references: reference files, beside those that experiments of mint name.
        say: prints a line.

    Raises:
        InputError: see check_results.
        OSError: the folder cannot be written.
    """
    from mint.reporting.pages import RESULTS_FILE, write_report
    from mint.reporting.reference import references_of
    from mint.reporting.trials_csv import merge_trials

    output.mkdir(parents=True, exist_ok=True)
    with FileLock(output / ".lock"):  # two sweeps that end together would lose each other's rows
        trials = _kept_trials(output)
        if of_disk is not None:
            # Of two rows of the same result, the one with a run id says more.
            finished = trials[trials["status"] == "finished"].set_index("key")["run_id"]
            run_ids = finished.reindex(of_disk["key"], fill_value="")
            trials = merge_trials(trials, of_disk.assign(run_id=run_ids.to_numpy()))
        if of_store is not None:
            trials = merge_trials(trials, of_store)
        named = dict.fromkeys([*references, *references_of(trials["experiment"].unique())])
        for missing in (file for file in named if not file.is_file()):
            say(f"reference results: {missing} is missing; the report has no rows of it")
        report = write_report(output, trials, named)
    say(f"tables: {output / RESULTS_FILE}")
    return report
