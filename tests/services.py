"""PostgreSQL, MLflow servers, a Ray cluster and small disks for tests, without Docker."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

_SECONDS_TO_START = 120


@dataclass(frozen=True)
class Database:
    """A PostgreSQL server."""

    port: int
    password: str

    def uri(self, password: str | None = None) -> str:
        """Return its URI; without a password the client reads PGPASSWORD."""
        login = "mlflow" if password is None else f"mlflow:{password}"
        return f"postgresql+psycopg2://{login}@127.0.0.1:{self.port}/postgres"


@dataclass(frozen=True)
class Server:
    """An MLflow server and its log."""

    uri: str
    log: Path


@dataclass(frozen=True)
class Nodes:
    """A Ray cluster of a head and another node.

    Attributes:
        address: of the head.
        settings: environment with the token of the cluster.
        caches: stage caches of the two nodes; the first trial on a node creates its own.
        process: see ray_nodes.py.
    """

    address: str
    settings: Mapping[str, str]
    caches: tuple[Path, Path]
    process: subprocess.Popen[str]

    def kill_one(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("kill\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "killed\n"


@contextmanager
def postgresql() -> Iterator[Database]:
    """Run a PostgreSQL server with a new database."""
    programs = _postgresql_programs()
    pytest.importorskip("psycopg2", reason="there is no psycopg2: install the extra postgres")
    # PostgreSQL refuses to run as root, and other users cannot read pytest's folders.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="mint-postgresql-"))
    data, password, log = folder / "data", folder / "password", folder / "log"
    made = Database(free_port(), secrets.token_urlsafe(24))
    password.write_text(made.password)
    initialize: list[str | Path] = [programs / "initdb", "--pgdata", data, "--no-sync"]
    initialize += ["--username", "mlflow", "--auth", "scram-sha-256", "--pwfile", password]
    serve: list[str | Path] = [programs / "postgres", "-D", data, "-F", "-k", folder]
    serve += ["-c", "listen_addresses=127.0.0.1", "-p", str(made.port)]
    try:
        if user:
            shutil.chown(folder, user)
            shutil.chown(password, user)
        subprocess.run(
            initialize, cwd=folder, user=user, group=user, stdout=subprocess.DEVNULL, check=True
        )
        with (
            log.open("w") as out,
            subprocess.Popen(
                serve, cwd=folder, user=user, group=user, stdout=out, stderr=out, text=True
            ) as process,
        ):
            try:
                wait_until_open(made.port, process, log)
                yield made
            finally:
                process.send_signal(signal.SIGINT)  # unlike SIGTERM, it waits for no client
    finally:
        shutil.rmtree(folder)


@contextmanager
def mlflow_server(database: Database, folder: Path) -> Iterator[Server]:
    """Run an MLflow server with runs in the database and artifacts in the folder."""
    port = free_port()
    made = Server(f"http://127.0.0.1:{port}", folder / "log")
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--backend-store-uri", database.uri()]
    command += ["--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--allowed-hosts", f"127.0.0.1:{port}"]
    settings = {"PGPASSWORD": database.password, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (
        made.log.open("w") as out,
        group(command, environment(settings), stdout=out, stderr=out) as process,
    ):
        wait_until_open(port, process, made.log)
        with urlopen(f"{made.uri}/health", timeout=_SECONDS_TO_START) as answer:
            assert answer.status == 200
        yield made


@contextmanager
def server_of(folder: Path, port: int) -> Iterator[None]:
    """Run an MLflow server of a SQLite database and artifacts in the folder."""
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    log = folder / "log"
    settings = environment({"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
    with log.open("w") as out, group(command, settings, stdout=out, stderr=out) as process:
        wait_until_open(port, process, log)
        yield


@contextmanager
def ray_nodes(folder: Path) -> Iterator[Nodes]:
    """Run a Ray cluster of two nodes with a token; their caches and the log are in the folder."""
    # A folder of its own, or a sweep without an address would join this cluster; and a short
    # one: the paths of sockets are limited.
    scratch = Path(tempfile.mkdtemp(prefix="mint-ray-"))
    token = {"RAY_AUTH_TOKEN": secrets.token_hex(24)}
    settings = token | {"RAY_TMPDIR": str(scratch), "RAY_USAGE_STATS_ENABLED": "0"}
    settings["RAY_AUTH_MODE"] = "token"
    caches, log = (folder / "head", folder / "other"), folder / "log"
    command = [sys.executable, str(Path(__file__).with_name("ray_nodes.py")), *map(str, caches)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    try:
        with (
            log.open("w") as out,
            group(command, environment(settings), **pipes, stderr=out) as process,
        ):
            assert process.stdin
            assert process.stdout
            address = process.stdout.readline().strip()
            assert address, log.read_text()
            yield Nodes(address, token, caches, process)
            process.stdin.close()
            process.wait(_SECONDS_TO_START)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """Mount a disk in a new folder, such as one with size=3m."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("only root can mount disks, and not everywhere")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def resize_disk(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


@contextmanager
def group(
    command: list[str], settings: Mapping[str, str], **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Run a process; end it and the processes that it started."""
    with subprocess.Popen(
        command, env=settings, text=True, start_new_session=True, **options
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def run_python(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, without the settings of the user's environment."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment without the user's settings of mint, MLflow, Ray and PostgreSQL."""
    foreign = ("MINT_", "MLFLOW_", "RAY_", "PG")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return own | dict(more or {})


def _postgresql_programs() -> Path:
    on_path = shutil.which("postgres")
    places = [Path(on_path).resolve().parent] if on_path else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        if (place / "postgres").exists() and (place / "initdb").exists():
            return place
    pytest.skip(
        "there is no PostgreSQL: install Debian's package postgresql, or put the folder of "
        "postgres and initdb on the PATH"
    )


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_until_open(port: int, process: subprocess.Popen[str], log: Path) -> None:
    end = time.monotonic() + _SECONDS_TO_START
    while process.poll() is None and time.monotonic() < end:
        with socket.socket() as knock:
            if knock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(log.read_text())
