"""The trial table: what is written comes back, and what cannot be is refused with its place."""

from pathlib import Path
from typing import Any

import pytest
from trial_rows import failed_row, finished_row, table

from mint.config.loading import load_experiment
from mint.config.schema import TrialConfig
from mint.errors import InputError
from mint.reporting.trials_csv import (
    COLUMNS,
    describe_setting,
    merge_trials,
    read_trials,
    trial_table,
    trials_csv,
)
from mint.trial.failed_trials import FailedTrial
from mint.trial.provenance import Provenance
from mint.trial.result import TrialKeys

COMMITTED = Path(__file__).resolve().parents[2] / "results" / "trials.csv"


def test_floats_come_back_to_the_last_bit(tmp_path: Path) -> None:
    row = finished_row() | {"accuracy": 100 / 3, "baseline_accuracy": 100 / 3, "accuracy_drop": 0.0}
    (tmp_path / "trials.csv").write_bytes(trials_csv(table(row)))
    assert read_trials(tmp_path / "trials.csv").equals(table(row))


def test_committed_table_is_written_as_it_was_read() -> None:
    assert trials_csv(read_trials(COMMITTED)) == COMMITTED.read_bytes()


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"upper_limit": "foo"}, "line 2, column upper_limit: 'foo'"),
        ({"experiment": "../../evil"}, r"line 2, column experiment: '\.\./\.\./evil'"),
        ({"groups": "x"}, "line 2, column groups: 'x'"),
        ({"status": "done"}, "column status: 'done'"),
        ({"reason": "two\nlines"}, "column reason"),
        ({"accuracy": float("nan")}, "column accuracy: nan in a finished trial"),
        ({"accuracy": 12.5}, "column accuracy_drop: is not baseline_accuracy - accuracy"),
        ({"params_pruned": 12.5}, "column params_pruned: is not pruned_weights / counted_weights"),
        ({"layers": "fc1"}, "column layers: 'fc1'"),
        ({"layers": "fc1 > fc2: 2/1"}, "column layers: 'fc1 > fc2: 2/1'"),
        ({"layers": "fc1 > fc2: 1/2"}, "column layers: 1 pruned weights, pruned_weights 135000"),
        ({"status": "failed"}, "column layers: must be empty"),
    ],
)
def test_impossible_row_is_refused_with_its_place(
    tmp_path: Path, changed: dict[str, Any], complaint: str
) -> None:
    path = tmp_path / "trials.csv"
    frame = table(finished_row(seed=0), finished_row(seed=1))
    for column, value in changed.items():
        frame[column] = frame[column].astype(object)
        frame.loc[0, column] = value
    path.write_bytes(trials_csv(frame))
    with pytest.raises(InputError, match=complaint):
        read_trials(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"a,b\n1,2\n", "the columns experiment, .* are missing"),
        (b"", "is not a trial table"),
        (b"\xff", "is not a trial table"),
    ],
)
def test_other_file_is_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "trials.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        read_trials(path)
    with pytest.raises(InputError, match=r"none\.csv: cannot be read"):
        read_trials(tmp_path / "none.csv")


def test_key_twice_is_refused(tmp_path: Path) -> None:
    header, row = trials_csv(table(finished_row())).splitlines(keepends=True)
    (tmp_path / "trials.csv").write_bytes(header + row + row)
    with pytest.raises(InputError, match="line 3, column key: an earlier line has the same key"):
        read_trials(tmp_path / "trials.csv")


def test_merged_tables_keep_a_result_over_a_failure() -> None:
    row = finished_row()
    done, failed = table(row), table(failed_row(row, "no memory"))
    assert merge_trials(done, failed).equals(done)
    assert merge_trials(failed, done).equals(done)
    changed = table(row | {"validation_accuracy": 1.0})
    assert merge_trials(done, changed).equals(changed)
    both = merge_trials(done, table(finished_row(seed=1)))
    assert both["seed"].tolist() == [0, 1]
    assert len(merge_trials(done.iloc[:0], done.iloc[:0])) == 0


def test_failed_trial_keeps_its_stored_identity() -> None:
    config = TrialConfig(
        experiment=load_experiment("digits_mlp"),
        groups=20,
        samples_per_class=100,
        upper_limit=0.8,
        seed=3,
        data_digest="d",
    )
    failed = FailedTrial(
        keys=TrialKeys(key="of another version", protocol="00c0ffee", method_version=7),
        config=config,
        status="failed",
        reason="no memory",
        provenance=Provenance.of_this_process(None, ["mint"]),
    )
    (row,) = trial_table([("run", failed)]).to_dict("records")
    assert list(row) == list(COLUMNS)
    assert (row["key"], row["protocol"]) == ("of another version", "00c0ffee")
    assert (row["method_version"], row["reason"], row["pruned_weights"]) == (7, "no memory", 0)
    assert (row["upper_limit"], row["seed"], row["run_id"]) == ("0.8", 3, "run")


def test_setting_says_what_the_experiment_changes() -> None:
    experiment = load_experiment("digits_mlp")

    def setting(network_digest: str | None = None, **changes: Any) -> str:
        changed = experiment.model_validate(experiment.model_dump() | changes)
        return describe_setting(
            TrialConfig(
                experiment=changed,
                groups=5,
                samples_per_class=9,
                upper_limit=None,
                seed=0,
                data_digest="d",
                network_digest=network_digest,
            )
        )

    plain = setting()
    assert plain in read_trials(COMMITTED)["setting"].unique()
    for changes, words in (
        ({"keep_connected": True}, "Keep connected"),
        ({"limits": {"fc2": 0.5}}, "Upper limits by layer: fc2 0.5."),
        ({"groups": {"fc2": 7}}, "Groups by layer: fc2 7."),
        ({"retraining": experiment.training.model_dump() | {"epochs": 1}}, "Retraining: 1 epoch,"),
    ):
        assert words in setting(**changes)
        assert words not in plain
    # The digest tells two versions of a user's network apart.
    assert "Network: mlp, source 0123abcd." in setting(network_digest="0123abcd" * 2)
