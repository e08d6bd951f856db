"""The command line: help that is quick and complete, exit codes, and the values of --set."""

import contextlib
import errno
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from mint.cli.app import command_line, main, run_program
from mint.config.loading import read_experiment
from mint.config.schema import CRITERIA
from mint.errors import InputError, WorkFailedError

pytestmark = pytest.mark.usefixtures("empty_folder")


def _commands(app: App, chain: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name in app:
        if not name.startswith("-"):
            yield (*chain, name)
            yield from _commands(app[name], (*chain, name))


COMMANDS = list(_commands(command_line()))


@pytest.mark.parametrize("command", ["--help", "report --help", "run --help", "--version"])
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys; from mint.cli.app import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "assert not {'torch', 'ray', 'mlflow', 'pandas', 'pydantic', 'numpy'} & set(sys.modules)\n"
    )
    before = os.times()
    subprocess.run([sys.executable, "-c", code, *command.split()], capture_output=True, check=True)
    after = os.times()
    # CPU time: other processes do not count. It is about 0.3 s.
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < 1


def test_help_shows_every_command_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = re.findall(r"^\W* ([a-z]+)  ", capsys.readouterr().out, re.MULTILINE)
    assert sorted(shown) == sorted(command[0] for command in COMMANDS if len(command) == 1)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_an_example_and_every_option_its_help(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    app = command_line()
    for name in command:
        app = app[name]
    assert main([*command, "--help"]) == 0
    printed = capsys.readouterr().out
    if app.default_command is None:  # it only holds other commands
        return
    assert f"Example: mint {' '.join(command)}" in printed or "eval" in printed
    for argument in app.assemble_argument_collection(parse_docstring=True):
        if not argument.show:
            continue
        text = argument.parameter.help or ""
        assert len(text) > 10, argument.name
        if not argument.required and argument.field_info.default is None:
            assert "(default:" in text or argument.name in ("--experiment", "--trial")


def test_help_of_criterion_names_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    shown = re.sub(r"[^a-z0-9-]+", " ", capsys.readouterr().out)
    assert all(f" {name} " in shown for name in CRITERIA)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("must be 1", parameter="groups", value=3), 2, "error: --groups 3: must be 1"),
        (InputError("must be 1", parameter="seed", value=3), 2, "error: --seeds 3: must be 1"),
        (InputError("no", parameter="training.epochs"), 2, "error: training.epochs: no"),
        (InputError("no", parameter="MINT_DATA_DIR"), 2, "error: MINT_DATA_DIR: no"),
        (WorkFailedError("it diverged"), 1, "failed: it diverged"),
        (OSError(errno.ENOSPC, "No space left", "file"), 1, "failed: No space left: file; finish"),
        (
            OSError(errno.EFBIG, "File too large"),
            1,
            "failed: File too large; finished work is kept",
        ),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a"), 2, "error: File name too long: a"),
        (DeprecationWarning("this\n is old"), 1, "failed: DeprecationWarning: this is old; finish"),
        (MemoryError(), 1, "failed: MemoryError; finished work is kept"),
        (KeyboardInterrupt(), 130, "stopped; the same command resumes"),
    ],
)
def test_error_is_one_line_and_an_exit_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program = App("program")

    @program.default
    def command(*, groups: int = 0, seeds: int = 0) -> None:
        raise error

    assert run_program(program, ["--groups", "3", "--seeds=3"], ["program"]) == code
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"program: {said}")
    assert complaint.count("\n") == 1


def test_what_fails_after_a_signal_was_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    program = App("program")

    @program.default
    def command() -> None:
        with contextlib.suppress(KeyboardInterrupt):  # as the import of a library may
            signal.raise_signal(signal.SIGINT)
        raise AttributeError("module has no attribute utils")

    assert run_program(program, [], ["program"]) == 130
    assert capsys.readouterr().err == "program: stopped; the same command resumes\n"


