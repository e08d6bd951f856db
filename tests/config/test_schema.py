"""Keys follow what a result depends on, and nothing else."""

import pytest

from mint.config import keys
from mint.config.estimate import EstimateConfig, GaussianConfig
from mint.config.loading import load_experiment
from mint.config.schema import (
    REVISIONS,
    InitialWeights,
    TrialConfig,
)


def test_keys_follow_what_each_stage_depends_on(quick_trial: TrialConfig) -> None:
    def copy(**update: object) -> TrialConfig:
        return quick_trial.model_copy(update=update)

    longer = quick_trial.experiment.model_copy(
        update={"training": quick_trial.experiment.training.model_copy(update={"epochs": 4})}
    )
    assert quick_trial.key == copy().key
    changed = [
        copy(groups=7),
        copy(samples_per_class=31),
        copy(upper_limit=0.5),
        copy(seed=1),
        copy(experiment=longer),
        copy(data_digest="other"),
    ]
    assert len({trial.key for trial in [quick_trial, *changed]}) == 7
    default = quick_trial.experiment.estimate.bootstraps
    assert copy(bootstraps=default).key == quick_trial.key
    assert copy(bootstraps=default + 1).key != quick_trial.key
    assert copy(bootstraps=default + 1).name == "g6-s30-unone-b11-seed0"
    assert copy(upper_limit=0.5).scores_key("fc2") == quick_trial.scores_key("fc2")
    assert quick_trial.scores_key("fc2") != quick_trial.scores_key("fc3")
    assert copy(groups=7).baseline_key == quick_trial.baseline_key
    assert copy(groups=7).scores_key("fc2") != quick_trial.scores_key("fc2")
    assert copy(seed=1).baseline_key != quick_trial.baseline_key
    assert copy(data_digest="other").baseline_key != quick_trial.baseline_key
    init = InitialWeights(file="weights.pt", digest="0123")
    started = copy(init=init)
    assert started.baseline_key != quick_trial.baseline_key
    renamed = copy(init=init.model_copy(update={"file": "other.pt"}))
    assert (renamed.key, renamed.protocol) == (started.key, started.protocol)
    apart = quick_trial.experiment.model_copy(update={"retraining": longer.training})
    assert copy(experiment=apart).baseline_key == quick_trial.baseline_key
    assert copy(experiment=apart).retrained_key("m") != quick_trial.retrained_key("m")
    assert copy(experiment=longer).protocol != quick_trial.protocol
    assert copy(groups=7, seed=3).protocol == quick_trial.protocol
    clustered = copy(grouping="clustered")
    assert clustered.key != quick_trial.key
    assert clustered.scores_key("fc2") != quick_trial.scores_key("fc2")
    assert clustered.protocol == quick_trial.protocol
    assert clustered.name == "g6-clustered-s30-unone-seed0"
    assert clustered.grouping_key == copy(grouping="clustered", criterion="random").grouping_key
    ungrouped = {**quick_trial.model_dump(), "criterion": "magnitude"}
    assert TrialConfig.model_validate(ungrouped | {"grouping": "random"}).key == (
        TrialConfig.model_validate(ungrouped).key
    )


def test_contiguous_groups_keep_the_keys_from_before_there_were_others(
    quick_trial: TrialConfig,
) -> None:
    default = quick_trial.model_copy(
        update={"experiment": load_experiment("digits_mlp"), "groups": 20, "samples_per_class": 100}
    )
    assert default.key == "164b59556b87ddc1"  # a row of results/trials.csv


def test_settings_of_gaussian_information_are_part_of_its_keys_alone(
    quick_trial: TrialConfig,
) -> None:
    def noisier(trial: TrialConfig) -> TrialConfig:
        estimate = EstimateConfig(bootstraps=10, gaussian=GaussianConfig(noise=0.2))
        return trial.model_copy(
            update={"experiment": trial.experiment.model_copy(update={"estimate": estimate})}
        )

    gaussian = quick_trial.model_copy(update={"criterion": "mint-gaussian"})
    assert noisier(gaussian).scores_key("fc2") != gaussian.scores_key("fc2")
    assert noisier(quick_trial).scores_key("fc2") == quick_trial.scores_key("fc2")
    # Trials under two settings are not compared, whatever their criterion.
    for trial in (gaussian, quick_trial):
        assert noisier(trial).key != trial.key
        assert noisier(trial).protocol != trial.protocol
    # Defaults are as before there were such settings.
    assert "gaussian" not in quick_trial.estimate.content()
    more = gaussian.model_copy(update={"bootstraps": 3})
    assert (more.key, more.scores_key("fc2")) == (gaussian.key, gaussian.scores_key("fc2"))
    assert gaussian.model_copy(update={"estimator": "cuda"}).scores_key("fc2") not in {
        gaussian.scores_key("fc2"),
        noisier(gaussian).scores_key("fc2"),
    }


def test_device_and_estimator_are_part_of_the_keys(quick_trial: TrialConfig) -> None:
    gpu = quick_trial.model_copy(update={"device": "cuda"})
    estimated = quick_trial.model_copy(update={"estimator": "cuda"})
    trials = (quick_trial, gpu, estimated)
    assert len({trial.key for trial in trials}) == len({trial.protocol for trial in trials}) == 3
    assert len({trial.scores_key("fc2") for trial in trials}) == 3
    assert gpu.baseline_key != quick_trial.baseline_key == estimated.baseline_key


def test_a_changed_default_or_method_never_answers_for_an_old_result(
    quick_trial: TrialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert quick_trial.key != _with_another_default(quick_trial).key
    for version in ("METHOD_VERSION", "SCHEMA_VERSION"):
        before = quick_trial.key, quick_trial.protocol, quick_trial.baseline_key
        monkeypatch.setattr(keys, version, 99)
        after = quick_trial.key, quick_trial.protocol, quick_trial.baseline_key
        assert all(old != new for old, new in zip(before, after, strict=True))


def test_a_revision_of_a_criterion_changes_its_keys_alone(
    quick_trial: TrialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    taylor = quick_trial.model_copy(update={"criterion": "taylor"})

    def scored(trial: TrialConfig) -> tuple[str, str]:
        return trial.key, trial.scores_key("fc2")

    def shared(trial: TrialConfig) -> tuple[str, ...]:
        return trial.protocol, trial.baseline_key, trial.activations_key

    before = scored(taylor), shared(taylor), scored(quick_trial)
    monkeypatch.setitem(REVISIONS, "taylor", 7)
    assert not set(scored(taylor)) & set(before[0])
    assert (shared(taylor), scored(quick_trial)) == before[1:]
    # Scores of the first revision averaged before they took absolute values.
    assert "activation-magnitude" in REVISIONS


def _with_another_default(trial: TrialConfig) -> TrialConfig:
    """Return a trial whose field has another value, as if its default had changed."""
    training = trial.experiment.training.model_copy(update={"label_smoothing": 0.1})
    experiment = trial.experiment.model_copy(update={"training": training})
    return trial.model_copy(update={"experiment": experiment})


def test_groups_of_a_layer_of_its_own(quick_trial: TrialConfig) -> None:
    experiment = quick_trial.experiment.model_copy(update={"groups": {"fc2": 10}})
    own = quick_trial.model_copy(update={"experiment": experiment})
    assert [own.groups_of("fc1", 500), own.groups_of("fc2", 300)] == [6, 10]
    assert quick_trial.groups_of("fc2", 4) == 4
    assert own.key != quick_trial.key
    assert own.scores_key("fc2.weight") != quick_trial.scores_key("fc2.weight")
    assert own.baseline_key == quick_trial.baseline_key
