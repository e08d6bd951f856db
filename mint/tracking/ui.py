"""MLflow's pages: what they show of an experiment, and a local server for them.

The state of a view is what MLflow's own button Share stores. It is undocumented, but MLflow's
version is pinned.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from mint.errors import InputError, without_secrets

# It imports MLflow, which takes seconds: the server can start in the meantime.
if TYPE_CHECKING:
    from mint.tracking.mlflow_store import MlflowStore

VIEW_TAG = "mlflow.sharedViewState.mint"
"""Tag of an experiment: the state of the view that the links open."""

_LOOPBACK = "127.0.0.1"
_DEFAULT_PORT, _PORTS_TO_TRY = 5000, 100
_START_SECONDS = 120.0
_PARAMS = ("criterion", "groups", "samples_per_class", "upper_limit", "fraction", "seed")
_METRICS = ("params_pruned", "accuracy", "accuracy_drop", "baseline_accuracy", "reliability")
_SELECTED = [f"params.`{name}`" for name in _PARAMS] + [f"metrics.`{name}`" for name in _METRICS]
# Columns from left to right, with their widths in pixels.
_WIDTHS = {
    "attributes.`Run Name`": 230,
    "runDateAndNestInfo": 130,
    **{name: 6 * len(name) - 20 for name in _SELECTED},
    "duration": 80,
}
# MLflow adds charts of its own to the section of their prefix: curves if there are steps, else
# bars, which say less than the table and stay folded.
_SECTIONS: tuple[dict[str, object], ...] = (
    {"name": "Trials", "display": True, "columns": 1, "cardHeight": 400},
    {"name": "retrain", "display": True},
    {"name": "search", "display": True},
    {"name": "Model metrics", "display": False},
)
_CHARTS: tuple[dict[str, object], ...] = (
    {
        "type": "PARALLEL",
        "selectedParams": ["criterion", "groups", "samples_per_class", "upper_limit_or_1"],
        "selectedMetrics": ["params_pruned", "accuracy"],
    },
    {
        "type": "SCATTER",
        "xaxis": {"key": "params_pruned", "type": "METRIC"},
        "yaxis": {"key": "accuracy", "type": "METRIC"},
    },
)
_CHART_DEFAULTS = {
    "metricSectionId": "Trials",
    "runsCountToCompare": 1000,
    "deleted": False,
    "isGenerated": False,
}


def view_state() -> str:
    """Return the value of VIEW_TAG."""
    state = {
        "selectedColumns": [*_SELECTED, "attributes.`Duration`"],
        "columnOrder": list(_WIDTHS),
        "columnWidths": _WIDTHS,
        "orderByKey": "metrics.`params_pruned`",
        "orderByAsc": False,
        "runsHiddenMode": "SHOW_ALL",
        "isAccordionReordered": True,  # sections in this order, not by name
        "compareRunSections": [
            {"uuid": section["name"], "isReordered": False, **section} for section in _SECTIONS
        ],
        "compareRunCharts": [
            {"uuid": chart["type"], **_CHART_DEFAULTS, **chart} for chart in _CHARTS
        ],
    }
    return json.dumps(state, separators=(",", ":"))


def paths(experiment_id: str) -> dict[str, str]:
    """Return the paths, on a server, of an experiment's table of runs and of their charts."""
    runs = (
        f"/#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey=mint"
    )
    return {"runs": runs, "charts": f"{runs}&compareRunsMode=CHART"}


def experiment_note(experiment_id: str) -> str:
    """Return an experiment's description in Markdown, with links to both pages."""
    pages = [f"[{page}]({path[1:]})" for page, path in paths(experiment_id).items()]
    return f"Trials of mint: {', '.join(pages)}"


def run_note(headline: str, figures: str, run_id: str, plot: str | None) -> str:
    """Return a finished run's description in Markdown; the plot is a path of an artifact."""
    note = f"{headline}\n\n{figures}"
    if plot:
        note += f"\n\n![{plot}](get-artifact?path={plot}&run_uuid={run_id})"
    return note


def links(store: "MlflowStore", address: str) -> list[str]:
    """Return two lines for every experiment, with the links to its runs and their charts.

    Raises:
        InputError: the store has no experiment of mint.
    """
    experiments = store.experiments()
    if not experiments:
        problem = "no trial of mint is in there yet; run one first"
        raise InputError(problem, parameter="tracking_uri", value=store.shown)
    width = max(map(len, experiments))
    return [
        f"{name:{width}}  {page:6}  {address}{path}"
        for name, identifier in experiments.items()
        for page, path in paths(identifier).items()
    ]


def free_port(port: int | None) -> int:
    """Return a port that can be listened on: the given one, else the first free one from 5000.

    Raises:
        InputError: there is none.
    """
    reason = ""
    first, count = (port, 1) if port else (_DEFAULT_PORT, _PORTS_TO_TRY)
    for number in range(first, first + count):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((_LOOPBACK, number))
            except OSError as error:
                reason = str(error.strerror)
            else:
                return number
    raise InputError(
        f"cannot be listened on ({reason}); allowed is a free port; by default the next free one "
        "is taken",
        parameter="port",
        value=first,
    )


class Server:
    """MLflow's server of a store, for this machine alone; a context that ends it."""

    def __init__(self, uri: str, port: int) -> None:
        """Start the server of the store on the port; it answers after seconds."""
        self.address = f"http://{_LOOPBACK}:{port}"
        self._port = port
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        settings = {
            "MLFLOW_BACKEND_STORE_URI": uri,  # the command line would show its password
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        self._process = subprocess.Popen(
            [*command, "--host", _LOOPBACK, "--port", str(port)],
            env=os.environ | settings,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,  # Ctrl-C reaches mint alone, which ends the server
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()
        self._output.close()

    def wait_until_ready(self) -> None:
        """Wait until the server answers.

        Raises:
            InputError: it does not start.
        """
        end = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                problem = f"MLflow's server does not start{self._last_line()}"
                raise InputError(problem, parameter="port", value=self._port)
            time.sleep(0.2)

    def wait(self) -> str:
        """Wait until the server ends by itself, and return why."""
        return f"MLflow's server has ended with code {self._process.wait()}{self._last_line()}"

    def _answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex((_LOOPBACK, self._port)) == 0

    def _last_line(self) -> str:
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").strip().splitlines()
        return f": {without_secrets(lines[-1])}" if lines else ""
