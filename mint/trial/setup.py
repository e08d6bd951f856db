"""The plan of one trial: what is asked for and its defaults, held against network and data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mint.cli.options import cache_folder, data_folder, initial_weights
from mint.config.schema import Experiment, TrialConfig, TrialDefaults, parse_limit, validated
from mint.data.datasets import load_source
from mint.errors import InputError
from mint.models import source_digest
from mint.store.stage_cache import Cache
from mint.trial.pipeline import Listener, Stages
from mint.trial.preflight import check_trials
from mint.trial.provenance import Provenance

_DEVICES = ("auto", "cpu", "cuda")


def plan_trial(
    experiment: Experiment,
    defaults: TrialDefaults | None,
    asked: Mapping[str, Any],
    *,
    init: Path | None,
    device: str,
    cache_dir: Path | None,
    data_dir: Path | None,
    command: Sequence[str],
    listener: Listener | None = None,
) -> Stages:
    """Return the stages of a trial, checked before any is made.

    Args:
        experiment: that the trial is of.
        defaults: for what is asked for with None; None where the experiment has none.
        asked: of the fields of TrialConfig criterion, groups, samples_per_class, upper_limit (in a
            word: none, a number or a rule), fraction, bootstraps and seed.
        init: file of weights to start from.
        device: auto, cpu or cuda.
        cache_dir: folder of finished stages; None for the usual.
        data_dir: folder of the data sets; None for the usual.
        command: that asks for the trial, in words, for its record.
        listener: told of the progress.

    Raises:
        InputError: a value is not allowed, or has no default; the machine, the network or the data
            cannot serve the trial.
    """
    axes = dict(asked)
    for name in ("groups", "samples_per_class", "upper_limit"):
        if axes[name] is None:
            if defaults is None:
                raise InputError(
                    f"--{name.replace('_', '-')}: must be given, for there is no section trial of "
                    f"{experiment.name} to take it from"
                )
            axes[name] = getattr(defaults, name)
    limit = parse_limit(str(axes["upper_limit"]), axes["groups"], option="--upper-limit")
    weights = initial_weights(init, experiment)
    data_dir, cache = data_folder(data_dir), Cache(cache_folder(cache_dir))
    torch_device = _chosen_device(device)
    config = validated(
        TrialConfig,
        axes
        | {
            "experiment": experiment,
            "upper_limit": limit,
            "data_digest": "unknown",
            "network_digest": source_digest(experiment.network),
            "init": weights,
        },
        f"trial of {experiment.name}",
    )
    check_trials([config], None, init)
    source = load_source(experiment.data, data_dir)
    config = config.model_copy(update={"data_digest": source.digest})
    check_trials([config], source)
    return Stages(
        config,
        source,
        cache=cache,
        device=torch_device,
        provenance=Provenance.of_this_process(None, command, torch_device.type),
        init=init,
        listener=listener,
    )


def _chosen_device(name: str) -> torch.device:
    if name not in _DEVICES:
        raise InputError(f"--device {name}: allowed are {', '.join(_DEVICES)}")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise InputError("--device cuda: this machine has no GPU that torch can use; allowed: cpu")
    return torch.device("cuda" if there and name != "cpu" else "cpu")
