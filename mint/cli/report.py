"""The commands of results: the report, its verification and MLflow's pages."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from mint.cli.options import MY_RESULTS, CacheDir, Output, Port, TrackingUri, store_uri
from mint.config.locations import cache_folder, check_writable
from mint.errors import InputError, WorkFailedError

# MLflow and pandas take seconds to import: a command imports them when it runs.
if TYPE_CHECKING:
    from mint.tracking.mlflow_store import MlflowStore

_MAX_DIFFERENCES = 20


def report(
    *,
    trials: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    form: Annotated[Literal["markdown", "latex", "csv"], Parameter(name="--format")] = "markdown",
    output: Output = MY_RESULTS,
    tracking_uri: TrackingUri = None,
) -> None:
    """Rebuild RESULTS.md, the pages of the experiments, trials.csv and the figures.

    The trials are those of the tracking store and those already in the results folder.

    Example: mint report --trials results/trials.csv --output copy --format latex

    Args:
        trials: A trials.csv to make the report from, without MLflow (default: the tracking
            store's trials).
        form: latex or csv also write each table of the pages into OUTPUT/tables, for a paper.
    """
    check_writable("output", output)
    unread: list[str] = []
    if trials:
        from mint.reporting.folder import is_made_from

        if form == "markdown" and is_made_from(output, trials):
            print(f"tables: {output / 'RESULTS.md'}")
            return

        from mint.reporting.pages import write_report
        from mint.reporting.reference import copied_references
        from mint.reporting.trials_csv import read_trials

        print(f"making the tables of {trials}", flush=True)
        made = write_report(output, read_trials(trials), copied_references(trials.parent))
        print(f"tables: {output / 'RESULTS.md'}")
    else:
        from mint.reporting.folder import is_current, rebuild_report
        from mint.reporting.made import RESULTS_FILE
        from mint.reporting.trials_csv import trial_table
        from mint.tracking.glance import glance

        known = glance(store_uri(tracking_uri))
        if form == "markdown" and known and known.runs and is_current(output, known.ended()):
            print(f"tables: {output / RESULTS_FILE}")
            return
        hint = "run a sweep first, or give --trials FILE"
        store = _existing_store(tracking_uri, hint)
        print(f"reading the runs of {store.shown}", flush=True)
        results, unread = store.results()
        made = rebuild_report(output, of_store=trial_table(results))
    if form != "markdown":
        from mint.reporting.table_files import FOLDER, write_tables

        print(f"{write_tables(output, made.pages, form)} {form} files: {output / FOLDER}")
    if unread:
        print("\n".join(unread))
        problem = f"{len(unread)} trials could not be read from the tracking store"
        raise WorkFailedError(f"{problem}; the tables lack them, or have what trials.csv had")


def compare(
    first: str,
    second: str,
    /,
    *,
    trials: Annotated[Path, Parameter(metavar="FILE")] = MY_RESULTS / "trials.csv",
) -> None:
    """Compare two criteria or settings, paired by seed.

    A selection is a criterion, or columns with their values: groups=20,retraining=light. The two
    sides share everything that not both of them name. The columns are experiment, protocol,
    retraining, criterion, upper_limit, groups, grouping, samples_per_class, bootstraps, fraction
    and margin.

    Example: mint compare mint,experiment=mnist_mlp random

    Args:
        first: A selection of trials.
        second: Another one, whose figures are subtracted.
        trials: Trial table.
    """
    from mint.reporting.selection import compare as compare_selections
    from mint.reporting.selection import parse_selection
    from mint.reporting.trials_csv import read_trials

    for name, text in (("first", first), ("second", second)):
        parse_selection(text, name)
    print("\n".join(compare_selections(read_trials(trials), first, second)))


def trials(
    selection: str = "",
    /,
    *,
    sort: Annotated[str | None, Parameter(metavar="COLUMN")] = None,
    trials: Annotated[Path, Parameter(metavar="FILE")] = MY_RESULTS / "trials.csv",
) -> None:
    """List the finished trials, with the columns of the pages.

    A selection is as for mint compare: mint, or groups=20,retraining=light. Columns that all of the
    trials share are left out.

    Example: mint trials mint,groups=20 --sort accuracy

    Args:
        selection: Which trials (default: all).
        sort: Column of figures in trials.csv, such as accuracy, params_pruned or share_at_margin:
            the largest first (default: by experiment and axes).
        trials: Trial table.
    """
    from mint.reporting.selection import list_trials, parse_selection
    from mint.reporting.trials_csv import read_trials

    parse_selection(selection, "selection")
    print("\n".join(list_trials(read_trials(trials), selection, sort)))


def verify(
    *,
    output: Output = MY_RESULTS,
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
    print(f"recomputing the tables of {output}", flush=True)
    of_store, unread = None, list[str]()
    if tracking_uri:
        from mint.reporting.trials_csv import trial_table

        results, unread = _existing_store(tracking_uri, "give another one").results()
        of_store = trial_table(results)

    from mint.reporting.verify import verify as find_differences
    from mint.store.stage_cache import StageCache

    found = find_differences(output, StageCache(cache_root), of_store)
    for difference in found.differences[:_MAX_DIFFERENCES]:
        print(difference)
    if len(found.differences) > _MAX_DIFFERENCES:
        print(f"and {len(found.differences) - _MAX_DIFFERENCES} more")
    for trial in (*found.unread, *unread):
        print(f"not compared: {trial}")
    compared = [
        f"{found.cells} cells of tables with trials.csv",
        f"{found.trials} trials with their files in {cache_root}",
        *([f"{found.runs} trials with their MLflow runs"] if tracking_uri else []),
    ]
    print(f"compared: {', '.join(compared)}; differences: {len(found.differences)}")
    return int(bool(found.differences))


def ui(*, port: Port | None = None, tracking_uri: TrackingUri = None) -> None:
    """Show the runs in a browser.

    Starts MLflow's server of the tracking store for this machine alone, and prints the link of
    every experiment. Ctrl-C ends it.

    Example: mint ui --port 5001

    Args:
        port: Port of the server, 1 to 65535 (default: 5000, or the next free one).
    """
    from mint.tracking.ui import Server, free_port, links

    uri, number = store_uri(tracking_uri), free_port(port)
    store = _existing_store(uri, "run a trial or a sweep first")
    if store.uri.startswith("http"):  # a server is running already
        print("\n".join(links(store, store.shown)))
        return
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
