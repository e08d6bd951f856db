"""Trials that fail on a real Ray in every way: each has its reason, and the others finish."""

import gc
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import ray
import torch
from ray import tune
from services import resize_disk, small_disk

from mint.config.grid import Grid
from mint.config.schema import NetworkConfig, TrialConfig
from mint.data.datasets import Source, load_source
from mint.machine import threads
from mint.models.own_code import source_digest
from mint.orchestration.display import Lines
from mint.orchestration.search_spaces import asha_plan, grid_plan, optuna_plan
from mint.orchestration.sweep_settings import SweepSettings
from mint.orchestration.trial_monitor import TrialMonitor
from mint.orchestration.tune import _cause_of_death, _run_one, run_trials
from mint.store.stage_cache import StageCache
from mint.tracking.mlflow_store import MlflowStore
from mint.tracking.run_writer import RunWriter
from mint.trial.failed_trials import FailedTrial, missing_trials
from mint.trial.pipeline import TrialPipeline
from mint.trial.provenance import Provenance
from mint.trial.result import SearchStep

# The network recognises its trial by the seed of its random weights.
NETWORK = """
import os
from pathlib import Path

import ray
import torch
from torch import nn

from mint.rng import stream

FOLDER = Path(__file__).parent


def _is_of(seed):
    return torch.initial_seed() == int(stream(seed, "initial weights").integers(2**62))


class Failing(nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(64, 500), nn.Linear(500, 300), nn.Linear(300, 10)
        self.mode = mode

    def forward(self, x):
        x = self.fc3(self.fc2(self.fc1(x.flatten(1)).relu()).relu())
        if self.training and self.mode == 1:
            raise ValueError("this network does not\\nlike to be trained")
        return x * float("nan") if self.mode == 2 else x

    def to(self, *arguments, **keywords):
        if self.mode == 5:
            share = ray.get_runtime_context().get_assigned_resources()["GPU"]
            with open(FOLDER / "shares", "a") as file:
                print(share, file=file)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 GiB.")
        return super().to(*arguments, **keywords)


def build() -> nn.Module:
    mode = next((seed for seed in range(1, 6) if _is_of(seed)), 0)
    died = FOLDER / "died"
    if mode == 3 and not died.exists():
        died.touch()
        os.kill(os.getpid(), 9)
    if mode == 4:
        os.kill(os.getpid(), 9)
    return Failing(mode)
"""


class Outcome(NamedTuple):
    """How a trial ended: the arguments of TrialMonitor.ended."""

    status: str
    seconds: float
    reason: str = ""
    details: str = ""


