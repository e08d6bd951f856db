"""The report is a function of its trial table and reference files; every row is traceable."""

import re
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from trial_rows import failed_row, finished_row, searched_row, table, with_accuracy

from mint.config.loading import load_experiment
from mint.reporting.figure_style import save
from mint.reporting.pages import write_report
from mint.reporting.protocols import protocols_of
from mint.reporting.reference import references_of
from mint.reporting.trials_csv import read_trials, table_of_rows

REFERENCE = """
title: Small networks
experiments: [digits_mlp]
source: a paper
baseline: {accuracy: 99.1, source: its table 1}
methods:
  - {method: Other, params_pruned: 50, accuracy: 97.5, source: its table 1}
  - {method: MINT, params_pruned: 96.01, accuracy: 98.5, source: its table 1}
  - {method: Open, params_pruned: null, accuracy: 98.4, source: its table 2}
searched: {upper_limit: none, groups: 20, samples_per_class: 100}
groups:
  - {block: none, upper_limit: none, groups: 5, samples_per_class: 100, params_pruned: 86.2, \
accuracy: null}
  - {block: none, upper_limit: none, groups: 20, samples_per_class: 100, params_pruned: 88.5, \
accuracy: 98.6}
layers: "Input > fc1: 32000 (reads the input); fc1 > fc2: 150000; fc2 > fc3: 3000 (left out)"
reduced: {fc2: 12345}
notes: [A note.]
"""


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(REFERENCE)
    return path


def _report(folder: Path, trials: pd.DataFrame, *references: Path) -> str:
    """Write a report, and return RESULTS.md with the pages of the experiments behind it."""
    report = write_report(folder, trials, references)
    return "\n".join((folder / name).read_text() for name in report.pages)


def _rows(text: str, *headings: str) -> list[dict[str, str]]:
    """Return the rows of the first table below a heading, below another heading and so on."""
    for heading in headings:
        text = re.split(rf"^#+ {re.escape(heading)}$", text, flags=re.MULTILINE)[1]
    part = text[text.index("\n|") + 1 :].split("\n\n")[0]
    header, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()
    )
    return [dict(zip(header, row, strict=True)) for row in rows]


def _lines(cell: str) -> list[int]:
    """Return the lines of trials.csv that a cell links to."""
    spans = re.findall(r"trials\.csv\?plain=1#L(\d+)(?:-L(\d+))?", cell)
    return [line for first, last in spans for line in range(int(first), int(last or first) + 1)]


def test_published_rows_stand_beside_measured_ones(tmp_path: Path, reference: Path) -> None:
    rows = [finished_row(seed=seed, pruned=96.01, fraction=0.9601) for seed in (0, 1)]
    rows.append(finished_row(pruned=90.0, fraction=0.9))
    text = _report(tmp_path / "out", table(*rows), reference)
    compared = _rows(text, "Small networks", "Comparison")
    assert [(row["Method"], row["Params pruned"], row["Performance"]) for row in compared] == [
        ("Baseline", "N/A", "99.10"),
        ("Baseline", "N/A", "98.57 ± 0.10"),
        ("Other", "50.00", "97.50"),
        ("MINT", "96.01", "98.50"),
        ("mint", "96.01 ± 0.00", "98.07 ± 0.10"),
        ("Open", "open", "98.40"),
    ]
    assert compared[0]["Setting"] == "published, its table 1"
    assert compared[4]["Setting"] == "digits_mlp, full retraining 20 epochs; 20 groups"
    written = (tmp_path / "out" / "trials.csv").read_text().splitlines()
    linked = [written[line - 1] for line in _lines(compared[4]["Seeds"])]
    assert ["run-0" in linked[0], "run-1" in linked[1]] == [True, True]
    assert "A note." in text
    assert "a paper" in text


