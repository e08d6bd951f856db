"""One trial end to end on real digits: exact, repeatable, and never run twice."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from mint.config.estimate import EstimateConfig
from mint.config.loading import load_experiment
from mint.config.schema import TrialConfig
from mint.data.datasets import load_source
from mint.errors import InputError, TrainingDivergedError
from mint.pruning.layer_table import layers_text, parse_layers
from mint.pruning.masks import Masks
from mint.store.stage_cache import StageCache
from mint.trial.api import FinishedTrial
from mint.trial.callbacks import TrialCallbacks
from mint.trial.pipeline import TrialPipeline, run_trial
from mint.trial.provenance import Provenance
from mint.trial.result import MASKS_FILE, SCORES_FILE, SearchStep, TrialResult

PROVENANCE = Provenance.of_this_process(None, ["mint", "run"])


def _stages(
    config: TrialConfig, root: Path, steps: list[SearchStep] | None = None
) -> TrialPipeline:
    callbacks = None if steps is None else TrialCallbacks(on_search_step=steps.append)
    source = load_source(config.experiment.data, root)
    return TrialPipeline(
        config, source, cache=StageCache(root), provenance=PROVENANCE, callbacks=callbacks
    )


def _run(config: TrialConfig, root: Path, steps: list[SearchStep] | None = None) -> Path:
    return run_trial(_stages(config, root, steps))


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("limit", [None, 0.8, 0.35, 0.0])
def test_result_is_what_the_masks_say(
    quick_trial: TrialConfig, shared_cache: Path, limit: float | None
) -> None:
    config = quick_trial.model_copy(update={"upper_limit": limit})
    steps: list[SearchStep] = []
    folder = _run(config, shared_cache, steps)
    result = TrialResult.load(folder)
    masks = safetensors.numpy.load_file(folder / MASKS_FILE)
    zeros = sum(int((mask == 0).sum()) for mask in masks.values())
    assert list(masks) == ["fc2.weight"]
    assert result.counted_weights == masks["fc2.weight"].size == 150000
    assert result.pruned_weights == zeros
    assert result.params_pruned == 100 * zeros / 150000
    assert zeros <= (1 if limit is None else limit) * 150000
    assert result.accuracy_drop == result.baseline_accuracy - result.accuracy
    assert tuple(steps) == result.search_steps
    search = config.experiment.search
    assert search.steps is not None
    assert search.margin is not None
    assert len(steps) <= search.steps
    assert result.share_at_margin is not None
    assert result.params_pruned <= result.share_at_margin < result.params_pruned + 100 / 36 + 1e-9
    for step in steps:
        drop = result.baseline_validation_accuracy - step.retraining.validation_accuracy
        assert step.passed == (drop <= search.margin)
        assert len(step.retraining.training) == 3
    if result.share_bound == "limit":  # without a limit, one block is always kept
        assert result.params_pruned > 100 * (35 / 36 if limit is None else limit) - 100 / 36
        assert len(steps) == 1 or limit is None
    assert result.prunable_weights == 150000
    fc2 = next(layer for layer in result.layers if layer.name == "fc2")
    assert (fc2.parent, fc2.weights, fc2.kept) == ("fc1", 150000, 150000 - zeros)
    dense, kept = result.multiply_adds
    assert (dense, kept) == (64 * 500 + 150000 + 3000, 64 * 500 + 150000 - zeros + 3000)
    assert result.test_images == 360
    if not zeros:
        assert result.accuracy == result.dense_accuracy
        assert result.accuracy_before_retraining == result.baseline_accuracy


def test_each_way_of_retraining_has_its_dense_control(
    quick_trial: TrialConfig, shared_cache: Path
) -> None:
    epochs = {"none": 0, "light": 3, "full": 3}
    results = {}
    for retraining in epochs:
        update = {"retraining": retraining, "fraction": 0.5}
        results[retraining] = TrialResult.load(
            _run(quick_trial.model_copy(update=update), shared_cache)
        )
    for retraining, result in results.items():
        assert len(result.search_steps[0].retraining.training) == epochs[retraining]
        assert result.share_at_margin is None
    none, light, full = results.values()
    assert len({none.keys.key, light.keys.key, full.keys.key}) == 3
    assert none.keys.protocol == light.keys.protocol == full.keys.protocol
    assert none.accuracy == none.accuracy_before_retraining == light.accuracy_before_retraining
    assert none.dense_accuracy == none.baseline_accuracy
    dense = quick_trial.model_copy(update={"retraining": "light", "fraction": 0.0})
    unpruned = TrialResult.load(_run(dense, shared_cache))
    assert unpruned.accuracy == unpruned.dense_accuracy == light.dense_accuracy


def test_the_weights_that_read_the_input_are_pruned_where_they_are_named(
    quick_trial: TrialConfig, tmp_path: Path
) -> None:
    update = {"prune": (("input", "fc1"),), "groups": {"input": 64}}
    experiment = quick_trial.experiment.model_copy(update=update)
    folder = _run(quick_trial.model_copy(update={"experiment": experiment}), tmp_path)
    result = TrialResult.load(folder)
    masks = safetensors.numpy.load_file(folder / MASKS_FILE)
    assert list(masks) == ["fc1.weight"]
    assert result.counted_weights == 64 * 500
    fc1 = next(layer for layer in result.layers if layer.name == "fc1")
    assert (fc1.parent, fc1.reason) == ("Input", None)
    assert parse_layers(layers_text(result.layers)) == result.layers
    # A pixel that is the same in all images says nothing of any filter: what it is read by goes.
    dead = FinishedTrial(folder).scores["fc1.weight"].value.max(0) <= 0
    assert dead[0]
    assert not dead.all()


def test_stages_are_shared_and_a_finished_trial_is_not_run_again(
    quick_trial: TrialConfig, shared_cache: Path
) -> None:
    folder = _run(quick_trial, shared_cache)
    _run(quick_trial.model_copy(update={"upper_limit": 0.8}), shared_cache)
    for stage in ("baselines", "scores"):
        made = [path for path in (shared_cache / stage).iterdir() if path.is_dir()]
        assert len(made) == 1
    before = (folder / MASKS_FILE).stat().st_mtime_ns
    assert _run(quick_trial, shared_cache) == folder
    assert (folder / MASKS_FILE).stat().st_mtime_ns == before


def test_same_trial_in_another_place_gives_the_same(
    quick_trial: TrialConfig, shared_cache: Path, tmp_path: Path
) -> None:
    first = _run(quick_trial, shared_cache)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - the trial must not care
    torch.rand(3)
    second = _run(quick_trial, tmp_path)
    assert (first / MASKS_FILE).read_bytes() == (second / MASKS_FILE).read_bytes()
    ours, theirs = TrialResult.load(first), TrialResult.load(second)
    assert ours.accuracy == theirs.accuracy
    assert ours.baseline_accuracy == theirs.baseline_accuracy
    losses = [
        [e.loss for p in r.search_steps for e in p.retraining.training] for r in (ours, theirs)
    ]
    assert losses[0] == losses[1]


def test_another_seed_gives_another_trial(quick_trial: TrialConfig, shared_cache: Path) -> None:
    other = _run(quick_trial.model_copy(update={"seed": 1}), shared_cache)
    ours = np.load(_run(quick_trial, shared_cache) / SCORES_FILE)
    theirs = np.load(other / SCORES_FILE)
    assert not np.array_equal(ours["rows"], theirs["rows"])
    assert not np.array_equal(ours["fc2.weight/value"], theirs["fc2.weight/value"])


@pytest.mark.parametrize("groups", [30, 40])
def test_groups_that_do_not_divide(
    quick_trial: TrialConfig, shared_cache: Path, groups: int
) -> None:
    config = quick_trial.model_copy(update={"groups": groups, "upper_limit": 0.5})
    folder = _run(config, shared_cache)
    scores = np.load(folder / SCORES_FILE)
    assert scores["fc2.weight/value"].shape == (groups, groups)
    assert scores["fc2.weight/parent_labels"].shape == (1, 500)
    assert np.unique(scores["fc2.weight/child_labels"]).size == groups
    assert Masks.load(folder / MASKS_FILE).pruned <= 75000


def test_bootstraps_are_drawn_until_the_scores_are_reliable(
    quick_trial: TrialConfig, shared_cache: Path
) -> None:
    def drawn(reliability: float | None, most: int) -> tuple[int, float]:
        estimate = EstimateConfig(bootstraps=1, reliability=reliability)
        experiment = quick_trial.experiment.model_copy(update={"estimate": estimate})
        config = quick_trial.model_copy(
            update={"experiment": experiment, "bootstraps": most, "upper_limit": 0.0}
        )
        result = TrialResult.load(_run(config, shared_cache))
        scores = np.load(shared_cache / "trials" / config.key / SCORES_FILE)
        assert len(scores["fc2.weight/bootstraps"]) == result.bootstraps
        assert result.reliability == float(scores["fc2.weight/reliability"])
        assert result.reliability is not None
        return result.bootstraps, result.reliability

    assert drawn(None, 7)[0] == 7
    assert drawn(0.999, 7)[0] == 7
    count, reached = drawn(0.3, 400)
    assert reached >= 0.3
    assert count < 400


def test_network_is_kept_once_and_those_of_other_steps_are_removed(
    quick_trial: TrialConfig, tmp_path: Path
) -> None:
    folder = _run(quick_trial, tmp_path)
    result = TrialResult.load(folder)
    assert len(result.search_steps) > 1
    networks = list(tmp_path.glob("*/*/weights.safetensors"))
    # The baseline's, the dense control's and the pruned one's.
    assert len({path.stat().st_ino for path in networks}) == 2 + bool(result.pruned_weights)
    retrained = list(tmp_path.glob("retrained/*/*.safetensors"))
    assert len(retrained) == 1 + bool(result.pruned_weights)
    # The results of all steps stay: a trial with another limit shares them.
    assert len(list(tmp_path.glob("steps/*/result.json"))) == len(result.search_steps)
    # The folder of the trial alone is enough for an export.
    alone = FinishedTrial(shutil.copytree(folder, tmp_path / "alone"))
    assert all(torch.isfinite(weight).all() for weight in alone.network.parameters())


def test_network_that_another_trial_removes_is_trained_again(
    quick_trial: TrialConfig, tmp_path: Path
) -> None:
    stages = _stages(quick_trial.model_copy(update={"fraction": 0.5}), tmp_path)
    retrained, calls = stages.retrained, []

    def remove_at_times(masks: Masks) -> Path:
        calls.append(retrained(masks))
        if len(calls) in (1, 3):  # after the search step, and again at the end
            StageCache(tmp_path).discard("retrained", calls[-1].name)
        return calls[-1]

    stages.retrained = remove_at_times  # type: ignore[method-assign]
    assert FinishedTrial(run_trial(stages)).result.pruned_weights > 0
    assert (calls[0] / "weights.safetensors").stat().st_nlink == 2
    assert len(calls) == 5  # the last one is the dense control's


def test_scores_of_another_machines_baseline_are_not_used(
    quick_trial: TrialConfig, shared_cache: Path, tmp_path: Path
) -> None:
    config = quick_trial.model_copy(update={"upper_limit": 0.0})
    other = config.model_copy(update={"seed": 1})
    for trial in (config, other):
        _run(trial, shared_cache)
    # This machine's baseline has other weights, under the same key.
    copied = shutil.copytree(shared_cache, tmp_path / "mixed")
    baselines = copied / "baselines"
    shutil.rmtree(copied / "trials")
    shutil.rmtree(baselines / config.baseline_key)
    (baselines / other.baseline_key).rename(baselines / config.baseline_key)
    (tmp_path / "own").mkdir()
    shutil.copytree(baselines, tmp_path / "own" / "baselines")
    mixed, own = (_run(config, tmp_path / name) for name in ("mixed", "own"))
    ours, theirs = (FinishedTrial(folder).scores["fc2.weight"].value for folder in (mixed, own))
    assert np.array_equal(ours, theirs)
    artefacts = TrialResult.load(own).artefacts
    maker = StageCache(shared_cache).identity
    assert artefacts[f"baselines/{config.baseline_key}"] == maker
    assert set(artefacts.values()) == {maker, StageCache(tmp_path / "own").identity}


def test_failed_trial_leaves_no_result(quick_trial: TrialConfig, tmp_path: Path) -> None:
    training = quick_trial.experiment.training.model_copy(update={"lr": 1e9})
    wild = quick_trial.model_copy(
        update={"experiment": quick_trial.experiment.model_copy(update={"training": training})}
    )
    with pytest.raises(TrainingDivergedError):
        _run(wild, tmp_path)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == []


def test_other_data_and_other_source_are_refused(quick_trial: TrialConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not what this trial began with"):
        _run(quick_trial.model_copy(update={"data_digest": "0" * 16}), tmp_path)
    with pytest.raises(InputError, match="network mlp: its source is not what this trial began"):
        _run(quick_trial.model_copy(update={"network_digest": "0" * 16}), tmp_path)


@pytest.mark.slow
def test_published_setting_on_mnist(mnist_dir: Path, tmp_path: Path) -> None:
    experiment = load_experiment("mnist_mlp")
    source = load_source(experiment.data, mnist_dir)
    config = TrialConfig(
        experiment=experiment,
        groups=20,
        samples_per_class=250,
        upper_limit=0.0,  # the baseline is all that is wanted
        seed=0,
        data_digest=source.digest,
    )
    folder = run_trial(
        TrialPipeline(config, source, cache=StageCache(tmp_path), provenance=PROVENANCE)
    )
    assert TrialResult.load(folder).baseline_accuracy >= 98.4
