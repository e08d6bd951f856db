"""Trials with every criterion share a baseline, and respect the budget and the limits."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from torch import Tensor, nn

from mint.config.schema import CRITERIA, Experiment, TrialConfig
from mint.data.datasets import Source
from mint.data.loading import Dataset
from mint.models.layers import LayerPair
from mint.pruning.criteria import CriterionInputs, score
from mint.pruning.masks import Masks
from mint.pruning.scores import BlockScores
from mint.store.stage_cache import StageCache
from mint.trial.api import FinishedTrial
from mint.trial.in_memory import prune
from mint.trial.pipeline import TrialPipeline, run_trial
from mint.trial.preflight import check_network, trace_network
from mint.trial.provenance import Provenance
from mint.trial.result import MASKS_FILE, SCORES_FILE, TrialResult

PROVENANCE = Provenance.of_this_process(None, ["mint", "run"])
WITHOUT_BATCH_NORM = [name for name in CRITERIA if name != "bn-scale"]


def _trial(quick_trial: TrialConfig, criterion: str, **update: object) -> TrialConfig:
    content = {name: getattr(quick_trial, name) for name in type(quick_trial).model_fields}
    return TrialConfig.model_validate(content | {"criterion": criterion} | update)


def test_axes_that_a_criterion_does_not_use_are_not_part_of_its_trial(
    quick_trial: TrialConfig,
) -> None:
    for name, used in CRITERIA.items():
        trial = _trial(quick_trial, name)
        for axis in ("groups", "samples_per_class", "bootstraps"):
            other = _trial(quick_trial, name, **{axis: 7})
            assert (other.key == trial.key) == (other.name == trial.name) == (axis not in used)
            same_scores = other.scores_key("fc2") == trial.scores_key("fc2")
            assert same_scores == (axis not in used)
        assert trial.protocol == quick_trial.protocol
        assert TrialConfig.model_validate_json(trial.model_dump_json()) == trial
    keys = {_trial(quick_trial, name).key for name in CRITERIA}
    assert len(keys) == len(CRITERIA)
    assert _trial(quick_trial, "magnitude").name == "magnitude-unone-seed0"
    assert _trial(quick_trial, "random", fraction=0.9).name == "random-g6-unone-f0.9-seed0"
    assert _trial(quick_trial, "mint").name == quick_trial.name
    with pytest.raises(ValueError, match="did you mean taylor"):
        _trial(quick_trial, "tailor")
    with pytest.raises(ValueError, match="groups 0: must be at least 1 for mint"):
        _trial(quick_trial, "mint", groups=0)


def test_a_fraction_may_equal_the_limit_of_all_layers(quick_trial: TrialConfig) -> None:
    content = quick_trial.experiment.model_dump() | {
        "network": {"name": "mlp", "arguments": {"widths": [64, 24, 20, 16, 12, 10]}},
        "prune": "all",
    }
    experiment = Experiment.model_validate(content)
    layers = trace_network(experiment, (1, 8, 8))
    for hundredths in range(1, 100):
        share = {"upper_limit": hundredths / 100, "fraction": hundredths / 100, "groups": 4}
        trial = quick_trial.model_copy(update={"experiment": experiment, **share})
        check_network([trial], layers)


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def _run(config: TrialConfig, digits: Source, root: Path) -> Path:
    return run_trial(TrialPipeline(config, digits, cache=StageCache(root), provenance=PROVENANCE))


@pytest.mark.parametrize("criterion", WITHOUT_BATCH_NORM)
def test_trials_of_all_criteria_share_the_baseline_and_respect_budget_and_limit(
    quick_trial: TrialConfig,
    digits: Source,
    shared_cache: Path,
    tmp_path: Path,
    criterion: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = _trial(quick_trial, criterion, fraction=0.8, bootstraps=2)
    scored = []

    def score_once(name: str, pair: LayerPair, inputs: CriterionInputs) -> BlockScores:
        scored.append(pair.weight)
        return score(name, pair, inputs)

    monkeypatch.setattr("mint.trial.pipeline.score", score_once)
    folder = _run(config, digits, shared_cache)
    assert scored == ["fc2.weight"]
    result = TrialResult.load(folder)
    block = {"l1-filters": 500, "magnitude": 1}.get(criterion, 50 * 84)
    assert 0.8 * 150000 - block < result.pruned_weights <= 0.8 * 150000
    assert (result.bootstraps > 0) == config.uses("bootstraps")
    limited = _trial(quick_trial, criterion, fraction=0.3, upper_limit=0.3, bootstraps=2)
    limited_masks = Masks.load(_run(limited, digits, shared_cache) / MASKS_FILE)
    assert 0.3 * 150000 - block < limited_masks.pruned <= 0.3 * 150000
    # Masks are nested.
    masks = Masks.load(folder / MASKS_FILE)
    assert not np.any(masks["fc2.weight"] & ~limited_masks["fc2.weight"])
    assert sum(path.is_dir() for path in (shared_cache / "baselines").iterdir()) == 1
    if criterion == "magnitude":  # a score for every weight is the weight of the baseline
        assert not list(shared_cache.glob(f"trials/{config.key}/{SCORES_FILE}"))
        scores = FinishedTrial(folder).scores
        assert np.array_equal(prune(scores, 0.8)["fc2.weight"], masks["fc2.weight"])
    again = _run(config, digits, tmp_path)
    assert (again / MASKS_FILE).read_bytes() == (folder / MASKS_FILE).read_bytes()


def test_criteria_share_the_groups_of_a_clustered_trial(
    quick_trial: TrialConfig, digits: Source, shared_cache: Path
) -> None:
    labels = []
    for criterion in ("random", "block-magnitude"):
        config = _trial(quick_trial, criterion, grouping="clustered", fraction=0.8)
        trial = FinishedTrial(_run(config, digits, shared_cache))
        scores = trial.scores["fc2.weight"]
        labels.append((scores.child_labels, scores.parent_labels))
        # The weights and masks are in the network's order: every block is kept or pruned whole.
        blocks = scores.rows * scores.value.shape[1] + scores.parent_labels
        mask = trial.masks["fc2.weight"]
        kept = [mask[blocks == block].mean() for block in range(scores.value.size)]
        assert set(kept) == {0.0, 1.0}
        weight = trial.network.get_parameter("fc2.weight").detach().numpy()
        assert not weight[~mask].any()
    np.testing.assert_array_equal(labels[0][0], labels[1][0])
    np.testing.assert_array_equal(labels[0][1], labels[1][1])
    assert (np.diff(labels[0][0]) < 0).any()
    assert sum(path.is_dir() for path in (shared_cache / "groups").iterdir()) == 1


def test_compensated_trials_have_pre_activations_nearer_to_the_dense_ones(
    quick_trial: TrialConfig, digits: Source, digits_dataset: Dataset, shared_cache: Path
) -> None:
    ((images, _),) = digits_dataset.train.batches(2000)

    def pre_activations(network: nn.Module) -> Tensor:
        read = network.get_submodule("fc1")(images.flatten(1)).relu()
        outputs: Tensor = network.get_submodule("fc2")(read)
        return outputs.detach()

    for criterion in ("random", "block-magnitude"):
        given = {"groups": 20, "fraction": 0.9, "retraining": "none"}
        zeroed = _trial(quick_trial, criterion, **given)
        compensated = _trial(quick_trial, criterion, **given, compensate="yes")
        folders = [_run(config, digits, shared_cache) for config in (zeroed, compensated)]
        before, after = map(FinishedTrial, folders)
        assert before.masks.digest == after.masks.digest
        assert not after.network.get_parameter("fc2.weight")[~after.masks["fc2.weight"]].any()
        baseline = shared_cache / "baselines" / zeroed.baseline_key / "weights.safetensors"
        dense = FinishedTrial(folders[0]).network
        dense.load_state_dict(load_file(baseline))
        expected = pre_activations(dense)
        errors = [
            float((pre_activations(trial.network) - expected).square().mean())
            for trial in (before, after)
        ]
        assert errors[1] < errors[0] / 2
        assert after.result.accuracy == after.result.accuracy_before_retraining
        assert after.result.dense_accuracy == before.result.dense_accuracy
    assert compensated.name == "block-magnitude-g20-unone-f0.9-none-compensated-seed0"
    assert compensated.protocol == zeroed.protocol
    assert compensated.baseline_key == zeroed.baseline_key
    # Without pruned weights there is nothing to compensate for.
    keys = [trial.retrained_key(None) for trial in (zeroed, compensated)]
    assert keys[0] == keys[1]


def test_all_weights_can_be_pruned(
    quick_trial: TrialConfig, digits: Source, shared_cache: Path
) -> None:
    folder = _run(_trial(quick_trial, "magnitude", fraction=1.0), digits, shared_cache)
    assert TrialResult.load(folder).params_pruned == 100
