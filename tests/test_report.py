"""The report is a function of its records: same records, same bytes; every cell traceable."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mint.comparison import compare
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
    groups: int,
    samples: int,
    limit: float | None,
    seed: int,
    *,
    name: str,
    pruned: float,
    criterion: str = "mint",
    fraction: float | None = None,
) -> dict[str, object]:
    config = TrialConfig(
        experiment=load_experiment(name),
        groups=groups,
        samples_per_class=samples,
        criterion=criterion,
        upper_limit=limit,
        fraction=fraction,
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


def _criteria(accuracies: dict[tuple[str, int], list[float]]) -> pd.DataFrame:
    """Return trials at 90% of MNIST, for criteria and groups, one a seed."""
    return as_records(
        [
            _row(
                *(groups, 250, None, seed),
                name="mnist_mlp",
                pruned=90.0,
                criterion=criterion,
                fraction=0.9,
            )
            | {"accuracy": accuracy, "run_id": ""}
            for (criterion, groups), by_seed in accuracies.items()
            for seed, accuracy in enumerate(by_seed)
        ]
    )


def test_criteria_are_paired_with_random_blocks_by_seed(tmp_path: Path) -> None:
    records = _criteria(
        {
            ("random", 20): [90.0, 92.0, 94.0],
            ("mint", 20): [91.0, 93.5, 94.5],
            ("magnitude", 20): [93.0, 95.1, 97.0],
            ("taylor", 20): [80.0],
        }
    )
    write_report(tmp_path, records)
    text = (tmp_path / "RESULTS.md").read_text()
    rows = _cells(text, "Criteria", "mnist_mlp")
    assert [row[4] for row in rows] == ["mint", "random", "magnitude", "taylor"]
    assert all(row[:4] == ["N/A", "20", "250", "0.9"] for row in rows)
    # t of 2 degrees of freedom: 4.303 standard errors. Differences 1, 1.5, 0.5 and 3, 3.1, 3.
    assert [row[7] for row in rows] == [
        "+1.00 [-0.24, +2.24]",
        "N/A",
        "+3.03 [+2.89, +3.18] *",
        "-10.00",
    ]
    assert rows[2][6] == "95.03 ± 2.00"
    assert [row[8] for row in rows] == ["3", "3", "3", "1"]
    trials = _cells(text, "Trials", "mnist_mlp")
    assert [row[1:3] + row[4:5] for row in trials] == [
        ["N/A", "N/A", "magnitude"],
        ["20", "N/A", "random"],
        ["20", "250", "mint"],
        ["20", "250", "taylor"],
    ]
    assert "Group variations" not in text  # what is quoted was searched
    again = tmp_path / "again"
    write_report(again, read_records(tmp_path / "records.csv"))
    for path in again.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_criterion_without_groups_stands_beside_those_of_all_groups() -> None:
    accuracies = {
        ("random", 5): [90.0, 91.0],
        ("random", 20): [92.0, 93.0],
        ("mint", 20): [95.0, 95.0],
        ("magnitude", 20): [94.0, 94.0],
    }
    compared = compare(_criteria(accuracies))
    differences = {
        (row.setting.groups, row.criterion): row.against_random and row.against_random.mean
        for row in compared
    }
    assert differences == {
        (5, "random"): None,
        (5, "magnitude"): 3.5,
        (20, "random"): None,
        (20, "magnitude"): 1.5,
        (20, "mint"): 2.5,
    }


def test_one_criterion_alone_is_not_compared(tmp_path: Path, records: pd.DataFrame) -> None:
    write_report(tmp_path, pd.concat([records, _criteria({("mint", 20): [90.0]})]))
    text = (tmp_path / "RESULTS.md").read_text()
    assert "Criteri" not in text
    write_report(tmp_path, _criteria({("random", 20): [90.0]}))
    text = (tmp_path / "RESULTS.md").read_text()
    assert "### Criteria" not in text
    assert "| random " in text


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
