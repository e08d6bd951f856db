"""Servers and databases that are no tracking store for this version of MLflow."""

import re
import socketserver
import sqlite3
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest
import sqlalchemy
from alembic import command
from alembic.config import Config
from click.testing import CliRunner
from mlflow import db
from mlflow.store.tracking.dbmodels.initial_models import Base as FirstTables

from mint.cli.app import main
from mint.errors import InputError
from mint.tracking.mlflow_store import MlflowStore
from mint.tracking.preflight import reach_store


class _NoWebServer(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(1024)
        self.request.sendall(b"SSH-2.0-OpenSSH\r\n")


def test_server_that_is_no_web_server_is_refused() -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), _NoWebServer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        with pytest.raises(InputError, match=rf"tracking_uri http://127.0.0.1:{port}: nobody"):
            reach_store(f"http://127.0.0.1:{port}")
        server.shutdown()


def _tables(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]


def _execute(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.filterwarnings("ignore:The ``noload`` loader")  # of MLflow itself
def test_database_of_an_older_mlflow_is_left_alone_until_it_is_upgraded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "mlflow.db"
    uri = f"sqlite:///{database}"
    engine = sqlalchemy.create_engine(uri)
    FirstTables.metadata.create_all(engine)
    scripts = Config()
    scripts.set_main_option("script_location", f"{Path(db.__file__).parent}/store/db_migrations")
    scripts.set_main_option("sqlalchemy.url", uri)
    with engine.begin() as connection:
        scripts.attributes["connection"] = connection
        command.upgrade(scripts, "84291f40a231")  # of MLflow 2.0
    engine.dispose()
    _execute(database, "INSERT INTO experiments (experiment_id, name) VALUES (0, 'Default')")
    before = _tables(database)
    for name in ("report", "ui"):
        assert main([name, "--tracking-uri", uri]) == 2
        error = capsys.readouterr().err
        assert "an older MLflow" in error
        assert _tables(database) == before
    advice = re.search(r"make a backup, and run mlflow db (upgrade \S+) first", error)
    assert advice
    assert CliRunner().invoke(db.commands, advice[1].split()).exit_code == 0
    assert MlflowStore(uri).prepare("digits_mlp")


def test_database_of_a_newer_mlflow_is_not_called_out_of_date(
    store: MlflowStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _execute(
        tmp_path / "store" / "mlflow.db", "UPDATE alembic_version SET version_num = 'fedcba987654'"
    )
    for name in ("report", "ui"):
        assert main([name, "--tracking-uri", store.uri]) == 2
        error = capsys.readouterr().err
        assert "a newer MLflow" in error
        assert "install a newer mint, or use another store" in error
        assert "upgrade" not in error


def test_database_of_another_program_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "other.db"
    _execute(database, "CREATE TABLE albums (id INTEGER)", "CREATE TABLE artists (id INTEGER)")
    for name in ("report", "ui"):
        assert main([name, "--tracking-uri", f"sqlite:///{database}"]) == 2
        error = capsys.readouterr().err
        assert "holds tables of another program, such as albums, artists" in error
        assert _tables(database) == ["albums", "artists"]