def test_published_cells_stand_beside_both_readings(tmp_path: Path, reference: Path) -> None:
    axes: dict[str, Any] = {"samples_per_class": 100, "groups": 20}
    rows = [
        *(searched_row("digits_mlp", share=90.0 + seed, seed=seed, **axes) for seed in (0, 1)),
        searched_row("digits_mlp", share=70.0, retraining="light", **axes),
        *(finished_row(fraction=0.885, pruned=88.5, seed=seed) for seed in (0, 1)),
        *(finished_row(fraction=0.885, pruned=88.5, criterion="random", seed=s) for s in (0, 1)),
    ]
    text = _report(tmp_path / "out", table(*rows), reference)
    empty, cell = _rows(text, "Groups and samples: digits_mlp, full retraining 20 epochs")
    assert [cell["Published pruned"], cell["Published performance"]] == ["88.50", "98.60"]
    assert cell["Performance at that share, full"] == "98.07 ± 0.10"
    assert cell["Share at the margin, full"] == "90.50 ± 0.71"
    assert cell["Share at the margin, light"] == "70.00"
    assert "Share at the margin, none" not in cell
    assert [empty["Published performance"], empty["Share at the margin, full"]] == [
        "open",
        "not run",
    ]


def test_layers_of_a_reference(tmp_path: Path, reference: Path) -> None:
    rows = [finished_row(pruned=96.01, fraction=0.9601)]
    text = _report(tmp_path / "out", table(*rows), reference)
    layers = {row["Layer pair"]: row for row in _rows(text, "Layer breakdown")}
    assert layers[r"\*fc1 - fc2\*"]["Kept"] == "5985"
    assert layers[r"\*fc1 - fc2\*"]["Published reduced"] == "12345"
    assert layers["Input - fc1"]["Not prunable, because"] == "reads the input"
    assert layers["Total"]["Kept"] == "40985"
    assert "185000 - 150000 = 35000" in text


def test_reference_without_trials_says_so(tmp_path: Path, reference: Path) -> None:
    text = _report(tmp_path / "out", table(), reference)
    methods = _rows(text, "Small networks", "Comparison")
    assert {row["Setting"].split(",")[0] for row in methods} == {"published"}
    assert "Not run: `mint run --experiment digits_mlp` runs a trial." in text


def test_layers_of_another_network_are_unknown(tmp_path: Path, reference: Path) -> None:
    row = finished_row(pruned=96.01, fraction=0.9601)
    row["layers"] = row["layers"].replace("fc1: 32000/32000", "fc1: 31000/31000")
    text = _report(tmp_path / "out", table(row), reference)
    assert _rows(text, "Layer breakdown")[1]["Kept"] == "unknown"


def test_report_of_an_own_network_is_small_and_names_no_other(tmp_path: Path) -> None:
    row = finished_row() | {"experiment": "my_network", "setting": "My network."}
    text = _report(tmp_path, table(row))
    assert re.findall("VGG|ResNet|MINT|ublished|reference", text) == []
    (trial,) = _rows(text, "Full retraining 20 epochs", "Trials")
    assert trial["Params pruned"] == "90.00"
    assert len(text.splitlines()) < 40
    assert not (tmp_path / "figures").exists()


def test_sections_follow_the_names_of_the_reference_files(tmp_path: Path) -> None:
    for name, title, experiment in (("b", "Second", "two"), ("a", "First", "one")):
        path = tmp_path / f"{name}.yaml"
        path.write_text(
            REFERENCE.replace("Small networks", title).replace("digits_mlp", experiment)
        )
    text = _report(tmp_path / "out", table(finished_row()), *tmp_path.glob("*.yaml"))
    overview = (tmp_path / "out" / "RESULTS.md").read_text()
    titles = re.findall(r"^## (.*)", overview, re.MULTILINE)
    assert titles == ["First", "Second", "Other experiments"]
    for line in text.splitlines():
        if line.startswith("|"):
            assert all(cell.strip() for cell in line.strip("|").split("|"))


def test_same_rows_in_any_order_give_the_same_bytes(tmp_path: Path, reference: Path) -> None:
    axes: dict[str, Any] = {"samples_per_class": 100}
    trials = table(
        *(
            searched_row(
                "digits_mlp", share=90 + groups / 10 + seed, groups=groups, seed=seed, **axes
            )
            for groups in (5, 10, 20)
            for seed in (0, 1, 2)
        ),
        *(
            finished_row(criterion=name, fraction=fraction)
            for name in ("mint", "random")
            for fraction in (0.8, 0.9, 0.9601)
        ),
    )
    write_report(tmp_path / "a", trials, [reference])
    write_report(tmp_path / "b", trials.sample(frac=1, random_state=0), [reference])
    write_report(
        tmp_path / "c",
        read_trials(tmp_path / "a" / "trials.csv"),
        (tmp_path / "a" / "reference").iterdir(),
    )
    made = {
        folder: {
            path.relative_to(tmp_path / folder): path.read_bytes()
            for path in (tmp_path / folder).rglob("*.*")
        }
        for folder in "abc"
    }
    assert made["a"] == made["b"] == made["c"]
    figures = {path.name: content for path, content in made["a"].items() if path.suffix == ".png"}
    assert set(figures) == {
        "digits_mlp-layers.png",
        "digits_mlp-full-retraining-20-epochs-criteria.png",
        "digits_mlp-full-retraining-20-epochs-groups-and-samples.png",
        "small-networks-accuracy.png",
    }
    assert all(content.startswith(b"\x89PNG") for content in figures.values())


