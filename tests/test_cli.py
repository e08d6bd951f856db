"""Bad input ends with exit code 2, one line that names it, and nothing changed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mint.cli import main
from mint.config import Grid
from mint.sweep_cli import sweep_main
from mint.sweeps import SweepDefinition

pytestmark = pytest.mark.usefixtures("empty_folder")
ROOT = Path(__file__).resolve().parent.parent
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


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--groups 0", "--groups: 0: allowed are whole numbers from 1"),
        ("--groups 5 x", "--groups: x: allowed"),
        ("--groups 301", "--groups 301: fc1 -> fc2 of digits_mlp allows 1 to 300"),
        ("--samples-per-class 0", "--samples-per-class: 0: allowed"),
        ("--samples-per-class 500", "--samples-per-class 500: digits allows 1 to"),
        ("--upper-limits 1.5", "--upper-limits 1.5: allowed are none, a number from 0 to 1"),
        ("--upper-limits=-0.1", "--upper-limits -0.1: allowed are none"),
        ("--upper-limits nan", "--upper-limits nan: allowed"),
        ("--upper-limits g/2", "--upper-limits g/2 at 5 groups is 2.5"),
        ("--seeds -1", "--seeds"),
        ("--epochs 0", "--epochs: 0: allowed are whole numbers from 1"),
        ("--max-drop 101", "--max-drop: 101: allowed are numbers from 0 to 100"),
        ("--max-drop nan", "--max-drop: nan: allowed"),
        ("--max-concurrent 0", "--max-concurrent: 0: allowed"),
        ("--gpus-per-trial -1", "--gpus-per-trial"),
        ("--experiment nothing", "--experiment nothing: there is no such experiment; known are"),
        ("--experiment nothing.yaml", "--experiment nothing.yaml: there is no such experiment"),
        ("--experiment ../digits_mlp", "--experiment ../digits_mlp: there is no such"),
        ("--data-dir nowhere --experiment mnist_mlp", "--data-dir nowhere: must be a folder"),
        ("--tracking-uri nothing://x", "--tracking-uri nothing://x: allowed are sqlite:///FILE"),
        ("--tracking-uri ./mlruns", "--tracking-uri ./mlruns: allowed are sqlite:///FILE"),
        ("--tracking-uri sqlite://", "--tracking-uri sqlite://: allowed are sqlite:///FILE"),
        ("--tracking-uri sqlite:///:memory:", "allowed are sqlite:///FILE"),
        (
            "--tracking-uri postgresql://me:secret@nowhere/x",
            "--tracking-uri postgresql://***@nowhere",
        ),
        ("--gpus-per-trial 64", "--gpus-per-trial 64: this machine has"),
        ("--seeds 99999999999999999999", "allowed are whole numbers from 0 to 2147483647"),
        ("--criterion tailor", "--criterion: tailor: there is no such criterion; did you mean tay"),
        ("--criterion mint sparsity", "no such criterion; known are mint, mint-unconditional"),
        ("--criterion mint bn-scale", "--criterion bn-scale: digits_mlp prunes fc2, which has no"),
        ("--group-size 5", "unrecognized arguments: --group-size"),
    ],
)
def test_bad_input(arguments: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit_code(arguments) == 2
    complaint = capsys.readouterr().err.strip()
    assert named in complaint
    assert len(complaint.splitlines()) == 1
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    "arguments", ["--data-dir FILE --experiment mnist_mlp", "--output FILE", "--cache-dir FILE/x"]
)
def test_file_where_a_folder_must_be(
    tmp_path: Path, arguments: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert _exit_code(arguments.replace("FILE", str(file))) == 2
    assert str(file) in capsys.readouterr().err
    assert list(Path.cwd().iterdir()) == []


def test_store_and_records_that_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    junk = tmp_path / "junk.db"
    junk.write_text("no database")
    assert _exit_code(f"--tracking-uri sqlite:///{junk}") == 2
    assert "cannot be used as a tracking store" in capsys.readouterr().err
    assert main(["report", "--tracking-uri", f"sqlite:///{junk}"]) == 2
    (tmp_path / "records.csv").write_text("junk")
    assert _exit_code(f"--output {tmp_path}") == 2
    assert f"--output {tmp_path}: {tmp_path / 'records.csv'}" in capsys.readouterr().err
    assert list(Path.cwd().iterdir()) == []


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
    assert sorted(line.strip() for line in lines[1:]) == sorted(
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
    names = {line.split()[0].removesuffix("-seed0") for line in done.stdout.splitlines()[1:]}
    assert names == {
        "g5-s250-unone", "g10-s250-unone", "g20-s250-unone", "g50-s250-unone",
        "g5-s250-u0.8", "g10-s250-u0.8", "g20-s250-u0.8", "g50-s250-u0.8",
        "g5-s250-u0.1", "g10-s250-u0.2", "g20-s250-u0.4", "g50-s250-u1",
        "g5-s250-u0.01", "g10-s250-u0.04", "g20-s250-u0.16",
        "g20-s150-unone", "g20-s350-unone", "g20-s450-unone", "g20-s550-unone", "g20-s650-unone",
    }  # fmt: skip


def test_report_without_runs_or_records(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report"]) == 2
    assert "run a sweep first, or give --records" in capsys.readouterr().err
    assert main(["report", "--records", "nowhere.csv"]) == 2
    assert "--records nowhere.csv: cannot be read" in capsys.readouterr().err
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("command", [["mint", "--help"], ["mint", "report", "--help"]])
def test_help_needs_nothing_heavy(command: list[str]) -> None:
    code = (
        "import sys; from mint.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert not {'torch', 'ray', 'mlflow', 'pandas'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command[1:]], capture_output=True, text=True, check=True
    )
    assert "usage: mint" in done.stdout
