"""The examples, run as their README says: each adds a trial to the table and the report."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import ROOT, commands, run

from mint.pruning.masks import Masks
from mint.reporting.trials_csv import read_trials
from mint.trial.result import MASKS_FILE, TrialResult


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the examples and their data; all tests of this module run there."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "examples").symlink_to(ROOT / "examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("MINT_DATA_DIR", "MINT_CACHE_DIR", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        assert run("python examples/digits_as_files.py") == 0
        yield folder


def _run_section(folder: Path, heading: str) -> TrialResult:
    """Run the commands of a section and return the result of the one trial that they add."""
    before = set((folder / ".mint" / "trials").glob("*/result.json"))
    for command in commands("examples/README.md", heading):
        assert run(command) == 0, command
    (added,) = set((folder / ".mint" / "trials").glob("*/result.json")) - before
    result = TrialResult.load(added.parent)
    masks = Masks.load(added.parent / MASKS_FILE)
    assert masks.pruned == result.pruned_weights
    assert result.accuracy > 60  # chance is 10%
    (row,) = (
        row
        for row in read_trials(folder / "my-results" / "trials.csv").to_dict("records")
        if row["key"] == added.parent.name
    )
    assert row["accuracy"] == result.accuracy
    page = folder / "my-results" / f"{result.config.experiment.name}.md"
    assert result.config.experiment.title in page.read_text("utf-8")
    return result


@pytest.mark.slow
def test_torchvision_network_on_a_folder_of_images(folder: Path) -> None:
    result = _run_section(folder, "A torchvision network on a folder of images")
    assert 49 < result.params_pruned <= 50
    kept = {layer.name: (layer.kept or 0) / layer.weights for layer in result.layers}
    assert sum(share < 1 for share in kept.values()) == len(result.config.experiment.prune)
    assert min(kept.values()) >= 0.2  # the upper limit is 0.8
    assert kept["conv1"] == 1  # it reads the input


def test_own_network(folder: Path) -> None:
    result = _run_section(folder, "Your own network")
    assert 79 < result.params_pruned <= 80
    assert [layer.name for layer in result.layers] == ["conv1", "conv2", "hidden", "head"]


def test_own_network_on_parquet(folder: Path) -> None:
    result = _run_section(folder, "Your own network on Parquet files")
    assert result.params_pruned > 20
    assert result.baseline_validation_accuracy - result.validation_accuracy <= 1
    assert {step.passed for step in result.search_steps} <= {True, False}
    assert result.config.search.steps
    assert 1 <= len(result.search_steps) <= result.config.search.steps
