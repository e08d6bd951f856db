"""A sweep whose driver is killed and whose cluster then loses a node finishes all the same."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from services import Nodes, environment, ray_nodes

from mint.tracking.mlflow_store import MlflowStore
from mint.trial.result import TrialResult

SCRIPT = Path(__file__).resolve().parents[2] / "sweeps" / "groups_vs_samples.py"
AXES = "--smoke --groups 5 20 --samples-per-class 20 30 --upper-limits none --seeds 0"
TRIALS = 4


def _sweep(
    folder: Path, nodes: Nodes, disturb: Callable[[subprocess.Popen[str]], None]
) -> tuple[int, str]:
    """Run the sweep, disturb it once its first trial has ended; return exit code and output."""
    options = f"{AXES} --ray-address {nodes.address} --storage {folder / 'storage'}"
    output, disturbed = "", False
    with subprocess.Popen(
        [sys.executable, "-u", str(SCRIPT), *options.split()],
        cwd=folder,
        env=environment(nodes.settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            output += line
            if line.startswith("[") and not disturbed:
                disturb(process)
                disturbed = True
        code = process.wait()
    assert disturbed, output
    return code, output


@pytest.mark.slow
def test_sweep_survives_a_kill_of_its_driver_and_the_loss_of_a_node(tmp_path: Path) -> None:
    (tmp_path / "nodes").mkdir()
    with ray_nodes(tmp_path / "nodes") as nodes:
        code, first = _sweep(
            tmp_path, nodes, lambda process: os.killpg(process.pid, signal.SIGKILL)
        )
        assert code == -signal.SIGKILL, first
        (before,) = re.findall(r"^\[1/4\] (\S+)", first, re.MULTILINE)
        code, second = _sweep(tmp_path, nodes, lambda process: nodes.kill_one())
        assert code == 0, second
        assert all(cache.is_dir() for cache in nodes.caches), "one of the nodes ran no trial"
    already = re.search(rf"{TRIALS} trials, (\d) already finished", second)
    assert already, second
    assert int(already[1]) >= 1
    assert not re.search(rf"^\[./.\] {re.escape(before)} ", second, re.MULTILINE)
    store = MlflowStore(f"sqlite:///{tmp_path / 'mlflow.db'}")
    results = dict(store.results().read)
    assert len({result.keys.key for result in results.values()}) == len(results) == TRIALS, second
    client = MlflowClient(store.uri)
    for run_id, result in results.items():
        assert isinstance(result, TrialResult)
        history = client.get_metric_history(run_id, "search/params_pruned")
        steps = {point.step: point.value for point in history}
        assert len(history) == len(steps)
        assert [steps[number] for number in sorted(steps)] == [
            step.params_pruned for step in result.search_steps
        ]
