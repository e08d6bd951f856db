"""The results folder: checked before work, and rebuilt after it."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from filelock import FileLock

from mint.config.locations import check_writable
from mint.reporting.made import RESULTS_FILE, TRIALS_FILE, Made, digest_of_file, source_digest

# Pandas takes a second to import, and a check of a new folder does without it.
if TYPE_CHECKING:
    import pandas as pd

    from mint.reporting.pages import Report


class Ended(NamedTuple):
    """How the trial of a run ended: columns of its row in the trial table."""

    run_id: str
    status: str
    reason: str


def check_results(output: Path, references: Iterable[Path] = ()) -> None:
    """Check before the work that a results folder can be rebuilt after it.

    Raises:
        InputError: the folder cannot be written, its trial table is none, or one of the reference
            files that exist is malformed.
    """
    from mint.reporting.reference import check_references, copied_references
    from mint.reporting.trials_csv import read_rows

    check_writable("output", output)
    if (table := output / TRIALS_FILE).exists():
        read_rows(table)
    check_references(output, [*references, *copied_references(output)])


def is_current(output: Path, ended: "Mapping[str, Ended]", references: Iterable[Path] = ()) -> bool:
    """Return whether rebuild_report would change nothing, without pandas.

    Args:
        output: results folder.
        ended: how the trials of the tracking store ended, by their keys.
        references: as for rebuild_report.
    """
    from mint.reporting.reference import references_of

    if (table := _table_if_whole(output)) is None:
        return False
    rows = {row["key"]: row for row in csv.DictReader(io.StringIO(table.decode(), newline=""))}
    for key, end in ended.items():
        row = rows.get(key)
        stays = row and row["status"] == "finished" != end.status  # a later failure changes no row
        if not row or not (stays or tuple(row[column] for column in end._fields) == end):
            return False
    named = {*references, *references_of({row["experiment"] for row in rows.values()})}
    return _has_copies(output, named)


def is_made_from(output: Path, trials: Path) -> bool:
    """Return whether a report from a trial table, with the references beside it, is there."""
    from mint.reporting.reference import copied_references

    if _table_if_whole(output) is None or not _has_copies(output, copied_references(trials.parent)):
        return False
    return digest_of_file(trials) == digest_of_file(output / TRIALS_FILE)


def _table_if_whole(output: Path) -> bytes | None:
    """Return the trial table of a results folder all of whose files are as they were made."""
    from mint.reporting.reference import copied_references

    try:
        table = (output / TRIALS_FILE).read_bytes()
    except OSError:
        return None
    source = source_digest(table, copied_references(output))
    return table if Made.load(output).is_whole(output, source) else None


def _has_copies(output: Path, references: Iterable[Path]) -> bool:
    """Return whether a results folder has these very reference files."""
    from mint.reporting.reference import copy_of

    return all(digest_of_file(file) == digest_of_file(copy_of(file, output)) for file in references)


def _kept_trials(output: Path) -> "pd.DataFrame":
    from mint.reporting.trials_csv import read_trials, table_of_rows

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
    from mint.reporting.pages import write_report
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
        say(f"making the tables of {len(trials)} trials")
        report = write_report(output, trials, named)
    say(f"tables: {output / RESULTS_FILE}")
    return report
