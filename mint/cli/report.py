"""The commands of results: the report, its verification and MLflow's pages."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from mint.cli.options import CacheDir, Output, Port, TrackingUri, store_uri
from mint.config.locations import cache_folder, check_writable
from mint.errors import InputError, WorkFailedError

# MLflow and pandas take seconds to import: a command imports them when it runs.
if TYPE_CHECKING:
    from mint.tracking.mlflow_store import MlflowStore

_MAX_DIFFERENCES = 20


def report(
    *,
    trials: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    output: Output = Path("results"),
    tracking_uri: TrackingUri = None,
) -> None:
    """Rebuild RESULTS.md, trials.csv and the figures from the finished trials.

    The trials are those of the tracking store and those already in the results folder.

    Example: mint report --trials results/trials.csv --output copy

    Args:
        trials: A trials.csv to make the report from, without MLflow (default: the tracking
            store's trials).
    """
    check_writable("output", output)
    if trials:
        from mint.reporting.pages import write_report
        from mint.reporting.reference import copied_references
        from mint.reporting.trials_csv import read_trials

        write_report(output, read_trials(trials), copied_references(trials.parent))
        print(f"tables: {output / 'RESULTS.md'}")
        return

    from mint.reporting.folder import rebuild_report
    from mint.reporting.trials_csv import trial_table

    hint = "run a sweep first, or give --trials FILE"
    rebuild_report(output, of_store=trial_table(_existing_store(tracking_uri, hint).results()))


def verify(
    *,
    output: Output = Path("results"),
    cache_dir: CacheDir = None,
    tracking_uri: TrackingUri = None,
) -> int:
    """Recompute every figure of the results, and print each difference.

    The tables are recomputed from trials.csv and compared cell by cell. The rows of trials.csv are
    compared with the trials on the disk, and with the runs of --tracking-uri if it is given. The
    exit code is 1 if anything differs.

    Example: mint verify --output results
    """
    cache_root = cache_folder(cache_dir)
    of_store = None
    if tracking_uri:
        from mint.reporting.trials_csv import trial_table

        of_store = trial_table(_existing_store(tracking_uri, "give another one").results())

    from mint.reporting.verify import verify as find_differences
    from mint.store.stage_cache import StageCache

    found = find_differences(output, StageCache(cache_root), of_store)
    for difference in found.differences[:_MAX_DIFFERENCES]:
        print(difference)
    if len(found.differences) > _MAX_DIFFERENCES:
        print(f"and {len(found.differences) - _MAX_DIFFERENCES} more")
    for trial in found.unread:
        print(f"not compared: {trial}")
    print(
        f"compared: {found.cells} cells of tables, {found.trials} trials with their results and "
        f"masks, {found.runs} with their runs; differences: {len(found.differences)}"
    )
    return int(bool(found.differences))


def ui(*, port: Port | None = None, tracking_uri: TrackingUri = None) -> None:
    """Show the runs in a browser.

    Starts MLflow's server of the tracking store for this machine alone, and prints the link of
    every experiment. Ctrl-C ends it.

    Example: mint ui --port 5001

    Args:
        port: Port of the server, 1 to 65535 (default: 5000, or the next free one).
    """
    from mint.tracking.preflight import check_schema
    from mint.tracking.ui import Server, free_port, links

    uri, number = store_uri(tracking_uri), free_port(port)
    store = _existing_store(uri, "run a trial or a sweep first")
    if store.uri.startswith("http"):  # a server is running already
        print("\n".join(links(store, store.shown)))
        return
    check_schema(store.uri)  # MLflow's server would write to a database of any kind
    with Server(store.uri, number) as server:
        lines = links(store, server.address)  # takes seconds, as the start of the server does
        server.wait_until_ready()
        print("\n".join([*lines, "Ctrl-C ends it"]), flush=True)
        reason = server.wait()
    raise WorkFailedError(reason)


def _existing_store(tracking_uri: str | None, hint: str) -> "MlflowStore":
    uri = store_uri(tracking_uri)

    from mint.tracking.mlflow_store import MlflowStore

    store = MlflowStore(uri)
    if not store.exists:
        problem = f"there is no such store; {hint}"
        raise InputError(problem, parameter="tracking_uri", value=store.shown)
    return store
