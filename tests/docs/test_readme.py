"""Every command, option, link and code block of the documents is run, planned or parsed."""

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from documents import ROOT, blocks, commands, known_options, mint_words, parse, run
from services import environment
from torch import nn

import mint
from mint.config.loading import read_experiment
from mint.config.schema import TrialConfig
from mint.data.datasets import Source

PAGES = [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = ["README.md", *PAGES, "examples/README.md"]
COMMANDS = {command: document for document in DOCUMENTS for command in commands(document)}
TOUR = commands("README.md", "Five minutes on digits")
KEY = "164b59556b87ddc1"  # of mint run --experiment digits_mlp, in the tour

RUN = "runs as it stands"
SHRUNK = "runs with --smoke"
PLANNED = "is planned with --smoke --dry-run"
PARSED = "is parsed: it needs a GPU, a cluster or a file of the user's"
HELP = "shows its help: it takes long"
SLOW = "runs in the tour alone"
EXAMPLE = "runs in test_examples.py"
ELSEWHERE = "starts the tests, is part of the check, or runs in test_packaging.py or test_stages.py"
RAY = "is parsed by Ray"
# The first pattern that matches a whole command decides how it is tested.
RULES = {
    r"pytest|mint run --experiment (resnet56_cifar10|digits_mlp) --smoke": ELSEWHERE,
    r"mint verify --output results": ELSEWHERE,
    r"ray start .*": RAY,
    r"mint .*(--init|FOLDER|gpu-results).*|mint (compare|benchmark) .*|mint study": PARSED,
    r"python examples/.*|mint .*--experiment examples/.*|mint .*--model examples\..*": EXAMPLE,
    r"python benchmarks/\w+\.py.*": HELP,
    r"mint ui|python -c .*": SLOW,
    r"python sweeps/\w+\.py .*(--ray-address|--gpus-per-trial) .*": PARSED,
    r"(mint run|python sweeps/\w+\.py) .*--set .*": PLANNED,
    r"(python sweeps/\w+\.py|mint run .*) (--help|--dry-run)": RUN,
    r"mint (report.*|trials.*|verify|sync|cache .*|layers .*|export .*)": RUN,
    r"mint (run|train|estimate|prune|retrain) --experiment digits_mlp.*": SHRUNK,
    r"mint run --experiment \w+|mint sweep \w+|python sweeps/\w+\.py.*": PLANNED,
}

_WITH_PYTHON = (
    "README.md",
    "docs/benchmark.md",
    "docs/how-it-works.md",
    "docs/own-data.md",
    "docs/reference.md",
)


def _rule(command: str) -> str | None:
    return next((pattern for pattern in RULES if re.fullmatch(pattern, command)), None)


def _tested_as(way: str) -> list[str]:
    return [command for command in COMMANDS if RULES.get(_rule(command) or "") == way]


def test_every_command_has_a_rule_and_every_rule_a_command() -> None:
    for command, document in COMMANDS.items():
        assert _rule(command), f"{document}: no rule of tests/docs/test_readme.py for: {command}"
    assert {_rule(command) for command in COMMANDS} == set(RULES)
    assert set(_tested_as(SLOW)) <= set(TOUR)
    assert set(_tested_as(EXAMPLE)) == set(commands("examples/README.md"))


def test_every_code_block_has_a_language_that_is_tested() -> None:
    for document in DOCUMENTS:
        text = (ROOT / document).read_text("utf-8")
        untested = set(re.findall(r"^```(\w*)\n(?:.*\n)*?```$", text, re.M)) - {"sh"}
        if document in ("docs/experiments.md", "docs/own-networks.md"):
            untested -= {"yaml"}
        if document in _WITH_PYTHON:
            untested -= {"python"}
        if document == "docs/tutorial.md":  # see test_docs.py
            untested -= {"python", "text"}
        assert not untested, document


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
def test_quick_commands_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("mint run --experiment digits_mlp", "--smoke") == 0
    (trial,) = (path.name for path in Path(".mint/trials").iterdir() if path.is_dir())
    for command in COMMANDS:
        way = RULES.get(_rule(command) or "")
        if way in (RUN, SHRUNK):
            more = ["--smoke"] if way == SHRUNK else []
            assert run(command.replace(KEY, trial), *more) == 0, command
    assert Path("smaller/network.py").exists()
    assert "differences: 0\n" in capsys.readouterr().out
    (prepared,) = blocks("docs/own-data.md", "python")
    monkeypatch.syspath_prepend(Path.cwd())
    exec(compile(prepared, "own-data.md", "exec"), {})
    assert capsys.readouterr().out.strip() in list("0123456789")
    assert not Path("results").exists()
    for left in Path.cwd().iterdir():
        ignored = subprocess.run(["git", "check-ignore", "-q", f"{left.name}/"], cwd=ROOT)
        assert ignored.returncode == 0, f"{left.name}: a clone would not stay clean"


@pytest.mark.usefixtures("empty_folder")
@pytest.mark.parametrize(
    "command",
    [
        # Tracing a ResNet56 takes seconds, and mint layers does so above.
        pytest.param(command, marks=pytest.mark.slow if "resnet56" in command else ())
        for command in _tested_as(PLANNED)
    ],
)
def test_long_commands_are_planned(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--smoke", "--dry-run") == 0
    assert re.search("memory: about|the sweep would download it", capsys.readouterr().out)
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("command", _tested_as(HELP))
def test_benchmarks_show_their_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    assert "usage:" in capsys.readouterr().out


def test_ray_knows_its_options() -> None:
    from ray.scripts.scripts import start

    for command in _tested_as(RAY):
        start.make_context("ray start", shlex.split(command)[2:])


def test_all_options_exist() -> None:
    known = known_options()
    for document in [*DOCUMENTS, "CONTRIBUTING.md", "CHANGELOG.md"]:
        text = re.sub(r"^```.*?^```$", "", (ROOT / document).read_text("utf-8"), flags=re.M | re.S)
        named = {option for code in re.findall("`[^`]+`", text) for option in _options(code)}
        assert named <= known, document
    for command in COMMANDS:
        words = mint_words(command)
        if words and "--help" not in words:
            parse(words)


def _options(code: str) -> list[str]:
    """Return the options in inline code, except those of other programs."""
    others = r"`(uv|ruff|docker|ray) |`uv run (ruff|python|mkdocs|pytest)"
    return [] if re.match(others, code) else re.findall(r"(?<!\S)`?(--[a-z][a-z-]+)", code)


def test_values_that_are_set_are_allowed() -> None:
    """--set with placeholders is only parsed elsewhere: its keys and values are checked here."""
    texts = {document: (ROOT / document).read_text("utf-8") for document in DOCUMENTS}
    checked = 0
    for document, text in texts.items():
        for found in re.findall(r"--set ('[^']+'|[^\s`]+)", text):
            key, _, value = found.strip("'").partition("=")
            if key == "KEY":
                continue
            name = "mnist_mlp"
            if key.startswith("network.arguments"):
                name = str(ROOT / "examples" / "resnet18_images.yaml")
            read_experiment(name, changes={key: yaml.safe_load(value)})
            checked += 1
        if document == "docs/experiments.md":
            table = text.partition("## Changing a value")[2].partition("## Your own file")[0]
            for key in re.findall(r"`([a-z_.]+)`", "".join(re.findall(r"^\|(.*?)\|", table, re.M))):
                experiment = read_experiment("mnist_mlp").experiment
                light = experiment.retraining_settings("light")
                fields: Any = experiment.model_dump() | {"light": light.model_dump()}
                for part in key.split("."):
                    assert part in fields, key
                    fields = fields[part]
    assert checked > 5


def test_experiment_files_in_the_pages_are_allowed(tmp_path: Path) -> None:
    names = []
    for document in ("docs/experiments.md", "docs/own-networks.md"):
        for content in blocks(document, "yaml"):
            file = tmp_path / "file.yaml"
            file.write_text(content, encoding="utf-8")
            if "extends:" in content:
                names.append(read_experiment(str(file)).experiment.name)
            else:
                from mint.reporting.reference import read_reference

                assert read_reference(file).experiments == ("mnist_mlp_two_layers",)
    assert names == ["mnist_mlp_two_layers", "my_cnn"]


def test_links_lead_somewhere() -> None:
    for document in [*DOCUMENTS, "CONTRIBUTING.md", "docker/README.md"]:
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


def test_documents_keep_to_their_lengths() -> None:
    lengths = {name: len((ROOT / name).read_text("utf-8").splitlines()) for name in DOCUMENTS}
    assert lengths.pop("README.md") <= 150
    assert {name: length for name, length in lengths.items() if length > 150} == {}


def test_every_page_is_in_the_navigation_and_begins_with_a_command() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8")
    for page in PAGES:
        assert re.search(rf"^  - (\w+: )?{Path(page).name}$", navigation, re.M), page
        before_the_next_heading = (ROOT / page).read_text("utf-8").split("\n## ")[0]
        if page != "docs/tutorial.md":
            assert re.search(r"^```(sh|python)\n", before_the_next_heading, re.M), page


def test_every_column_of_the_tables_is_explained() -> None:
    pages = [path.read_text("utf-8") for path in (ROOT / "results").glob("*.md")]
    pages = [
        page for page in pages if page.startswith(("# Results", "# mnist", "# digits", "# vgg"))
    ]
    headers = re.findall(r"^(\|.*\|)\n\|[-:| ]+\|$", "\n".join(pages), re.M)
    columns = {cell.strip() for header in headers for cell in header.strip("|").split("|")}
    page = (ROOT / "docs" / "reading-the-tables.md").read_text("utf-8").partition("## Columns")[2]
    explained = {
        name.strip() for row in re.findall(r"^\|([^|]*)\|", page, re.M) for name in row.split(";")
    }
    assert len(columns) > 15
    assert columns - explained == set()


@pytest.mark.usefixtures("empty_folder")
def test_own_criterion_of_the_page_scores() -> None:
    (source,) = blocks("docs/benchmark.md", "python")
    Path("my_scores.py").write_text(source)
    last = nn.Linear(6, 2)
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), last)
    scores = mint.score_network(network, torch.rand(20, 4), criterion="my_scores:largest", groups=2)
    sys.modules.pop("my_scores")
    weight = last.weight.detach().abs().reshape(2, 2, 3).amax(2)
    np.testing.assert_allclose(scores["2.weight"].value, weight)


