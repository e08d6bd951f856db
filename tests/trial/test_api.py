"""What `from mint import` offers: loaded when asked for, and one trial as `mint run` has it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mint
from mint import Experiment, FinishedTrial, InputError, load_experiment, prune, run_experiment
from mint.cli.app import main

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_import_of_the_package_loads_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules); import mint; dir(mint)\n"
        "assert not {'torch', 'ray', 'mlflow', 'numpy', 'pydantic'} & (set(sys.modules) - before)\n"
        "from mint import load_experiment, read_trials\n"
        "assert not {'torch', 'ray', 'mlflow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    assert mint.__all__ == sorted(mint.__all__)
    assert set(mint.__all__) <= set(dir(mint))
    assert sorted(mint._MODULES) == mint.__all__
    for name in mint.__all__:
        assert getattr(mint, name).__doc__, name
    with pytest.raises(AttributeError, match="module 'mint' has no attribute 'run_trial'"):
        mint.run_trial  # noqa: B018


@pytest.fixture(scope="module")
def small() -> Experiment:
    return load_experiment("digits_mlp", smoke=True)


def _run(experiment: Experiment, **changed: Any) -> FinishedTrial:
    asked: dict[str, Any] = {
        "groups": 6, "samples_per_class": 30, "upper_limit": "none", "fraction": 0.4, "seed": 3,
    }  # fmt: skip
    return run_experiment(experiment, **asked | changed)


def test_trial_is_that_of_mint_run_and_leaves_the_generators_alone(
    small: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    state = torch.get_rng_state()
    trial = _run(small)
    assert trial.folder.parent == Path.cwd() / ".mint" / "trials"
    assert trial.result.provenance.command == "mint.run_experiment digits_mlp"
    masks, weight = trial.masks, "fc2.weight"
    assert trial.result.pruned_weights == masks.pruned > 0.39 * 150000
    network = dict(trial.network.named_parameters())
    assert np.array_equal(network[weight].detach().numpy() != 0, masks[weight])

    scores = trial.scores
    assert list(scores) == [weight]
    assert scores[weight].reliability == trial.result.reliability
    assert prune(scores, 0.4, seed=3).digest == masks.digest
    assert prune(scores, 0.8).pruned > masks.pruned
    assert torch.equal(torch.get_rng_state(), state)

    again = FinishedTrial(str(_run(small).folder))
    assert again.result == trial.result
    asked = "--groups 6 --samples-per-class 30 --fraction 0.4 --seed 3"
    assert main(f"run --experiment digits_mlp --smoke {asked} --dry-run".split()) == 0
    assert "finished already" in capsys.readouterr().out


def test_defaults_are_those_of_the_section_trial(tmp_path: Path) -> None:
    short = {"epochs": 1, "milestones": []}
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"extends: digits_mlp\nname: mine\ntraining: {short}\ntrial: {{groups: 4}}\n",
        encoding="utf-8",
    )
    cache = tmp_path / "cache"
    trial = run_experiment(path, criterion="random", fraction=0.25, cache_dir=str(cache))
    assert trial.folder.parent == cache / "trials"
    config = trial.result.config
    assert (config.groups, config.samples_per_class, config.upper_limit) == (4, 0, None)
    limited = run_experiment(str(path), criterion="magnitude", upper_limit=0.5, cache_dir=cache)
    assert limited.result.config.upper_limit == 0.5
    assert limited.result.params_pruned <= 50


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"groups": None}, "groups: must be given, for digits_mlp has no section trial"),
        ({"upper_limit": None}, "upper_limit: must be given"),
        ({"upper_limit": 1.5}, "upper_limit 1.5: allowed are none, a number from 0 to 1"),
        ({"groups": 301}, "groups 301: fc1 -> fc2 of digits_mlp allows 1 to 300"),
        ({"groups": -1}, "trial of digits_mlp: groups -1: "),
        ({"fraction": 2}, "trial of digits_mlp: fraction 2: "),
        ({"bootstraps": 0}, "trial of digits_mlp: bootstraps 0: "),
        ({"criterion": "tailor"}, "tailor: there is no such criterion; did you mean taylor"),
        ({"device": "gpu"}, "device gpu: allowed are auto, cpu, cuda"),
        ({"init": "nowhere.pt"}, "init nowhere.pt: cannot be read"),
        ({"data_dir": "nowhere"}, "data_dir nowhere: must be a folder that exists"),
    ],
)
def test_bad_arguments_are_told(small: Experiment, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match="^.*" + said.replace("(", r"\(")):
        _run(small, **changed)
    assert list(Path.cwd().iterdir()) == []


def test_what_is_no_trial_or_experiment_is_told() -> None:
    with pytest.raises(InputError, match="nowhere: is no folder of a finished trial"):
        FinishedTrial("nowhere")
    with pytest.raises(InputError, match="there is no such experiment; did you mean digits_mlp"):
        run_experiment("digits_mlq")
