"""Verification finds every changed figure of a results folder, and names its cell."""

import hashlib
import json
import random
import re
import shutil
from pathlib import Path

import pytest
from trial_rows import finished_row, searched_row, table

from mint.cli.app import main
from mint.config.loading import load_experiment
from mint.errors import InputError
from mint.reporting.folder import rebuild_report
from mint.reporting.heat_maps import draw_trial_scores
from mint.reporting.pages import write_report
from mint.reporting.trial_page import trial_page, write_trial_page
from mint.reporting.trials_csv import read_trials, trial_table
from mint.reporting.verify import verify
from mint.store.stage_cache import StageCache
from mint.trial.api import FinishedTrial, run_experiment

COMMITTED = Path(__file__).resolve().parents[2] / "results"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder with a search, two criteria and reference results."""
    rows = [searched_row(share=90 + groups / 10, groups=groups) for groups in (5, 10, 20)]
    rows += [finished_row(criterion=name, fraction=0.9) for name in ("mint", "random")]
    rebuild_report(tmp_path / "results", of_disk=table(*rows))
    return tmp_path / "results"


def _differences(results: Path) -> list[str]:
    return verify(results, StageCache(results.parent / "none"), None).differences


def test_committed_results_agree_with_their_trials(tmp_path: Path) -> None:
    found = verify(COMMITTED, StageCache(tmp_path), None)
    assert found.differences == []
    assert found.cells > 1000
    assert (found.trials, found.runs) == (0, 0)


@pytest.mark.parametrize("name", ["RESULTS.md", "mnist_mlp.md", "digits_mlp.md"])
def test_every_changed_digit_of_a_page_is_found(results: Path, name: str) -> None:
    page = results / name
    text = page.read_text()
    digits = [match.start() for match in re.finditer(r"\d", text)]
    for at in random.Random(0).sample(digits, 3):
        other = str((int(text[at]) + 1) % 10)
        page.write_text(text[:at] + other + text[at + 1 :])
        assert _differences(results), text[at - 20 : at + 20]


def test_page_that_was_deleted_comes_back_byte_for_byte(results: Path) -> None:
    assert _differences(results) == []
    pages = [results / "RESULTS.md", results / "mnist_mlp.md", *results.glob("figures/*.png")]
    before = [page.read_bytes() for page in pages]
    for page in pages:
        page.unlink()
    rebuild_report(results)
    assert [page.read_bytes() for page in pages] == before


def test_changed_cell_is_named_with_both_values(results: Path) -> None:
    page = results / "RESULTS.md"
    text = page.read_text()
    row = next(line for line in text.splitlines() if line.startswith("| Network Slimming"))
    page.write_text(text.replace(row, row.replace("98.51", "98.61")))
    (difference,) = _differences(results)
    assert re.fullmatch(
        r"RESULTS\.md, Experiment 1: MLP on MNIST > Comparison, row \d+, column Performance: "
        r"'98\.61', should be '98\.51'",
        difference,
    )


def test_changed_trial_is_found(results: Path) -> None:
    path = results / "trials.csv"
    content = path.read_text()
    path.write_text(content.replace(",0.5,98.1,", ",0.6,98.1,", 1))
    (difference,) = _differences(results)
    assert "line 2, column accuracy_drop" in difference
    path.write_text("".join(content.splitlines(keepends=True)[:-1]))
    assert _differences(results)
    path.write_text("a,b\n1,2\n")
    (difference,) = _differences(results)
    assert "columns experiment" in difference


def test_missing_figures_and_pages_are_found(results: Path) -> None:
    figure = next(results.glob("figures/*.png"))
    figure.unlink()
    (results / "digits_mlp.md").unlink()
    missing = ["digits_mlp.md", f"figures/{figure.name}"]
    assert _differences(results) == [f"{name}: is missing" for name in missing]
    (results / "RESULTS.md").unlink()
    with pytest.raises(InputError, match=r"RESULTS\.md: cannot be read"):
        _differences(results)


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> FinishedTrial:
    folder = tmp_path_factory.mktemp("trial")
    return run_experiment(
        load_experiment("digits_mlp", smoke=True),
        groups=6,
        samples_per_class=30,
        upper_limit="none",
        fraction=0.9,
        cache_dir=folder / "cache",
        data_dir=folder,
    )


def test_page_shows_the_margin_and_what_retraining_did(trial: FinishedTrial) -> None:
    result = trial.result
    text = trial_page(result)
    before = f"| before retraining       | {result.accuracy_before_retraining:.2f}%"
    assert before in text
    assert f"| of the dense control    | {result.dense_accuracy:.2f}%" in text
    assert "| Share at the margin     | N/A" in text
    margin = {"share_at_margin": 91.234, "share_low": 90.0, "share_high": 92.5}
    assert "| 91.23% [90.00, 92.50] at" in trial_page(result.model_copy(update=margin))
    bound = {"share_at_margin": 80.0, "share_bound": "limit"}
    assert "| at least 80.00% at" in trial_page(result.model_copy(update=bound))


def test_row_and_page_are_compared_with_result_and_masks(
    tmp_path: Path, trial: FinishedTrial
) -> None:
    trials = trial_table([("", trial.result)])
    rebuild_report(tmp_path, of_disk=trials)
    page = write_trial_page(tmp_path, trial.result)
    cache = StageCache(trial.folder.parents[1])
    found = verify(tmp_path, cache, trials.assign(run_id="other"))
    assert (found.differences, found.trials, found.runs) == ([], 1, 1)
    page.write_text(page.read_text().replace("Seed", "seed"))
    assert verify(tmp_path, cache, None).differences == [
        f"{page.name}: differs from the trial's result"
    ]
    # A row that agrees with itself, but not with the trial.
    layers = trials["layers"].iloc[0]
    kept = int(re.search(r"fc2: (\d+)/150000", layers)[1])  # type: ignore[index]
    wrong = trials.assign(
        layers=layers.replace(f"{kept}/150000", f"{kept + 1}/150000"),
        pruned_weights=trials["pruned_weights"] - 1,
        params_pruned=100 * (trials["pruned_weights"] - 1) / 150000,
    )
    write_report(tmp_path, wrong)
    text = "\n".join(verify(tmp_path, cache, trials).differences)
    assert f"column layers: fc2 keeps {kept + 1}, its mask {kept}" in text
    assert "column pruned_weights" in text
    assert "but its run has" in text


@pytest.mark.parametrize("file", ["result.json", "masks.safetensors"])
def test_unreadable_trials_are_named_and_not_counted_as_compared(
    tmp_path: Path, trial: FinishedTrial, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    write_report(tmp_path / "results", trial_table([("", trial.result)]))
    cache = tmp_path / "cache"
    folder = shutil.copytree(trial.folder, cache / "trials" / trial.folder.name)
    command = ["verify", "--output", str(tmp_path / "results"), "--cache-dir", str(cache)]

    def compared() -> str:
        assert main(command) == 0
        return capsys.readouterr().out

    assert ", 1 trials with their files in" in compared()
    (folder / file).write_text("{}")  # a damaged file
    text = compared()
    assert ", 0 trials with their files in" in text
    assert f"not compared: trial {folder.name}: cannot be read" in text
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][file] = [2, hashlib.sha256(b"{}").hexdigest()]
    (folder / "manifest.json").write_text(json.dumps(manifest))  # one of another version of mint
    text = compared()
    assert ", 0 trials with their files in" in text
    assert f"not compared: trial {folder.name}: cannot be read" in text


def test_scores_are_drawn_from_the_folder_of_a_trial(tmp_path: Path, trial: FinishedTrial) -> None:
    draw_trial_scores(trial.folder, tmp_path / "scores.png")
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")


def test_row_of_a_trial_is_read_back(tmp_path: Path, trial: FinishedTrial) -> None:
    trials = trial_table([("run", trial.result)])
    write_report(tmp_path, trials)
    assert read_trials(tmp_path / "trials.csv").equals(trials)
    (row,) = trials.to_dict("records")
    assert row["search_steps"] == len(trial.result.search_steps)
    assert row["method_version"] == trial.result.keys.method_version
