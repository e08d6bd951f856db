"""Configurations refuse what is wrong by name, and their keys follow what changes a result."""

from pathlib import Path

import pytest
import yaml

from mint.config.grid import Grid, parse_limit
from mint.config.loading import experiment_names, load_experiment
from mint.config.locations import bundled
from mint.config.schema import TrialConfig
from mint.data.datasets import Source
from mint.errors import InputError
from mint.trial.table_row import read_records


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_loads_under_its_own_name(name: str) -> None:
    assert load_experiment(name).name == name


def test_published_setting() -> None:
    experiment = load_experiment("mnist_mlp")
    training = experiment.training
    assert experiment.network.arguments == {"widths": [784, 500, 300, 10], "dropout": 0.2}
    assert (training.epochs, training.batch_size, training.lr) == (30, 256, 0.1)
    assert (training.milestones, training.gamma, training.weight_decay) == ((10, 20), 0.1, 1e-4)
    assert training.nesterov
    assert training.momentum == 0.9


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
        ({"search.max_drop": float("nan")}, "search.max_drop nan"),
        ({"data.name": "cifar"}, "data.name 'cifar': String should match pattern"),
        ({"network.name": "vgg"}, "network.name 'vgg': String should match pattern"),
        ({"prune": [["fc1", "fc2"], ["fc1", "fc2"]]}, "prune ['fc1', 'fc2']: must be named once"),
        ({"leave_out": [["fc1", "fc2"]]}, "leave_out: is for prune: all"),
        ({"search.fraction": 0.5}, "search: give either fraction, or max_drop and probes"),
        ({"search": {"max_drop": 1.0}}, "search: give either fraction, or max_drop and probes"),
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
    with pytest.raises(InputError, match="known are digits_mlp, mnist_mlp, mnist_mlp_fine,"):
        load_experiment("cifar_mlp")


@pytest.mark.parametrize(
    ("word", "groups", "limit"),
    [
        ("none", 5, None),
        ("0.8", 5, 0.8),
        ("0", 5, 0.0),
        ("1", 5, 1.0),
        ("g/50", 5, 0.1),
        ("g/50", 50, 1.0),
        ("(g/50)^2", 20, 0.16),
        ("(g/50)^2", 5, 0.01),
    ],
)
def test_limits(word: str, groups: int, limit: float | None) -> None:
    assert parse_limit(word, groups) == limit
    assert parse_limit(format_share(limit), groups) == limit


@pytest.mark.parametrize("word", ["1.1", "-0.1", "nan", "inf", "half", "g/0", "g/2", "", "1/0"])
def test_limit_out_of_range_is_refused(word: str) -> None:
    with pytest.raises(InputError, match="--upper-limits"):
        parse_limit(word, 5)


def test_grid_rules_meet_in_one_point() -> None:
    grid = Grid(groups=(50,), samples_per_class=(250,), upper_limits=("g/50", "(g/50)^2", "1"))
    points = list(grid.points())
    assert len(points) == 3
    assert all(point == points[0] for point in points)
    assert points[0]["upper_limit"] == 1.0


def test_schedule_follows_the_number_of_epochs() -> None:
    training = load_experiment("mnist_mlp").training
    assert training.model_copy(update={"epochs": 6}).milestones == (2, 4)
    assert training.model_copy(update={"epochs": 30}) == training


