"""Trials that the machine, the network or the data cannot serve are refused before any work."""

from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import Tensor, nn

from mint.config.loading import ExperimentFile, load_experiment
from mint.config.schema import DataConfig, Experiment, NetworkConfig
from mint.data.datasets import Source, load_source
from mint.data.facts import recall_facts, remember_facts
from mint.data.images import DecodedImages, opened
from mint.errors import InputError
from mint.machine import threads
from mint.models import registry
from mint.models.layers import LayerTable, Traced
from mint.models.registry import build_network
from mint.trial.callbacks import TrialCallbacks
from mint.trial.setup import PlannedTrial, PlannedTrials, TrialPaths, plan_trial, plan_trials

AXES: dict[str, Any] = {"groups": 6, "samples_per_class": 30, "upper_limit": None, "seed": 0}


def _plan(experiment: Experiment, *axes: dict[str, Any], **options: Any) -> PlannedTrials:
    points = [AXES | changed for changed in axes or ({},)]
    settings: dict[str, Any] = {"init": None, "device": "cpu", "data_dir": Path("nowhere")}
    return plan_trials(experiment, points, **settings | options)


def _mlp(*widths: int) -> dict[str, Any]:
    return {"network": NetworkConfig(name="mlp", arguments={"widths": list(widths)})}