def test_every_figure_is_shown(tmp_path: Path) -> None:
    trials = _criteria({("random", 20): [90.0, 92.0, 94.0], ("mint", 20): [91.0, 93.5, 94.5]})
    text = _report(tmp_path, trials)
    drawn = {f"figures/{path.name}" for path in (tmp_path / "figures").glob("*")}
    assert drawn == set(re.findall(r"!\[[^]]*\]\(([^)]*)\)", text))


def test_protocols_have_readable_names_and_share_no_table(tmp_path: Path) -> None:
    row = finished_row()
    slower = row["setting"].replace("learning rate 0.1", "learning rate 0.01")
    other = row | {"protocol": "00000000", "key": "other", "setting": slower}
    third = row | {"protocol": "00000001", "key": "third", "protocol_name": "not retrained"}
    text = _report(tmp_path, table(row, other, third))
    assert re.findall("^## (Full.*|Not.*)", text, re.MULTILINE) == [
        "Full retraining 20 epochs, learning rate 0.01",
        "Not retrained",
        "Full retraining 20 epochs, learning rate 0.1",
    ]
    assert "±" not in text.replace("mean ± standard", "")
    assert not re.search(row["protocol"], text)
    same = table(row, row | {"protocol": "00000000", "key": "other"})
    assert [protocol.name[-3:] for protocol in protocols_of(same)] == ["(1)", "(2)"]


def test_failed_trials_are_listed_with_their_reasons(tmp_path: Path) -> None:
    rows = [finished_row(seed=0), failed_row(finished_row(seed=1), "no | memory")]
    text = _report(tmp_path, table(*rows))
    (trial,) = _rows(text, "Trials")
    assert trial["Seeds"].startswith("[1, 1 failed](")
    assert r"failed | no \| memory" in re.sub(" +", " ", text)
    only = _report(tmp_path, table(rows[1]))
    assert "no trial has finished" in only
    assert _rows(only, "Trials")[0]["Params pruned"] == "no result"


def _criteria(accuracies: dict[tuple[str, int], list[float]]) -> pd.DataFrame:
    """Return trials at 90% for criteria and groups, one for each accuracy and seed."""
    return table(
        *(
            with_accuracy(
                finished_row(criterion=criterion, groups=groups, fraction=0.9, seed=seed), accuracy
            )
            for (criterion, groups), by_seed in accuracies.items()
            for seed, accuracy in enumerate(by_seed)
        )
    )


def test_criteria_are_paired_with_random_blocks_by_seed(tmp_path: Path) -> None:
    trials = _criteria(
        {
            ("random", 20): [90.0, 92.0, 94.0],
            ("mint", 20): [91.0, 93.5, 94.5],
            ("magnitude", 20): [93.0, 95.1, 97.0],
            ("taylor", 20): [80.0],
        }
    )
    text = _report(tmp_path, trials)
    rows = {row["Criterion"]: row for row in _rows(text, "Criteria, full retraining")}
    # t of 2 degrees of freedom: 4.303 standard errors. Differences 1, 1.5, 0.5 and 3, 3.1, 3.
    assert {name: row["Against random"] for name, row in rows.items()} == {
        "mint": "+1.00 [-0.24, +2.24]",
        "random": "N/A",
        "magnitude": r"+3.03 [+2.89, +3.18] \*",
        "taylor": "-10.00",
    }
    assert rows["magnitude"]["Performance"] == "95.03 ± 2.00"
    assert len(_lines(rows["mint"]["Seeds"])) == 3


