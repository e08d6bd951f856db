"""The report is a function of its records: same records, same bytes; every cell traceable."""

import re
import subprocess
import sys
import time
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from mint.config.loading import load_experiment
from mint.config.schema import TrialConfig
from mint.errors import InputError
from mint.models import chosen_pairs
from mint.pruning.layer_table import count_layers, layers_text, parse_layers
from mint.reporting.aggregate import cells_of, numbered
from mint.reporting.comparison import compare
from mint.reporting.pages import write_report
from mint.trial.preflight import untrained
from mint.trial.table_row import (
    COLUMNS,
    as_records,
    merge_records,
    read_records,
    records_bytes,
    sort_records,
    trial_columns,
)


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
    pruned_weights = round(pruned * 1500)
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
        "params_pruned": 100 * pruned_weights / 150000,
        "accuracy": 98.0 + seed / 7,
        "baseline_accuracy": 98.5 + seed / 7,
        "accuracy_drop": 0.5,
        "validation_accuracy": 98.1,
        "baseline_validation_accuracy": 98.2,
        "pruned_weights": pruned_weights,
        "counted_weights": 150000,
        "probes": 6,
        "bootstraps_drawn": 4,
        "reliability": float("nan") if seed == 1 else 0.25,
        "layers": f"Input > fc1: 32000/32000 (reads the input); "
        f"fc1 > fc2: {150000 - pruned_weights}/150000; fc2 > fc3: 3000/3000 (left out)",
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


def _cells(text: str, *headings: str) -> list[list[str]]:
    """Return the cells of the first table under a heading under a heading and so on."""
    for heading in headings:
        text = re.split(rf"^#+ {re.escape(heading)}$", text, flags=re.MULTILINE)[1]
    part = text[text.index("\n|") + 1 :].split("\n\n")[0]
    return [[c.strip() for c in line.strip("|").split("|")] for line in part.splitlines()[2:]]


def _lines(cell: str) -> list[int]:
    """Return the lines of records.csv that a cell links to."""
    spans = re.findall(r"records\.csv\?plain=1#L(\d+)(?:-L(\d+))?", cell)
    return [line for first, last in spans for line in range(int(first), int(last or first) + 1)]


def test_tables_say_what_the_records_say(tmp_path: Path, records: pd.DataFrame) -> None:
    write_report(tmp_path, records)
    text = (tmp_path / "RESULTS.md").read_text()
    protocol = records.loc[records["experiment"] == "mnist_mlp", "protocol"].iloc[0]
    groups = _cells(text, f"Group variations: mnist_mlp, protocol {protocol}")
    assert len(groups) == 16
    seeds = groups[2].pop(6)
    assert groups[2] == [
        *("N/A", "20", "250", "91.00 ± 1.41", "98.07 ± 0.10", "0.50 ± 0.00"),
        *("88.48", "98.53", "4", "0.25"),
    ]
    assert seeds.startswith("[2](")
    written = (tmp_path / "records.csv").read_text().splitlines()
    assert [written[line - 1].split(",")[-2] for line in _lines(seeds)] == ["run20-0", "run20-1"]
    assert groups[0][3:7] == ["not run", "not run", "not run", "0"]
    assert groups[0][9:] == ["not run", "not run"]
    assert groups[4][7:9] == ["86.54", "open"]
    samples = _cells(text, f"Sample variations: mnist_mlp, protocol {protocol}")
    assert [row[3] for row in samples] == ["not run", "91.00 ± 1.41", *["not run"] * 4]
    (other,) = _cells(text, f"mnist_mlp, protocol {protocol}", "Others")
    assert other[:6] == ["0.8", "30", "250", "79.50", "98.00", "0.50"]
    digits = _cells(text, "Other experiments", "Trials")
    assert [row[2:4] for row in digits] == [["50", "96.00"], ["100", "92.00"]]
    assert "Baseline: 98.57 ± 0.10 ([2 seeds](" in text


def test_sections_are_in_the_order_of_the_record(tmp_path: Path, records: pd.DataFrame) -> None:
    write_report(tmp_path, records)
    text = (tmp_path / "RESULTS.md").read_text()
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == [
        "Experiment 1: MLP on MNIST",
        "Experiment 2: VGG16 on CIFAR-10",
        "Experiment 3: ResNet56 on CIFAR-10",
        "Experiment 4: ResNet50 on ImageNet",
        "Other experiments",
    ]
    for line in text.splitlines():
        if line.startswith("|"):
            assert all(cell.strip() for cell in line.strip("|").split("|"))