def test_traceback_is_printed_on_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = App("program")

    @program.default
    def command() -> None:
        raise OSError(errno.EBADF, "a bug")

    monkeypatch.setenv("MINT_TRACEBACK", "1")
    assert run_program(program, [], ["program"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert 'raise OSError(errno.EBADF, "a bug")' in "".join(lines)
    assert lines[-1].startswith("program: failed: a bug; ")


@pytest.mark.parametrize(
    ("variable", "value", "command", "named"),
    [
        ("RAY_ADDRESS", "nonsense", "sweep groups_vs_samples", "RAY_ADDRESS nonsense: nobody"),
        (
            "RAY_TMPDIR",
            "/" + 99 * "a",
            "sweep groups_vs_samples",
            f"RAY_TMPDIR /{99 * 'a'}: is too",
        ),
        ("TMPDIR", "/" + 99 * "a", "sweep groups_vs_samples", f"TMPDIR /{99 * 'a'}: is too long"),
        ("MLFLOW_TRACKING_URI", "x://y", "report", "MLFLOW_TRACKING_URI x://y: allowed are"),
        (
            "MINT_CACHE_DIR",
            "nowhere",
            "cache ls",
            "MINT_CACHE_DIR nowhere: there is no such folder",
        ),
        ("NOTHING", "", "cache ls", "default of --cache-dir .mint: there is no such folder"),
        (
            "NOTHING",
            "",
            "run --experiment wide.yaml",
            "trial.groups 301: fc1 -> fc2 of wide allows",
        ),
        (
            "NOTHING",
            "",
            "run --experiment wide.yaml --groups 302",
            "--groups 302: fc1 -> fc2 of wide",
        ),
        ("NOTHING", "", "run --experiment cut.yaml", "search.fraction 0.9: cut allows at most 0"),
    ],
)
def test_error_names_where_the_value_came_from(
    variable: str,
    value: str,
    command: str,
    named: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trial = "{groups: 301, samples_per_class: 50}"
    Path("wide.yaml").write_text(f"extends: digits_mlp\nname: wide\ntrial: {trial}\n")
    search = "{fraction: 0.9, margin: null, sd: null, steps: null}"
    cut = f"name: cut\nlimits: {{fc2: 0.5}}\nsearch: {search}\n"
    Path("cut.yaml").write_text(f"extends: digits_mlp\n{cut}")
    for name in ("RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    assert main(command.split()) == 2
    assert f"error: {named}" in capsys.readouterr().err


def test_ray_address_local_is_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert main(["sweep", "groups_vs_samples", "--dry-run"]) == 0


def test_reader_that_leaves_ends_a_command_quietly() -> None:
    code = "import sys; from mint.cli.app import main; raise SystemExit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "sweep", "groups_vs_samples", "--dry-run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_set_changes_only_what_it_names(capsys: pytest.CaptureFixture[str]) -> None:
    before = read_experiment("mnist_mlp").experiment
    changes = {"retraining.epochs": 3, "keep_connected": True, "estimate.paper": True}
    retraining = before.retraining_settings("full").model_copy(update={"epochs": 3})
    estimate = before.estimate.model_copy(update={"paper": True})
    expected = {"retraining": retraining, "keep_connected": True, "estimate": estimate}
    changed = read_experiment("mnist_mlp", changes=changes).experiment
    assert dict(changed) == dict(before) | expected
    settings = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    assert main(["layers", "--experiment", "mnist_mlp", *settings]) == 0


@pytest.mark.parametrize(
    ("name", "key", "value", "search"),
    [
        ("digits_mlp", "search.fraction", 0.5, (0.5, None, None)),
        ("vgg16_cifar10", "search.margin", 0.5, (None, 0.5, 6)),
        ("digits_mlp", "search.steps", 3, (None, 1.5, 3)),
    ],
)
def test_set_of_a_search_replaces_the_other_way_to_prune(
    name: str, key: str, value: float, search: tuple[float | None, ...]
) -> None:
    found = read_experiment(name, changes={key: value}).experiment.search
    assert (found.fraction, found.margin, found.steps) == search


def test_a_terminal_without_an_accent_prints_a_path_that_has_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(terminal, encoding="ascii"))
    program = App("accents")
    program.default(lambda: print("tables: r\u00e9sultats"))
    assert run_program(program, [], ["accents"]) == 0
    assert terminal.getvalue() == b"tables: r\\xe9sultats\n"
