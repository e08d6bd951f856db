"""The report is a function of its records: same records, same bytes; every cell traceable."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mint.config import TrialConfig, load_experiment
from mint.errors import InputError
from mint.records import (
    COLUMNS,
    as_records,
    merge_records,
    read_records,
    records_bytes,
    sort_records,
    trial_columns,
)
from mint.report import write_report


def _row(
    groups: int, samples: int, limit: float | None, seed: int, *, name: str, pruned: float
) -> dict[str, object]:
    config = TrialConfig(
        experiment=load_experiment(name),
        groups=groups,
        samples_per_class=samples,
        upper_limit=limit,
        seed=seed,
        data_digest="0123456789abcdef",
    )
    return trial_columns(config) | {
        "status": "finished",
        "reason": "",
        "params_pruned": pruned,
        "accuracy": 98.0 + seed / 7,
        "baseline_accuracy": 98.5 + seed / 7,
        "accuracy_drop": 0.5,
        "validation_accuracy": 98.1,
        "baseline_validation_accuracy": 98.2,
        "pruned_weights": int(pruned * 1500),
        "counted_weights": 150000,
        "probes": 6,
        "bootstraps_drawn": 4,
        "reliability": float("nan") if seed == 1 else 0.25,
        "run_id": f"run{groups}-{seed}",
        "git_commit": "c0ffee",
    }


@pytest.fixture
def records() -> pd.DataFrame:
    return as_records(
        [
            _row(20, 250, None, 0, name="mnist_mlp", pruned=90.0),
            _row(20, 250, None, 1, name="mnist_mlp", pruned=92.0),
            _row(20, 250, 0.8, 0, name="mnist_mlp", pruned=80.0),
            _row(30, 250, 0.8, 0, name="mnist_mlp", pruned=79.5),
            _row(5, 50, None, 0, name="digits_mlp", pruned=96.0),
            _row(5, 100, None, 0, name="digits_mlp", pruned=92.0),
        ]
    )


def _cells(text: str, table: str, section: str) -> list[list[str]]:
    part = text.split(f"## {section}\n")[1].split(f"### {table}\n\n")[1].split("\n\n")[0]
    return [[c.strip() for c in line.strip("|").split("|")] for line in part.splitlines()[2:]]


def test_tables_say_what_the_records_say(tmp_path: Path, records: pd.DataFrame) -> None:
    write_report(tmp_path, records)
    text = (tmp_path / "RESULTS.md").read_text()
    groups = _cells(text, "Group variations", "mnist_mlp")
    assert len(groups) == 16
    assert groups[2] == [
        *("N/A", "20", "250", "91.00 ± 1.41", "98.07 ± 0.10", "0.50 ± 0.00", "2"),
        *("4", "0.25", "88.48", "98.53"),
    ]
    assert groups[0][3:9] == ["not run", "not run", "not run", "0", "not run", "not run"]
    assert groups[4][9:] == ["86.54", "open"]
    assert _cells(text, "Others", "mnist_mlp") == [
        ["0.8", "30", "250", "79.50", "98.00", "0.50", "1", "4", "0.25"]
    ]
    digits = _cells(text, "Sample variations", "digits_mlp")
    assert [row[2:4] for row in digits] == [["50", "96.00"], ["100", "92.00"]]
    assert "Baseline: 98.57 ± 0.10 (2 seeds; published 98.59)" in text


def test_same_records_same_bytes(tmp_path: Path, records: pd.DataFrame) -> None:
    write_report(tmp_path / "a", records)
    shuffled = records.sample(frac=1, random_state=0)
    write_report(tmp_path / "b", read_records(tmp_path / "a" / "records.csv"))
    write_report(tmp_path / "c", sort_records(shuffled))
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(names) == 4
    for folder in "bc":
        for name in names:
            written = (tmp_path / folder / name).read_bytes()
            assert written == (tmp_path / "a" / name).read_bytes()


def test_other_protocols_never_share_a_table(tmp_path: Path) -> None:
    row = _row(5, 50, None, 0, name="digits_mlp", pruned=96.0)
    other = row | {"protocol": "00000000", "key": "other", "params_pruned": 10.0}
    write_report(tmp_path, as_records([row, other]))
    text = (tmp_path / "RESULTS.md").read_text()
    assert text.count("## digits_mlp\n") == 2
    assert "±" not in text.replace("mean ± standard", "")


def test_protocol_ignores_the_axes_and_nothing_else() -> None:
    experiment = load_experiment("digits_mlp")
    longer = experiment.model_copy(update={"training": experiment.training.with_epochs(21)})

    def config(experiment_of_trial: object, groups: int) -> TrialConfig:
        return TrialConfig.model_validate(
            {
                "experiment": experiment_of_trial,
                "groups": groups,
                "samples_per_class": 50,
                "upper_limit": 0.8,
                "seed": 3,
                "data_digest": "d",
            }
        )

    assert config(experiment, 5).protocol == config(experiment, 6).protocol
    assert config(experiment, 5).protocol != config(longer, 5).protocol


def test_newer_record_replaces_the_one_of_its_key(records: pd.DataFrame) -> None:
    newer = records.iloc[[0]].assign(params_pruned=1.0)
    merged = merge_records(records, newer)
    assert len(merged) == len(records)
    assert merged.set_index("key").loc[newer["key"].iloc[0], "params_pruned"] == 1.0
    assert records_bytes(merge_records(records, records)) == records_bytes(records)
    nothing = records.iloc[:0]
    assert len(merge_records(nothing, nothing)) == 0


def test_floats_come_back_to_the_last_bit(tmp_path: Path, records: pd.DataFrame) -> None:
    exact = records.assign(accuracy=100 / 3, accuracy_drop=0.1 + 0.2)
    (tmp_path / "records.csv").write_bytes(records_bytes(exact))
    again = read_records(tmp_path / "records.csv")
    assert (again["accuracy"] == 100 / 3).all()
    assert (again["accuracy_drop"] == 0.1 + 0.2).all()


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("upper_limit", "foo", "upper_limit 'foo' is not allowed"),
        ("experiment", "../../evil", "experiment '../../evil' is not allowed"),
        ("accuracy", float("nan"), "a figure is nan or infinite"),
        ("key", "same", "the key same stands there twice"),
    ],
)
def test_record_that_cannot_be(
    tmp_path: Path, records: pd.DataFrame, column: str, value: Any, complaint: str
) -> None:
    path = tmp_path / "records.csv"
    records[column] = value
    path.write_bytes(records_bytes(records))
    with pytest.raises(InputError, match=complaint):
        read_records(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("a,b\n1,2\n", "the columns experiment, .* are missing"),
        ("", "is no file of records"),
        (",".join(COLUMNS) + "\n" + ",".join("x" for _ in COLUMNS) + "\n", "invalid literal"),
    ],
)
def test_file_that_is_noas_records(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "records.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=complaint):
        read_records(path)
