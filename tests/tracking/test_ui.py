"""MLflow's real server, started and ended by mint ui."""

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
from services import environment, free_port

from mint.cli.app import main
from mint.tracking.mlflow_store import MlflowStore

MINT = [sys.executable, "-P", "-c", "from mint.cli.app import main; raise SystemExit(main())"]


def test_link_of_every_experiment_until_ctrl_c(tmp_path: Path) -> None:
    identifier = MlflowStore(f"sqlite:///{tmp_path / 'mlflow.db'}").prepare("digits_mlp")
    port = free_port()
    (tmp_path / "queue.py").write_text("raise ImportError('this is a file of the user')\n")
    before = set(tmp_path.iterdir())
    with subprocess.Popen(
        [*MINT, "ui", "--port", str(port)],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        first, second = process.stdout.readline(), process.stdout.readline()
        link = re.fullmatch(
            r"digits_mlp  runs    (http://127\.0\.0\.1:\d+)(/#/experiments/.*)\n", first
        )
        assert link, first + process.stderr.read()
        assert second == f"digits_mlp  charts  {link[1]}{link[2]}&compareRunsMode=CHART\n"
        assert link[1].endswith(f":{port}")
        assert link[2].startswith(f"/#/experiments/{identifier}/runs?")
        with urlopen(link[1], timeout=60) as page:
            assert "MLflow" in page.read().decode()
        process.send_signal(signal.SIGINT)
        assert "stopped" in process.stderr.read()
    assert process.returncode == 130
    assert set(tmp_path.iterdir()) == before
    end = time.monotonic() + 10
    with socket.socket() as knock:
        while knock.connect_ex(("127.0.0.1", port)) == 0:
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.mark.usefixtures("empty_folder")
def test_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["ui", "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert f"--port {port}: cannot be listened on" in error
    assert len(error.splitlines()) == 1