def test_comparison_has_published_and_measured_rows(tmp_path: Path) -> None:
    rows = [
        _row(20, 250, None, seed, name="mnist_mlp", pruned=96.01, fraction=0.9601)
        for seed in (0, 1)
    ]
    rows.append(_row(20, 250, None, 0, name="mnist_mlp", pruned=90.0, fraction=0.9))
    write_report(tmp_path, as_records(rows))
    text = (tmp_path / "RESULTS.md").read_text()
    table = _cells(text, "Experiment 1: MLP on MNIST", "Comparison")
    assert [(row[0], row[1], row[2], row[6]) for row in table] == [
        ("Baseline", "N/A", "98.59", "published, record"),
        ("Baseline", "N/A", "98.57 ± 0.10", "**measured**"),
        *(
            ("Structured Sparsity Learning", "90.61 (83.5) (90.95)", "98.47", "published, record"),
            ("Network Slimming", "95.68 (84.4) (96.00)", "98.51", "published, record"),
            ("MINT", "96.01", "98.47", "published, record; the paper says 96.20"),
        ),
        ("mint", "96.01 ± 0.00", "98.07 ± 0.10", "**measured**"),
        ("mint", "not run", "not run", "not run"),  # the searched one
    ]
    assert _lines(table[5][3]) == [3, 4]
    assert _lines(table[1][3]) == [2, 4]  # a baseline is that of the seed's first trial
    table = _cells(text, "Experiment 4: ResNet50 on ImageNet", "Comparison")
    assert [row[4] for row in table if row[1] == "not run"] == [
        *("0.4301 asked", "0.49 asked", "0.4962 asked")
    ]
    assert ["open", "71.54"] in [row[1:3] for row in table]


@pytest.mark.parametrize(
    ("name", "shape", "untouched"),
    [
        ("vgg16_cifar10", (3, 32, 32), "14977728 - 14712832 = 264896"),
        ("resnet56_cifar10", (3, 32, 32), "848944 - 785664 = 63280"),
        ("resnet50_imagenet", (3, 224, 224), "25502912 - 20676608 = 4826304"),
    ],
)
def test_breakdown_is_of_the_network(
    tmp_path: Path, name: str, shape: tuple[int, int, int], untouched: str
) -> None:
    experiment = load_experiment(name)
    traced = untrained(experiment, shape)
    layers = count_layers(traced, chosen_pairs(traced, experiment))
    packaged = yaml.safe_load(files("mint").joinpath("breakdowns.yaml").read_text("utf-8"))
    assert packaged[name] == layers_text(layers)
    write_report(tmp_path, as_records([]))
    text = (tmp_path / "RESULTS.md").read_text()
    assert f"Untouched weights: {untouched}." in text
    (section,) = [title for title in _TITLES if name.split("_")[0] == title.split()[2].lower()]
    table = _cells(text, section, "Layer breakdown")
    assert len(table) == len(layers) + 1
    for row, layer in zip(table, layers, strict=False):
        assert row[1] == str(layer.weights)
        assert row[2] == (str(layer.weights) if layer.reason else "not run")
    assert table[-1][2] == "not run"


_TITLES = [
    "Experiment 2: VGG16 on CIFAR-10",
    "Experiment 3: ResNet56 on CIFAR-10",
    "Experiment 4: ResNet50 on ImageNet",
]


def test_breakdown_tells_the_mean_over_seeds(tmp_path: Path) -> None:
    packaged = yaml.safe_load(files("mint").joinpath("breakdowns.yaml").read_text("utf-8"))
    network = parse_layers(packaged["vgg16_cifar10"])

    def row(seed: int, kept: int | None) -> dict[str, object]:
        layers = [
            layer.model_copy(update={"kept": kept if layer.name == "conv9" else layer.weights})
            for layer in network
        ]
        pruned = 2359296 - (kept or 0)
        drawn = _row(64, 500, 0.85, seed, name="vgg16_cifar10", pruned=0, fraction=0.8343)
        return drawn | {
            "pruned_weights": pruned,
            "counted_weights": 14977728,
            "params_pruned": 100 * pruned / 14977728,
            "layers": "unknown" if kept is None else layers_text(layers),
        }

    def told() -> dict[str, list[str]]:
        text = (tmp_path / "RESULTS.md").read_text()
        return {row[0]: row[2:4] for row in _cells(text, _TITLES[0], "Layer breakdown")}

    write_report(tmp_path, as_records([row(0, 1000), row(1, 2001)]))
    assert told()[r"\*conv8 - conv9\*"] == ["1500.5", "0.1"]
    assert told()[r"\*conv9 - conv10\*"] == ["2359296", "100.0"]
    assert told()["Total"] == ["12619932.5", "84.3"]
    write_report(tmp_path, as_records([row(0, None)]))
    assert told()[r"\*conv8 - conv9\*"] == ["unknown", "unknown"]
    assert told()["conv1 - conv2"] == ["36864", "100.0"]
    assert told()["Total"] == ["unknown", "unknown"]


def test_same_records_same_bytes(tmp_path: Path, records: pd.DataFrame) -> None:
    write_report(tmp_path / "a", records)
    shuffled = records.sample(frac=1, random_state=0)
    write_report(tmp_path / "b", read_records(tmp_path / "a" / "records.csv"))
    write_report(tmp_path / "c", sort_records(shuffled))
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(names) == 7  # a plot each, and the variations of MNIST
    for folder in "bc":
        for name in names:
            written = (tmp_path / folder / name).read_bytes()
            assert written == (tmp_path / "a" / name).read_bytes()


