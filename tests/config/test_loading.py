"""Experiments from YAML files: what is wrong is refused by name, and changes are checked alike."""

from pathlib import Path

import pytest
import yaml

from mint.config.grid import parse_limit
from mint.config.loading import experiment_names, load_experiment, read_experiment
from mint.config.locations import bundled
from mint.errors import InputError


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_loads_under_its_own_name(name: str) -> None:
    assert load_experiment(name).name == name


@pytest.mark.parametrize("name", [n for n in experiment_names() if not n.endswith("_short")])
def test_smoke_and_trial_sections(name: str) -> None:
    smoke, full = read_experiment(name, smoke=True), read_experiment(name)
    epochs = [file.experiment.retraining_settings("full").epochs for file in (smoke, full)]
    assert epochs[0] < epochs[1]
    assert smoke.defaults
    assert parse_limit(smoke.defaults.upper_limit, smoke.defaults.groups) in (None, 0.55, 0.85)


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"smoke: .* has no section smoke"):
        load_experiment("resnet56_cifar10_short", smoke=True)
    assert read_experiment(_edited(tmp_path, {"trial": None})).defaults is None


def _edited(tmp_path: Path, edit: dict[str, object]) -> str:
    content = yaml.safe_load((bundled("experiments") / "digits_mlp.yaml").read_text())
    for key, value in edit.items():
        *sections, last = key.split(".")
        target = content
        for section in sections:
            target = target[section]
        target[last] = value
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        ({"training.epoch": 3}, "unknown key training.epoch; did you mean epochs?"),
        ({"colour": "red"}, "unknown key colour; known are name, title"),
        ({"training.lr": -1}, "training.lr -1: Input should be greater than 0"),
        ({"training.epochs": 2.5}, "training.epochs 2.5"),
        ({"search.margin": float("nan")}, "search.margin nan"),
        ({"data.name": "cifar"}, "data.name 'cifar': String should match pattern"),
        ({"network.name": "vgg"}, "network.name 'vgg': String should match pattern"),
        ({"prune": [["fc1", "fc2"], ["fc1", "fc2"]]}, "prune ['fc1', 'fc2']: must be named once"),
        ({"leave_out": [["fc1", "fc2"]]}, "leave_out: is for prune: all"),
        ({"search.fraction": 0.5}, "search: give either fraction, or margin and steps"),
        ({"search": {"steps": 3}}, "search: give either fraction, or margin and steps"),
        ({"limits": {"fc2": 1.5}}, "limits.fc2 1.5"),
        ({"name": "../escape"}, "name '../escape'"),
    ],
)
def test_bad_key_is_refused_by_name(tmp_path: Path, edit: dict[str, object], named: str) -> None:
    with pytest.raises(InputError) as raised:
        load_experiment(_edited(tmp_path, edit))
    assert named in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ["a: [", "- 1", "!!python/object:os.system {}"])
def test_file_that_is_no_experiment(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=r"bad\.yaml"):
        load_experiment(str(path))


def test_unknown_experiment_names_those_there_are() -> None:
    with pytest.raises(
        InputError, match="known are digits_mlp, digits_mlp_connected, lenet5_mnist,"
    ):
        load_experiment("cifar_mlp")


def test_an_experiment_that_extends_another(tmp_path: Path) -> None:
    def written(name: str, content: dict[str, object]) -> str:
        (tmp_path / name).write_text(yaml.safe_dump(content))
        return str(tmp_path / name)

    digits = load_experiment("digits_mlp")
    written("first.yaml", {"extends": "digits_mlp", "name": "first", "training": {"epochs": 7}})
    second = written("second.yaml", {"extends": "first.yaml", "groups": {"fc2": 30}})
    experiment = load_experiment(second)
    assert (experiment.name, experiment.groups) == ("first", {"fc2": 30})
    assert experiment.training == digits.training.model_copy(update={"epochs": 7})
    assert experiment.data == digits.data
    assert read_experiment(second).defaults == read_experiment("digits_mlp").defaults

    other = written("other.yaml", {"extends": "digits_mlp", "network": {"name": "a.module:build"}})
    assert load_experiment(other).network.arguments == {}
    changes = {"network.name": "vgg16", "network.arguments.classes": 10}
    assert read_experiment("digits_mlp", changes=changes).experiment.network.arguments == {
        "classes": 10
    }
    wider = written(
        "wider.yaml", {"extends": "digits_mlp", "network": {"arguments": {"dropout": 0.5}}}
    )
    assert load_experiment(wider).network.arguments["widths"] == [64, 500, 300, 10]

    circle = written("circle.yaml", {"extends": "circle.yaml"})
    with pytest.raises(InputError, match=r"circle.yaml: extends circle.yaml: .* extends itself"):
        load_experiment(circle)
    (tmp_path / "below").mkdir()
    written("below/there.yaml", {"extends": "../back.yaml"})
    back = written("back.yaml", {"extends": "below/there.yaml"})
    with pytest.raises(InputError, match=r"extends itself"):
        load_experiment(back)

    lost = written("lost.yaml", {"extends": "digit_mlp"})
    with pytest.raises(InputError, match=r"lost.yaml: extends digit_mlp: .* no such experiment"):
        load_experiment(lost)


def test_retraining_states_only_what_differs_from_training() -> None:
    experiment = load_experiment("mnist_mlp")
    training, retraining = experiment.training, experiment.retraining_settings("full")
    assert (retraining.epochs, retraining.schedule) == (12, "cosine")
    same = {"epochs": training.epochs, "schedule": training.schedule}
    assert retraining.model_copy(update=same) == training


def test_changes_are_checked_as_if_they_stood_in_the_file() -> None:
    changes = {"training.epochs": 3, "retraining.epochs": 1, "groups.fc2": 30, "threads": 2}
    changed, plain = (
        read_experiment("digits_mlp", changes=values).experiment for values in (changes, {})
    )
    assert changed.training == plain.training.model_copy(update={"epochs": 3})
    assert changed.retraining == plain.training.model_copy(update={"epochs": 1})
    assert (changed.groups, changed.threads) == ({"fc2": 30}, 2)
    for key, value, named in (
        ("training.epoch", 3, "unknown key training.epoch; did you mean epochs?"),
        ("training.lr", "fast", "training.lr 'fast'"),
        ("trainin.lr", 0.1, "unknown key trainin; did you mean training?"),
        ("name.first", "a", "name {'first': 'a'}"),
    ):
        with pytest.raises(InputError) as raised:
            read_experiment("digits_mlp", changes={key: value})
        assert named in str(raised.value)


def test_another_network_takes_all_of_its_pairs() -> None:
    experiment = read_experiment("digits_mlp", model="Some_Package.nets:build").experiment
    assert (experiment.name, experiment.prune) == ("some-package-nets-build", "all")
    assert (experiment.count, experiment.groups) == ("all", {})
    with pytest.raises(InputError, match="model nothing: must be MODULE:FUNCTION"):
        read_experiment("digits_mlp", model="nothing")


def test_a_reference_file_is_relative_to_the_file_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: digits_mlp\nname: mine\nreference: rows.yaml\n")
    (tmp_path / "below").mkdir()
    below = tmp_path / "below" / "other.yaml"
    below.write_text("extends: ../mine.yaml\n")
    assert read_experiment(str(below)).reference == tmp_path / "rows.yaml"
    assert read_experiment("digits_mlp").reference is None
