"""Every command in the documents is run, planned or parsed."""

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App
from documents import ROOT, blocks, commands, mint_words, run
from services import environment

from mint.cli.app import command_line
from mint.config.loading import read_experiment
from mint.config.schema import TrialConfig
from mint.data.datasets import Source

DOCUMENTS = ("README.md", "docs/sweeps.md", "examples/README.md")
COMMANDS = {command: document for document in DOCUMENTS for command in commands(document)}
TOUR = commands("README.md", "Ten minutes on digits")
KEY = "261f869363366e6e"  # of mint run --experiment digits_mlp, in the tour

RUN = "runs as it stands"
SHRUNK = "runs with --smoke"
PLANNED = "is planned with --smoke --dry-run"
PARSED = "is parsed: it needs a GPU or a cluster"
HELP = "shows its help: it takes long"
SLOW = "runs in the tour alone"
EXAMPLE = "runs in test_examples.py"
ELSEWHERE = "is what runs this, or runs in test_stages.py"
RAY = "is parsed by Ray"
# The first pattern that fits a whole command says what is done with it.
RULES = {
    r"pytest|mint run --experiment resnet56_cifar10 --smoke": ELSEWHERE,
    r"ray start .*": RAY,
    r"python examples/.*|mint .*--experiment examples/.*|mint .*--model examples\..*": EXAMPLE,
    r"python benchmarks/\w+\.py": HELP,
    r"mint ui|python -c .*": SLOW,
    r"python sweeps/\w+\.py .*(--ray-address|--gpus-per-trial) .*": PARSED,
    r"mint --help|python sweeps/\w+\.py (--help|--dry-run)": RUN,
    r"mint (report|verify|sync|cache .*|layers .*|export .*)": RUN,
    r"mint (run|train|estimate|prune|retrain) --experiment digits_mlp.*": SHRUNK,
    r"mint run --experiment \w+|mint sweep \w+|python sweeps/\w+\.py.*": PLANNED,
}


def _rule(command: str) -> str | None:
    return next((pattern for pattern in RULES if re.fullmatch(pattern, command)), None)


def _commands_of(way: str) -> list[str]:
    return [command for command in COMMANDS if RULES.get(_rule(command) or "") == way]


def test_every_command_has_a_rule_and_every_rule_a_command() -> None:
    for document in DOCUMENTS:
        languages = re.findall(r"^```(\w+)", (ROOT / document).read_text("utf-8"), re.M)
        assert set(languages) <= {"sh", "python"}, f"{document}: only sh and python are tested"
    for command, document in COMMANDS.items():
        assert _rule(command), f"{document}: no rule of tests/test_readme.py covers: {command}"
    assert {_rule(command) for command in COMMANDS} == set(RULES)
    assert set(_commands_of(SLOW)) <= set(TOUR)
    assert set(_commands_of(EXAMPLE)) == set(commands("examples/README.md"))


def test_trial_of_the_tour_has_the_key_it_is_named_by(digits: Source) -> None:
    assert f"mint export --trial .mint/trials/{KEY} --output smaller" in TOUR
    file = read_experiment("digits_mlp")
    axes = file.defaults
    assert axes
    assert axes.upper_limit == "none"
    trial = TrialConfig(
        experiment=file.experiment,
        groups=axes.groups,
        samples_per_class=axes.samples_per_class,
        upper_limit=None,
        seed=0,
        data_digest=digits.digest,
    )
    assert trial.key == KEY


@pytest.mark.usefixtures("empty_folder")
def test_quick_commands_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("mint run --experiment digits_mlp", "--smoke") == 0
    (trial,) = (path.name for path in Path(".mint/trials").iterdir() if path.is_dir())
    for command in COMMANDS:
        way = RULES.get(_rule(command) or "")
        if way in (RUN, SHRUNK):
            more = ["--smoke"] if way == SHRUNK else []
            assert run(command.replace(KEY, trial), *more) == 0, command
    assert Path("smaller/network.py").exists()
    assert "differences: 0\n" in capsys.readouterr().out


@pytest.mark.usefixtures("empty_folder")
@pytest.mark.parametrize(
    "command",
    [
        # To trace a ResNet56 takes seconds, and mint layers does so above.
        pytest.param(command, marks=pytest.mark.slow if "resnet56" in command else ())
        for command in _commands_of(PLANNED)
    ],
)
def test_long_commands_are_planned(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--smoke", "--dry-run") == 0
    assert re.search("memory: about|the sweep would download it", capsys.readouterr().out)
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("command", _commands_of(HELP))
def test_benchmarks_show_their_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    assert "--data-dir" in capsys.readouterr().out


def test_ray_knows_its_options() -> None:
    from ray.scripts.scripts import start

    for command in _commands_of(RAY):
        start.make_context("ray start", shlex.split(command)[2:])


def test_all_options_exist() -> None:
    known = _options(command_line())
    for document in DOCUMENTS:
        text = re.sub(r"^```.*?^```$", "", (ROOT / document).read_text("utf-8"), flags=re.M | re.S)
        named = {option for code in re.findall("`[^`]+`", text) for option in _named(code)}
        assert named <= known, document
    for command in COMMANDS:
        words = mint_words(command)
        if words and "--help" not in words:
            command_line().parse_args(words, exit_on_error=False, print_error=False)


def _named(code: str) -> list[str]:
    return re.findall(r"(?<!\S)`?(--[a-z][a-z-]+)", code)


def _options(app: App) -> set[str]:
    found = {name for name in app if name.startswith("-")}
    if app.default_command:
        found |= {name for each in app.assemble_argument_collection() for name in each.names}
    return found.union(*(_options(app[name]) for name in app if not name.startswith("-")))


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for file, anchor in re.findall(
            r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", (ROOT / document).read_text("utf-8")
        ):
            target = (ROOT / document).parent / file if file else ROOT / document
            assert target.exists(), f"{document}: {file}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.M)
                slugs = [
                    re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in headings
                ]
                assert anchor in slugs, f"{document}: {file}#{anchor}"


@pytest.mark.usefixtures("empty_folder")
def test_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    trial, estimator = blocks("README.md", "python")
    known: dict[str, Any] = {}
    exec(compile(trial, "README.md", "exec"), known)
    assert known["masks"].pruned == pytest.approx(0.9 * known["masks"].prunable, rel=0.01)
    capsys.readouterr()
    exec(compile(estimator, "README.md", "exec"), {})
    printed = re.findall(r"p_value=([-\d.e]+)", capsys.readouterr().out)
    dependent, independent = map(float, printed)
    assert dependent < 0.01
    assert independent > 0.1


@pytest.mark.slow
def test_tour(tmp_path: Path) -> None:
    for command in TOUR:
        program, *words = shlex.split(command)
        if program == "mint":
            words = ["-m", "mint.cli.app", *words]
        elif words[0].endswith(".py"):
            words = [str(ROOT / words[0]), *words[1:]]
        with subprocess.Popen(
            [sys.executable, *words],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line == "Ctrl-C ends it\n":
                    process.send_signal(signal.SIGINT)
        expected = 130 if command == "mint ui" else 0
        assert process.returncode == expected, "".join([command, "\n", *lines])
    # One trial by itself was found, not run: there are 16 of the sweep, and that of the stages.
    assert len(list((tmp_path / ".mint" / "trials").glob("*/result.json"))) == 17