def test_other_protocols_never_share_a_table(tmp_path: Path) -> None:
    row = _row(5, 50, None, 0, name="digits_mlp", pruned=96.0)
    other = row | {"protocol": "00000000", "key": "other"}
    write_report(tmp_path, as_records([row, other]))
    text = (tmp_path / "RESULTS.md").read_text()
    assert text.count("### digits_mlp, protocol") == 2
    assert "±" not in text.replace("mean ± standard", "")


def test_protocol_ignores_the_axes_and_nothing_else() -> None:
    experiment = load_experiment("digits_mlp")
    longer = experiment.model_copy(
        update={"training": experiment.training.model_copy(update={"epochs": 21})}
    )

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
            | {"accuracy": accuracy, "baseline_accuracy": 98.0, "accuracy_drop": 98.0 - accuracy}
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
    rows = _cells(text, "Criteria")
    assert [row[4] for row in rows] == ["mint", "random", "magnitude", "taylor"]
    assert all(row[:4] == ["N/A", "20", "250", "0.9"] for row in rows)
    # t of 2 degrees of freedom: 4.303 standard errors. Differences 1, 1.5, 0.5 and 3, 3.1, 3.
    assert [row[7] for row in rows] == [
        "+1.00 [-0.24, +2.24]",
        "N/A",
        r"+3.03 [+2.89, +3.18] \*",
        "-10.00",
    ]
    assert rows[2][6] == "95.03 ± 2.00"
    assert [row[8][:4] for row in rows] == ["[3](", "[3](", "[3](", "[1]("]
    trials = _cells(text, "Trials")
    assert [row[1:3] + row[4:5] for row in trials] == [
        ["N/A", "N/A", "magnitude"],
        ["20", "N/A", "random"],
        ["20", "250", "mint"],
        ["20", "250", "taylor"],
    ]
    assert "Group variations:" not in text  # what is quoted was searched
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
    compared = compare(cells_of(numbered(_criteria(accuracies))))
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
    exact = records.assign(accuracy=100 / 3, baseline_accuracy=100 / 3 + 0.3, accuracy_drop=0.3)
    (tmp_path / "records.csv").write_bytes(records_bytes(exact))
    again = read_records(tmp_path / "records.csv")
    assert (again["accuracy"] == 100 / 3).all()
    assert (again["baseline_accuracy"] == 100 / 3 + 0.3).all()


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("upper_limit", "foo", "line 2, column upper_limit: 'foo' is not allowed"),
        ("experiment", "../../evil", "column experiment: '../../evil' is not allowed"),
        ("accuracy", float("nan"), "column accuracy: nan is nan or infinite"),
        ("accuracy", 12.5, "column accuracy_drop: 0.5 is not baseline_accuracy - accuracy"),
        ("params_pruned", 12.5, "column params_pruned: 12.5 is not pruned_weights / counted"),
        ("reason", "two\nlines", "column reason: .* has several lines"),
        ("layers", "fc1", "column layers: 'fc1' is not allowed"),
        ("layers", "fc1 > fc2: 2/1", "'fc1 > fc2: 2/1' keeps weights that it cannot"),
        ("layers", "Input > fc1: 1/2 (reads the input)", "keeps weights that it cannot"),
        ("layers", "fc1 > fc2: 1/2", "prunes 1 weights, and pruned_weights is"),
        ("key", "same", "line 3, column key: 'same' stands there twice"),
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
        (
            ",".join(COLUMNS) + "\n" + ",".join("x" for _ in COLUMNS) + "\n",
            "line 2, column groups: 'x' is no whole number",
        ),
    ],
)
def test_file_that_is_noas_records(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "records.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=complaint):
        read_records(path)


def test_report_takes_no_torch() -> None:
    code = "import sys, mint.reporting.pages; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ten_thousand_records_are_reported_in_seconds(tmp_path: Path) -> None:
    row = _row(20, 250, None, 0, name="mnist_mlp", pruned=90.0)
    axes = product(
        *((5, 10, 20, 25, 50), (50, 150, 250, 350, 450), ("none", "0.8"), ("none", "0.9", "0.99")),
        *(("mint", "random", "taylor", "block-magnitude", "magnitude", "l1-filters"), range(11)),
    )
    many = [
        row
        | {"groups": groups, "samples_per_class": samples, "upper_limit": limit, "seed": seed}
        | {"fraction": fraction, "criterion": criterion, "key": f"{number:016x}"}
        for number, (groups, samples, limit, fraction, criterion, seed) in enumerate(axes)
    ]
    assert len(many) == 9900
    start = time.process_time()
    write_report(tmp_path, as_records(many))
    assert time.process_time() - start < 10
    text = (tmp_path / "RESULTS.md").read_text()
    assert re.search(r"<details><summary>\d{3} rows</summary>\n\n\|", text)
