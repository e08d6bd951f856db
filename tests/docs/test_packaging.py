"""The release: a wheel that runs without the repository, and files that agree on its version."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from documents import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXPERIMENTS = {path.stem for path in (ROOT / "experiments").glob("*.yaml")}
SWEEPS = {path.stem for path in (ROOT / "sweeps").glob("*.py")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(["uv", "build", "-q", "--wheel", "-o", folder, ROOT], check=True)
    (built,) = folder.glob("*.whl")
    return built


@dataclass(frozen=True)
class Installed:
    """The wheel alone in a folder; the other packages are those of the running Python."""

    folder: Path
    run: Callable[..., str]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [
            *("uv", "pip", "install", "-q", "--offline", "--no-deps"),
            *("--python", sys.executable, "--target", folder, wheel),
        ],
        check=True,
    )
    variables = ("MINT_DATA_DIR", "MINT_CACHE_DIR", "MLFLOW_TRACKING_URI", "PYTHONSAFEPATH")
    environment = {name: value for name, value in os.environ.items() if name not in variables}
    environment |= {"PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "kernels")}

    def run(*command: str | Path, cwd: Path) -> str:
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return Installed(folder, run)


def test_wheel_contains_the_package_experiments_and_sweeps_alone(wheel: Path) -> None:
    names = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    assert {name.parts[0].split("-")[0] for name in names} == {"mint", "mint_pruning"}
    modules = {path.relative_to(ROOT) for path in (ROOT / "mint").rglob("*.py")}
    bundled = {Path("mint/experiments", f"{name}.yaml") for name in EXPERIMENTS}
    bundled |= {Path("mint/sweeps", f"{name}.py") for name in SWEEPS}
    in_package = {name for name in names if name.parts[0] == "mint"}
    assert in_package == modules | bundled | {Path("mint/py.typed")}
    assert any(name.parts[-2:] == ("licenses", "LICENSE") for name in names)


def test_installed_wheel_has_the_experiments_and_sweeps(
    installed: Installed, tmp_path: Path
) -> None:
    # A repository of the user's: its commit is not mint's.
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "user's"], check=True)
    program = (
        "import mint\n"
        "from mint.config.grid import bundled_sweeps\n"
        "from mint.config.loading import experiment_names\n"
        "from mint.trial.provenance import Provenance\n"
        "print(mint.__file__, Provenance.of_this_process(None, []).git_commit)\n"
        "print(*experiment_names())\n"
        "print(*bundled_sweeps())\n"
    )
    origin, experiments, sweeps = installed.run(
        sys.executable, "-c", program, cwd=tmp_path
    ).splitlines()
    assert origin == f"{installed.folder / 'mint' / '__init__.py'} unknown"
    assert set(experiments.split()) == EXPERIMENTS
    assert set(sweeps.split()) == SWEEPS
    listed = installed.run(installed.folder / "bin" / "mint", "sweep", "--help", cwd=tmp_path)
    assert set(re.findall(r"\w+", listed)) >= SWEEPS
    assert [path.name for path in tmp_path.iterdir()] == [".git"]


def test_installed_wheel_runs_a_trial(installed: Installed, tmp_path: Path) -> None:
    installed.run(
        *(installed.folder / "bin" / "mint", "run", "--experiment", "digits_mlp", "--smoke"),
        cwd=tmp_path,
    )
    (result,) = tmp_path.glob(".mint/trials/*/result.json")
    table = (tmp_path / "my-results" / "trials.csv").read_text(encoding="utf-8")
    assert result.parent.name in table
    assert (tmp_path / "my-results" / "RESULTS.md").is_file()


def test_files_agree_on_the_version() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.findall(r"^## (\S+)$", changes, re.MULTILINE)[0]
    assert newest == citation["version"] == PROJECT["version"] == version(PROJECT["name"])
    assert citation["license"] == PROJECT["license"]


def test_map_of_the_packages_is_complete() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("| package |")[2].partition("Beside `mint/`")[0]
    named = re.findall(
        r"`([a-z_]+(?:\.py|/))`", "\n".join(re.findall(r"^\| (.*?) \|", table, re.M))
    )
    packages = [path for path in (ROOT / "mint").iterdir() if (path / "__init__.py").exists()]
    parts = {f"{path.name}/" for path in packages}
    parts |= {path.name for path in (ROOT / "mint").glob("[!_]*.py")}
    assert sorted(named) == sorted(parts)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    (layers,) = (c["layers"] for c in contracts["contracts"] if c["type"] == "layers")
    upwards = [part for layer in reversed(layers) for part in layer.split(" | ")]
    assert [re.sub(r"\.py|/", "", name) for name in named] == upwards


def test_files_that_contributors_are_sent_to_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:mint|tests|tools|studies|results|docs)/[\w./]*)`", text)
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []
