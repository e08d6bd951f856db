"""Every changed digit of a folder of results is found, and its cell named."""

import random
import re
import shutil
from pathlib import Path

import pytest

from mint.cli.app import main
from mint.reporting.pages import write_report
from mint.reporting.verify import verify
from mint.store.stage_cache import StageCache
from mint.trial.table_row import read_records

COMMITTED = Path(__file__).resolve().parents[2] / "results"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return Path(shutil.copytree(COMMITTED, tmp_path / "results"))


def _differences(results: Path) -> list[str]:
    return verify(results, StageCache(results.parent / "none"), None).differences


def _change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_committed_results_are_what_their_records_say(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--output", str(results)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"compared: \d{3,} cells of tables, \d{3,} of records", printed)
    assert "differences: 0" in printed
    before = {path.name: path.read_bytes() for path in results.glob("*.*") if path.is_file()}
    (results / "RESULTS.md").unlink()
    assert main(["verify", "--output", str(results)]) == 2
    write_report(results, read_records(results / "records.csv"))
    after = {path.name: path.read_bytes() for path in results.glob("*.*") if path.is_file()}
    for name, content in before.items():
        assert name.endswith(".png") or after[name] == content


@pytest.mark.parametrize("name", ["records.csv", "records.sums", "RESULTS.md"])
def test_every_changed_digit_is_found(results: Path, name: str) -> None:
    path = results / name
    text = path.read_text()
    digits = [match.start() for match in re.finditer(r"\d", text)]
    for at in random.Random(0).sample(digits, 8):
        other = str((int(text[at]) + 1) % 10)
        path.write_text(text[:at] + other + text[at + 1 :])
        differences = _differences(results)
        assert differences, text[at - 20 : at + 20]
        if name == "records.csv":
            line = text[:at].count("\n") + 1
            assert differences[0].startswith(f"records.csv, line {line}, column ")


def test_changed_cell_is_named_with_both_values(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (results / "RESULTS.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| GAL-0.1 "))
    _change(results / "RESULTS.md", row, row.replace("93.42", "93.52"))
    assert main(["verify", "--output", str(results)]) == 1
    printed = capsys.readouterr().out
    assert (
        "RESULTS.md, Experiment 2: VGG16 on CIFAR-10 > Comparison, row 9, column Performance: "
        "'93.52', and the records say '93.42'"
    ) in printed
    assert "differences: 1" in printed


def test_figure_that_no_table_shows_is_named(results: Path) -> None:
    text = (results / "records.csv").read_text()
    figures = read_records(results / "records.csv")["validation_accuracy"].map(repr)
    figure = next(each for each in figures if len(each) > 12)
    changed = figure[:-1] + str((int(figure[-1]) + 1) % 10)
    (results / "records.csv").write_text(text.replace(figure, changed, 1))
    difference, footer = _differences(results)
    assert "SHA-256 of the figures" in footer
    assert re.fullmatch(
        rf"records\.csv, line \d+, column (baseline_)?validation_accuracy: '{re.escape(changed)}' "
        "is not what mint wrote",
        difference,
    )


def test_missing_plot_row_and_record_are_told(results: Path) -> None:
    plot = next(results.glob("digits_mlp-*.png"))
    plot.unlink()
    assert _differences(results) == [f"{plot.name}: is missing"]
    write_report(results, read_records(results / "records.csv"))
    assert _differences(results) == []
    lines = (results / "records.csv").read_text().splitlines(keepends=True)
    (results / "records.csv").write_text("".join(lines[:-1]))
    first, *others = _differences(results)
    assert (
        first == f"records.csv: has {len(lines) - 2} records, and was written with {len(lines) - 1}"
    )
    assert others
    (results / "records.csv").write_text("a,b\n1,2\n")
    (only,) = _differences(results)
    assert "columns experiment" in only


@pytest.mark.usefixtures("empty_folder")
def test_trials_and_runs_at_hand_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    command = "run --experiment digits_mlp --smoke --groups 6 --samples-per-class 30 --fraction 0.9"
    assert main(command.split()) == 0
    capsys.readouterr()
    command = "verify --tracking-uri sqlite:///mlflow.db"
    assert main(command.split()) == 0
    assert "1 trials with results and masks, 1 with runs; differences: 0" in capsys.readouterr().out
    records = read_records(Path("results/records.csv"))
    layers = records["layers"].iloc[0]
    kept = int(re.search(r"fc2: (\d+)/150000", layers)[1])  # type: ignore[index]
    # A record that is right in itself, and not what the trial was.
    wrong = records.assign(
        layers=layers.replace(f"{kept}/150000", f"{kept + 1}/150000"),
        pruned_weights=records["pruned_weights"] - 1,
        params_pruned=100 * (records["pruned_weights"] - 1) / 150000,
    )
    write_report(Path("results"), wrong)
    assert main(command.split()) == 1
    printed = capsys.readouterr().out
    key = records["key"].iloc[0]
    assert f"trial {key}, column layers: fc2 keeps {kept + 1}, its mask {kept}" in printed
    assert "column pruned_weights" in printed
    assert "and its run says" in printed
