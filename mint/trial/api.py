"""One whole trial from Python, and a finished trial as an object."""

from functools import cached_property
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import nn

from mint.config.loading import ExperimentFile, read_experiment
from mint.config.schema import DEFAULT_CRITERION, Experiment
from mint.errors import InputError
from mint.pruning.masks import Masks
from mint.pruning.scores import BlockScores, load_scores
from mint.store.locks import holding_trial
from mint.trial.pipeline import finished_network, run_trial
from mint.trial.result import MASKS_FILE, SCORES_FILE, TrialResult
from mint.trial.setup import plan_trial


def run_experiment(
    experiment: str | Path | Experiment,
    *,
    criterion: str = DEFAULT_CRITERION,
    groups: int | None = None,
    samples_per_class: int | None = None,
    upper_limit: float | str | None = None,
    bootstraps: int | None = None,
    fraction: float | None = None,
    seed: int = 0,
    init: str | Path | None = None,
    device: str = "auto",
    cache_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
) -> "FinishedTrial":
    """Run one trial of an experiment: train, estimate scores, prune, retrain, as `mint run` does.

    Finished stages are kept in the folder of stages, so the same call again finds its trial there,
    and one that was stopped carries on. Neither MLflow nor the tables are written: `mint sync`
    brings the trial to the tracking store.

    Example:
        ```python
        from mint import run_experiment

        trial = run_experiment("digits_mlp", groups=10, fraction=0.9)
        print(trial.result.accuracy, trial.result.baseline_accuracy)
        ```

    Args:
        experiment: one that comes along, by its name; a YAML file by its path; or an `Experiment`,
            which has no section `trial` and so no defaults of groups, samples_per_class and
            upper_limit.
        criterion: what scores the blocks: mint (the default), mint-unconditional, random,
            block-magnitude, magnitude, l1-filters, bn-scale, taylor or activation-magnitude.
        groups: of filters in each layer; None for the experiment's, as in all that follows.
        samples_per_class: training images of every class that the scores are estimated from.
        upper_limit: largest share of a layer's weights that may be pruned: 0 to 1, or none.
        bootstraps: estimates that the scores are the mean of.
        fraction: prune this share of the counted weights, 0 to 1, instead of searching for the
            most that keeps the accuracy.
        seed: of everything that is drawn.
        init: file of the weights that the baseline's training starts from; None for random ones.
        device: where to train and estimate: cpu, cuda, or auto for a GPU where there is one.
        cache_dir: folder of finished stages; None for MINT_CACHE_DIR, else ./.mint.
        data_dir: folder of the data sets; None for MINT_DATA_DIR, else ./data.

    Raises:
        InputError: an argument is not allowed, named as `mint run` names its option; or somebody
            else is running this trial. Nothing was changed.
        TrainingDivergedError: a training loss is no longer finite.
    """
    if isinstance(experiment, Experiment):
        file = ExperimentFile(experiment, None, None)
    else:
        file = read_experiment(str(experiment))
    with torch.random.fork_rng(devices=[]):  # networks are built on the CPU's generator
        pipeline = plan_trial(
            file,
            {
                "criterion": criterion,
                "groups": groups,
                "samples_per_class": samples_per_class,
                "upper_limit": upper_limit,
                "bootstraps": bootstraps,
                "fraction": fraction,
                "seed": seed,
            },
            init=_path(init),
            device=device,
            cache_dir=_path(cache_dir),
            data_dir=_path(data_dir),
            command=["mint.run_experiment", file.experiment.name],
        ).pipeline
        with holding_trial(pipeline.cache, pipeline.config, pipeline.provenance.command):
            return FinishedTrial(run_trial(pipeline))


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


class FinishedTrial:
    """A finished trial, read back from its folder.

    Example:
        ```python
        from mint import FinishedTrial, prune

        trial = FinishedTrial(".mint/trials/KEY")
        more = prune(trial.scores, fraction=0.95)  # other masks of the same scores
        ```

    Attributes:
        folder: where it is, such as `.mint/trials/KEY`; a picture of its scores is there too.
        result: every figure; accuracies and params_pruned in percent, and the trial's `config`.
    """

    def __init__(self, folder: str | Path) -> None:
        """Read the result; all else is read when it is asked for.

        Args:
            folder: as run_experiment's trials have it, and as `mint run` prints it.

        Raises:
            InputError: it is no folder of a finished trial.
        """
        self.folder: Path = Path(folder)
        try:
            self.result: TrialResult = TrialResult.load(self.folder)
        except (OSError, ValidationError):
            raise InputError(
                f"{folder}: is no folder of a finished trial, such as mint run prints"
            ) from None

    @cached_property
    def masks(self) -> Masks:
        """Which weights were kept, by the weight's name; those of all prunable layers."""
        return Masks.load(self.folder / MASKS_FILE)

    @cached_property
    def network(self) -> nn.Module:
        """The pruned and retrained network, on the CPU; pruned weights are zero.

        Raises:
            InputError: the source of the network's function was changed since.
        """
        with torch.random.fork_rng(devices=[]):
            return finished_network(self.folder)

    @cached_property
    def scores(self) -> dict[str, BlockScores]:
        """The scores that the masks were made from, by the weight's name."""
        return load_scores(self.folder / SCORES_FILE)
