"""Failed trials are remembered until they have a result."""

from pathlib import Path

import pytest

from mint.config.schema import TrialConfig
from mint.store.stage_cache import StageCache
from mint.trial.failed_trials import FailedTrial, FailedTrials, missing_trials
from mint.trial.provenance import Provenance
from mint.trial.result import TrialKeys


def test_failed_trial_is_remembered_until_there_is_a_result(
    quick_trial: TrialConfig, tmp_path: Path
) -> None:
    cache = StageCache(tmp_path)
    failed_trials = FailedTrials(cache)
    other = quick_trial.model_copy(update={"seed": 1})
    stopped = FailedTrial(
        keys=TrialKeys.of(other),
        config=other,
        status="stopped",
        reason="stopped by asha",
        provenance=Provenance.of_this_process(None, ["mint"]),
    )
    failed = stopped.model_copy(
        update={"keys": TrialKeys.of(quick_trial), "config": quick_trial, "status": "failed"}
    )
    failed_trials.write(stopped)
    failed_trials.write(failed)
    both = [quick_trial, other]
    assert missing_trials(both, cache, (), stopped=False) == both
    assert missing_trials(both, cache, (), stopped=True) == [quick_trial]
    assert missing_trials(both, cache, {other.key}, stopped=False) == [quick_trial]
    cache.produce("trials", quick_trial.key, lambda folder: None)
    assert list(failed_trials.all()) == [stopped]
    (tmp_path / "failed_trials" / f"{other.key}.json").write_text("{")
    with pytest.warns(UserWarning, match="is no failed trial"):
        assert failed_trials.read(other.key) is None
    failed_trials.forget(other.key)
    assert list(failed_trials.all()) == []
