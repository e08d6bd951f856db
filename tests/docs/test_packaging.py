"""What is released: a wheel that needs no repository, and files that agree on what it is."""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from mint.config.loading import experiment_names

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(["uv", "build", "-q", "--wheel", "-o", folder, ROOT], check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_experiments_sweeps_and_licence(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"mint/experiments/{name}.yaml" for name in experiment_names()} <= names
    assert {"mint/sweeps/groups_vs_samples.py", "mint/py.typed"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"mint", "mint_pruning"}


def test_wheel_runs_outside_the_repository(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    program = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "import mint; from mint.cli.app import main; from mint.trial.provenance import Provenance\n"
        "print(mint.__file__, Provenance.of_this_process(None, []).git_commit)\n"
        "raise SystemExit(main(sys.argv[1:]))"
    )
    folder = tmp_path / "work"
    folder.mkdir()
    # A user's own repository, whose commit is none of mint's.
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    for command, said in (
        (["layers", "--experiment", "digits_mlp"], "| *fc1 - fc2* |"),
        (["sweep", "groups_vs_samples", "--help"], "(default: digits_mlp)"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *command],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith(f"{installed / 'mint' / '__init__.py'} unknown\n")
        assert said in " ".join(done.stdout.split())  # help is wrapped
    assert list(folder.iterdir()) == []


def test_files_agree_on_the_version() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.findall(r"^## (\S+)$", changes, re.MULTILINE)[0]
    assert newest == citation["version"] == PROJECT["version"] == version(PROJECT["name"])
    assert citation["license"] == PROJECT["license"]


def test_map_of_the_house_is_complete() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = [path for path in (ROOT / "mint").iterdir() if path.is_dir()]
    parts = {f"{path.name}/" for path in folders if not path.name.startswith("__")}
    parts |= {path.name for path in (ROOT / "mint").glob("[!_]*.py")}
    named = set(re.findall(r"`([a-z_]+(?:\.py|/))`", text.partition("| file of `mint/`")[2]))
    assert named == parts
