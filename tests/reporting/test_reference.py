"""Reference files: malformed ones are refused with file and key; folders keep their own copies."""

from pathlib import Path

import pytest
from trial_rows import finished_row, table

from mint.config.loading import load_experiment
from mint.errors import InputError
from mint.models.layers import chosen_pairs
from mint.pruning.layer_table import count_layers
from mint.reporting.folder import check_results, rebuild_report
from mint.reporting.reference import read_reference

STUDY = Path(__file__).resolve().parents[2] / "studies" / "mint_reference"
VALID = """
title: T
experiments: [one]
source: s
baseline: {accuracy: 90, source: s}
methods: [{method: m, params_pruned: 50, accuracy: 89, source: s}]
"""


def _write(path: Path, content: str) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(content)
    return path


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("title: T", "titel: T", "unknown key titel; did you mean title"),
        ("title: T\n", "", "missing key title"),
        ("accuracy: 89", "accuracy: high", r"methods\.0\.accuracy 'high'"),
        ("method: m", "method: m, year: 1999", r"unknown key methods\.0\.year"),
        ("experiments: [one]", "experiments: []", "experiments"),
        ("title: T", "title: T\nlayers: fc1", "'fc1' is not a layer"),
        ("title: T", "title: T\nsearched: {groups: 5}", r"missing key searched\.upper_limit"),
    ],
)
def test_malformed_file_is_refused_with_its_key(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    path = _write(tmp_path / "r.yaml", VALID.replace(old, new))
    with pytest.raises(InputError, match=rf"r\.yaml: .*{complaint}"):
        read_reference(path)
    with pytest.raises(InputError, match=r"r\.yaml"):
        check_results(tmp_path / "out", [path])
    assert not (tmp_path / "out").exists()


def test_folder_keeps_its_own_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, output = _write(tmp_path / "r.yaml", VALID), tmp_path / "out"
    row = finished_row() | {"experiment": "one"}
    rebuild_report(output, of_disk=table(row), references=[path])
    path.unlink()
    rebuild_report(output, of_disk=table(row | {"key": "x", "seed": 1}))
    text = (output / "RESULTS.md").read_text()
    assert "## T\n" in text
    assert "±" in text.split("### Comparison")[1]
    assert "missing" not in capsys.readouterr().out


def test_missing_file_is_reported_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = tmp_path / "gone.yaml"
    rebuild_report(tmp_path / "out", of_disk=table(finished_row()), references=[gone, gone])
    assert capsys.readouterr().out.count("gone.yaml is missing") == 1
    assert "not run" not in (tmp_path / "out" / "RESULTS.md").read_text()


def test_same_file_name_for_other_experiments_is_refused(tmp_path: Path) -> None:
    first = _write(tmp_path / "a" / "r.yaml", VALID)
    second = _write(tmp_path / "b" / "r.yaml", VALID.replace("one", "two"))
    output = tmp_path / "out"
    rebuild_report(output, of_disk=table(finished_row()), references=[first])
    with pytest.raises(InputError, match="is of other experiments; rename one"):
        check_results(output, [second])
    _write(first, VALID.replace("title: T", "title: New"))
    rebuild_report(output, references=[first])
    assert "## New\n" in (output / "RESULTS.md").read_text()


def test_report_finds_the_references_of_bundled_experiments(tmp_path: Path) -> None:
    rebuild_report(tmp_path, of_disk=table(finished_row("mnist_mlp")))
    copied = (tmp_path / "reference" / "experiment1.yaml").read_bytes()
    assert copied == (STUDY / "experiment1.yaml").read_bytes()


@pytest.mark.parametrize(
    ("name", "number", "shape"),
    [
        ("vgg16_cifar10", 2, (3, 32, 32)),
        ("resnet56_cifar10", 3, (3, 32, 32)),
        ("resnet50_imagenet", 4, (3, 224, 224)),
    ],
)
def test_layers_of_the_study_are_those_of_the_networks(
    name: str, number: int, shape: tuple[int, int, int]
) -> None:
    import torch

    from mint.models.registry import build_network
    from mint.models.tracing import trace

    experiment = load_experiment(name)
    traced = trace(build_network(experiment.network), torch.zeros(1, *shape))
    layers = count_layers(traced, chosen_pairs(traced, experiment))
    assert read_reference(STUDY / f"experiment{number}.yaml").layers == layers