@pytest.mark.parametrize(
    ("experiment", "axes", "problem"),
    [
        ({}, {"groups": 301}, r"groups 301: fc1 -> fc2 of digits_mlp allows 1 to 300"),
        ({}, {"samples_per_class": 200}, r"samples_per_class 200: digits allows 1 to \d+"),
        ({}, {"fraction": 1.5}, "trial of digits_mlp: fraction 1.5: "),
        ({}, {"fraction": 0.9, "upper_limit": 0.5}, "fraction 0.9: .* at most 0.5000: of 150000"),
        ({}, {"criterion": "bn-scale"}, "criterion bn-scale: digits_mlp prunes fc2, which has no"),
        ({"threads": 9999}, {}, "threads 9999: digits_mlp .* allows 1 to"),
        ({"limits": {"fc3": 0.5}}, {}, "limits: fc3 is no layer that .* prunes; .* fc2"),
        ({"groups": {"fc3": 5}}, {}, "groups: fc3 is no layer .* those are fc1, fc2"),
        ({"groups": {"fc2": 301}}, {}, "groups 301 of fc2 in .*: allowed are 1 to 300"),
        ({"prune": (("fc1", "fc9"),)}, {}, r"prune \[fc1, fc9\]: mlp has no such pair"),
        (_mlp(63, 500, 300, 10), {}, r"does not run on an input of shape \(1, 1, 8, 8\)"),
        (_mlp(64, 500, 300, 5), {}, r"its output for an image is \(5,\); .* need \(10,\)"),
    ],
)
def test_what_cannot_be_served_is_refused(
    quick: Experiment, experiment: dict[str, Any], axes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        _plan(quick.model_copy(update=experiment), {}, axes)


def test_images_larger_than_the_memory_are_checked_once_before_a_trial(
    quick: Experiment, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mint.data.datasets.memory_bytes", lambda: 0)
    assert isinstance(digits.train, Tensor)
    for row, label in enumerate(digits.train_labels[:300]):
        part = "train" if row < 250 else "val"
        folder = tmp_path / "images" / part / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.train[row, 0].numpy()).save(folder / f"{row}.png")
    name = f"imagefolder:{tmp_path / 'images'}"
    data = quick.data.model_copy(update={"name": name, "validation_size": 20})
    file = ExperimentFile(quick.model_copy(update={"data": data}))
    axes = {**AXES, "samples_per_class": 10, "upper_limit": "none"}
    paths = TrialPaths(cache_dir=tmp_path / "cache", data_dir=tmp_path)
    reports: list[tuple[int, int]] = []
    used = set()

    def opened_here(*options: Any) -> AbstractContextManager[Image.Image]:
        used.add(threads())
        return opened(*options)

    monkeypatch.setattr("mint.data.images.opened", opened_here)

    def plan() -> PlannedTrial:
        callbacks = TrialCallbacks(on_check=lambda *report: reports.append(report))
        return plan_trial(file, axes, paths, "cpu", ["mint"], callbacks)

    assert isinstance(plan().pipeline.source.train, DecodedImages)
    assert reports == [(250, 300), (300, 300)]
    assert used == {file.experiment.threads}
    plan()
    assert len(reports) == 2
    file_of_one = next((tmp_path / "images" / "train" / "3").iterdir())
    file_of_one.write_bytes(file_of_one.read_bytes()[:60])
    with pytest.raises(InputError, match=f"{file_of_one.name}: cannot be decoded"):
        plan()


@pytest.mark.parametrize("size", [9, 1437, 5000])
def test_a_validation_split_leaves_both_parts_an_image_of_every_class(
    quick: Experiment, size: int
) -> None:
    data = quick.data.model_copy(update={"validation_size": size})
    with pytest.raises(InputError, match=f"validation_size {size}: .* allows 10 to 1427"):
        _plan(quick.model_copy(update={"data": data}))


def test_checking_a_network_leaves_its_batch_norm_alone(quick: Experiment) -> None:
    data = quick.data.model_copy(update={"size": 32, "channels": 3})
    vgg16 = NetworkConfig(name="vgg16", arguments={"classes": 10})
    update = {"data": data, "network": vgg16, "prune": "all"}
    planned = _plan(quick.model_copy(update=update))  # in training mode, one image is too few
    assert isinstance(planned.layers, Traced)
    for name, values in planned.layers.network.named_buffers():
        if name.endswith("running_mean"):
            assert not values.any()


def test_the_network_is_built_once_and_not_at_all_if_every_trial_is_finished(
    quick: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[NetworkConfig] = []

    def count(config: NetworkConfig) -> nn.Module:
        built.append(config)
        return build_network(config)

    monkeypatch.setattr(registry, "build_network", count)
    planned = _plan(quick, {}, {"groups": 7}, {"groups": 7})
    assert len(built) == 1
    assert [config.groups for config in planned.configs] == [6, 7]
    assert planned.layers
    finished = _plan(quick, {"groups": 999}, is_finished=lambda key: True)
    assert (len(built), finished.layers) == (1, None)


def test_a_criterion_has_one_trial_for_all_values_of_an_axis_that_it_does_not_use(
    quick: Experiment,
) -> None:
    axes = [{"criterion": "magnitude", "groups": groups, "fraction": 0.5} for groups in (5, 10)]
    (config,) = _plan(quick, *axes).configs
    assert (config.groups, config.samples_per_class) == (0, 0)


def test_without_a_download_an_absent_data_set_is_still_checked_as_far_as_possible(
    tmp_path: Path,
) -> None:
    mnist = load_experiment("mnist_mlp")
    planned = _plan(mnist, data_dir=tmp_path, download=False)
    assert planned.facts is None
    assert planned.layers
    with pytest.raises(InputError, match="groups 301: fc1 -> fc2 of mnist_mlp allows 1 to 300"):
        _plan(mnist, {"groups": 301}, data_dir=tmp_path, download=False)
    assert list(tmp_path.iterdir()) == []


def test_a_trial_on_a_gpu_estimates_on_the_cpu_unless_asked(quick: Experiment) -> None:
    assert _plan(quick, device="cuda").configs[0].estimator == "cpu"
    estimate = quick.estimate.model_copy(update={"device": "cuda"})
    asked = quick.model_copy(update={"estimate": estimate})
    with pytest.raises(InputError, match=r"estimate.device cuda: the trial trains on the CPU"):
        _plan(asked)


def test_a_recalled_plan_is_the_one_that_was_computed(
    quick: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = _plan(quick, {}, {"groups": 7})
    with monkeypatch.context() as patched:
        for place in ("mint.data.datasets.load_source", "mint.models.registry.build_network"):
            patched.setattr(place, None)  # a call would fail
        recalled = _plan(quick, {}, {"groups": 7}, recalling=True)
        assert (recalled.is_recalled, computed.is_recalled) == (True, False)
        assert (recalled.configs, recalled.facts) == (computed.configs, computed.facts)
        assert computed.layers
        assert recalled.layers == LayerTable(
            **{field.name: getattr(computed.layers, field.name) for field in fields(LayerTable)}
        )
        with pytest.raises(InputError, match=r"groups 301: .* allows 1 to 300"):
            _plan(quick, {"groups": 301}, recalling=True)
        with pytest.raises(InputError, match="samples_per_class 500: digits allows 1 to"):
            _plan(quick, {"samples_per_class": 500}, recalling=True)


def test_facts_are_forgotten_when_a_file_changes(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label in "ab":
            folder = tmp_path / "set" / part / label
            folder.mkdir(parents=True)
            for number in range(3):
                Image.new("L", (8, 8), number).save(folder / f"{number}.png")
    data = DataConfig(name="imagefolder:set", validation_size=2)
    facts = load_source(data, tmp_path).facts
    assert facts.class_counts == (3, 3)
    assert recall_facts(data, tmp_path) is None
    remember_facts(facts, data, tmp_path)
    assert recall_facts(data, tmp_path) == facts
    assert recall_facts(data.model_copy(update={"size": 4}), tmp_path) is None
    Image.new("L", (8, 8), 9).save(tmp_path / "set" / "train" / "a" / "1.png")
    assert recall_facts(data, tmp_path) is None
