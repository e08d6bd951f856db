"""A sweep on a cluster, its runs on an MLflow server, these in PostgreSQL, and a node that dies."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from services import (
    Database,
    Nodes,
    Server,
    environment,
    group,
    mlflow_server,
    postgresql,
    ray_nodes,
    run_python,
)

SCRIPT = Path(__file__).resolve().parents[2] / "sweeps" / "groups_vs_samples.py"
AXES = (
    "--groups 5 10 20 --samples-per-class 30 50 --upper-limits none 0.8 --seeds 0 "
    "--set training.epochs=3"
)
TRIALS = 12

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with postgresql() as running:
        yield running


@pytest.fixture(scope="module")
def server(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with mlflow_server(database, tmp_path_factory.mktemp("mlflow")) as running:
        yield running


@pytest.fixture
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with ray_nodes(tmp_path_factory.mktemp("nodes")) as running:
        yield running


def test_sweep_on_a_cluster_survives_a_node_and_gives_the_tables_of_one_machine(
    database: Database, server: Server, nodes: Nodes, tmp_path: Path
) -> None:
    cluster = f"--ray-address {nodes.address} --storage {tmp_path / 'storage'}"
    status, output = _sweep_and_kill_a_node(
        tmp_path / "swept", f"{AXES} {cluster} --tracking-uri {server.uri}", nodes
    )
    assert status == 0, output
    assert f"[{TRIALS}/{TRIALS}]" in output
    assert all(cache.is_dir() for cache in nodes.caches), "one of the nodes had no trial"
    tables = _tables(tmp_path / "swept")

    client = MlflowClient(server.uri)
    runs = _all_runs(client)
    assert [run.info.status for run in runs] == ["FINISHED"] * TRIALS
    assert len({run.data.tags["mint.key"] for run in runs}) == TRIALS
    for run in runs:
        assert str(run.info.artifact_uri).startswith("mlflow-artifacts:")
        folder = tmp_path / "downloads" / run.info.run_id
        folder.mkdir(parents=True)
        masks = client.download_artifacts(
            run.info.run_id, f"{run.data.params['files']}/masks/masks.safetensors", str(folder)
        )
        assert Path(masks).stat().st_size > 0

    alone = _python(tmp_path / "alone", str(SCRIPT), *AXES.split())
    assert alone.returncode == 0, alone.stderr
    assert _tables(tmp_path / "alone") == tables

    report = _python(
        tmp_path / "report",
        *("-c", "from mint.cli.app import main; raise SystemExit(main())", "report"),
        *("--tracking-uri", server.uri),  # the server, not its database, has the files of runs
    )
    assert report.returncode == 0, report.stderr
    assert _tables(tmp_path / "report") == tables

    said = output + report.stdout + report.stderr + server.log.read_text()
    assert database.password not in said
    assert _files_with(database.password, tmp_path, nodes.caches[0].parent) == []


def _sweep_and_kill_a_node(folder: Path, options: str, nodes: Nodes) -> tuple[int, str]:
    folder.mkdir()
    output, alive = "", True
    with group(
        [sys.executable, "-u", str(SCRIPT), *options.split()],
        environment(nodes.settings),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as sweep:
        assert sweep.stdout
        for line in sweep.stdout:
            output += line
            if alive and re.match(rf"\[ *2/{TRIALS}\]", line):
                nodes.kill_one()
                alive = False
        status = sweep.wait()
    assert not alive, output
    return status, output


def _python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    return run_python(folder, *arguments)


def _tables(folder: Path) -> bytes:
    return (folder / "my-results" / "RESULTS.md").read_bytes()


def _all_runs(client: MlflowClient) -> list[Run]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, run_view_type=ViewType.ALL))


def _files_with(text: str, *folders: Path) -> list[Path]:
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [path for path in files if text.encode() in path.read_bytes()]