def test_contributors_see_the_commands_of_the_check() -> None:
    checked = (ROOT / ".ci" / "run").read_text("utf-8")
    table = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("Not part of")[0]
    for command in re.findall(r"^uv run (.+)$", checked, re.M):
        program = re.sub(r" -{1,2}(quiet|q|n|numprocesses).*", "", command)
        assert f"`uv run {program}" in table, command


@pytest.mark.usefixtures("empty_folder")
def test_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (trial,) = blocks("README.md", "python")
    known: dict[str, Any] = {}
    exec(compile(trial, "README.md", "exec"), known)
    assert known["masks"].pruned == pytest.approx(0.9 * known["masks"].prunable, rel=0.01)
    capsys.readouterr()
    (estimator,) = blocks("docs/how-it-works.md", "python")
    exec(compile(estimator, "how-it-works.md", "exec"), {})
    printed = re.findall(r"p_value=([-\d.e]+)", capsys.readouterr().out)
    dependent, independent = map(float, printed)
    assert dependent < 0.01
    assert independent > 0.1
    for block in blocks("docs/reference.md", "python"):
        exec(compile(block, "reference.md", "exec"), {})


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
            printed = []
            for line in process.stdout:
                printed.append(line)
                if line == "Ctrl-C ends it\n":
                    process.send_signal(signal.SIGINT)
        expected = 130 if command == "mint ui" else 0
        assert process.returncode == expected, "".join([command, "\n", *printed])
    # The sweep runs 16 trials, mint run finds one of them, and the stages run another.
    assert len(list((tmp_path / ".mint" / "trials").glob("*/result.json"))) == 17
