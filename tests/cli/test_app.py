"""The command line: help that is quick and whole, plans, what the environment says."""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mint.cli.app import command_line, main
from mint.cli.options import add_experiment, chosen_experiment
from mint.cli.sweep import sweep_main
from mint.config.grid import Grid, SweepDefinition, bundled_sweeps
from mint.config.loading import load_experiment
from mint.config.schema import EstimateConfig
from mint.errors import InputError

pytestmark = pytest.mark.usefixtures("empty_folder")
ROOT = Path(__file__).resolve().parents[2]
SWEEP = SweepDefinition(
    "a_sweep",
    "What?",
    {
        "digits_mlp": [Grid(groups=(5,), samples_per_class=(50,), upper_limits=("none",))],
        "mnist_mlp": [Grid(groups=(20,), samples_per_class=(250,), upper_limits=("none",))],
    },
)


def _sweep(arguments: str) -> int:
    return sweep_main(SWEEP, arguments.split())


def _exit_code(command: str) -> object:
    try:
        return _sweep(command)
    except SystemExit as stop:  # argparse's way out
        return stop.code


def test_limits_that_differ_little_are_two_trials(capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit_code("--upper-limits 0.8 0.80000001 1/3 --dry-run") == 0
    names = capsys.readouterr().out.split()
    assert {"g5-s50-u0.8-seed0", "g5-s50-u0.80000001-seed0"} <= set(names)


def test_criterion_has_one_trial_for_what_it_does_not_use(
    capsys: pytest.CaptureFixture[str],
) -> None:
    axes = "--groups 5 20 --samples-per-class 30 50 --bootstraps 2 3"
    criteria = "mint random magnitude l1-filters"
    assert _exit_code(f"--criterion {criteria} {axes} --dry-run") == 0
    printed = capsys.readouterr().out
    assert "12 trials" in printed
    names = printed.split()
    assert names.count("random-g5-unone-seed0") == names.count("magnitude-unone-seed0") == 1
    assert "g5-s30-unone-b2-seed0" in names


def test_search_replaces_the_shares_of_the_sweeps_own_grid(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--criterion", "random", "--seeds", "0", "--dry-run"]
    assert sweep_main(bundled_sweeps()["criteria"], options) == 0
    assert "random-g20-unone-f0.98-seed0" in capsys.readouterr().out
    assert sweep_main(bundled_sweeps()["criteria"], [*options, "--max-drop", "2"]) == 0
    printed = capsys.readouterr().out
    assert "1 trials" in printed
    assert "random-g20-unone-seed0" in printed


def test_experiment_without_a_grid_compares_the_criteria_of_the_sweep(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("own.yaml").write_text("extends: digits_mlp\nname: own\n")
    axes = "--groups 5 --samples-per-class 50 --upper-limits none --seeds 0 --dry-run"
    assert (
        sweep_main(bundled_sweeps()["criteria"], ["--experiment", "own.yaml", *axes.split()]) == 0
    )
    printed = capsys.readouterr().out
    assert "g5-s50-unone-seed0" in printed
    assert "block-magnitude-g5-unone-seed0" in printed


def test_plan_is_shown_without_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit_code("--experiment mnist_mlp --dry-run") == 0
    assert "mnist is not in data yet" in capsys.readouterr().out
    assert list(Path.cwd().iterdir()) == []


def test_data_dir_of_the_environment_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINT_DATA_DIR", "nowhere")
    assert _exit_code("--experiment mnist_mlp") == 2
    assert "MINT_DATA_DIR nowhere: must be a folder" in capsys.readouterr().err


def test_dry_run_prints_the_plan_and_makes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit_code("--groups 5 20 --upper-limits none g/50 --seeds 0 1 --dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("a_sweep of digits_mlp: 8 trials, 0 already finished, 8 to run")
    assert lines[-2] == "time:   unknown, for no such trial was measured here yet"
    assert lines[-1].startswith("memory: about 1.0 GB a trial, ")
    assert sorted(line.strip() for line in lines[1:-2]) == sorted(
        f"g{g}-s50-u{u}-seed{s}"
        for g, limits in ((5, ("none", "0.1")), (20, ("none", "0.4")))
        for u in limits
        for s in (0, 1)
    )
    assert list(Path.cwd().iterdir()) == []


def test_recorded_grid_is_the_default_for_mnist(mnist_dir: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "sweeps" / "groups_vs_samples.py"),
            *f"--dry-run --experiment mnist_mlp --data-dir {mnist_dir.absolute()}".split(),
        ],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    names = {line.split()[0].removesuffix("-seed0") for line in done.stdout.splitlines()[1:-2]}
    assert names == {
        "g5-s250-unone", "g10-s250-unone", "g20-s250-unone", "g50-s250-unone",
        "g5-s250-u0.8", "g10-s250-u0.8", "g20-s250-u0.8", "g50-s250-u0.8",
        "g5-s250-u0.1", "g10-s250-u0.2", "g20-s250-u0.4", "g50-s250-u1",
        "g5-s250-u0.01", "g10-s250-u0.04", "g20-s250-u0.16",
        "g20-s150-unone", "g20-s350-unone", "g20-s450-unone", "g20-s550-unone", "g20-s650-unone",
    }  # fmt: skip


@pytest.mark.parametrize(
    "command", ["--help", "report --help", "sweep groups_vs_samples --help", "--version"]
)
def test_help_needs_nothing_heavy(command: str) -> None:
    code = (
        "import sys; from mint.cli.app import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert not {'torch', 'ray', 'mlflow', 'pandas', 'rich'} & set(sys.modules)\n"
    )
    before = os.times()
    subprocess.run([sys.executable, "-c", code, *command.split()], capture_output=True, check=True)
    after = os.times()
    # Of the processor, for others may use it too: some 0.5 s.
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < 2


def test_help_shows_every_command_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = re.findall(r"^  ([a-z]\S+) ", capsys.readouterr().out, re.MULTILINE)
    assert sorted(shown) == sorted(name for name, _ in _commands(command_line()) if " " not in name)


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield name, command
                yield from ((f"{name} {below}", parser) for below, parser in _commands(command))


@pytest.mark.parametrize(
    "command", [pytest.param(parser, id=name) for name, parser in _commands(command_line())]
)
def test_every_option_says_what_it_is_and_its_default(command: argparse.ArgumentParser) -> None:
    alternatives = [
        action
        for group in command._mutually_exclusive_groups
        for action in group._group_actions
        if group.required
    ]
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            continue
        text = action.help or ""
        assert len(text) > 10, action
        takes_a_value = action.option_strings and action.nargs != 0
        if takes_a_value and not action.required and action not in alternatives:
            assert re.search(r"\w.*\(default: .+\)", text), action
            if action.default is not None:
                default = action.default
                words = map(str, default if isinstance(default, list) else [default])
                assert f"(default: {' '.join(words).removesuffix('.0')}" in text, action


def test_reader_that_leaves_ends_a_command_quietly() -> None:
    code = "import sys; from mint.cli.app import main; raise SystemExit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "sweep", "groups_vs_samples", "--dry-run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_options_change_only_what_they_name() -> None:
    parser = argparse.ArgumentParser()
    add_experiment(parser, default="mnist_mlp")

    def chosen(arguments: str) -> dict[str, object]:
        return dict(chosen_experiment(parser.parse_args(arguments.split())))

    before = load_experiment("mnist_mlp")
    retraining = before.retraining_settings.model_copy(update={"epochs": 3})
    assert chosen("--retraining-epochs 3") == dict(before) | {"retraining": retraining}
    assert chosen("--floor") == dict(before) | {"floor": True}
    paper = EstimateConfig(bootstraps=1, paper=True)
    assert chosen("--paper") == dict(before) | {"estimate": paper}
    with pytest.raises(InputError, match="--paper and --reliability: the paper draws one"):
        chosen("--paper --reliability 0.5")
