"""The options of a sweep, and the trials that they ask for."""

import subprocess
import sys
from pathlib import Path

import pytest

from mint.cli.sweep import sweep_main
from mint.config.grid import Grid, SweepDefinition, bundled_sweeps

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


def _sweep(arguments: str, sweep: SweepDefinition = SWEEP) -> int:
    return sweep_main(sweep, arguments.split())


def test_limits_that_differ_little_are_two_trials(capsys: pytest.CaptureFixture[str]) -> None:
    assert _sweep("--upper-limits 0.8 0.80000001 1/3 --dry-run") == 0
    names = capsys.readouterr().out.split()
    assert {"g5-s50-u0.8-seed0", "g5-s50-u0.80000001-seed0"} <= set(names)


def test_criterion_has_one_trial_for_axes_it_does_not_use(
    capsys: pytest.CaptureFixture[str],
) -> None:
    axes = "--groups 5 20 --samples-per-class 30 50 --bootstraps 2 3"
    criteria = "mint random magnitude l1-filters"
    assert _sweep(f"--criterion {criteria} {axes} --dry-run") == 0
    printed = capsys.readouterr().out
    assert "12 trials" in printed
    names = printed.split()
    assert names.count("random-g5-unone-seed0") == names.count("magnitude-unone-seed0") == 1
    assert "g5-s30-unone-b2-seed0" in names


def test_none_can_stand_anywhere_among_the_values_of_an_axis(
    capsys: pytest.CaptureFixture[str],
) -> None:
    axes = "--criterion random --groups 5 --samples-per-class 30 --retraining none light"
    assert _sweep(f"{axes} --upper-limits none 0.8 --compensate no yes --dry-run") == 0
    printed = capsys.readouterr().out
    assert "8 trials" in printed
    assert "random-g5-unone-none-compensated-seed0" in printed.split()


def test_search_replaces_the_fractions_of_the_sweeps_grid(
    capsys: pytest.CaptureFixture[str],
) -> None:
    criteria, options = bundled_sweeps()["criteria"], "--criterion random --seeds 0 --dry-run"
    assert _sweep(options, criteria) == 0
    assert "random-g20-unone-f0.98-light-seed0" in capsys.readouterr().out
    assert _sweep(f"{options} --set search.margin=2", criteria) == 0
    printed = capsys.readouterr().out
    assert "1 trials" in printed
    assert "random-g20-unone-light-seed0" in printed


def test_experiment_without_a_grid_compares_the_criteria_of_the_sweep(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("own.yaml").write_text("extends: digits_mlp\nname: own\n")
    axes = "--groups 5 --samples-per-class 50 --upper-limits none --seeds 0 --dry-run"
    assert _sweep(f"--experiment own.yaml {axes}", bundled_sweeps()["criteria"]) == 0
    printed = capsys.readouterr().out
    assert "g5-s50-unone-seed0" in printed
    assert "block-magnitude-g5-unone-seed0" in printed


def test_plan_is_shown_without_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert _sweep("--experiment mnist_mlp --dry-run") == 0
    assert "mnist is not in data yet" in capsys.readouterr().out
    assert list(Path.cwd().iterdir()) == []


def test_data_dir_of_the_environment_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINT_DATA_DIR", "nowhere")
    assert _sweep("--experiment mnist_mlp") == 2
    assert "MINT_DATA_DIR nowhere: must be a folder" in capsys.readouterr().err


def test_dry_run_prints_the_plan_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert _sweep("--groups 5 20 --upper-limits none g/50 --seeds 0 1 --dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "planning a_sweep on digits_mlp"
    assert lines[1].startswith("a_sweep of digits_mlp: 8 trials, 0 already finished, 8 to run")
    assert lines[-2].startswith("time:   unknown")
    assert lines[-1].startswith("memory: about 1.0 GB a trial, ")
    assert sorted(line.strip() for line in lines[2:-2]) == sorted(
        f"g{g}-s50-u{u}-seed{s}"
        for g, limits in ((5, ("none", "0.1")), (20, ("none", "0.4")))
        for u in limits
        for s in (0, 1)
    )
    assert list(Path.cwd().iterdir()) == []


def test_a_plan_imports_nothing_that_takes_seconds() -> None:
    axes = "--groups 5 --samples-per-class 50 --seeds 0 1 --dry-run"
    assert _sweep(axes) == 0  # remembers what it computes of the digits and of the network
    slow = "{'torch', 'ray', 'mlflow', 'pandas', 'numba', 'scipy', 'sqlalchemy', 'matplotlib'}"
    code = (
        "import sys\n"
        "from mint.cli.app import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        f"print('slow:', *{slow} & sys.modules.keys())"
    )
    words = ["sweep", "groups_vs_samples", *axes.replace("5", "7").split()]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[-1] == "slow:", done.stderr
    assert lines[-2].startswith("memory: about 1.0 GB a trial, ")


def test_script_and_command_run_the_same_trials(mnist_dir: Path) -> None:
    options = f"--dry-run --experiment mnist_mlp --data-dir {mnist_dir.absolute()}".split()
    program = [sys.executable, "-m", "mint.cli.app", "sweep", "groups_vs_samples"]
    script = [sys.executable, str(ROOT / "sweeps" / "groups_vs_samples.py")]
    plans = [
        subprocess.run([*command, *options], capture_output=True, text=True, check=True).stdout
        for command in (program, script)
    ]
    assert plans[0] == plans[1]
    names = {line.split()[0].removesuffix("-seed0") for line in plans[0].splitlines()[2:-2]}
    limits = {5: (0.1, 0.01), 10: (0.2, 0.04), 20: (0.4, 0.16), 30: (0.6, 0.36), 40: (0.8, 0.64)}
    limits[50] = (1, 1)
    settings = {
        f"g{groups}-s250-u{limit}" for groups in limits for limit in ("none", 0.8, *limits[groups])
    } | {f"g20-s{samples}-unone" for samples in (150, 350, 450, 550, 650)}
    assert names == {f"{setting}{way}" for setting in settings for way in ("-none", "-light", "")}
