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
_SECTIONS = {"Trials": True, "retrain": True, "search": True, "Model metrics": False}
_CHARTS: dict[str, dict[str, object]] = {
    "PARALLEL": {
        "selectedParams": ["criterion", "groups", "samples_per_class", "upper_limit_or_1"],
        "selectedMetrics": ["params_pruned", "accuracy"],
    },
    "SCATTER": {
        "xaxis": {"key": "params_pruned", "type": "METRIC"},
        "yaxis": {"key": "accuracy", "type": "METRIC"},
    },
}


def view_state() -> str:
    """Return the value of VIEW_TAG."""
    sections = [
        {"uuid": name, "name": name, "isReordered": False, "display": unfolded}
        for name, unfolded in _SECTIONS.items()
    ]
    sections[0] |= {"columns": 1, "cardHeight": 400}
    of_chart = {"metricSectionId": "Trials", "runsCountToCompare": 1000}
    of_chart |= {"deleted": False, "isGenerated": False}
    state = {
        "selectedColumns": [*_SELECTED, "attributes.`Duration`"],
        "columnOrder": list(_WIDTHS),
        "columnWidths": _WIDTHS,
        "orderByKey": "metrics.`params_pruned`",
        "orderByAsc": False,
        "runsHiddenMode": "SHOW_ALL",
        "isAccordionReordered": True,  # sections in this order, not by name
        "compareRunSections": sections,
        "compareRunCharts": [
            {"uuid": kind, "type": kind, **of_chart, **chart} for kind, chart in _CHARTS.items()
        ],
    }
    return json.dumps(state, separators=(",", ":"))


def paths(experiment_id: str) -> dict[str, str]:
    """Return the paths, on a server, of an experiment's table of runs and of their charts."""
    view = "workflowType=machine_learning&viewStateShareKey=mint"
    runs = f"/#/experiments/{experiment_id}/runs?{view}"
    return {"runs": runs, "charts": f"{runs}&compareRunsMode=CHART"}


def links(store: "MlflowStore", address: str) -> list[str]:
    """Return the links to the runs and charts of every experiment; raise InputError without any."""
    experiments = store.experiments()
    if not experiments:
        problem = "no trial of mint is in there yet; run one first"
        raise InputError(problem, parameter="tracking_uri", value=store.shown)
    width = max(map(len, experiments))
    return [
        f"{name:{width}}  {page:6}  {address.rstrip('/')}{path}"
        for name, identifier in experiments.items()
        for page, path in paths(identifier).items()
    ]


def free_port(port: int | None) -> int:
    """Return a free port: the given one, else the first from 5000; raise InputError if taken."""
    numbers = [port] if port else range(_DEFAULT_PORT, _DEFAULT_PORT + _PORTS_TO_TRY)
    reason = ""
    for number in numbers:
        try:
            socket.create_server((_LOOPBACK, number)).close()
        except OSError as error:
            reason = str(error.strerror)
        else:
            return number
    raise InputError(
        f"cannot be listened on ({reason}); allowed is a free port; by default the next free one "
        "is taken",
        parameter="port",
        value=numbers[0],
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
            # Else Python and uvicorn take a queue.py of the current folder for Python's own.
            "PYTHONSAFEPATH": "1",
            "UVICORN_APP_DIR": os.devnull,
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
        """Wait until the server answers; raise InputError if it does not start."""
        end = time.monotonic() + _START_SECONDS
        while self._process.poll() is None and time.monotonic() < end:
            with socket.socket() as client:
                if client.connect_ex((_LOOPBACK, self._port)) == 0:
                    return
            time.sleep(0.2)
        problem = f"MLflow's server does not start{self._last_line()}"
        raise InputError(problem, parameter="port", value=self._port)

    def wait(self) -> str:
        """Wait until the server ends by itself, and return why."""
        return f"MLflow's server has ended with code {self._process.wait()}{self._last_line()}"

    def _last_line(self) -> str:
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").strip().splitlines()
        return f": {without_secrets(lines[-1])}" if lines else ""
