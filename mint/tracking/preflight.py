"""Whether a server answers, found out in seconds and before anything else is done."""

import socket
import ssl
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from mint.errors import InputError, without_secrets

_SECONDS = 4.0
_SQLITE = b"SQLite format 3\0"
# For the scheme of a tracking store's URI, the port where it names none.
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433, "http": 80, "https": 443}


def check_store(uri: str) -> None:
    """Refuse the URI of what is no tracking store.

    Raises:
        InputError: it is of no kind that can be used.
    """
    try:
        scheme = urlsplit(uri).scheme.split("+")[0]
    except ValueError:  # as of half an IPv6 address
        scheme = ""
    is_file = uri.startswith("sqlite:///") and uri not in ("sqlite:///", "sqlite:///:memory:")
    if scheme not in _PORTS and not is_file:
        raise InputError(
            f"--tracking-uri {without_secrets(uri)}: allowed are sqlite:///FILE, the URI of "
            "another database, and http(s)://HOST:PORT of an MLflow server"
        )
    path = Path(uri.removeprefix("sqlite:///"))
    if is_file and path.exists() and not _is_database(path):
        raise InputError(
            f"--tracking-uri {uri}: cannot be used as a tracking store: it is no SQLite database; "
            "allowed is one, or a file that does not exist yet"
        )


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) in (b"", _SQLITE)
    except OSError:
        return False


def reach_store(uri: str) -> None:
    """Knock at the server of a tracking store; MLflow itself would try for minutes.

    Raises:
        InputError: it is none, or nobody answers.
    """
    check_store(uri)
    where = urlsplit(uri)
    port = _PORTS.get(where.scheme.split("+")[0])
    if port is None or not where.hostname:
        return  # a file, or where the database's client looks by itself
    shown = without_secrets(uri)
    try:
        port = where.port or port
    except ValueError:  # whose text may hold a password
        raise InputError(f"--tracking-uri {shown}: its port must be a number") from None
    try:
        _knock(where.hostname, port)
        if where.scheme in ("http", "https"):
            _ask(f"{where.scheme}://{where.hostname}:{port}{where.path.rstrip('/')}/health")
    except (OSError, HTTPException) as error:  # or an answer of what is no web server
        raise InputError(
            f"--tracking-uri {shown}: nobody answers there ({error}); start the server, or give "
            "another store"
        ) from error


def _ask(url: str) -> None:
    """Wait for any answer at all of a web server."""
    try:
        urlopen(url, timeout=_SECONDS).close()
    except HTTPError:
        return  # an answer
    except URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # whether to trust it is MLflow's to say
            raise


def reach_ray(address: str) -> None:
    """Knock at the head of a Ray cluster; Ray itself would try for a minute.

    Raises:
        InputError: nobody answers.
    """
    if address == "auto":
        return
    try:
        where = urlsplit(f"//{address}")
        if not where.hostname or not where.port:
            raise ValueError("it names no host and port")
        _knock(where.hostname, where.port)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--ray-address {address}: nobody answers there ({error}); allowed are HOST:PORT, and "
            "auto for the cluster of this machine"
        ) from error


def _knock(host: str, port: int) -> None:
    socket.create_connection((host, port), _SECONDS).close()
