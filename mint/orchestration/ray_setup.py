"""Ray's settings, its start on this machine, and the connection to a cluster."""

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from mint.errors import InputError, WorkFailedError, error_line, first_line
from mint.orchestration import interruption

# A user's own network is imported from the folder where the sweep was started.
WORKER_SETTINGS = {"RAY_CHDIR_TO_TRIAL_DIR": "0"}
_SETTINGS = {
    **WORKER_SETTINGS,
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer output cannot be silenced
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else `uv run` builds an environment for the workers
    "RAY_worker_niceness": "0",  # else every other process on the machine comes first
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # MLflow has what they would write
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the sweep at once: nothing can be lost
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # not every report has an accuracy
}
for _name, _value in _SETTINGS.items():  # before Ray is imported
    os.environ.setdefault(_name, _value)

_START_SECONDS = 60.0
_NOT_STARTED = "Ray did not start on this machine {}; the same command tries again"

Nodes = list[dict[str, float]]
"""The resources of every node: numbers of CPU and GPU, among others."""


@contextmanager
def connecting(address: str | None, own_code: Sequence[str]) -> Iterator[Callable[[], Nodes]]:
    """Start Ray on this machine, or connect to a cluster, in the background; end it afterwards.

    Args:
        address: of the cluster; None for this machine alone.
        own_code: files and packages of the user's, which are sent to the nodes.

    Yields:
        A function that waits for Ray and returns the resources of its nodes; it raises InputError
        or WorkFailedError.
    """
    _set_environment(address)

    import ray

    started: Future[None] = Future()
    over = Event()

    def start() -> None:
        try:
            _connect(address, own_code)
            started.set_result(None)
        except BaseException as error:
            started.set_exception(error)
        over.wait()  # Ray's servers end with the thread that started them

    def wait_for_nodes() -> Nodes:
        end = time.monotonic() + _START_SECONDS
        while not started.done():
            interruption.check()
            if time.monotonic() > end:
                took = f"within {_START_SECONDS:.0f} s"
                if address is None:
                    raise WorkFailedError(_NOT_STARTED.format(took))
                problem = f"Ray did not answer {took}"
                raise InputError(problem, parameter="ray_address", value=address)
            wait([started], 0.2)
        started.result()
        interruption.restore()  # Ray's core replaced Python's handler by one that aborts
        interruption.check()
        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    # A daemon: Ray may wait for ever for a server that is not Ray.
    Thread(target=start, name="ray", daemon=True).start()
    try:
        yield wait_for_nodes
    finally:
        if not interruption.requested():
            wait([started], _START_SECONDS)
        ray.shutdown()
        over.set()


def _set_environment(address: str | None) -> None:
    """Set what depends on the address, before Ray is imported and reads it."""
    if address is None:  # its servers then keep to loopback
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        return
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if named or Path("~/.ray/auth_token").expanduser().is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # with an address Ray does not look for it


def _connect(address: str | None, own_code: Sequence[str]) -> None:
    import ray
    from ray.job_config import JobConfig

    job = JobConfig()
    # Else Ray puts the current folder first in a worker's sys.path: its pandas.py would be pandas.
    job._py_driver_sys_path = deque(maxlen=0)  # type: ignore[assignment]
    quiet: dict[str, Any] = {
        "job_config": job,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    if address is None:
        try:
            ray.init("local", include_dashboard=False, **quiet)
        except Exception as error:  # of many kinds, such as on a machine that is too busy
            raise WorkFailedError(_NOT_STARTED.format(f"({error_line(error)})")) from error
        return
    environment = {
        "py_modules": [str(Path(__file__).resolve().parents[1]), *own_code],
        "excludes": ["__pycache__"],
        "env_vars": WORKER_SETTINGS,
    }
    try:
        ray.init(address, runtime_env=environment, **quiet)
    except Exception as error:  # of many kinds, depending on what answers
        raise InputError(
            "is no cluster that this program can join: "
            f"{first_line(error.__cause__ or error)}; a cluster with token authentication needs "
            "its token in RAY_AUTH_TOKEN or ~/.ray/auth_token",
            parameter="ray_address",
            value=address,
        ) from error