def test_criterion_without_groups_is_compared_at_all_groups() -> None:
    accuracies = {
        ("random", 5): [90.0, 91.0],
        ("random", 20): [92.0, 93.0],
        ("mint", 20): [95.0, 95.0],
        ("magnitude", 20): [94.0, 94.0],
    }
    (protocol,) = protocols_of(_criteria(accuracies))
    differences = {
        (row.axes.groups, row.trials.criterion): difference and difference.mean
        for row in protocol.criteria
        for difference in [row.against["random"]]
    }
    assert differences == {
        (5, "random"): None,
        (5, "magnitude"): 3.5,
        (20, "random"): None,
        (20, "magnitude"): 1.5,
        (20, "mint"): 2.5,
    }


def test_groupings_have_rows_of_their_own_and_findings_are_those_of_contiguous_groups(
    tmp_path: Path,
) -> None:
    gains = {"contiguous": 0.0, "clustered": 3.0}
    trials = table(
        *(
            with_accuracy(
                finished_row(criterion=name, grouping=grouping, fraction=0.9, seed=seed),
                90 + seed / 10 + gain * (name != "random"),
            )
            for grouping, gain in gains.items()
            for name in ("random", "mint", "magnitude")
            for seed in (0, 1)
            if name != "magnitude" or grouping == "contiguous"
        )
    )
    text = _report(tmp_path, trials)
    rows = _rows(text, "Criteria, full retraining")
    found = {(row["Criterion"], row["Grouping"]): row["Against random"] for row in rows}
    assert found == {
        ("random", "contiguous"): "N/A",
        ("mint", "contiguous"): "+0.00",
        ("magnitude", "contiguous"): "+0.00",
        ("random", "clustered"): "N/A",
        ("mint", "clustered"): "+3.00",
        ("magnitude", "clustered"): "+0.00",
    }
    (effect, *_) = _rows(text, "Effect of the criterion, clustered groups")
    assert effect["Accuracy"].startswith("+3.00")
    (effect, *_) = _rows(text, "Effect of the criterion")
    assert effect["Accuracy"].startswith("+0.00")


def test_searches_without_a_margin_and_single_criteria_are_not_compared(tmp_path: Path) -> None:
    searched = [finished_row(criterion=name) for name in ("mint", "random")]
    assert [protocol.criteria for protocol in protocols_of(table(*searched))] == [[]]
    text = _report(tmp_path, _criteria({("random", 20): [90.0]}))
    assert "Criteria" not in text
    assert _rows(text, "Trials")[0]["Criterion"] == "random"


def test_report_imports_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, mint.reporting.pages; sys.exit(bool({'torch', 'matplotlib'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ten_thousand_trials_are_reported_in_seconds(tmp_path: Path) -> None:
    row = finished_row()
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
    start = time.process_time()
    text = _report(tmp_path, table_of_rows(many))
    assert time.process_time() - start < 10
    assert re.search(r"<details><summary>\d{3} rows</summary>\n\n\|", text)


def test_experiments_of_the_authors_name_their_reference_results() -> None:
    names = ["mnist_mlp", "mnist_mlp_fine", "mnist_mlp_input", "vgg16_cifar10", "digits_mlp"]
    assert [path.name for path in references_of(names)] == [
        *("experiment1.yaml", "experiment1.yaml", "experiment2.yaml"),
    ]
    assert load_experiment("mnist_mlp_input").name == "mnist_mlp_input"


def test_figure_that_cannot_be_drawn_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        finished_row(name, criterion=criterion, fraction=fraction)
        for name in ("digits_mlp", "mnist_mlp")
        for criterion in ("mint", "random")
        for fraction in (0.8, 0.9, 0.95)
    ]
    write_report(tmp_path, table(*rows))
    figures = sorted(path.name for path in tmp_path.glob("figures/*.png"))
    assert len(figures) > 1
    more = finished_row("mnist_mlp", criterion="random", fraction=0.8, seed=1)
    failures = iter([ValueError("no font")])

    def fail_once(*arguments: Any) -> None:
        for failure in failures:
            raise failure
        save(*arguments)

    monkeypatch.setattr("mint.reporting.drawing.save", fail_once)
    with pytest.warns(UserWarning, match=r"\.png: is not drawn \(ValueError: no font\)"):
        write_report(tmp_path, table(*rows, more))
    assert len(read_trials(tmp_path / "trials.csv")) == len(rows) + 1
    assert (
        len(list(tmp_path.glob("figures/*.png"))) == len(figures) - 1
    )  # no older figure in its place