def test_keys_follow_what_each_stage_depends_on(quick_trial: TrialConfig) -> None:
    def copy(**update: object) -> TrialConfig:
        return quick_trial.model_copy(update=update)

    longer = quick_trial.experiment.model_copy(
        update={"training": quick_trial.experiment.training.model_copy(update={"epochs": 4})}
    )
    assert quick_trial.key == copy().key
    changed = [
        copy(groups=7),
        copy(samples_per_class=31),
        copy(upper_limit=0.5),
        copy(seed=1),
        copy(experiment=longer),
        copy(data_digest="other"),
    ]
    assert len({trial.key for trial in [quick_trial, *changed]}) == 7
    default = quick_trial.experiment.estimate.bootstraps
    assert copy(bootstraps=default).key == quick_trial.key
    assert copy(bootstraps=default + 1).key != quick_trial.key
    assert copy(bootstraps=default + 1).name == "g6-s30-unone-b11-seed0"
    assert copy(upper_limit=0.5).scores_key("fc2") == quick_trial.scores_key("fc2")
    assert quick_trial.scores_key("fc2") != quick_trial.scores_key("fc3")
    assert copy(groups=7).baseline_key == quick_trial.baseline_key
    assert copy(groups=7).scores_key("fc2") != quick_trial.scores_key("fc2")
    assert copy(seed=1).baseline_key != quick_trial.baseline_key
    assert copy(data_digest="other").baseline_key != quick_trial.baseline_key
    init = InitialWeights(file="weights.pt", digest="0123")
    started = copy(init=init)
    assert started.baseline_key != quick_trial.baseline_key
    renamed = copy(init=init.model_copy(update={"file": "other.pt"}))
    assert (renamed.key, renamed.protocol) == (started.key, started.protocol)
    apart = quick_trial.experiment.model_copy(update={"retraining": longer.training})
    assert copy(experiment=apart).baseline_key == quick_trial.baseline_key
    assert copy(experiment=apart).retrained_key("m") != quick_trial.retrained_key("m")
    assert copy(experiment=longer).protocol != quick_trial.protocol
    assert copy(groups=7, seed=3).protocol == quick_trial.protocol


def test_an_option_at_its_default_is_no_part_of_a_key(quick_trial: TrialConfig) -> None:
    training = quick_trial.experiment.training
    spelt_out = type(training)(**training.model_dump())
    experiment = quick_trial.experiment.model_copy(update={"training": spelt_out, "limits": {}})
    assert quick_trial.model_copy(update={"experiment": experiment}).key == quick_trial.key


def test_keys_of_trials_that_are_on_record_are_as_they_were(digits: Source) -> None:
    path = Path(__file__).resolve().parents[2] / "results" / "records.csv"
    records = read_records(path)
    of_digits = records[
        (records["experiment"] == "digits_mlp")
        & (records["criterion"] == "mint")
        & (records["fraction"] == "none")
    ]
    assert len(of_digits) > 0
    for row in of_digits.to_dict("records"):
        trial = TrialConfig(
            experiment=load_experiment("digits_mlp"),
            groups=row["groups"],
            samples_per_class=row["samples_per_class"],
            upper_limit=parse_limit(row["upper_limit"], row["groups"]),
            bootstraps=row["bootstraps"],
            seed=row["seed"],
            data_digest=digits.digest,
        )
        assert (trial.key, trial.protocol) == (row["key"], row["protocol"])
        # Of the stages too: what is kept of them is found again.
    assert (trial.criterion, trial.scores_key("fc2")) == ("mint", _scores_key_before(trial))


def _scores_key_before(trial: TrialConfig) -> str:
    """Return the key that scores had when there was one criterion."""
    estimate = {"bootstraps": trial.estimate.bootstraps}
    drawn_from = (trial.groups, trial.samples_per_class)
    return content_key("scores", trial.baseline_key, "fc2", estimate, *drawn_from)


@pytest.mark.parametrize("name", experiment_names())
def test_smoke_and_trial_sections(name: str, tmp_path: Path) -> None:
    if name.endswith("_short"):
        with pytest.raises(InputError, match=r"--smoke: .* has no section smoke"):
            load_experiment(name, smoke=True)
        return
    smoke, full = load_experiment(name, smoke=True), load_experiment(name)
    assert smoke.retraining_settings.epochs < full.retraining_settings.epochs
    defaults = trial_defaults(name, smoke=True)
    assert defaults is not None
    assert parse_limit(defaults.upper_limit, defaults.groups) in (None, 0.55, 0.85)
    assert trial_defaults(_edited(tmp_path, {"trial": None})) is None


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
    assert trial_defaults(second) == trial_defaults("digits_mlp")

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


def test_groups_of_a_layer_of_its_own(quick_trial: TrialConfig) -> None:
    experiment = quick_trial.experiment.model_copy(update={"groups": {"fc2": 10}})
    own = quick_trial.model_copy(update={"experiment": experiment})
    assert [own.groups_of("fc1", 500), own.groups_of("fc2", 300)] == [6, 10]
    assert quick_trial.groups_of("fc2", 4) == 4
    assert own.key != quick_trial.key
    assert own.scores_key("fc2.weight") != quick_trial.scores_key("fc2.weight")
    assert own.baseline_key == quick_trial.baseline_key
