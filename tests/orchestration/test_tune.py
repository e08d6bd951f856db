"""Trials on a real Ray that go wrong in every way: each is told with its reason, the rest go on."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from mint.config.schema import NetworkConfig, TrialConfig
from mint.data.datasets import Source
from mint.models import source_digest
from mint.orchestration.search_spaces import asha_plan, grid_plan, optuna_plan
from mint.orchestration.settings import Ending, Progress, SweepSettings
from mint.orchestration.tune import run_sweep
from mint.trial.provenance import Provenance
from mint.trial.result import SearchStep

# The network of a trial is drawn from its seed, so that is how this one knows what to do.
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


def build():
    mode = next((seed for seed in range(1, 6) if _is_of(seed)), 0)
    died = FOLDER / "died"
    if mode == 3 and not died.exists():
        died.touch()
        os.kill(os.getpid(), 9)
    if mode == 4:
        os.kill(os.getpid(), 9)
    return Failing(mode)
"""


class Notes:
    """Takes down what an observer is told."""

    def __init__(self) -> None:
        self.begun_: list[int] = []
        self.epochs: dict[int, list[tuple[int, float]]] = {}
        self.stages: dict[int, set[str]] = {}
        self.search_steps: dict[int, int] = {}
        self.trials: list[TrialConfig] = []
        self.endings: dict[int, Ending] = {}

    def begun(self, config: TrialConfig) -> None:
        self.begun_.append(config.seed)

    def epoch(self, config: TrialConfig, epoch: int, validation_accuracy: float) -> None:
        self.epochs.setdefault(config.seed, []).append((epoch, validation_accuracy))

    def progress(self, config: TrialConfig, progress: Progress) -> None:
        self.stages.setdefault(config.seed, set()).add(progress.stage)

    def probe(self, config: TrialConfig, probe: SearchStep) -> None:
        self.search_steps[config.seed] = self.search_steps.get(config.seed, 0) + 1

    def ended(self, config: TrialConfig, ending: Ending) -> None:
        self.trials.append(config)
        self.endings[config.seed] = ending


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("ray")
    (folder / "failing.py").write_text(NETWORK)
    before = Path.cwd()
    os.chdir(folder)
    # A card that is not there: Ray hands it out all the same, and no trial here comes to use it.
    ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield folder
    ray.shutdown()
    os.chdir(before)


def _settings(
    folder: Path, *, gpus: float = 0, every_epoch: bool = False, live: bool = False
) -> SweepSettings:
    return SweepSettings(
        name="a-sweep",
        data_dir=folder,
        cache_root=folder / ".mint",
        storage=None,
        gpus_per_trial=gpus,
        threads=1,
        provenance=Provenance.of_this_process("a_sweep", ["a_sweep.py"]),
        owner="me",
        every_epoch=every_epoch,
        live=live,
    )


def _trial(quick_trial: TrialConfig, seed: int) -> TrialConfig:
    network = NetworkConfig(name="failing:build")
    experiment = quick_trial.experiment.model_copy(update={"network": network})
    update = {"experiment": experiment, "seed": seed, "network_digest": source_digest(network)}
    return quick_trial.model_copy(update=update)


def test_every_failure_is_told_and_the_rest_goes_on(
    folder: Path, quick_trial: TrialConfig, digits: Source
) -> None:
    notes = Notes()
    trials = [_trial(quick_trial, seed) for seed in (1, 2, 3, 4, 0)]
    run_sweep(grid_plan(trials), _settings(folder, live=True), 2, notes)
    assert "baseline" in notes.stages[0]
    told = {seed: (ending.status, ending.reason) for seed, ending in notes.endings.items()}
    assert told[0] == ("finished", "")
    assert told[1] == ("failed", "ValueError: this network does not like to be trained")
    assert told[2][0] == "failed"
    assert told[2][1].startswith("TrainingDivergedError: the training loss is nan in epoch 1")
    assert told[3] == ("finished", "")  # its worker was killed once
    assert notes.begun_.count(3) == 2
    assert told[4][0] == "failed"
    assert told[4][1].startswith("the worker died 4 times: ")
    assert "Traceback" in notes.endings[1].details
    assert notes.search_steps[0] > 1
    assert all(ending.seconds > 0 for ending in notes.endings.values())
    assert not list((folder / ".mint" / "ray").iterdir())


def test_out_of_memory_is_tried_once_more_with_the_card_alone(
    folder: Path, quick_trial: TrialConfig
) -> None:
    notes = Notes()
    run_sweep(grid_plan([_trial(quick_trial, 5)]), _settings(folder, gpus=0.5), 2, notes)
    assert (folder / "shares").read_text().split() == ["0.5", "1.0"]
    ending = notes.endings[5]
    assert ending.status == "failed"
    assert ending.reason == (
        "out of GPU memory: OutOfMemoryError: CUDA out of memory. Tried to allocate 7 GiB."
    )


def test_asha_stops_what_falls_behind_what_it_knows(folder: Path, quick_trial: TrialConfig) -> None:
    trials = [
        quick_trial.model_copy(update={"seed": seed, "fraction": 0.99, "groups": 20})
        for seed in (6, 7)
    ]
    unbeatable = [(f"known-{i}", [(1, 100.0), (2, 100.0)]) for i in range(6)]
    notes = Notes()
    plan = asha_plan(trials, 3, unbeatable)
    run_sweep(plan, _settings(folder, every_epoch=True), 2, notes)
    for seed in (6, 7):
        assert notes.endings[seed].status == "stopped"
        assert notes.endings[seed].reason == "stopped by asha in epoch 1 of retraining"
        assert [epoch for epoch, _ in notes.epochs[seed]] == [1]
    # Whoever was stopped has let go of everything: the same trial can be run by another sweep.
    notes = Notes()
    run_sweep(grid_plan(trials), _settings(folder), 2, notes)
    assert {ending.status for ending in notes.endings.values()} == {"finished"}


def test_search_carries_on_where_it_was_stopped(folder: Path, quick_trial: TrialConfig) -> None:
    axes: dict[str, list[Any]] = {
        "groups": [5, 10],
        "samples_per_class": [30],
        "upper_limit": ["none"],
    }
    plans = [optuna_plan(quick_trial, axes, (0.8, 0.98), trials=n, at_once=2) for n in (2, 4, 4)]
    trials = []
    for plan in plans:
        notes = Notes()
        run_sweep(plan, _settings(folder), 2, notes)
        assert len(notes.trials) == plan.samples
        trials.append([config.key for config in notes.trials])
        assert notes.endings[0].status == "finished"
    assert set(trials[0]) <= set(trials[1])
    assert sorted(trials[1]) == sorted(trials[2])


def test_error_of_an_observer_ends_the_sweep_and_passes_for_no_failure(
    folder: Path, quick_trial: TrialConfig
) -> None:
    class Full(Notes):
        def ended(self, config: TrialConfig, ending: Ending) -> None:
            super().ended(config, ending)
            raise OSError(28, "No space left on device")

    notes = Full()
    trials = [quick_trial.model_copy(update={"seed": seed}) for seed in (0, 8, 9)]
    with pytest.raises(OSError, match="No space left"):
        run_sweep(grid_plan(trials), _settings(folder), 1, notes)
    assert [ending.status for ending in notes.endings.values()] == ["finished"]


def test_ray_listens_on_this_machine_alone(folder: Path) -> None:
    children = psutil.Process().children(recursive=True)
    names = ("gcs_server", "raylet")
    servers = [child for child in children if any(name in child.name() for name in names)]
    assert len(servers) == 2
    for server in servers:
        for connection in server.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
