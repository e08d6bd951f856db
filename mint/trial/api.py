"""One whole trial from Python, and a finished trial as an object."""

from functools import cached_property
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import nn

from mint.config.axes import Compensate, Grouping, Retraining
from mint.config.loading import ExperimentFile, read_experiment
from mint.config.schema import DEFAULT_CRITERION, Experiment
from mint.errors import InputError
from mint.models.own_code import source_digest
from mint.models.registry import build_network
from mint.models.weight_files import load_weights
from mint.pruning.criteria import absolute_weights
from mint.pruning.masks import Masks
from mint.pruning.scores import BlockScores, load_scores
from mint.trial.pipeline import run_trial
from mint.trial.result import MASKS_FILE, SCORES_FILE, WEIGHTS_FILE, TrialResult
from mint.trial.setup import TrialPaths, plan_trial


def run_experiment(
    experiment: str | Path | Experiment,
    *,
    criterion: str = DEFAULT_CRITERION,
    groups: int | None = None,
    grouping: Grouping = "contiguous",
    samples_per_class: int | None = None,
    upper_limit: float | str | None = None,
    bootstraps: int | None = None,
    fraction: float | None = None,
    retraining: Retraining = "full",
    compensate: Compensate = "no",
    seed: int = 0,
    init: str | Path | None = None,
    device: str = "auto",
    cache_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
) -> "FinishedTrial":
    """Run one trial: train, estimate scores, prune, retrain, as `mint run` does.

    Finished stages stay in the cache, so a stopped trial resumes. `mint sync` brings the trial to
    the tracking store.

    Args:
        experiment: name, path of a YAML file, or an `Experiment` (without defaults of its axes).
        criterion: one of mint.config.schema.CRITERIA.
        groups: of filters in each layer; None takes the experiment's default, as below.
        grouping: contiguous, random or clustered.
        samples_per_class: training images per class that the scores are estimated from.
        upper_limit: largest share of a layer's weights that may be pruned: 0 to 1, or none.
        bootstraps: estimates averaged in the scores.
        fraction: share of the counted weights to prune, 0 to 1, instead of a search.
        retraining: none, light or full.
        compensate: yes refits the kept weights to the dense network before that.
        seed: seeds every random draw.
        init: file of weights that the baseline starts from; None for random ones.
        device: cpu, cuda, or auto for a GPU if there is one.
        cache_dir: folder of finished stages; None for MINT_CACHE_DIR, else ./.mint.
        data_dir: folder of the data sets; None for MINT_DATA_DIR, else ./data.

    Raises:
        InputError: an argument is not allowed, or the trial is already running.
        TrainingDivergedError: a training loss is no longer finite.
    """
    if isinstance(experiment, Experiment):
        file = ExperimentFile(experiment)
    else:
        file = read_experiment(str(experiment))
    axes = {
        "criterion": criterion,
        "groups": groups,
        "grouping": grouping,
        "samples_per_class": samples_per_class,
        "upper_limit": upper_limit,
        "bootstraps": bootstraps,
        "fraction": fraction,
        "retraining": retraining,
        "compensate": compensate,
        "seed": seed,
    }
    places = {"init": init, "cache_dir": cache_dir, "data_dir": data_dir}
    paths = {name: None if place is None else Path(place) for name, place in places.items()}
    command = ["mint.run_experiment", file.experiment.name]
    with torch.random.fork_rng(devices=[]):  # networks are built on the CPU's generator
        pipeline = plan_trial(file, axes, TrialPaths(**paths), device, command).pipeline
        with pipeline.locked():
            return FinishedTrial(run_trial(pipeline), model=file.experiment.network.name)


class FinishedTrial:
    """A finished trial, read from its folder.

    Example:
        ```python
        from mint import FinishedTrial, prune

        trial = FinishedTrial(".mint/trials/KEY")
        more = prune(trial.scores, fraction=0.95)  # other masks of the same scores
        ```

    Attributes:
        folder: of the trial, such as `.mint/trials/KEY`.
        result: all figures, accuracies and params_pruned in percent, and the trial's `config`.
    """

    def __init__(self, folder: str | Path, *, model: str | None = None) -> None:
        """Read the result; everything else is read when it is first used.

        Args:
            folder: as `mint run` prints it.
            model: MODULE:FUNCTION of the trial's network, where it is not mint's own. The folder
                may come from somebody else, so mint runs only code that you name.

        Raises:
            InputError: the folder holds no finished trial.
        """
        self.folder: Path = Path(folder)
        self._model = model
        try:
            self.result: TrialResult = TrialResult.load(self.folder)
        except (OSError, ValidationError):
            raise InputError(
                f"{folder}: is no folder of a finished trial, such as mint run prints"
            ) from None

    @cached_property
    def masks(self) -> Masks:
        """The kept weights of all prunable layers, by the weight's name."""
        return Masks.load(self.folder / MASKS_FILE)

    @cached_property
    def network(self) -> nn.Module:
        """The pruned and retrained network, on the CPU; pruned weights are zero.

        Raises:
            InputError: the network is not mint's own and was not named as model, or its source
                has changed since the trial.
        """
        return self._network_with(self.folder / WEIGHTS_FILE)

    @cached_property
    def scores(self) -> dict[str, BlockScores]:
        """The scores that the masks were made from, by the weight's name.

        Those of the criterion magnitude are the absolute weights of the baseline, in the same cache
        as the trial.

        Raises:
            InputError: the baseline is needed and no longer there.
        """
        kept = self.folder / SCORES_FILE
        if kept.exists() or not self.result.config.scores_single_weights:
            return load_scores(kept)
        baseline = self.folder.absolute().parents[1] / "baselines" / self.result.config.baseline_key
        if not (baseline / WEIGHTS_FILE).exists():
            raise InputError(f"{self.folder}: its scores are the weights of {baseline}, now gone")
        network = self._network_with(baseline / WEIGHTS_FILE)
        weights = {name: network.get_parameter(name).detach().double() for name in self.masks}
        return {name: absolute_weights(weight.numpy()) for name, weight in weights.items()}

    def _network_with(self, weights: Path) -> nn.Module:
        config = self.result.config
        chosen = config.experiment.network
        if chosen.name != (self._model or (None if chosen.is_users else chosen.name)):
            problem = f"{self.folder} has the network {chosen.name}; name it to run its code"
            raise InputError(problem, parameter="model", value=self._model)
        if source_digest(chosen.name) != config.network_digest:
            raise InputError(
                f"{self.folder}: the source of {chosen.name} has changed since this trial; restore "
                "it first"
            )
        with torch.random.fork_rng(devices=[]):
            network = build_network(chosen)
        load_weights(network, weights)
        return network