class Recorder(TrialMonitor):
    """Records the states of trials, by their seeds."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.epochs: dict[int, list[tuple[int, float]]] = {}
        self.stages: dict[int, set[str]] = {}
        self.steps: dict[int, int] = {}
        self.configs: list[TrialConfig] = []
        self.outcomes: dict[int, Outcome] = {}

    def started(self, config: TrialConfig) -> None:
        self.starts.append(config.seed)

    def epoch(self, config: TrialConfig, epoch: int, validation_accuracy: float) -> None:
        self.epochs.setdefault(config.seed, []).append((epoch, validation_accuracy))

    def progress(self, config: TrialConfig, facts: Mapping[str, Any]) -> None:
        self.stages.setdefault(config.seed, set()).add(facts["stage"])

    def search_step(self, config: TrialConfig, step: SearchStep) -> None:
        self.steps[config.seed] = self.steps.get(config.seed, 0) + 1

    def ended(self, config: TrialConfig, *outcome: Any, **more: Any) -> None:
        self.configs.append(config)
        self.outcomes[config.seed] = Outcome(*outcome, **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("ray")
    (folder / "failing.py").write_text(NETWORK)
    before = Path.cwd()
    os.chdir(folder)
    # Ray assigns a GPU that does not exist; no trial here gets as far as using it.
    ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield folder
    ray.shutdown()
    os.chdir(before)


def _settings(folder: Path, **more: Any) -> SweepSettings:
    return SweepSettings(
        name="a-sweep",
        provenance=Provenance.of_this_process("a_sweep", ["a_sweep.py"]),
        data_dir=folder,
        cache_root=folder / ".mint",
        storage=None,
        threads=1,
        **more,
    )


def _trial(quick_trial: TrialConfig, seed: int) -> TrialConfig:
    network = NetworkConfig(name="failing:build")
    experiment = quick_trial.experiment.model_copy(update={"network": network})
    update = {"experiment": experiment, "seed": seed, "network_digest": source_digest(network.name)}
    return quick_trial.model_copy(update=update)


def test_every_failure_has_its_reason_and_the_other_trials_finish(
    folder: Path, quick_trial: TrialConfig
) -> None:
    recorder = Recorder()
    trials = [_trial(quick_trial, seed) for seed in (1, 2, 3, 4, 0)]
    run_trials(grid_plan(trials), _settings(folder, live=True), 2, recorder)
    assert "baseline" in recorder.stages[0]
    ends = {seed: (outcome.status, outcome.reason) for seed, outcome in recorder.outcomes.items()}
    assert ends[0] == ("finished", "")
    assert ends[1] == ("failed", "ValueError: this network does not like to be trained")
    assert ends[2][0] == "failed"
    assert ends[2][1].startswith("TrainingDivergedError: ")
    assert ends[3] == ("finished", "")  # its worker was killed once
    assert recorder.starts.count(3) == 2
    assert ends[4][0] == "failed"
    assert ends[4][1].startswith("the worker died 4 times: ")
    assert "Traceback" in recorder.outcomes[1].details
    assert recorder.steps[0] > 1
    assert all(outcome.seconds > 0 for outcome in recorder.outcomes.values())
    assert not list((folder / ".mint" / "ray").iterdir())


def test_trial_runs_after_the_worker_that_tune_kept_for_it_died(
    folder: Path, quick_trial: TrialConfig
) -> None:
    class Killing(Recorder):
        """Kills the worker of the first trial before Tune gives it the second."""

        def ended(self, config: TrialConfig, *outcome: Any, **more: Any) -> None:
            super().ended(config, *outcome, **more)
            if len(self.outcomes) == 1:
                _kill_trial_worker()

    recorder = Killing()
    trials = [quick_trial.model_copy(update={"seed": seed}) for seed in (10, 11)]
    run_trials(grid_plan(trials), _settings(folder), 1, recorder)
    assert {seed: outcome.status for seed, outcome in recorder.outcomes.items()} == {
        10: "finished",
        11: "finished",
    }


def _kill_trial_worker() -> None:
    workers = [
        process
        for process in psutil.Process().children(recursive=True)
        if process.name().startswith("ray::ImplicitFunc")
    ]
    assert workers
    for worker in workers:
        worker.kill()
    psutil.wait_procs(workers)


def test_trial_out_of_memory_runs_once_more_with_the_gpu_alone(
    folder: Path, quick_trial: TrialConfig
) -> None:
    recorder = Recorder()
    run_trials(
        grid_plan([_trial(quick_trial, 5)]), _settings(folder, gpus_per_trial=0.5), 2, recorder
    )
    assert (folder / "shares").read_text().split() == ["0.5", "1.0"]
    outcome = recorder.outcomes[5]
    assert outcome.status == "failed"
    assert outcome.reason == (
        "out of GPU memory: OutOfMemoryError: CUDA out of memory. Tried to allocate 7 GiB."
    )


def test_asha_stops_trials_that_fall_behind_known_ones(
    folder: Path, quick_trial: TrialConfig
) -> None:
    trials = [
        quick_trial.model_copy(update={"seed": seed, "fraction": 0.99, "groups": 20})
        for seed in (6, 7)
    ]
    unbeatable = [(f"known-{i}", [(1, 100.0), (2, 100.0)]) for i in range(6)]
    recorder = Recorder()
    run_trials(asha_plan(trials, 3, unbeatable), _settings(folder, search="asha"), 2, recorder)
    for seed in (6, 7):
        assert recorder.outcomes[seed].status == "stopped"
        assert recorder.outcomes[seed].reason == "stopped by asha in epoch 1 of retraining"
        assert [epoch for epoch, _ in recorder.epochs[seed]] == [1]
    # A stopped trial holds no lock: another sweep can run it.
    recorder = Recorder()
    run_trials(grid_plan(trials), _settings(folder), 2, recorder)
    assert {outcome.status for outcome in recorder.outcomes.values()} == {"finished"}


def test_search_resumes_where_it_stopped(folder: Path, quick_trial: TrialConfig) -> None:
    space = Grid(
        groups=(5, 10), samples_per_class=(30,), upper_limits=("none",), fractions=(0.8, 0.98)
    )
    keys = []
    for draws in (2, 4, 4):
        recorder = Recorder()
        run_trials(optuna_plan(quick_trial, space, draws, 2), _settings(folder), 2, recorder)
        assert len(recorder.configs) == draws
        assert recorder.outcomes[0].status == "finished"
        keys.append([config.key for config in recorder.configs])
    assert set(keys[0]) <= set(keys[1])
    assert sorted(keys[1]) == sorted(keys[2])


def test_trial_fails_on_a_full_disk_and_finishes_once_there_is_space(
    folder: Path, quick_trial: TrialConfig, tmp_path: Path
) -> None:
    store = MlflowStore(f"sqlite:///{tmp_path / 'mlflow.db'}")
    store.prepare("digits_mlp")
    with small_disk(tmp_path / "disk", "size=2m") as disk:
        settings, cache = replace(_settings(folder), cache_root=disk), StageCache(disk)

        def run() -> TrialMonitor:
            missing = missing_trials([quick_trial], cache, (), stopped=False)
            with RunWriter(store, cache, settings.provenance, (), print) as writer:
                monitor = TrialMonitor(writer, Lines(), 1)
                run_trials(grid_plan(missing), settings, 1, monitor)
            return monitor

        assert run().failed == 1
        ((_, failed),) = store.results().read
        assert isinstance(failed, FailedTrial)
        assert "No space left on device" in failed.reason
        resize_disk(disk, "size=200m")
        assert run().finished == 1
    ((_, result),) = store.results().read
    assert result.keys.key == quick_trial.key


def test_error_of_the_monitor_ends_the_sweep_and_fails_no_trial(
    folder: Path, quick_trial: TrialConfig
) -> None:
    class FullDisk(Recorder):
        def ended(self, config: TrialConfig, *outcome: Any, **more: Any) -> None:
            super().ended(config, *outcome, **more)
            raise OSError(28, "No space left on device")

    recorder = FullDisk()
    trials = [quick_trial.model_copy(update={"seed": seed}) for seed in (0, 8, 9)]
    with pytest.raises(OSError, match="No space left"):
        run_trials(grid_plan(trials), _settings(folder), 1, recorder)
    assert [outcome.status for outcome in recorder.outcomes.values()] == ["finished"]


def test_ray_listens_on_this_machine_alone(folder: Path) -> None:
    children = psutil.Process().children(recursive=True)
    names = ("gcs_server", "raylet")
    servers = [child for child in children if any(name in child.name() for name in names)]
    assert len(servers) == 2
    for server in servers:
        for connection in server.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1")


def test_a_trial_is_released_before_its_memory_is_freed(
    tmp_path: Path, quick_trial: TrialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = []

    def empty_cache() -> None:
        alive.append(sum(type(each) is TrialPipeline for each in gc.get_objects()))

    monkeypatch.setattr(torch.cuda, "empty_cache", empty_cache)
    monkeypatch.setattr(tune, "report", lambda report: None)
    used = []

    def load(*options: Any, **more: Any) -> Source:
        used.append(threads())
        return load_source(*options, **more)

    monkeypatch.setattr("mint.orchestration.tune.load_source", load)
    space = grid_plan([quick_trial]).space
    parameters = {name: values["grid_search"][0] for name, values in space.items()}
    _run_one(parameters, _settings(tmp_path, gpus_per_trial=0.5), 1)
    assert alive == [0]
    assert used == [quick_trial.experiment.threads]


def test_a_worker_killed_for_memory_has_one_line_with_what_was_used() -> None:
    details = (
        "ray.exceptions.OutOfMemoryError: 1 worker(s) were killed due to the node running low on "
        "memory. Memory on the node (IP: 10.0.0.1, ID: ab) was 7.60GB used / 8.00GB limit (0.95)\n"
        "OOM kill reason: usage above threshold\nRay killed 1 worker(s)\nTop 10 memory users: ..."
    )
    line = _cause_of_death(details)
    assert line.startswith("Ray killed it because 7.60GB of 8.00GB of the node's memory were in")
    assert "lower max_concurrent" in line
    assert _cause_of_death("Traceback\n  ActorDiedError: gone\n") == "ActorDiedError: gone"
