"""MLflow's pages of a tracking store, served to this machine alone."""

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
from mint.tracking.views import paths

# With MLflow, which takes seconds to import: its server can start in the meantime.
if TYPE_CHECKING:
    from mint.tracking.mlflow_store import Tracker

_LOOPBACK = "127.0.0.1"
_PORT, _PORTS = 5000, 100
_START_SECONDS = 120.0


def free_port(asked: int | None) -> int:
    """Return the port that was asked for, else 5000 or the next that is free.

    Raises:
        InputError: it is taken.
    """
    ports = [asked] if asked else range(_PORT, _PORT + _PORTS)
    reason = ""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_LOOPBACK, port))
            except OSError as error:
                reason = str(error.strerror)
            else:
                return port
    raise InputError(
        f"--port {asked or _PORT}: cannot be listened on ({reason}); allowed is a free port, and "
        "without the option the next free one is taken"
    )


class Server:
    """MLflow's server of a store; it ends with the block that it is entered for."""

    def __init__(self, uri: str, port: int) -> None:
        """Start it; it takes seconds until it answers.

        Args:
            uri: of the store.
            port: to listen on.
        """
        self.address = f"http://{_LOOPBACK}:{port}"
        self._port = port
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        settings = {
            "MLFLOW_BACKEND_STORE_URI": uri,  # a command line would show its password
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",  # what is looked at stays on this machine
        }
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        self._process = subprocess.Popen(
            [*command, "--host", _LOOPBACK, "--port", str(port)],
            env=os.environ | settings,
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
            start_new_session=True,  # Ctrl-C is for mint alone, which ends it
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()
        self._said.close()

    def wait_until_it_answers(self) -> None:
        """Wait until pages can be opened.

        Raises:
            InputError: it does not start.
        """
        end = time.monotonic() + _START_SECONDS
        while not _answers(self._port):
            if self._process.poll() is not None or time.monotonic() > end:
                raise InputError(f"--port {self._port}: MLflow's server does not start{self._last}")
            time.sleep(0.2)

    def wait_until_it_ends(self) -> str:
        """Wait for ever, as a rule, and return why it has ended by itself."""
        return f"MLflow's server has ended with code {self._process.wait()}{self._last}"

    @property
    def _last(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return f": {without_secrets(lines[-1])}" if lines else ""


def links(tracker: "Tracker", address: str) -> list[str]:
    """Return two lines for every experiment: where its runs and where their charts are.

    Raises:
        InputError: the store has none.
    """
    experiments = tracker.experiments()
    if not experiments:
        raise InputError(
            f"--tracking-uri {tracker.shown}: no trial of mint is in there yet; run one first"
        )
    width = max(map(len, experiments))
    return [
        f"{name:{width}}  {page:6}  {address}{path}"
        for name, identifier in experiments.items()
        for page, path in paths(identifier).items()
    ]


def _answers(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex((_LOOPBACK, port)) == 0
