"""A raised method version gives new trials new keys, and leaves old results as they are."""

from pathlib import Path

import pytest
import torch

from mint import FinishedTrial, load_experiment, run_experiment
from mint.config import keys
from mint.pruning.export import export
from mint.reporting.folder import rebuild_report
from mint.reporting.trial_page import write_trial_page
from mint.reporting.trials_csv import read_trials, trial_table
from mint.reporting.verify import verify
from mint.store.stage_cache import StageCache


def test_old_results_stay_readable_verifiable_and_exportable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_experiment(
        load_experiment("digits_mlp", smoke=True),
        criterion="random",
        groups=6,
        samples_per_class=30,
        upper_limit="none",
        fraction=0.5,
        cache_dir=tmp_path / "cache",
    ).folder
    monkeypatch.setattr(keys, "METHOD_VERSION", keys.METHOD_VERSION + 1)
    trial = FinishedTrial(folder)
    stored = trial.result.keys
    assert (stored.key, stored.method_version) == (folder.name, keys.METHOD_VERSION - 1)
    assert trial.result.config.key != stored.key
    assert trial.result.config.protocol != stored.protocol

    results = tmp_path / "results"
    rebuild_report(results, of_disk=trial_table([("", trial.result)]))
    write_trial_page(results, trial.result)
    row = read_trials(results / "trials.csv").iloc[0]
    assert (row["key"], row["protocol"]) == (stored.key, stored.protocol)
    assert row["method_version"] == stored.method_version
    found = verify(results, StageCache(tmp_path / "cache"), None)
    assert (found.differences, found.trials) == ([], 1)

    example = torch.zeros(1, *trial.result.image_shape)
    exported = export(trial.network, trial.masks, example, tmp_path / "smaller", onnx=False)
    assert exported.kept_weights < exported.dense_weights
