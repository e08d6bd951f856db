"""Checks of a tracking store within seconds, before any work."""

import socket
import ssl
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from mint.errors import InputError, first_line, without_secrets
from mint.store.remembered import remember

SCHEMA = "schema of MLflow"
"""What the revision of a database that needs no change is remembered under, for each version."""

_TIMEOUT_SECONDS = 4.0
_SQLITE_HEADER = b"SQLite format 3\0"
_DEFAULT_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433, "http": 80, "https": 443}


def check_store(uri: str) -> None:
    """Raise InputError if MLflow has no store of this kind, or the file is no SQLite database."""
    try:
        scheme = urlsplit(uri).scheme.split("+")[0]
    except ValueError:  # such as half an IPv6 address
        scheme = ""
    is_file = uri.startswith("sqlite:///") and uri not in ("sqlite:///", "sqlite:///:memory:")
    if scheme not in _DEFAULT_PORTS and not is_file:
        servers = "the URI of another database, and http(s)://HOST:PORT of an MLflow server"
        raise _error(uri, f"allowed are sqlite:///FILE, {servers}")
    path = Path(uri.removeprefix("sqlite:///"))
    if is_file and path.exists() and not _is_database(path):
        problem = "cannot be used as a tracking store: it is no SQLite database"
        raise _error(uri, f"{problem}; allowed is one, or a file that does not exist yet")


def reach_store(uri: str) -> None:
    """Raise InputError if a store's server does not answer; MLflow itself would try for minutes."""
    check_store(uri)
    where = urlsplit(uri)
    port = _DEFAULT_PORTS.get(where.scheme.split("+")[0])
    if port is None or not where.hostname:
        return  # a file, or the client of the database finds its server
    try:
        port = where.port or port
    except ValueError:  # its own message may hold a password
        raise _error(uri, "its port must be a number") from None
    try:
        socket.create_connection((where.hostname, port), _TIMEOUT_SECONDS).close()
        if where.scheme in ("http", "https"):
            address = f"{where.scheme}://{where.hostname}:{port}{where.path.rstrip('/')}"
            urlopen(f"{address}/health", timeout=_TIMEOUT_SECONDS).close()
    except HTTPError:
        return  # any answer will do
    except (OSError, HTTPException) as error:  # or it is no web server
        if isinstance(error, URLError) and isinstance(error.reason, ssl.SSLError):
            return  # MLflow decides which servers to trust
        problem = f"nobody answers there ({error}); start the server, or give another store"
        raise _error(uri, problem) from error


def check_schema(uri: str) -> bool:
    """Return whether a database has MLflow's tables; a server has them.

    Raises:
        InputError: it belongs to an older or newer MLflow, or to another program. MLflow would add
            its tables to another program's, change those of older versions without a question, and
            call newer ones out of date.
    """
    if uri.startswith("http"):
        return True
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return _check_tables(uri)
    except (SQLAlchemyError, ImportError) as error:
        reason = without_secrets(first_line(error))
        raise _error(uri, f"cannot be used as a tracking store: {reason}") from error


def _check_tables(uri: str) -> bool:
    # All take seconds to import, and a plan looks at the store without them.
    import mlflow
    import sqlalchemy
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from mlflow.store.tracking.dbmodels.initial_models import Base as FirstTables

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        tables = set(sqlalchemy.inspect(connection).get_table_names()) - {"alembic_version"}
        first = FirstTables.metadata.tables.keys()
        if tables - first and not first <= tables:
            names = ", ".join(sorted(tables - first)[:3])
            problem = f"it holds tables of another program, such as {names}"
            raise _error(uri, f"{problem}; give the runs a database of their own")
        query = sqlalchemy.text("SELECT 1 FROM experiments")
        if not first <= tables or connection.execute(query).first() is None:
            return False  # it is new, or is being created, or a killed process was creating it
        revision = MigrationContext.configure(connection).get_current_revision()
    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    here = f"than the {mlflow.__version__} that is installed here"
    if revision not in [None, *(script.revision for script in scripts.walk_revisions())]:
        problem = f"a newer MLflow {here} has written it"
        raise _error(uri, f"{problem}; install a newer mint, or use another store")
    if revision != scripts.get_current_head():
        command = f"mlflow db upgrade {without_secrets(uri)}"
        problem = f"an older MLflow {here} has written it"
        raise _error(uri, f"{problem}; make a backup, and run {command} first")
    if revision:
        remember(revision.encode(), SCHEMA, mlflow.__version__)
    return True


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE_HEADER)) in (b"", _SQLITE_HEADER)
    except OSError:
        return False


def _error(uri: str, problem: str) -> InputError:
    return InputError(problem, parameter="tracking_uri", value=without_secrets(uri))
